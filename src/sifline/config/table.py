"""A table of a settings file that knows its file and its own name, so that errors say both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sifline.errors import UsageError, did_you_mean


class Table:
    """The keys and values of one table of ``path``; every reader raises UsageError."""

    def __init__(self, path: Path, values: Mapping[Any, Any], name: str = "") -> None:
        self.path = path
        self.values = values
        self.name = name

    def only(self, *known: str) -> None:
        """Refuse keys that are not ``known``."""
        for key in self.values:
            if key not in known:
                raise UsageError(
                    f"{self.path}: unknown key {self.full(key)};"
                    f" allowed are {', '.join(known)}.{did_you_mean(str(key), known)}"
                )

    def text(self, key: str, default: str | None = None) -> str:
        """Return the string ``key``; without a default it has to be there."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a string", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the list of strings ``key``; empty where it is missing."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of strings", value)
        return tuple(value)

    def number(self, key: str, default: int, *, least: int, most: int) -> int:
        """Return the whole number ``key``, from ``least`` to ``most``."""
        value = self.values.get(key, default)
        # bool is an int to Python, and "yes" is a bool to YAML.
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.wrong(key, f"a whole number from {least} to {most}", value)
        return value

    def flag(self, key: str) -> bool:
        """Return the true or false of ``key``; false where it is missing."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false", value)
        return value

    def sub(self, key: str) -> Table:
        """Return the table ``key``; empty where it is missing."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "a table", value)
        return Table(self.path, value, self.full(key))

    def subs(self, key: str) -> tuple[Table, ...]:
        """Return the list of tables ``key``; empty where it is missing."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, "a list of tables", value)
        return tuple(
            Table(self.path, item, f"{self.full(key)}[{number}]")
            for number, item in enumerate(value)
        )

    def wrong(self, key: str, allowed: str, value: object) -> UsageError:
        """Return the error that says what ``key`` must be and what it is."""
        found = "nothing" if value is None else repr(value)
        return UsageError(f"{self.path}: {self.full(key)} must be {allowed}, found {found}")

    def full(self, key: str) -> str:
        """Return the name of ``key`` from the top of the file."""
        return f"{self.name}.{key}" if self.name else key
