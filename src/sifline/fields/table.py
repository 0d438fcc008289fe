"""A table of a settings file; its errors name the file, the line if it is known, and the key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sifline.errors import UsageError, did_you_mean
from sifline.fields.marked import MarkedTable

# TOML's keys without quotes; the item number is our own notation.
_BARE = re.compile(r"[A-Za-z0-9_-]+(?:\[[0-9]+\])*")
LONGEST_FOUND = 80


def read_toml(path: Path) -> Table | None:
    """Return the content of the TOML file ``path``; None if it does not exist.

    :raises UsageError: with the line that is not TOML.
    """
    import tomli

    try:
        return Table(path, tomli.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path}: cannot be read: {cause}") from None
    except (ValueError, RecursionError) as error:
        # Besides TOML's own errors: a number with too many digits, lists nested too deep.
        raise UsageError(f"{path}: is not TOML: {error}; fix that line") from None


def quoted(key: str) -> str:
    """Return ``key`` as TOML needs it: in quotes, unless it is plain."""
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=not key.isprintable())


class Table:
    """The keys and values of one table of ``path``; every reader raises UsageError.

    Values of a ``hidden`` table are not repeated in errors.
    """

    def __init__(
        self, path: Path, values: Mapping[Any, Any], name: str = "", *, hidden: bool = False
    ) -> None:
        self.path = path
        self.values = values
        self.name = name
        self.hidden = hidden

    def having(self, values: Mapping[Any, Any]) -> Table:
        """Return a table of the same name with other values."""
        return Table(self.path, values, self.name, hidden=self.hidden)

    def with_default(self, key: str, value: object) -> Table:
        """Return the same table, with ``value`` for a missing ``key``."""
        lines, line = {}, 0
        if isinstance(self.values, MarkedTable):
            lines, line = dict(self.values.lines), self.values.line
        return self.having(MarkedTable({key: value, **self.values}, lines, line))

    def at(self, key: object = None) -> str:
        """Return the file, with the line of ``key``, or else of this table, if it is known."""
        if not isinstance(self.values, MarkedTable):
            return str(self.path)
        line = self.values.lines.get(key) or self.values.line
        return f"{self.path}:{line}" if line else str(self.path)

    def where(self, key: object) -> str:
        """Return file, line and full name of ``key``, the beginning of an error about it."""
        return f"{self.at(key)}: {self.full(key)}"

    def hiding(self) -> Table:
        """Return the same table, hidden."""
        return Table(self.path, self.values, self.name, hidden=True)

    def only(self, *known: str) -> None:
        """Raise an error for keys other than ``known``."""
        for key in self.values:
            if key not in known:
                raise UsageError(
                    f"{self.at(key)}: unknown key {self.full(key)};"
                    f" allowed are {', '.join(known)}.{did_you_mean(str(key), known)}"
                )

    def text(self, key: str, default: str | None = None) -> str:
        """Return the string ``key``; without a default it is required."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a string", value)
        return value

    def number(self, key: str, default: int, *, least: int, most: int) -> int:
        """Return the whole number ``key``, between ``least`` and ``most``."""
        value = self.values.get(key, default)
        # bool is an int in Python, and "yes" is a bool in YAML.
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.wrong(key, f"a whole number from {least} to {most}", value)
        return value

    def flag(self, key: str) -> bool:
        """Return the boolean ``key``; False if it is missing."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false", value)
        return value

    def sub(self, key: str) -> Table:
        """Return the table ``key``; empty if it is missing."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "a table", value)
        return Table(self.path, value, self.full(key), hidden=self.hidden)

    def sub_of(self, key: str) -> Table:
        """Return an empty table in the place of ``key``, whatever that is."""
        line = self.values.lines.get(key, 0) if isinstance(self.values, MarkedTable) else 0
        return Table(self.path, MarkedTable({}, {}, line), self.full(key), hidden=self.hidden)

    def subs(self, key: str) -> tuple[Table, ...]:
        """Return the list of tables ``key``; empty if it is missing."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, "a list of tables", value)
        return tuple(
            Table(self.path, item, f"{self.full(key)}[{number}]", hidden=self.hidden)
            for number, item in enumerate(value)
        )

    def wrong(self, key: str, allowed: str, value: object) -> UsageError:
        """Return the error that says what ``key`` must be and what it is."""
        found = "nothing" if value is None else repr(value)
        if self.hidden and value is not None:
            found = f"something else ({type(value).__name__}, not shown: it may be a secret)"
        elif len(found) > LONGEST_FOUND:
            found = f"{found[:LONGEST_FOUND]}…"
        return UsageError(f"{self.where(key)} must be {allowed}, found {found}")

    def full(self, key: object) -> str:
        """Return the name of ``key`` from the top of the file, on one line."""
        name = quoted(str(key))
        return f"{self.name}.{name}" if self.name else name
