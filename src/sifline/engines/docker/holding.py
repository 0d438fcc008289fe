"""Labels containers with the run that started them, and removes those of ended runs.

A run keeps a file of ``build/held`` locked; its containers have the file's name and an identity of
the run's process as a label. So containers of a living run can be distinguished from those that
nobody needs, even if somebody removed the file.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from sifline.engines.docker.engine import LABEL_PURPOSE, labelled, remove_left_over
from sifline.errors import SiflineError
from sifline.machine import process_table, records
from sifline.machine.context import Context
from sifline.model import Workspace

# A file of ours; kernel, process id and start time of the process that locked it.
_HELD = re.compile(r"(?P<name>[0-9a-f]+):(?P<kernel>[^:]+:\d+):(?P<pid>\d+):(?P<begin>\d+)")


@contextmanager
def holding(context: Context) -> Iterator[str]:
    """Yield a label, ``key=value``; containers with it are removed after the block."""
    folder = _folder(context.workspace)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / token_hex(8)
    purpose = f"{path}:{_process()}"
    try:
        with records.claimed(path):
            try:
                yield f"{LABEL_PURPOSE}={purpose}"
            finally:
                with suppress(SiflineError):  # without an engine there are no containers
                    remove_left_over(context.runner, purpose)
    finally:
        path.unlink(missing_ok=True)


def sweep(context: Context) -> None:
    """Remove containers that earlier runs of this checkout left behind."""
    folder = _folder(context.workspace)
    with suppress(SiflineError):
        for purpose in {*labelled(context.runner, LABEL_PURPOSE).values()}:
            if _is_left_over(purpose, folder):
                remove_left_over(context.runner, purpose)
    if folder.is_dir():
        for path in folder.iterdir():
            records.drop(path)


def _folder(workspace: Workspace) -> Path:
    return workspace.build.resolve() / "held"


def _is_left_over(purpose: str, folder: Path) -> bool:
    """Return whether ``purpose`` names a run of this checkout that has ended.

    If unsure, False: another machine with the same engine may have a checkout of this path.
    """
    place, _, rest = purpose.rpartition("/")
    found = _HELD.fullmatch(rest)
    if not found or place != str(folder):
        return False
    try:
        with (folder / found["name"]).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        return _has_ended(found["kernel"], int(found["pid"]), found["begin"])
    except OSError:  # locked, another user's, or on a file system without locks
        return False


def _process() -> str:
    """Return an identity of this process: kernel, process id and start time."""
    return f"{_kernel()}:{os.getpid()}:{process_table.begin(os.getpid())}"


def _has_ended(kernel: str, pid: int, begin: str) -> bool:
    """Return whether the process with this identity ran on this machine and has ended."""
    if kernel != _kernel():
        return False
    try:
        return process_table.begin(pid) != begin
    except OSError:  # ended, or hidden because it is another user's
        try:
            os.kill(pid, 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False


def _kernel() -> str:
    """Return an identity of the boot and the PID namespace in which process ids are valid."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}:{Path('/proc/self/ns/pid').stat().st_ino}"
