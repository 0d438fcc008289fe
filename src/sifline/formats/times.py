"""Times in the format of engines, OCI images and our JSON: RFC 3339 (ISO 8601), in UTC."""

from __future__ import annotations

from datetime import datetime, timezone

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
