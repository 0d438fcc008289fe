"""Temporary folders for looking into images and SIFs; one run per subject at a time."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sifline.engines.apptainer.program import Apptainer
from sifline.errors import SiflineError, StepFailed
from sifline.machine import records
from sifline.machine.context import Context


@contextmanager
def scratch_folder(kind: str, subject: str, context: Context) -> Iterator[Path]:
    """Yield an empty folder and remove it afterwards; one run per subject at a time.

    So a folder or container that has its name already was left by a killed run.
    """
    name = f"{kind}-{hashlib.sha256(os.fsencode(subject)).hexdigest()[:16]}"
    space = context.workspace
    folder = space.build / "tmp" / name
    lock = space.build / "locks" / f"{name}.lock"
    with records.locked(lock, context, what=f"{kind} of {subject}"):
        if folder.exists():
            with suppress(SiflineError):  # without an engine there are no containers
                Apptainer(context.runner).stop_builds(folder)
            remove(folder)
        try:
            folder.mkdir(parents=True)
            yield folder
        except OSError as error:
            raise StepFailed(
                f"{error.filename or folder}: {error.strerror or error}; make room in"
                f" {space.build}, or repair it"
            ) from None
        finally:
            remove(folder)


def remove(folder: Path) -> None:
    """Remove ``folder``, even if modes copied from an image forbid it.

    It is renamed first: what a killed run started may still write into it. What cannot be removed
    stays until the folder is made again.
    """
    going = folder.with_name(f".{folder.name}.going")
    _remove(going)  # left by a run that was killed right here
    with suppress(OSError):
        folder.rename(going)
    _remove(going)


def _remove(folder: Path) -> None:
    _make_writable(folder)
    for top, names, _ in os.walk(folder):  # lists a folder only after its mode was changed
        for name in names:
            _make_writable(Path(top, name))
    shutil.rmtree(folder, ignore_errors=True)


def _make_writable(folder: Path) -> None:
    with suppress(OSError):
        if not folder.is_symlink():
            folder.chmod(0o700)
