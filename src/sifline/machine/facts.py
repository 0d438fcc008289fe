"""The free memory of this machine, within control group limits, and its free disk space."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path


class Machine:
    """The machine this runs on: its memory, and the disks of ``folders``.

    Memory is what the kernel reports as available (proc_meminfo(5)), or what is left of the limits
    of this process's control groups, whichever is less.
    """

    def __init__(self, folders: Iterable[Path], root: Path = Path("/")) -> None:
        self._folders = tuple(folders)
        self._root = root

    def free_memory(self) -> int:
        """Return the memory that a new process may take, in bytes."""
        lines = _text(self._root / "proc/meminfo").splitlines()
        available = (
            int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")
        )
        return min((*available, *self._left_in_groups()), default=sys.maxsize)

    def free_disk(self) -> int:
        """Return the free bytes of the fullest disk."""
        return min(map(_room, self._folders), default=sys.maxsize)

    def _left_in_groups(self) -> Iterable[int]:
        for line in _text(self._root / "proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                tree, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                tree, names = (
                    "sys/fs/cgroup/memory",
                    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
                )
            else:
                continue
            top = self._root / tree
            # In a container the path may be the host's: then the top folder is the container's
            # group.
            group = top / path.lstrip("/")
            for folder in (group, *group.parents):
                yield from _left(folder, *names)
                if folder == top:
                    break


def _left(group: Path, limit: str, usage: str, cache: str) -> Iterable[int]:
    """Yield the bytes left below the group's memory limit, if it has one; page cache is free."""
    most, used = _text(group / limit).strip(), _text(group / usage).strip()
    if most.isdecimal() and used.isdecimal():
        facts = dict(line.split() for line in _text(group / "memory.stat").splitlines())
        yield max(0, int(most) - int(used) + int(facts.get(cache, 0)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _room(folder: Path) -> int:
    """Return the free bytes of the disk of the folder, which need not exist yet."""
    for place in (folder, *folder.parents):
        try:
            return shutil.disk_usage(place).free
        except OSError:  # it does not exist yet, or is hidden
            continue
    return sys.maxsize
