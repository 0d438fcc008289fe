"""Output: a copy of a SIF at a path that the user names.

A file that this checkout did not write there, or that was changed since, is not replaced unless
that is asked for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sifline.contents import sif_records
from sifline.contents.build_context import file_digest
from sifline.errors import StepFailed, UsageError
from sifline.machine import records
from sifline.machine.context import Context
from sifline.model import Sif, Workspace
from sifline.model.units import gigabytes

ENDING = ".sif"
RESERVE = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where the copy goes; ``foreign`` allows to replace a file that was not written here."""

    path: Path
    foreign: bool = False

    @property
    def name(self) -> str:
        """What the SIF is called there."""
        return self.path.name.removesuffix(ENDING)


def check(output: Output, workspace: Workspace) -> None:
    """Refuse an output that cannot be written, or must not be replaced, before any work.

    :raises UsageError: naming what is in the way.
    """
    path = output.path
    _refuse_long(path)
    if path.suffix != ENDING or path.is_dir():
        raise UsageError(f"--output {path}: takes FILE.sif")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"--output {path}: you may not write to {path.parent}; choose another folder"
        )
    if sif_records.is_ours(_real(path), workspace):
        raise UsageError(
            f"--output {path}: there sifline keeps its own SIFs; choose another folder, or leave"
            " --output out"
        )
    _refuse_foreign(output, workspace)


def place(sif: Sif, output: Output, context: Context) -> bool:
    """Copy ``sif`` to its output; False where the same content was there already.

    The copy is made under another name beside its place, verified, made durable and renamed.

    :raises StepFailed: where it cannot be written; what was there before is left as it was.
    """
    path, space = output.path, context.workspace
    lock = sif_records.lock(_real(path), space)
    with records.locked(lock, context, what=f"the SIF {path.name}"):
        check(output, space)
        if path.is_file() and file_digest(path) == sif.sha256:
            _remember(output, sif, space)
            return False
        context.progress(f"copying to {path}")
        # Not longer than the name itself may be.
        partial = path.with_name(f".sifline-{_hash(space.root / path.name)}.partial")
        try:
            # Only a killed run of this checkout leaves one of that name.
            partial.unlink(missing_ok=True)
            _check_room(sif, path)
            shutil.copyfile(sif.path, partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            if file_digest(partial) != sif.sha256:
                if file_digest(sif.path) != sif.sha256:
                    raise StepFailed(
                        f"{sif.path}: another run replaced it meanwhile; run it again, with"
                        " another --sif-name"
                    )
                raise StepFailed(
                    f"{path}: the copy differs from {sif.path}; is the disk sound? See dmesg"
                )
            # Before the rename: a run that is killed behind it has written the file, too.
            _remember(output, sif, space, next_=True)
            partial.replace(path)
            records.sync_folder(path.parent)
            _remember(output, sif, space)
        except OSError as error:
            raise StepFailed(records.unwritable(path, error)) from None
        finally:
            partial.unlink(missing_ok=True)
    return True


def _refuse_long(path: Path) -> None:
    """Raise an error for a name that no file of that file system can have."""
    with suppress(OSError, ValueError):  # the folder is missing, or has no such limit
        most, length = os.pathconf(path.parent, "PC_NAME_MAX"), len(os.fsencode(path.name))
        if length > most:
            raise UsageError(
                f"--output {path}: the name has {length} bytes, and may have {most} there; choose"
                " a shorter one"
            )


def _real(path: Path) -> Path:
    """Return where ``path`` leads; ``Path.resolve`` fails if links lead to themselves."""
    return Path(os.path.realpath(path))


def _refuse_foreign(output: Output, workspace: Workspace) -> None:
    path = output.path
    if output.foreign or not os.path.lexists(path):
        return
    known = records.read(_record(path, workspace))
    why = "sifline did not write it"
    if known and not path.is_symlink() and path.is_file():
        if file_digest(path) in {known.get("sha256"), known.get("next")}:
            return
        why = "it was changed since sifline wrote it"
    raise UsageError(
        f"--output {path}: is there already, and {why}; choose another name, or replace it with"
        " --foreign"
    )


def _remember(output: Output, sif: Sif, workspace: Workspace, *, next_: bool = False) -> None:
    place = _record(output.path, workspace)
    known = (records.read(place) or {}) if next_ else {}
    new = {"next" if next_ else "sha256": sif.sha256}
    records.write(place, {**known, "path": str(output.path.absolute()), **new})


def _record(path: Path, workspace: Workspace) -> Path:
    """Path of what is remembered of a file that was written, whatever SIF it is."""
    # No image has a name that begins with a line. Links are not followed: --foreign replaces the
    # link itself.
    return workspace.record("_outputs", _hash(_real(path.parent) / path.name))


def _hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _check_room(sif: Sif, path: Path) -> None:
    free, needed = shutil.disk_usage(path.parent).free, sif.size + RESERVE
    if needed > free:
        raise StepFailed(
            f"{path}: needs {gigabytes(needed, 2)}, and {gigabytes(free, 2)} are free there; make"
            f" room, or take {sif.path}"
        )
