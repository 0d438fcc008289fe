"""Mounts of this machine's folders in running containers, as a shared file system would be."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# Numbers of the calls on every architecture, which the C library of Debian 12 has no names for.
OPEN_TREE, MOVE_MOUNT = 428, 429
AT_FDCWD, AT_EMPTY_PATH = -100, 0x1000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 4
_libc = ctypes.CDLL(None, use_errno=True)


def bind(folder: Path, process: int, target: str) -> None:
    """Mount ``folder`` at ``target``, as the process sees it, which is in a container."""
    tree = _done(
        _libc.syscall(
            OPEN_TREE,
            AT_FDCWD,
            os.fsencode(folder),
            OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC,
        )
    )
    child = os.fork()
    if not child:
        # Entering a mount namespace is for a process of one thread.
        try:
            with open(f"/proc/{process}/ns/mnt", "rb") as there:  # noqa: PTH123 - no Path here
                _done(_libc.setns(there.fileno(), 0))
            _done(
                _libc.syscall(
                    MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH
                )
            )
        except BaseException:
            # The parent says it.
            os._exit(1)
        os._exit(0)
    os.close(tree)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"{folder} was not mounted at {target} of {process}"


def _done(answer: int) -> int:
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
