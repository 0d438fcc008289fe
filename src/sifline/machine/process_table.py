"""Other processes of this machine, as the kernel tells of them."""

from __future__ import annotations

from pathlib import Path


def parent(pid: int) -> int:
    """Return the number of the process that started ``pid``, or took it over; 0 for the first.

    :raises OSError: where there is no such process, or it is hidden.
    """
    return int(_fields(pid)[1])


def begin(pid: int) -> str:
    """Return when the process ``pid`` began, in ticks of the clock since the machine did.

    :raises OSError: where there is no such process, or it is hidden.
    """
    return _fields(pid)[19]


def _fields(pid: int) -> list[str]:
    """The fields of proc_pid_stat(5) behind the name, which may hold anything."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()
