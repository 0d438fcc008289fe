"""Tables and lists of a file that know the lines they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any


class MarkedTable(dict[Any, Any]):
    """A table with the line of each key; ``line`` is its own, 0 for that of the whole file."""

    def __init__(self, values: Mapping[Any, Any], lines: Mapping[Any, int], line: int = 0) -> None:
        super().__init__(values)
        self.lines = lines
        self.line = line


class MarkedList(list[Any]):
    """A list with the line of each item."""

    def __init__(self, values: Iterable[Any], lines: Iterable[int]) -> None:
        super().__init__(values)
        self.lines = tuple(lines)


def plain(value: Any) -> Any:
    """Return ``value`` as JSON has it: without its lines, and dates as text."""
    if isinstance(value, dict):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def _key(key: Any) -> Any:
    return key.isoformat() if isinstance(key, date) else key
