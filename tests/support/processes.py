"""What /proc says of all processes, however quickly they come and go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def read_all(name: str) -> Iterator[tuple[int, bytes]]:
    """Yield each process's number and its ``/proc/<number>/<name>``, but of those that end."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                content = (process / name).read_bytes()
            except OSError:
                continue
            yield int(process.name), content
