"""Reads single files of an image: from a tar stream, or from an unpacked squashfs.

Nothing is run and no link is followed on the disk: a link's target is looked up among the files
that were read.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sifline.errors import StepFailed

Wanted = Callable[[str], bool]

# No package list is that large; larger files would only fill the memory.
LARGEST = 32 << 20
_CHUNK = 1 << 20
# unsquashfs puts it before each name in a listing by default.
_TOP = b"squashfs-root/"
_LINE = re.compile(
    rb"([-l])\S{9} \d+/\d+ +(\d+) \d{4}-\d\d-\d\d \d\d:\d\d " + re.escape(_TOP) + rb"(.+)"
)
_ARROW = b" -> "
_SIGN = re.compile(rb"[^\w/.-]")


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """Contents by path, without a leading slash; ``unread`` are wanted files without contents."""

    files: Mapping[str, bytes]
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The wanted files of a squashfs, its links by path, and wanted files that are too large."""

    files: tuple[str, ...]
    links: Mapping[str, str]
    unread: tuple[str, ...] = ()


def of_tar(
    stream: IO[bytes], wanted: Wanted, *, check: Callable[[], None] = lambda: None
) -> Excerpt:
    """Read the wanted files from a tar stream.

    :param check: called for every entry; may raise an error to end the reading.
    :raises StepFailed: if the stream ends before its end mark, or is not a tar.
    """
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    unread = list[str]()
    with opened(stream) as tar:
        for name, entry in entries(tar, check=check):
            if not wanted(name) or entry.isdir():
                continue
            if entry.issym() or entry.islnk():
                links[name] = _target(name, entry.linkname, symbolic=entry.issym())
            elif content := _content(tar, entry):
                files[name] = content[0]
            else:
                unread.append(name)
    return _resolved(files, links, unread)


@contextmanager
def opened(stream: IO[bytes]) -> Iterator[tarfile.TarFile]:
    """Yield a tar stream that must be complete.

    :raises StepFailed: if the stream ends before its end mark, or is not a tar.
    """
    try:
        with tarfile.open(
            fileobj=stream,
            mode="r|",
            bufsize=_CHUNK,
            tarinfo=_Entry,
            encoding="utf-8",
            errors="surrogateescape",
        ) as tar:
            yield tar
    except (tarfile.TarError, EOFError, OSError):
        raise _damaged() from None


def entries(
    tar: tarfile.TarFile, *, check: Callable[[], None] = lambda: None
) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Yield each entry with its path; see ``of_tar``."""
    while entry := tar.next():
        check()
        # tarfile would keep all entries in memory.
        tar.members = []  # type: ignore[attr-defined]
        yield plain(entry.name), entry


def listed(text: bytes, wanted: Wanted) -> Listing:
    """Return the wanted files and links in a listing by ``unsquashfs -lln``."""
    files, unread = list[str](), list[str]()
    links: dict[str, str] = {}
    for line in text.split(b"\n"):
        match = _LINE.fullmatch(line)
        if not match:
            continue
        kind, size, rest = match[1], int(match[2]), match[3]
        # The size of a link is the length of its target.
        name = _text(rest[: len(rest) - size - len(_ARROW)] if kind == b"l" else rest)
        if not wanted(name):
            continue
        if kind == b"l":
            links[name] = _target(name, _text(rest[len(rest) - size :]), symbolic=True)
        elif size <= LARGEST:
            files.append(name)
        else:
            unread.append(name)
    return Listing(files=tuple(files), links=links, unread=tuple(unread))


def plain(name: str) -> str:
    """Return the name of an entry as a path without slashes at its ends."""
    return name.removeprefix("./").strip("/")


def sizes(text: bytes) -> Iterator[tuple[str, int]]:
    """Yield the regular files of a listing by ``unsquashfs -lln``, each with its size in bytes."""
    for line in text.split(b"\n"):
        match = _LINE.fullmatch(line)
        if match and match[1] == b"-":
            yield _text(match[3]), int(match[2])


def patterns(names: Iterable[str]) -> bytes:
    """Return names for ``unsquashfs``, with characters escaped that it takes for wildcards."""
    escaped = (_SIGN.sub(rb"\\\g<0>", name.encode("utf-8", "surrogateescape")) for name in names)
    return b"".join(name + b"\0" for name in escaped)


def of_folder(folder: Path, listing: Listing) -> Excerpt:
    """Read the files that were unpacked into ``folder``."""
    wanted = frozenset(listing.files)
    files = {name: content for name, content in _below(folder) if name in wanted}
    unread = [*listing.unread, *(name for name in listing.files if name not in files)]
    return _resolved(files, listing.links, unread)


class _Entry(tarfile.TarInfo):
    """An entry of a complete stream: tarfile itself takes a broken header for the end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _Entry:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # the end mark
        except tarfile.HeaderError:
            raise _damaged() from None


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> tuple[bytes] | None:
    """Return the content of an entry; None if it is not a file, or too large."""
    if not entry.isreg() or entry.size > LARGEST:
        return None
    file = tar.extractfile(entry)
    assert file is not None  # noqa: S101 - for the type checker: it is a file
    return (file.read(),)


def _below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the regular files below ``folder``, whatever their modes are."""
    waiting = [folder]
    while waiting:
        for path in waiting.pop().iterdir():
            if path.is_symlink():
                continue
            if path.is_dir():
                path.chmod(0o700)  # before os.walk lists it
                waiting.append(path)
            elif path.is_file():
                path.chmod(0o600)
                yield str(path.relative_to(folder)), path.read_bytes()


def _resolved(files: dict[str, bytes], links: Mapping[str, str], unread: list[str]) -> Excerpt:
    """Give links the content of their target, if that was read as well."""
    found = {name: files[target] for name, target in links.items() if target in files}
    lost = [name for name in links if name not in found]
    return Excerpt(files={**files, **found}, unread=tuple(sorted([*unread, *lost])))


def _target(name: str, link: str, *, symbolic: bool) -> str:
    """Return the path that a link names; links in the middle of the path are not resolved."""
    above = posixpath.dirname(name) if symbolic else ""
    return plain(posixpath.normpath(posixpath.join("/", above, link)))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _damaged() -> StepFailed:
    return StepFailed(
        "the engine's stream of the image's files ended half-way; is the engine still there?"
        " Run it again"
    )
