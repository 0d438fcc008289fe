"""Folders that last as long as a run, in a place that many programs share, such as ``/tmp``."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from secrets import token_hex

from sifline.machine import records

PREFIX = "sifline-run-"


class Scratch:
    """A new folder in ``parent``, for this user alone.

    A locked file beside it tells that its run lives: where one is not locked, the run was killed,
    and the next one removes the folder.
    """

    def __init__(self, parent: Path) -> None:
        _sweep(parent)
        name = f"{PREFIX}{token_hex(6)}"
        self._lock = parent / f"{name}.lock"
        self._held = records.claimed(self._lock)
        self.path = parent / name
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.unlink(missing_ok=True)
        self._held.close()


def _sweep(parent: Path) -> None:
    """Remove the folders of runs of this user that were killed."""
    for lock in parent.glob(f"{PREFIX}*.lock"):
        with suppress(OSError):
            if lock.stat().st_uid == os.getuid():
                folder = lock.with_suffix("")
                records.drop(lock, before=partial(shutil.rmtree, folder, ignore_errors=True))
