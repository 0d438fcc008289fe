"""Empty folders to look at a subject in, gone afterwards; one run at a time looks at a subject."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sifline import excerpt, records
from sifline.adapters.apptainer import Apptainer
from sifline.errors import SiflineError, StepFailed
from sifline.runner import Context


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
            excerpt.remove(folder)
        try:
            folder.mkdir(parents=True)
            yield folder
        except OSError as error:
            raise StepFailed(
                f"{error.filename or folder}: {error.strerror or error}; make room in"
                f" {space.build}, or mend it"
            ) from None
        finally:
            excerpt.remove(folder)
