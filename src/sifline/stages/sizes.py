"""Sizes: what takes the space in an image or a SIF, without running anything of it.

An image's layers are read from the engine's folders; if that is impossible, the engine's merged
file system is. A SIF is listed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from sifline.contents import excerpt, rootfs, sizes
from sifline.contents.sizes import Entry, File, Kind, Report, Tree
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.scratch import scratch_folder
from sifline.engines.apptainer.squashfs import Squashfs
from sifline.engines.docker import engine, image_files
from sifline.engines.docker.images import Docker
from sifline.errors import MissingError, SiflineError, StepFailed
from sifline.formats import sif
from sifline.machine.context import Context
from sifline.machine.process import CommandFailed
from sifline.model import BuiltImage

COPIES, HIDDEN = "copies", "hidden"
TELL_SECONDS = 1.0
# Marks of overlayfs (kernel: Documentation/filesystems/overlayfs.rst): an opaque folder, which
# hides that of lower layers; and marks that only the engine's own mount options understand.
_OPAQUE = "trusted.overlay.opaque"
_STRANGE = ("trusted.overlay.redirect", "user.overlay.redirect", "user.overlay.opaque")
# Bit of CAP_SYS_ADMIN, capabilities(7): without it the "trusted" marks are invisible.
_SYS_ADMIN = 1 << 21
_WHOLE_MACHINE = ["0", "0", "4294967295"]
_CHUNK = 1 << 20


class _Unreadable(SiflineError):
    """The layers cannot be read; the message says why."""


class _Pace:
    """Reports progress once a second, and raises if the user interrupted."""

    def __init__(self, context: Context, say: Callable[[int, float], str]) -> None:
        self._context, self._say = context, say
        self._started = self._told = time.monotonic()
        self._done = 0

    def __call__(self, more: int) -> None:
        """Add ``more`` to what is done."""
        self._context.runner.check()
        self._done += more
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._context.progress(self._say(self._done, now - self._started))


def _of_bytes(what: str, total: int) -> Callable[[int, float], str]:
    def say(done: int, seconds: float) -> str:
        size = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
        return f"{what}: {size}, {done / seconds / 1e6:.0f} MB/s"

    return say


def of_image(
    built: BuiltImage, context: Context, *, sif_size: int | None = None, notes: Sequence[str] = ()
) -> Report:
    """Return what takes the space in an image of the engine.

    :param sif_size: the size of its SIF, in bytes.
    :raises MissingError: if the image is gone, or the engine is on another machine.
    :raises StepFailed: if the engine does not return the file system.
    """
    docker = Docker(context.runner)
    try:
        history = docker.history(built.image_id)
        folders = image_files.layers(docker.inspect(built.image_id))
        tree, digests, why = _of_engine(built.image_id, built.size, folders, context)
    except CommandFailed as error:
        name = built.image.name
        raise MissingError(
            f"the engine no longer has {name}, or cannot export it; run invoke build.{name}",
            details=error.details,
        ) from None
    return replace(
        sizes.report(built.image.name, tree),
        image=built.size,
        sif=sif_size,
        budget=built.image.sif.budget,
        layers=sizes.layers(history),
        copies=sizes.copies(tree.files, digests),
        unknown={HIDDEN: why} if why else {},
        notes=tuple(notes),
    )


def of_sif(path: Path, context: Context) -> Report:
    """Return what takes the space in the SIF at ``path``.

    :raises StepFailed: if its file system cannot be read.
    :raises UsageError: if it is not a SIF, or damaged.
    :raises MissingError: if there is no tool to read it.
    """
    file = sif.read(path)
    target, offset = path.resolve(), sif.system(file).offset
    with scratch_folder("sizes", str(target), context) as scratch:
        context.progress("listing the SIF")
        listing = scratch / "listing"
        try:
            Squashfs(Apptainer(context.runner)).list_files(
                target, offset, listing, purpose=str(scratch)
            )
        except CommandFailed as error:
            raise StepFailed(
                f"{path}: its file system cannot be read; is it damaged? Convert it again",
                details=error.details,
            ) from None
        found = excerpt.sizes(listing.read_bytes())
        tree = Tree(files=tuple(File(path=name, size=size, inode=name) for name, size in found))
    return replace(
        sizes.report(path.stem, tree),
        sif=file.size,
        unknown={
            COPIES: "a SIF is only listed; ask for its image",
            HIDDEN: "a SIF has no layers",
        },
        notes=("files as they are before compression; a file counts under each of its names",),
    )


def _of_engine(
    image: str, size: int, folders: Sequence[Path], context: Context
) -> tuple[Tree, Mapping[Hashable, str], str]:
    """Return the files of an image, digests by inode, and why hidden files are unknown."""
    try:
        with _readable(folders):
            layers = _Layers(folders, context)
            tree = layers.tree()
            return tree, layers.digests(sizes.alike(tree.files)), ""
    except _Unreadable as error:
        why = error.message
    context.progress(f"the engine exports the files, which takes longer: {why}")
    return *_of_stream(image, size, context), why


# The engine's own folders


@contextmanager
def _readable(folders: Sequence[Path]) -> Iterator[None]:
    """Raise ``_Unreadable`` if the layers cannot be read, before or while reading them."""
    if not engine.is_local():
        raise _Unreadable("the engine is on another machine")
    if not folders:
        raise _Unreadable("the engine does not say where it keeps the layers")
    if not _sees_marks():
        raise _Unreadable("only root sees what layers delete; run it as root")
    try:
        yield
    except OSError as error:
        raise _Unreadable(
            f"the engine's folders cannot be read from here: {error.strerror}"
        ) from None


def _sees_marks() -> bool:
    """Return whether this process can see the marks of overlayfs: root of the host can."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        users = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    except OSError:
        return False
    words = dict(line.partition(":")[::2] for line in status.splitlines())
    return bool(int(words["CapEff"], 16) & _SYS_ADMIN) and users == _WHOLE_MACHINE


