"""Copies a tar stream entry by entry: drops some entries, adds extended attributes to others.

Contents are not unpacked and not held in memory: they go from one descriptor to the other inside
the kernel. Format: POSIX.1-2017, pax, and GNU tar's documented extensions. One module, because
reader and writer share the parsing of headers.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import floor
from typing import Protocol

from sifline.errors import StepFailed

BLOCK = tarfile.BLOCKSIZE
XATTR = b"SCHILY.xattr."
# Larger contents are moved inside the kernel.
_SMALL = 1 << 16
_CHUNK = 1 << 20
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_WITH_CONTENT = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_NOTHING = bytes(BLOCK)
# The first byte of a negative binary number.
_NEGATIVE = 0xFF
# squashfs stores times in 32 bits.
MOST_SECONDS = 0xFFFFFFFF
# Docker stores times as nanoseconds since 1970 in 63 bits, which end in April 2262.
END_OF_TIMES = (1 << 63) // 10**9


class Damaged(StepFailed):
    """A stream that ended too early, or is not a tar."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry: ``name`` without slashes at its ends, its header blocks, its size in bytes."""

    name: bytes
    kind: bytes
    size: int
    blocks: bytes
    records: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def padded(self) -> int:
        """Return the number of content bytes after the header, with padding."""
        return -(-self.size // BLOCK) * BLOCK

    @property
    def mtime(self) -> int:
        """Return the modification time, in seconds since 1970."""
        told = self.records.get(b"mtime")
        if not told:
            return number(self.blocks[-BLOCK:][136:148])
        try:
            return floor(float(told))
        except (ValueError, OverflowError):
            raise _no_tar() from None

    def with_mtime(self, seconds: int) -> Entry:
        """Return the entry with another modification time, of 32 bits."""
        records = {key: value for key, value in self.records.items() if key != b"mtime"}
        own = bytearray(self.blocks[-BLOCK:])
        own[136:148] = b"%011o\0" % seconds
        own[148:156] = b" " * 8
        own[148:156] = b"%06o\0 " % sum(own)
        others = _without_pax(self.blocks[:-BLOCK])
        return replace(
            self,
            blocks=(_pax(records) if records else b"") + others + bytes(own),
            records=records,
        )

    def with_records(self, more: Mapping[bytes, bytes]) -> Entry:
        """Return the entry with more pax records, which override its own."""
        records = {**self.records, **more}
        others = _without_pax(self.blocks)
        return replace(self, blocks=_pax(records) + others, records=records)


@dataclass
class Tally:
    """Counts the inodes of the tree in the stream, including its root."""

    folders: set[bytes] = field(default_factory=lambda: {b""})
    others: int = 0

    @property
    def inodes(self) -> int:
        """Return the number of inodes: hard links once, and implied folders."""
        return len(self.folders) + self.others

    def add(self, name: bytes, kind: bytes) -> None:
        """Count an entry."""
        above = name
        while above and (above := above.rpartition(b"/")[0]) not in self.folders:
            self.folders.add(above)
        if kind == tarfile.DIRTYPE:
            self.folders.add(name)
        elif kind != tarfile.LNKTYPE:
            self.others += 1


class Source(Protocol):
    """The source of the stream: a connection, or the end of a pipe."""

    def recv(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; b"" at the end."""

    def fileno(self) -> int:
        """Return its descriptor, from which contents are read."""


class Pipe:
    """The reading end of a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def recv(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; b"" at the end."""
        return os.read(self._descriptor, size)

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._descriptor


def copy(
    source: Source,
    target: int,
    *,
    first: bytes = b"",
    tally: Tally | None = None,
    without: Collection[bytes] = (),
    xattrs: Mapping[bytes, Mapping[bytes, bytes]] | None = None,
    newest: int | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Tally:
    """Copy the entries of ``source`` to the descriptor ``target``, up to the end mark.

    :param first: entries to write before them, counted in ``tally`` already.
    :param without: names to leave out.
    :param xattrs: extended attributes to add, by the name of the entry.
    :param newest: the latest time of a folder, in seconds since 1970; newer ones get it.
    :param on_bytes: called with the number of bytes so far, about every MiB.
    :raises Damaged: if the stream ends before its end mark, or is not a tar.
    :raises BrokenPipeError: if the reader of ``target`` is gone.
    """
    reader, writer, tally = _Reader(source), _Writer(target), tally or Tally()
    writer.write(first)
    told = 0
    for entry in reader.entries():
        if entry.name in without:
            reader.skip(entry.padded)
            continue
        found = (xattrs or {}).get(entry.name) if entry.kind != tarfile.LNKTYPE else None
        passed = _in_time(entry, newest)
        passed = passed.with_records(as_records(found)) if found else passed
        tally.add(entry.name, entry.kind)
        writer.write(passed.blocks)
        reader.pass_on(entry.padded, writer, on_bytes)
        if reader.taken - told >= _CHUNK:
            told = reader.taken
            on_bytes(told)
    writer.write(_NOTHING * 2)
    writer.flush()
    on_bytes(reader.taken)
    return tally


def _in_time(entry: Entry, newest: int | None) -> Entry:
    """Return the entry with a time that squashfs can store."""
    seconds = in_time(entry.mtime, newest if entry.kind == tarfile.DIRTYPE else None)
    return entry if seconds == entry.mtime else entry.with_mtime(seconds)


def in_time(seconds: int, newest: int | None = None) -> int:
    """Return a time as squashfs stores it: truncated to 32 bits, as mksquashfs does.

    A time before 1970 or after April 2262 becomes 1970, as in an engine that unpacked the layer;
    an engine that built the image keeps it.

    :param newest: the latest time; a newer one becomes this.
    """
    known = seconds if 0 <= seconds < END_OF_TIMES else 0
    return (known if newest is None else min(known, newest)) & MOST_SECONDS


def as_records(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return extended attributes as pax records."""
    return {XATTR + key: value for key, value in xattrs.items()}


def plain(name: bytes) -> bytes:
    """Return the name of an entry for comparison: ``./a/`` becomes ``a``."""
    return name.removeprefix(b"./").strip(b"/") if name != b"." else b""


class _Reader:
    """Reads entries of a tar from the source, through a buffer."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = bytearray()
        self._start = 0
        self.taken = 0

    def entries(self) -> Iterator[Entry]:
        """Yield each entry; read its content before the next one."""
        while (block := self._take(BLOCK)) != _NOTHING:
            yield self._entry(block)
        while self._source.recv(_CHUNK):  # padding of the last record
            pass

    def _entry(self, block: bytes) -> Entry:
        blocks, long_name, records = [block], b"", dict[bytes, bytes]()
        while (kind := block[156:157]) in _EXTENSIONS:
            size = _size(block)
            body = self._take(-(-size // BLOCK) * BLOCK)
            if kind == tarfile.XHDTYPE:
                records.update(_records(body[:size]))
            elif kind == tarfile.GNUTYPE_LONGNAME:
                long_name = body[:size].rstrip(b"\0")
            block = self._take(BLOCK)
            blocks += [body, block]
        told = _size(block)
        length = _decimal(records[b"size"]) if b"size" in records else told
        return Entry(
            name=plain(records.get(b"path", b"") or long_name or _name(block)),
            kind=kind,
            size=length if kind in _WITH_CONTENT else 0,
            blocks=b"".join(blocks),
            records=records,
        )

    def pass_on(self, size: int, writer: _Writer, on_bytes: Callable[[int], None]) -> None:
        """Copy ``size`` bytes to ``writer``."""
        if size <= _SMALL:
            writer.write(self._take(size) if size else b"")
            return
        held = min(size, len(self._buffer) - self._start)
        writer.write(self._take(held) if held else b"")
        writer.flush()
        size -= held
        while size:
            moved = os.splice(self._source.fileno(), writer.target, min(size, _CHUNK))
            if not moved:
                raise _too_short()
            size -= moved
            self.taken += moved
            on_bytes(self.taken)

    def skip(self, size: int) -> None:
        """Read and drop ``size`` bytes."""
        while size:
            size -= len(self._take(min(size, _CHUNK)))

    def _take(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        if len(self._buffer) - self._start < size:
            del self._buffer[: self._start]
            self._start = 0
            while len(self._buffer) < size:
                received = self._source.recv(_SMALL)
                if not received:
                    raise _too_short()
                self._buffer += received
        end = self._start + size
        taken = bytes(self._buffer[self._start : end])
        self._start = end
        self.taken += size
        return taken


class _Writer:
    """Writes to the target; small writes are collected."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._gathered = bytearray()

    def write(self, piece: bytes) -> None:
        self._gathered += piece
        if len(self._gathered) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        rest = memoryview(self._gathered)
        while rest:
            rest = rest[os.write(self.target, rest) :]
        self._gathered = bytearray()


def _size(block: bytes) -> int:
    """Return the size in a header, after checking that it is one."""
    text = block[148:156]
    told = number(text)
    if told != sum(block) - sum(text) + 8 * ord(" "):
        raise _no_tar()
    return max(0, number(block[124:136]))


def number(field_: bytes) -> int:
    """Read an octal number, or GNU's binary one, which may be negative."""
    if field_[0] == _NEGATIVE:
        return int.from_bytes(field_, "big", signed=True)
    if field_[0] & 0x80:
        return int.from_bytes(bytes([field_[0] & 0x7F]) + field_[1:], "big")
    digits = field_.strip(b"\0 ") or b"0"
    if digits.strip(b"01234567"):
        raise _no_tar()
    return int(digits, 8)


def _decimal(digits: bytes) -> int:
    """Parse a number of a pax record: no sign, no spaces."""
    if not digits.isdigit():
        raise _no_tar()
    return int(digits)


def _name(block: bytes) -> bytes:
    """Return the name in a header, without extensions."""
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return b"/".join([prefix, name]) if prefix else name


def _records(body: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Yield the records of a pax header: ``LENGTH KEY=VALUE``, each with a line end."""
    while body:
        length = body.partition(b" ")[0]
        end = _decimal(length)
        if not len(length) + 1 < end <= len(body) or body[end - 1 : end] != b"\n":
            raise _no_tar()
        key, _, value = body[len(length) + 1 : end - 1].partition(b"=")
        yield key, value
        body = body[end:]


def extensions(blocks: bytes) -> dict[bytes, bytes]:
    """Return the records of the pax headers among the header blocks of an entry.

    GNU tar's separate block for a link's target counts as ``linkpath``.

    :raises Damaged: if they cannot be parsed.
    """
    found, at = dict[bytes, bytes](), 0
    while at < len(blocks) - BLOCK:
        head = blocks[at : at + BLOCK]
        size = _size(head)
        body = blocks[at + BLOCK : at + BLOCK + size]
        if head[156:157] == tarfile.XHDTYPE:
            found.update(_records(body))
        elif head[156:157] == tarfile.GNUTYPE_LONGLINK:
            found[b"linkpath"] = body.rstrip(b"\0")
        at += BLOCK + -(-size // BLOCK) * BLOCK
    return found


def _without_pax(blocks: bytes) -> bytes:
    """Return header blocks without the pax header among them."""
    kept, at = b"", 0
    while at < len(blocks):
        head = blocks[at : at + BLOCK]
        extends = head[156:157] in _EXTENSIONS
        end = at + BLOCK + (-(-_size(head) // BLOCK) * BLOCK if extends else 0)
        kept += b"" if head[156:157] == tarfile.XHDTYPE else blocks[at:end]
        at = end
    return kept


def _pax(records: Mapping[bytes, bytes]) -> bytes:
    """Return a pax header of ``records``."""
    body = b""
    for key, value in records.items():
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + len(str(len(rest)))
        length = len(rest) + len(str(length))
        body += str(length).encode() + rest
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    return info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % BLOCK)


def _no_tar() -> Damaged:
    return Damaged(
        "the engine sent something that is no file system; run invoke doctor, and try again"
    )


def _too_short() -> Damaged:
    return Damaged("the engine's stream ended half-way; is the engine still there? Run it again")
