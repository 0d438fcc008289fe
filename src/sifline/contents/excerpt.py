"""Reads single files of an image: from a tar stream, or from an unpacked squashfs.

Nothing is run and no link is followed on the disk: a link's target is looked up among the files
that were read. Of a stream they are read before it is known which links lead to them.
"""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from sifline.errors import StepFailed

Wanted = Callable[[str], bool]

# No package list is that large; larger files would only fill the memory.
LARGEST = 32 << 20
_CHUNK = 1 << 20
# Links that lead to links, as in Linux.
_MOST_LINKS = 40
# unsquashfs puts it before each name in a listing by default.
_TOP = b"squashfs-root/"
_LINE = re.compile(
    rb"([-dl])\S{9} \d+/\d+ +(\d+) \d{4}-\d\d-\d\d \d\d:\d\d " + re.escape(_TOP) + rb"(.+)"
)
_ARROW = b" -> "
_SIGN = re.compile(rb"[^\w/.-]")


def _nothing(_: str) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Sought:
    """What is looked for, by paths without a leading slash.

    Contents of the files that are ``wanted``, and names of what is ``named``. Any of ``folders``
    may be a link to another one, or lie below such a link: ``elsewhere`` and ``named_elsewhere``
    say of a path in an unknown folder whether it may be looked for in one of ``folders``.
    """

    wanted: Wanted
    named: Wanted = _nothing
    folders: tuple[str, ...] = ()
    elsewhere: Wanted = _nothing
    named_elsewhere: Wanted = _nothing

    def may_want(self, path: str) -> bool:
        """Return whether the content of ``path`` may be needed."""
        return self.wanted(path) or self.elsewhere(path)

    def may_name(self, path: str) -> bool:
        """Return whether the name of ``path`` may be needed."""
        return self.named(path) or self.named_elsewhere(path)


@dataclass(frozen=True, kw_only=True)
class Excerpt:
    """Contents by path, without a leading slash; ``unread`` are wanted files without contents.

    ``names`` are the paths of what was to be named.
    """

    files: Mapping[str, bytes]
    unread: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What may be sought in a squashfs, and all its links; ``unread`` are too large files."""

    files: tuple[str, ...]
    links: Mapping[str, str]
    unread: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def of_tar(
    stream: IO[bytes], sought: Sought, *, check: Callable[[], None] = lambda: None
) -> Excerpt:
    """Read the files that are sought from a tar stream.

    :param check: called for every entry; may raise an error to end the reading.
    :raises StepFailed: if the stream ends before its end mark, or is not a tar.
    """
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    names, unread = list[str](), list[str]()
    with opened(stream) as tar:
        for name, entry in entries(tar, check=check):
            if sought.may_name(name):
                names.append(name)
            # Any link may lead to one of the folders.
            if entry.issym() or (entry.islnk() and sought.may_want(name)):
                links[name] = _target(name, entry.linkname, symbolic=entry.issym())
            elif entry.isdir() or not sought.may_want(name):
                continue
            elif content := _content(tar, entry):
                files[name] = content[0]
            else:
                unread.append(name)
    return _resolved(
        files, Listing(files=(), links=links, unread=(*unread,), names=(*names,)), sought
    )


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


def listed(text: bytes, sought: Sought) -> Listing:
    """Return what may be sought, and all links, in a listing by ``unsquashfs -lln``."""
    files, unread, names = list[str](), list[str](), list[str]()
    links: dict[str, str] = {}
    for line in text.split(b"\n"):
        match = _LINE.fullmatch(line)
        if not match:
            continue
        kind, size, rest = match[1], int(match[2]), match[3]
        # The size of a link is the length of its target.
        name = _text(rest[: len(rest) - size - len(_ARROW)] if kind == b"l" else rest)
        if sought.may_name(name):
            names.append(name)
        if kind == b"l":
            links[name] = _target(name, _text(rest[len(rest) - size :]), symbolic=True)
        elif kind == b"d" or not sought.may_want(name):
            continue
        elif size <= LARGEST:
            files.append(name)
        else:
            unread.append(name)
    return Listing(files=(*files,), links=links, unread=(*unread,), names=(*names,))


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


def of_folder(folder: Path, listing: Listing, sought: Sought) -> Excerpt:
    """Read the files that were unpacked into ``folder``."""
    wanted = frozenset(listing.files)
    files = {name: content for name, content in _below(folder) if name in wanted}
    unread = (*listing.unread, *(name for name in listing.files if name not in files))
    return _resolved(files, replace(listing, unread=unread), sought)


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


def _resolved(files: Mapping[str, bytes], seen: Listing, sought: Sought) -> Excerpt:
    """Return what is sought, under all its names.

    Files that links lead to have the links' names as well, if they were read.

    :param seen: all else that may be sought.
    """
    moved = {
        folder: real
        for folder in sought.folders
        if (real := _real(folder, seen.links)) not in ("", folder)
    }

    def named(path: str) -> Iterator[str]:
        yield path
        for folder, real in moved.items():
            if path.startswith(f"{real}/"):
                yield folder + path[len(real) :]

    wanted = {
        name: path
        for path in (*files, *seen.unread, *seen.links)
        for name in named(path)
        if sought.wanted(name)
    }
    targets = {name: _real(path, seen.links) for name, path in wanted.items()}
    found = {name: files[path] for name, path in targets.items() if path in files}
    names = {name for path in seen.names for name in named(path) if sought.named(name)}
    return Excerpt(
        files=found,
        unread=tuple(sorted(targets.keys() - found)),
        names=tuple(sorted(names)),
    )


def _real(path: str, links: Mapping[str, str]) -> str:
    """Return where ``path`` is after all links in it; "" if they go in a circle."""
    done, waiting, followed = "", path.split("/")[::-1], 0
    while waiting:
        done = f"{done}/{waiting.pop()}".strip("/")
        if done in links:
            followed += 1
            if followed > _MOST_LINKS:
                return ""
            waiting += links[done].split("/")[::-1]
            done = ""
    return done


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
