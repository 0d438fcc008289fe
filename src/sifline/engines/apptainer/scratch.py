"""Empty folders to look at a subject in, gone afterwards; one run at a time looks at a subject."""

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
    """Yield an empty folder that is gone afterwards; one run at a time looks at a subject.

    So what carries its name is of a killed run: a folder, and maybe a container.
    """
    name = f"{kind}-{hashlib.sha256(os.fsencode(subject)).hexdigest()[:16]}"
    space = context.workspace
    folder = space.build / "tmp" / name
    with records.locked(space.build / "locks" / f"{name}.lock", context):
        if folder.exists():
            with suppress(SiflineError):  # without an engine there is no container
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
    """Remove ``folder``; what an image holds may have modes that forbid its owner to do so.

    It loses its name first: what a killed run had started may still be writing into it.
    What cannot be removed stays: who makes the folder anew finds it.
    """
    going = folder.with_name(f".{folder.name}.going")
    _remove(going)  # of a run that was killed just here
    with suppress(OSError):
        folder.rename(going)
    _remove(going)


def _remove(folder: Path) -> None:
    _make_writable(folder)
    for top, names, _ in os.walk(folder):  # which lists a folder only after that
        for name in names:
            _make_writable(Path(top, name))
    shutil.rmtree(folder, ignore_errors=True)


def _make_writable(folder: Path) -> None:
    with suppress(OSError):
        if not folder.is_symlink():
            folder.chmod(0o700)