class _Layers:
    """The layers of an image in folders, the top layer first."""

    def __init__(self, folders: Sequence[Path], context: Context) -> None:
        self._folders, self._context = [str(path) for path in folders], context
        self._pace = _Pace(context, lambda done, _: f"reading the layers: {done} names")

    def tree(self) -> Tree:
        """Return the merged file tree."""
        return sizes.merge(len(self._folders), self._listing)

    def digests(self, files: Sequence[File]) -> dict[Hashable, str]:
        """Return the digest of each file, by inode."""
        total = sum(file.size for file in files)
        pace = _Pace(self._context, _of_bytes("comparing files", total))
        found = dict[Hashable, str]()
        for file in files:
            place = f"{self._folders[file.layer]}/{file.path}"
            with open(place, "rb", opener=_no_link) as content:
                found[file.inode] = _digest(content, pace)
        return found

    def _listing(self, layer: int, folder: str) -> list[Entry]:
        with os.scandir(f"{self._folders[layer]}/{folder}") as content:
            found = [_entry(item) for item in content]
        self._pace(len(found))
        return found


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _entry(item: os.DirEntry[str]) -> Entry:
    if item.is_symlink():
        return Entry(name=item.name, kind=Kind.OTHER)
    if item.is_dir():
        return Entry(name=item.name, kind=Kind.FOLDER, opaque=_opaque(item.path))
    found = item.stat(follow_symlinks=False)
    if stat.S_ISREG(found.st_mode):
        inode = (found.st_dev, found.st_ino)
        return Entry(name=item.name, kind=Kind.FILE, size=found.st_size, inode=inode)
    nothing = stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
    return Entry(name=item.name, kind=Kind.NOTHING if nothing else Kind.OTHER)


def _opaque(path: str) -> bool:
    marks = os.listxattr(path)
    if any(mark in marks for mark in _STRANGE):
        raise _Unreadable("the engine marks folders in a way that is not known here")
    return _OPAQUE in marks and os.getxattr(path, _OPAQUE) == b"y"


# The engine's stream


def _of_stream(image: str, size: int, context: Context) -> tuple[Tree, dict[Hashable, str]]:
    """Return the files in the engine's stream, and the digests of the large ones."""
    pace = _Pace(context, _of_bytes("reading the files", size))
    files, digests = dict[str, File](), dict[Hashable, str]()
    with (
        scratch_folder("sizes", image, context) as scratch,
        image_files.exported(context.runner, image, purpose=str(scratch)) as connection,
        connection.makefile("rb") as stream,
        excerpt.opened(stream) as tar,
    ):
        for name, entry in excerpt.entries(tar, check=context.runner.check):
            first = files.get(excerpt.plain(entry.linkname)) if entry.islnk() else None
            if first:
                files[name] = replace(first, path=name)
            elif entry.isreg() and name not in rootfs.SHADOWED:  # these are the engine's own files
                files[name] = File(path=name, size=entry.size, inode=name)
                content = tar.extractfile(entry) if entry.size >= sizes.LEAST else None
                if content:
                    digests[name] = _digest(content, pace)
                else:
                    pace(entry.size)
    return Tree(files=tuple(files.values())), digests


def _digest(content: IO[bytes], pace: _Pace) -> str:
    """Return the SHA-256 of a file's content."""
    found = hashlib.sha256()
    while piece := content.read(_CHUNK):
        found.update(piece)
        pace(len(piece))
    return found.hexdigest()
