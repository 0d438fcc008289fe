"""Kinds of single values: each reads a key of a table and gives its JSON Schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sifline.errors import UsageError
from sifline.fields.marked import MarkedList, MarkedTable, plain
from sifline.fields.table import Table

Schema = dict[str, Any]


class Kind(Protocol):
    """The kind of a key's value; ``what`` describes it in words."""

    @property
    def what(self) -> str:
        """Return the allowed values in words: "a string"."""

    def read(self, table: Table, key: str) -> Any:
        """Return the value of an existing key; raises UsageError if it is not allowed."""

    def schema(self) -> Schema:
        """Return the kind as JSON Schema."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A string that matches ``pattern`` entirely, a pattern that JavaScript and Python both read.

    ``to`` converts the string. YAML reads 24:00:00 and yes as other types, so errors about a text
    with a ``called`` name first say that it must be a string.
    """

    what: str = "a string"
    pattern: str = ""
    called: str = ""
    to: Callable[[str], Any] = str

    def read(self, table: Table, key: str) -> Any:
        """Return the string, or its converted value."""
        value = table.values.get(key)
        if self.takes(value):
            return self.to(str(value))
        if not self.called:
            raise table.wrong(key, self.what, value)
        name, word = table.full(key), table.text(key)
        named = name if name.endswith(self.called) else f"{name}: {self.called}"
        raise UsageError(f"{table.at(key)}: {named} {word!r} must be {self.what}; fix it")

    def takes(self, value: object) -> bool:
        """Return whether ``value`` is allowed by the pattern."""
        return isinstance(value, str) and (
            not self.pattern or bool(re.fullmatch(self.pattern, value))
        )

    def schema(self) -> Schema:
        """Return the kind as JSON Schema."""
        return {"type": "string", **({"pattern": whole(self.pattern)} if self.pattern else {})}


@dataclass(frozen=True, kw_only=True)
class File(Text):
    """A file, relative to the folder of the settings file, so that both can move together."""

    what: str = "the path of a file"
    pattern: str = r"[^\x00-\x1f]+"

    def read(self, table: Table, key: str) -> Path:
        """Return its absolute path."""
        return table.path.parent.absolute() / self.expand(table, key)

    def expand(self, table: Table, key: str) -> Path:
        """Return its path as written, with ``~`` replaced."""
        text = super().read(table, key)
        try:
            return Path(text).expanduser()
        except RuntimeError:
            allowed = "a path of a user who has a home, or one in full"
            raise table.wrong(key, allowed, text) from None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few words; ``to`` converts it."""

    words: Sequence[str]
    to: Callable[[str], Any] = str

    @property
    def what(self) -> str:
        """Return all the words."""
        return f"one of {', '.join(self.words)}"

    def read(self, table: Table, key: str) -> Any:
        """Return the word, or its converted value."""
        value = table.values.get(key)
        if value not in self.words:
            # An empty value is a missing one; the list of words would hide that.
            raise table.wrong(key, "a string" if value is None else self.what, value)
        return self.to(str(value))

    def schema(self) -> Schema:
        """Return the kind as JSON Schema."""
        return {"enum": list(self.words)}


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A whole number."""

    least: int
    most: int

    @property
    def what(self) -> str:
        """Return the range."""
        return f"a whole number from {self.least} to {self.most}"

    def read(self, table: Table, key: str) -> int:
        """Return the number."""
        return table.number(key, self.least, least=self.least, most=self.most)

    def schema(self) -> Schema:
        """Return the kind as JSON Schema."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, kw_only=True)
class Flag:
    """True or false."""

    what: str = "true or false"

    def read(self, table: Table, key: str) -> bool:
        """Return the value."""
        return table.flag(key)

    def schema(self) -> Schema:
        """Return the kind as JSON Schema."""
        return {"type": "boolean"}


@dataclass(frozen=True, kw_only=True)
class Anything:
    """A value of any type, checked by its user."""

    what: str = "anything"

    def read(self, table: Table, key: str) -> Any:
        """Return the value."""
        return plain(table.values[key])

    def schema(self) -> Schema:
        """Return the kind as JSON Schema."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Several:
    """A list whose items are all of one kind."""

    item: Kind
    what: str = "a list of strings"
    least: int = 0

    def read(self, table: Table, key: str) -> tuple[Any, ...]:
        """Return the items."""
        value = table.values.get(key)
        if not isinstance(value, list) or len(value) < self.least:
            raise table.wrong(key, self.what, value)
        named = {f"{key}[{number}]": item for number, item in enumerate(value)}
        lines = dict(zip(named, value.lines, strict=True)) if isinstance(value, MarkedList) else {}
        items = table.having(MarkedTable(named, lines))
        return tuple(self.item.read(items, name) for name in named)

    def schema(self) -> Schema:
        """Return the kind as JSON Schema."""
        least = {"minItems": self.least} if self.least else {}
        return {"type": "array", "items": self.item.schema(), **least}


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A list in one string, with commas, or in a list of strings; the value is one string."""

    item: Text

    @property
    def what(self) -> str:
        """Return what each string is."""
        return self.item.what

    def read(self, table: Table, key: str) -> str:
        """Return the strings, with commas between them."""
        if isinstance(table.values.get(key), list):
            return ",".join(Several(item=self.item, what=self.what).read(table, key))
        return str(self.item.read(table, key))

    def schema(self) -> Schema:
        """Return the kind as JSON Schema."""
        item = self.item.schema()
        return {"anyOf": [item, {"type": "array", "items": item}]}


def whole(pattern: str) -> str:
    """Return ``pattern`` anchored at both ends."""
    return f"^(?:{pattern})$"
