"""Kinds of keys in a settings file: each reads its value and describes itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sifline.config.table import Table, quoted
from sifline.errors import UsageError

Schema = dict[str, Any]


class Kind(Protocol):
    """What a key takes. ``what`` says it in words, ``missing`` is the value of an absent key."""

    @property
    def what(self) -> str:
        """What the value must be: "a string"."""

    @property
    def missing(self) -> Any:
        """The value of a key that is not there."""

    def read(self, table: Table, key: str) -> Any:
        """Return the value of a key that is there; UsageError where it must not be so."""

    def schema(self) -> Schema:
        """Return the same as JSON Schema."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """A string that matches ``pattern`` as a whole, in what JavaScript and Python both read."""

    what: str = "a string"
    pattern: str = ""
    missing: Any = ""

    def read(self, table: Table, key: str) -> str:
        """Return the string."""
        value = table.values.get(key)
        if not self.takes(value):
            raise table.wrong(key, self.what, value)
        return str(value)

    def takes(self, value: object) -> bool:
        """Tell whether it may be ``value``."""
        return isinstance(value, str) and (
            not self.pattern or bool(re.fullmatch(self.pattern, value))
        )

    def schema(self) -> Schema:
        """Return the same as JSON Schema."""
        return {"type": "string", **({"pattern": whole(self.pattern)} if self.pattern else {})}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]
    missing: Any = ""

    @property
    def what(self) -> str:
        """Return them all."""
        return f"one of {', '.join(self.words)}"

    def read(self, table: Table, key: str) -> str:
        """Return the word."""
        value = table.values.get(key)
        if value not in self.words:
            raise table.wrong(key, self.what, value)
        return str(value)

    def schema(self) -> Schema:
        """Return the same as JSON Schema."""
        return {"enum": list(self.words)}


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A whole number."""

    least: int
    most: int
    missing: Any = None

    @property
    def what(self) -> str:
        """Return the range."""
        return f"a whole number from {self.least} to {self.most}"

    def read(self, table: Table, key: str) -> int:
        """Return the number."""
        return table.number(key, self.least, least=self.least, most=self.most)

    def schema(self) -> Schema:
        """Return the same as JSON Schema."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, kw_only=True)
class Flag:
    """True or false."""

    what: str = "true or false"
    missing: Any = False

    def read(self, table: Table, key: str) -> bool:
        """Return which."""
        return table.flag(key)

    def schema(self) -> Schema:
        """Return the same as JSON Schema."""
        return {"type": "boolean"}


@dataclass(frozen=True, kw_only=True)
class Several:
    """A list; all its items are of one kind."""

    item: Kind
    what: str
    least: int = 0
    missing: Any = ()

    def read(self, table: Table, key: str) -> tuple[Any, ...]:
        """Return the items."""
        value = table.values.get(key)
        if not isinstance(value, list) or len(value) < self.least:
            raise table.wrong(key, self.what, value)
        items = table.having({f"{key}[{number}]": item for number, item in enumerate(value)})
        return tuple(self.item.read(items, name) for name in items.values)

    def schema(self) -> Schema:
        """Return the same as JSON Schema."""
        least = {"minItems": self.least} if self.least else {}
        return {"type": "array", "items": self.item.schema(), **least}


@dataclass(frozen=True, kw_only=True)
class Named:
    """A table whose keys the user names; what a name looks like decides the kind of its value.

    ``refused`` is a pattern of names that are not taken, ``because`` the reason.
    """

    entries: tuple[tuple[Text, Kind], ...]
    what: str
    placeholder: str = "NAME"
    refused: str = ""
    because: str = ""

    @property
    def missing(self) -> Mapping[str, Any]:
        """Return no entries."""
        return {}

    def read(self, table: Table, key: str) -> dict[str, Any]:
        """Return the values by their names, sorted."""
        if not isinstance(table.values.get(key), dict):
            raise table.wrong(key, self.what, table.values.get(key))
        sub = table.sub(key)
        return {name: self._kind(sub, name).read(sub, name) for name in sorted(sub.values)}

    def _kind(self, table: Table, name: str) -> Kind:
        if self.refused and re.fullmatch(self.refused, name):
            raise UsageError(f"{table.path}: {table.full(name)} is not taken: {self.because}")
        for names, kind in self.entries:
            if names.takes(name):
                return kind
        allowed = " or ".join(names.what for names, _ in self.entries)
        raise UsageError(f"{table.path}: {table.full(name)}: the name must be {allowed}")

    def schema(self) -> Schema:
        """Return the same as JSON Schema."""
        refused = {"propertyNames": {"not": {"pattern": whole(self.refused)}}}
        return {
            "type": "object",
            "patternProperties": {
                whole(names.pattern): kind.schema() for names, kind in self.entries
            },
            "additionalProperties": False,
            **(refused if self.refused else {}),
        }


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of a table: what it takes, and what it means, in a sentence.

    What is written under a ``hidden`` key is not repeated in errors: it may be a secret.
    """

    name: str
    kind: Kind
    help: str
    example: Any = None
    required: bool = False
    hidden: bool = False

    def read(self, table: Table) -> Any:
        """Return its value in ``table``, or that of a missing one."""
        if self.name not in table.values and not self.required:
            return self.kind.missing
        return self.kind.read(table.hiding() if self.hidden else table, self.name)

    def schema(self) -> Schema:
        """Return the same as JSON Schema."""
        examples = {} if self.example is None else {"examples": [self.example]}
        missing = self.kind.missing
        default = {} if missing in (None, "") or self.required else {"default": plain(missing)}
        return {"description": self.help, **self.kind.schema(), **default, **examples}


