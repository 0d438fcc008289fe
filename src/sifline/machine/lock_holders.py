"""Which process holds a lock file: what proc_locks(5) says of it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

LOCKS = Path("/proc/locks")
KIND, INODE, LEAST_FIELDS = "FLOCK", 2, 6


def holder(path: Path) -> int:
    """Return the id of the process that holds the flock(2) lock on ``path``; 0 if unknown.

    Processes of others, and those of other PID namespaces, are unknown.
    """
    with suppress(OSError):
        inode = path.stat().st_ino
        for line in LOCKS.read_text(encoding="ascii").splitlines():
            # Those that wait have an arrow in front of the kind.
            _, kind, *fields = line.split()
            if kind != KIND or len(fields) < LEAST_FIELDS:
                continue
            _, _, pid, place, *_ = fields
            if place.split(":")[INODE] == str(inode) and _has_open(int(pid), path):
                return int(pid)
    return 0


def waiting_for(path: Path, what: str, root: Path) -> str:
    """Return the message for whoever waits for the lock on ``path``.

    :param what: what the lock is for, such as ``the build of hello-mpi``.
    :param root: the folder of this checkout; another one is named.
    """
    pid = holder(path)
    if pid == os.getpid():
        return f"waiting for another step of this run: {what}"
    return f"waiting for {_run(pid, root)}: {what}"


def _run(pid: int, root: Path) -> str:
    try:
        folder = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return "another run"
    ours = folder.is_relative_to(root.resolve())
    return f"process {pid} {'of this checkout' if ours else f'in {folder}'}"


def _has_open(pid: int, path: Path) -> bool:
    """Return whether the process has the file open: other file systems have the same inodes."""
    wanted = path.stat()
    try:
        links = [*Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it is somebody else's, or gone
        return False
    for link in links:
        with suppress(OSError):  # closed meanwhile
            if os.path.samestat(link.stat(), wanted):
                return True
    return False
