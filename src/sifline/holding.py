"""Containers that end with the run that started them; what a killed run left, the next removes.

A run keeps a file of ``build/held`` locked, and its containers carry the file's name as a label.
So a container of a living run is told from one that nobody holds, whatever its state is.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from sifline import records
from sifline.engine import LABEL_PURPOSE, labelled, remove_left_over
from sifline.errors import SiflineError
from sifline.model import Workspace
from sifline.runner import Context


@contextmanager
def holding(context: Context) -> Iterator[str]:
    """Yield a label, ``key=value``, for containers; those that have it are gone afterwards."""
    folder = _folder(context.workspace)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / token_hex(8)
    purpose = f"{path}{_suffix(folder)}"
    try:
        with records.claimed(path):
            try:
                yield f"{LABEL_PURPOSE}={purpose}"
            finally:
                with suppress(SiflineError):  # without an engine there is no container
                    remove_left_over(context.runner, purpose)
    finally:
        path.unlink(missing_ok=True)


def sweep(context: Context) -> None:
    """Remove the containers that ended runs of this checkout left."""
    folder = _folder(context.workspace)
    if not folder.is_dir():
        return
    suffix = _suffix(folder)
    with suppress(SiflineError):
        for purpose in {*labelled(context.runner, LABEL_PURPOSE).values()}:
            path = Path(purpose.removesuffix(suffix))
            if purpose.endswith(suffix) and path.parent == folder and _is_free(path):
                remove_left_over(context.runner, purpose)
    for path in folder.iterdir():
        records.drop(path)


def _folder(workspace: Workspace) -> Path:
    return workspace.build.resolve() / "held"


def _suffix(folder: Path) -> str:
    """What tells this checkout from one of the same path on another machine with this engine."""
    return f":{folder.stat().st_ino}"


def _is_free(path: Path) -> bool:
    """Tell whether no living run holds ``path``; in doubt, one does."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        return True
    except OSError:  # locked, another user's, or on a file system without locks
        return False
