"""The files of an image according to its layers, read from the headers of their archives.

The engine's unpacked files may differ: folders that a layer does not name get the engine's mode,
and files and labels may come from a build or from the host. The specification decides:
https://github.com/opencontainers/image-spec/blob/v1.1.0/layer.md.

Docker keeps the headers of these archives, see https://github.com/vbatts/tar-split: a line of JSON
for the bytes between files (type 2), and for each file (type 1), without its content.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
import zlib
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sifline.formats.tar_stream import BLOCK, XATTR, Damaged, extensions, number

_HIDES, _OPAQUE, _INNER = b".wh.", b".wh..wh..opq", b".wh..wh."
_KINDS = {
    **dict.fromkeys((tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE), "f"),
    tarfile.DIRTYPE: "d",
    tarfile.SYMTYPE: "l",
    tarfile.CHRTYPE: "c",
    tarfile.BLKTYPE: "b",
    tarfile.FIFOTYPE: "p",
}
_BYTES, _FILE = 2, 1
_PAYLOAD = b'{"type":2,"payload":"'
# Exceptions that reading a damaged file may raise.
_DAMAGE = (
    *(OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError),
    RecursionError,  # a thousand folders below each other, and more
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """An entry of a layer: ``kind`` as in find(1), or "h" for a hard link.

    ``mode`` is without the file type; ``target`` is the other name of a hard link.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    target: bytes = b""


Tree = dict[bytes, Declared]


class Unreadable(Exception):
    """Raised if the headers of a layer are missing or damaged."""


