"""The file system of a SIF entry by entry, as the kernel tells it of an unpacked copy.

Nothing of this goes through the code under test: Debian's unsquashfs unpacks, ``lstat`` tells.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sifline.formats import sif

from .toolbox import toolbox

BLOCK = 1 << 20
ZEROS = bytes(BLOCK)
KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """All that there is to know of one name.

    ``mode`` holds the permissions with sticky, set-uid and set-gid; ``content`` is a SHA-256, see
    ``digest``; ``linked`` the first name of the same inode; ``mtime`` is in seconds.
    """

    kind: str
    mode: str
    uid: int
    gid: int
    size: int
    content: str
    target: bytes
    linked: bytes
    device: tuple[int, int] | None
    xattrs: tuple[tuple[str, bytes], ...]
    mtime: int


ATTRIBUTES = tuple(field.name for field in fields(Entry))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One attribute of one path; a path that one side lacks has ``kind`` "" there."""

    path: bytes
    kind: str
    attribute: str
    expected: Any
    actual: Any

    @property
    def values(self) -> tuple[Any, Any]:
        return self.expected, self.actual

    def __str__(self) -> str:
        name = os.fsdecode(self.path)
        return f"{name!r}, {self.kind}: {self.attribute} {self.expected!r} -> {self.actual!r}"


def offset(path: Path) -> int:
    """Return where the squashfs begins in the SIF at ``path``, in bytes."""
    (system,) = [one for one in sif.read(path).objects if one.kind == sif.Kind.PARTITION]
    return system.offset


def read(path: Path, start: int) -> dict[bytes, Entry]:
    """Return what the squashfs at ``start`` of ``path`` holds; b"" is the top, b"a/b" below it.

    Unpacking owners, devices and capabilities needs root.
    """
    with toolbox().place() as folder:
        tree, copy = folder / "tree", shutil.copyfile(path, folder / "squashfs")
        words = ["-quiet", "-no-progress", "-strict-errors", "-offset", str(start)]
        toolbox().output("unsquashfs", *words, "-dest", str(tree), str(copy))
        return entries(tree)


def content(path: Path, start: int, name: str) -> bytes:
    """Return the content of one file of the squashfs at ``start`` of ``path``."""
    with toolbox().place() as folder:
        copy = shutil.copyfile(path, folder / "squashfs")
        return toolbox().output("unsquashfs", "-offset", str(start), "-cat", str(copy), name)


def entries(tree: Path) -> dict[bytes, Entry]:
    """Return what is below the folder ``tree``, and itself."""
    top, first = os.fsencode(tree), dict[int, tuple[bytes, str]]()
    found = {}
    for name in sorted(_names(top, b"")):
        path = top + b"/" + name if name else top
        status = os.lstat(path)
        linked, content = first.get(status.st_ino) or (name, _content(path, status))
        first[status.st_ino] = (linked, content)
        found[name] = _entry(path, status, linked, content)
    return found


def _names(top: bytes, name: bytes) -> Iterator[bytes]:
    yield name
    with os.scandir(top + b"/" + name) as listed:
        for item in listed:
            below = name + b"/" + item.name if name else item.name
            if item.is_dir(follow_symlinks=False):
                yield from _names(top, below)
            else:
                yield below


def _entry(path: bytes, status: os.stat_result, linked: bytes, content: str) -> Entry:
    kind = stat.S_IFMT(status.st_mode)
    is_device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    names = sorted(os.listxattr(path, follow_symlinks=False))
    return Entry(
        kind=KINDS[kind],
        mode=f"{stat.S_IMODE(status.st_mode):04o}",
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == stat.S_IFREG else 0,
        content=content,
        target=os.readlink(path) if kind == stat.S_IFLNK else b"",  # noqa: PTH115 - bytes
        linked=linked,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else None,
        xattrs=tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in names),
        mtime=status.st_mtime_ns // 1_000_000_000,
    )


def declared(info: tarfile.TarInfo, content: bytes) -> Entry:
    """Return what a folder, or a file of one name, has to become that a layer holds like this."""
    assert len(content) <= BLOCK
    hashed = hashlib.sha256(b"0:" + content if content.strip(b"\0") else b"").hexdigest()
    return Entry(
        kind="folder" if info.isdir() else "file",
        mode=f"{info.mode:04o}",
        uid=info.uid,
        gid=info.gid,
        size=len(content),
        content="" if info.isdir() else hashed,
        target=b"",
        linked=os.fsencode(info.name),
        device=None,
        xattrs=(),
        mtime=int(info.mtime),
    )


def _content(path: bytes, status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return ""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return digest(descriptor, status.st_size)
    finally:
        os.close(descriptor)


def digest(descriptor: int, size: int) -> str:
    """Return the SHA-256 of the blocks that are not all zeros, each with its place.

    Two contents of one size have the same if and only if they are the same, and the holes of a
    sparse file need not be read.
    """
    hashed, at = hashlib.sha256(), 0
    while at < size:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA) // BLOCK * BLOCK
        except OSError:  # ENXIO: only a hole is left
            break
        block = os.pread(descriptor, BLOCK, at)
        if block != ZEROS[: len(block)]:
            hashed.update(b"%d:" % at)
            hashed.update(block)
        at += BLOCK
    return hashed.hexdigest()


def differences(
    expected: Mapping[bytes, Entry], actual: Mapping[bytes, Entry]
) -> list[Difference]:
    """Return where two file systems differ."""
    found = []
    for path in sorted(expected.keys() | actual.keys()):
        one, other = expected.get(path), actual.get(path)
        for attribute in ("kind",) if one is None or other is None else ATTRIBUTES:
            pair = getattr(one, attribute, ""), getattr(other, attribute, "")
            if pair[0] != pair[1]:
                known = one or other
                assert known is not None
                found.append(
                    Difference(
                        path=path,
                        kind=known.kind,
                        attribute=attribute,
                        expected=pair[0],
                        actual=pair[1],
                    )
                )
    return found
