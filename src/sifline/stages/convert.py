"""Convert: from an image in the engine to a verified SIF that says where it came from.

A SIF is made under another name beside its place, verified, made durable and renamed: what
stands under its own name is whole. One conversion of an image runs at a time, so everything
else that carries the image's name here is the remains of a killed run, and is removed.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from sifline import ocilayout, records, sif
from sifline.adapters.apptainer import Apptainer, Compression
from sifline.adapters.docker import Docker
from sifline.buildcontext import file_digest
from sifline.errors import StepFailed
from sifline.model import BuiltImage, Image, Progress, Sif, Workspace
from sifline.runner import CommandFailed, Context, Result

PREFIX = "org.sifline."
# This road holds at most this many times the image's size at once: its layers, Apptainer's copy
# of them, the file tree, the SIF. 3.5 were measured with an image of 0.3 GB.
COPIES = 3.7
RESERVE = 64 << 20

# What is told of a SIF without reading it.
KEPT = {"image_id", "fingerprint", "commit", "sha256", "size", "stamp", "compression"}
UP_TO_DATE, NO_SIF = "up to date", "there is no SIF"

# Apptainer looks the command up only after the file system is mounted and the namespaces stand.
_NOT_FOUND = "executable file not found"
_DISK_FULL = "no space left on device"


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What tells an untouched file without reading it; the change time cannot be set back."""

    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Take the stamp of ``path``."""
        found = path.stat()
        return cls(
            size=found.st_size,
            inode=found.st_ino,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
        )


def convert(
    built: BuiltImage,
    context: Context,
    *,
    force: bool = False,
    commit: str = "",
    compression: Compression | None = None,
) -> Sif:
    """Make ``build/sif/<name>.sif`` of ``built``, unless it is there and up to date.

    :raises StepFailed: where there is too little space, or a tool fails; no SIF is left then.
    """
    chosen = compression or _compression(built.image)
    work = _Conversion(built, context, commit, chosen)
    lock = context.workspace.build / "locks" / f"{built.image.name}.convert.lock"
    with records.locked(lock, context):
        known = None if force else work.up_to_date()
        return known or work.convert()


def read_sif(path: Path) -> Sif:
    """Return the SIF at ``path`` with what its labels say of it.

    :raises UsageError: where it is no SIF, truncated or damaged.
    """
    found = sif.labels(sif.read(path))
    return Sif(
        name=path.stem,
        path=path.absolute(),
        sha256=file_digest(path),
        size=path.stat().st_size,
        image_id=found.get(f"{PREFIX}image-id", ""),
        fingerprint=found.get(f"{PREFIX}fingerprint", ""),
        commit=found.get(f"{PREFIX}commit", ""),
    )


def info(path: Path, context: Context) -> dict[str, Any]:
    """Return what the file itself says: header, objects, labels, digest.

    :raises UsageError: where it is no SIF, truncated or damaged.
    """
    file = sif.read(path)
    labels = sif.labels(file)
    if not labels:
        labels = Apptainer(context.runner).inspect(path).get("labels") or {}
    return {
        "path": str(path),
        "sha256": file_digest(path),
        "size": file.size,
        "architecture": file.architecture,
        "id": file.id,
        "created": datetime.fromtimestamp(file.created, timezone.utc).isoformat(),
        "image id": labels.get(f"{PREFIX}image-id", ""),
        "fingerprint": labels.get(f"{PREFIX}fingerprint", ""),
        "commit": labels.get(f"{PREFIX}commit", ""),
        "labels": dict(sorted(labels.items())),
    }


def standing(image: Image, workspace: Workspace) -> Sif:
    """Return the SIF that stands there as its record tells; ``stale`` found nothing wrong."""
    path, place = workspace.sif(image.name), workspace.record(image.name, "convert")
    record = records.read(place) or {}
    stamp = vars(Stamp.of(path))
    if record["stamp"] != stamp:  # touched: its content was found to be the same
        record = {**record, "stamp": stamp}
        with suppress(OSError):  # it is looked at again next time
            records.write(place, record)
    return _sif(image, path, record)


def stale(name: str, built: BuiltImage | None, workspace: Workspace) -> str:
    """Say why the SIF of ``name`` has to be made anew; "" where it is up to date."""
    found = state(name, built, workspace)
    return "" if found == UP_TO_DATE else NO_SIF if found == "none" else f"the SIF: {found}"


def state(name: str, built: BuiltImage | None, workspace: Workspace) -> str:
    """Say in a word or two how the SIF of ``name`` stands to ``built``."""
    path = workspace.sif(name)
    record = records.read(workspace.record(name, "convert"))
    if not path.is_file():
        return "none"
    if record is not None and not untouched(path, record):
        return "altered"
    if built is None:
        return "its image is gone"
    return changed(record, built, _compression(built.image)) or UP_TO_DATE


def changed(record: Mapping[str, Any] | None, built: BuiltImage, compression: Compression) -> str:
    """Say why a SIF made as ``record`` says is not the one wanted; "" where it is."""
    if record is None or not record.keys() >= KEPT:  # a file may hold anything
        return "no record of its conversion"
    if record.get("image_id") != built.image_id:
        return "the image is another"
    if record.get("compression") != compression.mksquashfs:
        return f"its compression: {record['compression']} → {compression.mksquashfs}"
    return ""


def untouched(path: Path, record: Mapping[str, Any]) -> bool:
    """Tell whether the SIF at ``path`` has the content that ``record`` names."""
    if record.get("stamp") == vars(Stamp.of(path)):
        return True
    return file_digest(path) == record.get("sha256")


def shortage(size: int, free: int) -> int:
    """Return how many bytes are missing to convert an image of ``size``; 0 for none."""
    return max(0, space_needed(size) - free)


def space_needed(size: int) -> int:
    """Return how many bytes converting an image of ``size`` takes at its peak."""
    return int(COPIES * size) + RESERVE


def failure(name: str, result: Result, log: Path) -> StepFailed:
    """Return the error for a command of the conversion that failed."""
    full = _DISK_FULL in (result.stdout + result.stderr).lower()
    cause = "the disk is full; make room" if full else "see below"
    return StepFailed(
        f"converting {name} failed: {cause}; the whole log is {log}", details=result.tail()
    )


def verdict(result: Result) -> str | None:
    """Say what running ``true`` in the SIF proved; None where it proved nothing.

    An image without that command, or without a shell at all, is no broken image: that
    Apptainer looked for the command shows that the file system mounts.
    """
    if result.ok:
        return "ran true"
    return "mounted; it holds no true" if _NOT_FOUND in result.stderr else None


class _Conversion:
    """One image on its way; the caller holds the image's lock."""

    def __init__(
        self, built: BuiltImage, context: Context, commit: str, compression: Compression
    ) -> None:
        self._built = built
        self._context = context
        self._commit = commit
        self._compression = compression
        name, space = built.image.name, context.workspace
        self._name = name
        self._target = space.sif(name)
        self._partial = self._target.with_name(f".{self._target.name}.partial-{os.getpid()}")
        self._scratch = space.build / "tmp" / f"{name}.convert"
        self._record = space.record(name, "convert")
        self._log = space.logs / f"{name}.convert.log"

    @cached_property
    def _apptainer(self) -> Apptainer:
        return Apptainer(self._context.runner)

    def up_to_date(self) -> Sif | None:
        """Return the SIF that stands there, if it is the wanted one and untouched."""
        record = records.read(self._record)
        if record is None or changed(record, self._built, self._compression):
            return None
        if not self._target.is_file() or not untouched(self._target, record):
            return None
        stamp = vars(Stamp.of(self._target))
        if record.get("stamp") != stamp:
            records.write(self._record, {**record, "stamp": stamp})
        return self._sif(record)

    def convert(self) -> Sif:
        """Make the SIF anew."""
        started = time.monotonic()
        self._sweep()
        self._check_space()
        self._log.unlink(missing_ok=True)
        with self._cleared():
            self._road()
            proof = self._verify()
            sha256 = self._settle()
        record = {
            "image_id": self._built.image_id,
            "fingerprint": self._built.fingerprint,
            "commit": self._commit,
            "sha256": sha256,
            "size": self._target.stat().st_size,
            "stamp": vars(Stamp.of(self._target)),
            "compression": self._compression.mksquashfs,
            "tool": self._apptainer.description(),
            "verified": proof,
            "seconds": round(time.monotonic() - started, 1),
        }
        records.write(self._record, record)
        return replace(self._sif(record), fresh=False)

    def _road(self) -> None:
        """From the engine to a SIF under its temporary name."""
        archive, layout = self._scratch / "image.tar", self._scratch / "layout"
        progress = self._context.progress
        try:
            progress("saving the image")
            # By id: the tag may move meanwhile.
            Docker(self._context.runner).save(self._built.image_id, archive, log=self._log)
            progress("reading the image's layers")
            ocilayout.from_archive(archive, layout)
            archive.unlink()
            self._apptainer.build_from_layout(
                layout,
                self._partial,
                labels=self._labels(),
                compression=self._compression,
                log=self._log,
                on_line=lambda line: _tell(line, progress),
            )
        except CommandFailed as error:
            raise failure(self._name, error.result, self._log) from None

    def _verify(self) -> str:
        """Look at the new SIF as its users will: structure, and a command inside."""
        self._context.progress("verifying the SIF")
        sif.read(self._partial)
        try:
            self._apptainer.sif_list(self._partial)
        except CommandFailed as error:
            raise failure(self._name, error.result, self._log) from None
        result = self._apptainer.exec(self._partial, ["true"], check=False)
        proof = verdict(result)
        if proof is None:
            raise StepFailed(
                f"converting {self._name} failed: nothing runs in the new SIF;"
                f" the whole log is {self._log}",
                details=result.tail(),
            )
        return proof

    def _settle(self) -> str:
        """Make the SIF durable, put it in its place, return its digest."""
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        sha256 = file_digest(self._partial)
        self._partial.replace(self._target)
        records.sync_folder(self._target.parent)
        return sha256

    def _labels(self) -> dict[str, str]:
        return {
            f"{PREFIX}name": self._name,
            f"{PREFIX}image-id": self._built.image_id,
            f"{PREFIX}fingerprint": self._built.fingerprint,
            f"{PREFIX}commit": self._commit,
        }

    def _check_space(self) -> None:
        """Stop before the work where the disk cannot hold it."""
        self._target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._target.parent).free
        if shortage(self._built.size, free):
            raise StepFailed(
                f"converting {self._name} ({_gb(self._built.size)}) needs"
                f" {_gb(space_needed(self._built.size))} free in"
                f" {self._context.workspace.build}, and there are {_gb(free)}; make room there"
            )

    @contextmanager
    def _cleared(self) -> Iterator[None]:
        """Scratch space that is gone afterwards, whatever happens."""
        try:
            self._scratch.mkdir(parents=True)
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cause = f"the disk is full; make room in {self._context.workspace.build}"
            raise StepFailed(
                f"converting {self._name} failed:"
                f" {cause if full else f'{error.filename}: {error.strerror}'}"
            ) from None
        finally:
            self._partial.unlink(missing_ok=True)
            _remove_tree(self._scratch)

    def _sweep(self) -> None:
        """Remove what a killed run left, beginning with the container that may still write."""
        self._apptainer.stop_builds(self._scratch)
        for left in self._target.parent.glob(f".{self._target.name}.partial-*"):
            left.unlink(missing_ok=True)
        _remove_tree(self._scratch)

    def _sif(self, record: Mapping[str, Any]) -> Sif:
        return _sif(self._built.image, self._target, record)


def _compression(image: Image) -> Compression:
    name, level = image.compression
    return Compression(name=name, level=level)


def _sif(image: Image, path: Path, record: Mapping[str, Any]) -> Sif:
    return Sif(
        name=image.name,
        path=path,
        sha256=record["sha256"],
        size=record["size"],
        image_id=record["image_id"],
        fingerprint=record["fingerprint"],
        commit=record["commit"],
        category=image.category,
        fresh=True,
    )


def _tell(line: str, progress: Progress) -> None:
    """Pass on what Apptainer says it is doing."""
    _, mark, text = line.partition("INFO:")
    if mark and "..." in text:
        progress(text.strip().rstrip(".").lower())


def _remove_tree(folder: Path) -> None:
    """Remove ``folder``; an unpacked image may hold folders its owner may not write to."""
    if not folder.exists():
        return
    for path, folders, _ in os.walk(folder):
        for name in folders:
            with suppress(OSError):
                if not Path(path, name).is_symlink():
                    Path(path, name).chmod(0o700)
    shutil.rmtree(folder)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
