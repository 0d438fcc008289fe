"""Times as engines, OCI images and our JSON have them, RFC 3339 in UTC; time limits of Slurm."""

from __future__ import annotations

from datetime import datetime, timezone
from math import inf

_SECONDS = len("2024-01-31T12:00:00")


def seconds_of(text: str) -> int:
    """Return a time in seconds since 1970; 0 if it is invalid, unknown or before 1970."""
    try:
        found = datetime.fromisoformat(f"{text[:_SECONDS]}+00:00")
    except ValueError:
        return 0
    return max(0, int(found.timestamp()))


def iso(seconds: float) -> str:
    """Return a time, given in seconds since 1970, as ``2024-01-31T12:00:00+00:00``."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def slurm_seconds(text: str) -> float:
    """Return a time limit of slurm.conf(5) in seconds; infinity for a word such as INFINITE.

    These are minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].
    """
    if not text[:1].isdigit():
        return inf
    days, dash, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    else:
        hours, minutes, seconds = [0, *parts, *([0] if len(parts) == 1 else [])][-3:]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
