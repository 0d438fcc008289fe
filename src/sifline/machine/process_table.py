"""Parents and start times of processes, read from /proc."""

from __future__ import annotations

from pathlib import Path


def parent(pid: int) -> int:
    """Return the process id of the parent of ``pid``; 0 for the first process.

    :raises OSError: if there is no such process, or it is hidden.
    """
    return int(_fields(pid)[1])


def begin(pid: int) -> str:
    """Return the start time of the process ``pid``, in clock ticks since the machine booted.

    :raises OSError: if there is no such process, or it is hidden.
    """
    return _fields(pid)[19]


def _fields(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) after the command, which may contain any character."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()
