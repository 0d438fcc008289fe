"""Tables and lists of a file that know the lines they come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    """Return ``value`` without its lines, for programs that take plain tables and lists alone."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value