@dataclass(frozen=True, kw_only=True)
class Most:
    """How high the number ``key`` may be: that depends on the word ``by`` beside it."""

    key: str
    by: str
    most: Mapping[str, int]

    def check(self, table: Table) -> None:
        """Refuse the number without the word, and one that is too high for it."""
        if self.key not in table.values:
            return
        if self.by not in table.values:
            raise UsageError(
                f"{table.path}: {table.full(self.key)} needs {table.full(self.by)} beside it:"
                " what it means depends on that"
            )
        word, number = table.values[self.by], table.values[self.key]
        if number > self.most[word]:
            allowed = f"at most {self.most[word]} where {self.by} is {word}"
            raise table.wrong(self.key, allowed, number)

    def schema(self) -> Schema:
        """Return the same as JSON Schema."""
        return {
            "dependentRequired": {self.key: [self.by]},
            "allOf": [
                {
                    "if": {"properties": {self.by: {"const": word}}, "required": [self.by]},
                    "then": {"properties": {self.key: {"maximum": most}}},
                }
                for word, most in self.most.items()
            ],
        }


@dataclass(frozen=True, kw_only=True)
class Keys:
    """A table of known keys; no other is allowed. ``one``: of all of them exactly one."""

    keys: tuple[Key, ...]
    one: bool = False
    most: Most | None = None
    missing: Any = None

    @property
    def what(self) -> str:
        """Return its keys."""
        names = " or ".join if self.one else ", ".join
        return f"a table of {names(key.name for key in self.keys)}"

    def read(self, table: Table, key: str) -> dict[str, Any]:
        """Return the values by their keys, absent ones as well."""
        if not isinstance(table.values.get(key), dict):
            raise table.wrong(key, self.what, table.values.get(key))
        return self.values(table.sub(key))

    def values(self, table: Table) -> dict[str, Any]:
        """Return the values of ``table`` by their keys, absent ones as well."""
        table.only(*(key.name for key in self.keys))
        if self.one and len(table.values) != 1:
            raise UsageError(
                f"{table.path}: {table.name} must have exactly one of"
                f" {', '.join(key.name for key in self.keys)}, found {len(table.values)}"
            )
        found = {key.name: key.read(table) for key in self.keys}
        if self.most:
            self.most.check(table)
        return found

    def schema(self) -> Schema:
        """Return the same as JSON Schema."""
        required = [key.name for key in self.keys if key.required]
        return {
            "type": "object",
            "properties": {key.name: key.schema() for key in self.keys},
            "additionalProperties": False,
            **({"required": required} if required else {}),
            **({"minProperties": 1, "maxProperties": 1} if self.one else {}),
            **(self.most.schema() if self.most else {}),
        }


def flat(
    kind: Keys, values: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, bool]]:
    """Yield each key of checked ``values`` in full, its value, and whether it is there.

    Absent keys come with what their absence means; an absent table with a required key does
    not come at all.
    """
    for key in kind.keys:
        if kind.one and key.name not in values:
            continue
        yield from _flat(key.kind, f"{prefix}{key.name}", values, key.name)


def _flat(
    kind: Kind, name: str, values: Mapping[str, Any], key: str
) -> Iterator[tuple[str, Any, bool]]:
    there = key in values
    if isinstance(kind, Named):
        for entry, value in sorted(values.get(key, {}).items()):
            inner = next(inner for names, inner in kind.entries if names.takes(entry))
            yield from _flat(inner, f"{name}.{quoted(entry)}", {entry: value}, entry)
    elif not isinstance(kind, Keys):
        yield name, values[key] if there else plain(kind.missing), there
    elif there or not (kind.one or any(item.required for item in kind.keys)):
        yield from flat(kind, values.get(key, {}), f"{name}.")


def whole(pattern: str) -> str:
    """Return ``pattern`` so that it has to match from the beginning to the end."""
    return f"^(?:{pattern})$"


def plain(value: Any) -> Any:
    """Return ``value`` as TOML and JSON have it: a tuple as a list."""
    return list(value) if isinstance(value, tuple) else value