def chain(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """Return the chain ids of layers, the engine's keys for them, without ``sha256:``.

    See "Layer ChainID" in https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md.
    """
    found: list[str] = []
    for diff_id in diff_ids:
        text = f"sha256:{found[-1]} {diff_id}" if found else ""
        digest = hashlib.sha256(text.encode()).hexdigest() if text else diff_id.partition(":")[2]
        found.append(digest)
    return tuple(found)


def declared(headers: Sequence[Path]) -> Tree:
    """Return the entries of all layers merged, by name; the top folder is ``b""``.

    :param headers: Docker's header file of each layer, the first layer first.
    :raises Unreadable: if a header file is missing or damaged.
    """
    found: Tree = {}
    above = _Above(found)
    for path in reversed(headers):
        try:
            above.add(_entries(path))
        except (*_DAMAGE, Damaged) as error:
            raise Unreadable(str(error)) from None
    return found


class _Above:
    """Merges layers from the top down: entries so far, hidden names, and opaque folders."""

    def __init__(self, found: Tree) -> None:
        self._found = found
        self._hidden, self._opaque = set[bytes](), set[bytes]()

    def add(self, layer: Iterable[tuple[bytes, Declared]]) -> None:
        """Add the layer below those so far."""
        # A link's target counts even if an upper layer hides its name.
        own, every, hidden, opaque = Tree(), Tree(), set[bytes](), set[bytes]()
        open_: dict[bytes, bool] = {b"": b"" not in self._opaque}
        for name, entry in layer:
            above, _, last = name.rpartition(b"/")
            if last == _OPAQUE:
                opaque.add(above)
            elif b"/" + _INNER in b"/" + name:
                continue  # metadata of aufs
            elif last.startswith(_HIDES):
                hidden.add(name[: -len(last)] + last[len(_HIDES) :])
            else:
                whole = every[name] = _with_attributes(entry, every.get(entry.target))
                if name not in self._hidden and (not name or self._shows(above, open_)):
                    own[name] = whole
        for name, entry in own.items():
            self._found.setdefault(name, entry)
        self._hidden |= hidden
        self._opaque |= opaque

    def _shows(self, folder: bytes, known: dict[bytes, bool]) -> bool:
        """Return whether the layers above leave this layer's ``folder`` visible."""
        shown = known.get(folder)
        if shown is None:
            entry = self._found.get(folder)
            shown = (
                folder not in self._hidden
                and folder not in self._opaque
                and (entry is None or entry.kind == "d")
                and self._shows(folder.rpartition(b"/")[0], known)
            )
            known[folder] = shown
        return shown


def _with_attributes(entry: Declared, first: Declared | None) -> Declared:
    """Return a hard link with the extended attributes of its target."""
    if first is None or not first.xattrs or entry.kind != "h":
        return entry
    return replace(entry, xattrs={**first.xattrs, **entry.xattrs})


def _entries(path: Path) -> Iterator[tuple[bytes, Declared]]:
    """Yield name and entry of everything in a layer, in its order."""
    between, padding = b"", 0
    with gzip.open(path) as lines:
        for line in lines:
            if line.startswith(_PAYLOAD):  # faster than parsing JSON
                between += b64decode(line[len(_PAYLOAD) : line.index(b'"', len(_PAYLOAD))])
                continue
            piece = json.loads(line)
            if piece["type"] == _BYTES:
                between += b64decode(piece["payload"] or b"")
            elif piece["type"] == _FILE:
                raw = piece.get("name_raw")
                name = b64decode(raw) if raw else piece["name"].encode()
                yield _name(name), _declared(between[padding:])
                between, padding = b"", -piece.get("size", 0) % BLOCK


def _name(name: bytes) -> bytes:
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ValueError(f"{name!r} leads out of the image")
    return b"/".join(parts)


def _declared(blocks: bytes) -> Declared:
    """Parse the header of an entry, the last block, with the pax headers before it."""
    head, records = blocks[-BLOCK:], extensions(blocks)
    uid, gid = (records.get(key) for key in (b"uid", b"gid"))
    is_link = head[156:157] == tarfile.LNKTYPE
    return Declared(
        kind="h" if is_link else _KINDS.get(head[156:157], "f"),
        target=_target(head, records) if is_link else b"",
        mode=number(head[100:108]) & 0o7777,
        uid=int(uid) if uid else number(head[108:116]),
        gid=int(gid) if gid else number(head[116:124]),
        # A record without a value cancels an earlier one.
        xattrs={
            key[len(XATTR) :]: value
            for key, value in records.items()
            if key.startswith(XATTR) and value
        },
    )


def _target(head: bytes, records: Mapping[bytes, bytes]) -> bytes:
    return _name(records.get(b"linkpath") or head[157:257].split(b"\0", 1)[0])


def seen(listing: bytes) -> Iterator[tuple[bytes, Declared]]:
    """Parse the files that ``look.sh`` lists: ``KIND MODE UID GID NAME``, each with a NUL."""
    for line in listing.split(b"\0")[:-1]:
        kind, mode, uid, gid, name = line.split(b" ", 4)
        yield (
            name,
            Declared(kind=kind.decode(), mode=int(mode, 8), uid=int(uid), gid=int(gid)),
        )


def difference(tree: Tree, listing: bytes) -> str:
    """Return a name for which engine and layers differ in kind, mode or owner; "" for none.

    Not compared are the top folder (engines forget what a layer says about it), folders that no
    layer names, and sockets, which archives cannot contain.
    """
    missing = tree.keys() - {b""}
    implied: set[bytes] | None = None
    for name, entry in seen(listing):
        said = tree.get(name)
        missing.discard(name)
        if not name or entry.kind == "s":
            continue
        if said is None:
            if implied is None:
                implied = _implied(tree)
            if entry.kind != "d" or name not in implied:
                return _shown(name)
        elif not _alike(said, entry):
            return _shown(name)
    return _shown(min(missing)) if missing else ""


def _alike(said: Declared, entry: Declared) -> bool:
    if said.kind == "h":
        return entry.kind != "d"
    owner = (said.uid, said.gid) == (entry.uid, entry.gid)
    return said.kind == entry.kind and owner and (said.kind == "l" or said.mode == entry.mode)


def _implied(tree: Tree) -> set[bytes]:
    """Return all folders above the names of ``tree``, with or without entries of their own."""
    found = set[bytes]()
    for name in tree:
        above = name
        while (above := above.rpartition(b"/")[0]) and above not in found:
            found.add(above)
    return found


def _shown(name: bytes) -> str:
    return f"/{name.decode('utf-8', 'backslashreplace')}"
