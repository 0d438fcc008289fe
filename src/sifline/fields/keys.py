"""The keys of a table, and tables of keys, declared by the fields of dataclasses."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePath
from typing import Any, Generic, TypeVar, get_type_hints

from sifline.errors import UsageError
from sifline.fields.kinds import (
    Anything,
    Choice,
    File,
    Flag,
    Kind,
    Listed,
    Schema,
    Several,
    Text,
    Whole,
    whole,
)
from sifline.fields.table import Table

T = TypeVar("T")
# Default of a required key.
NEEDED: Any = object()


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of a table: the kind of its value, and its meaning in a sentence.

    ``name`` is the key's name in the file, if it differs from its ``field``. ``default`` is the
    field's; a key may have one if the field has none. The value of a ``hidden`` key is not
    repeated in errors: it may be a secret.
    """

    kind: Kind
    help: str
    example: Any = None
    name: str = ""
    hidden: bool = False
    field: str = ""
    default: Any = NEEDED

    @property
    def required(self) -> bool:
        """Return whether a file without it is an error."""
        return self.default is NEEDED

    @property
    def plain(self) -> Any:
        """Return the default as TOML, YAML and JSON have it; None if there is none to write."""
        if self.required or isinstance(self.kind, Keys):
            return None
        if isinstance(self.kind, Named):
            return {}
        if isinstance(self.default, PurePath):
            return str(self.default)
        return list(self.default) if isinstance(self.default, tuple) else self.default

    def read(self, table: Table) -> Any:
        """Return its value in ``table``, or the default."""
        if self.name not in table.values and not self.required:
            return self.default
        return self.kind.read(table.hiding() if self.hidden else table, self.name)

    def schema(self) -> Schema:
        """Return the key's JSON Schema."""
        examples = {} if self.example is None else {"examples": [self.example]}
        default = {} if self.plain in (None, "") else {"default": self.plain}
        return {"description": self.help, **self.kind.schema(), **default, **examples}


def keys_of(of: type) -> Mapping[str, Key]:
    """Return the keys of the dataclass ``of``, by field name."""
    return _keys_of(of)


@cache
def _keys_of(of: type) -> Mapping[str, Key]:
    kinds = (Anything, Choice, File, Flag, Key, Keys, Listed, Named, Rows, Several, Text, Whole)
    names = {kind.__name__: kind for kind in kinds}
    hints = get_type_hints(of, localns=names, include_extras=True)
    found = (_declared(field, hints[field.name]) for field in dataclasses.fields(of))
    return {key.field: key for key in found if key}


def _declared(field: dataclasses.Field[Any], hint: Any) -> Key | None:
    key = next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Key)), None)
    if key is None:
        return None
    default = _default(field) if key.required else key.default
    return replace(key, field=field.name, name=key.name or field.name, default=default)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return NEEDED if field.default is dataclasses.MISSING else field.default


@dataclass(frozen=True, kw_only=True)
class Most:
    """A limit of the number ``key`` that depends on the word ``by`` beside it."""

    key: str
    by: str
    most: Mapping[str, int]

    def check(self, table: Table) -> None:
        """Raise an error if the word is missing, or the number is too high for it."""
        if self.key not in table.values:
            return
        if self.by not in table.values:
            raise UsageError(
                f"{table.where(self.key)} needs {table.full(self.by)} beside it:"
                " its meaning depends on that"
            )
        word, number = table.values[self.by], table.values[self.key]
        if number > self.most[word]:
            allowed = f"at most {self.most[word]} where {self.by} is {word}"
            raise table.wrong(self.key, allowed, number)

    def schema(self) -> Schema:
        """Return the rule as JSON Schema."""
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
class Keys(Generic[T]):
    """A table with the keys that the dataclass ``of`` declares, and no others.

    ``one``: exactly one of the keys must be given.
    """

    of: type[T]
    one: bool = False
    most: Most | None = None

    @property
    def keys(self) -> tuple[Key, ...]:
        """Return the keys in the order of the fields."""
        return tuple(keys_of(self.of).values())

    @property
    def what(self) -> str:
        """Return the names of its keys."""
        names = " or ".join if self.one else ", ".join
        return f"a table of {names(key.name for key in self.keys)}"

    def read(self, table: Table, key: str) -> T:
        """Return the table ``key`` as an instance of ``of``."""
        if not isinstance(table.values.get(key), dict):
            raise table.wrong(key, self.what, table.values.get(key))
        return self.value(table.sub(key))

    def value(self, table: Table, **given: Any) -> T:
        """Return ``table`` as an instance of ``of``; ``given`` are fields that are not keys."""
        table.only(*(key.name for key in self.keys))
        if self.one and len(table.values) != 1:
            raise UsageError(
                f"{table.at()}: {table.name} must have exactly one of"
                f" {', '.join(key.name for key in self.keys)}, found {len(table.values)}"
            )
        found = {key.field: key.read(table) for key in self.keys}
        if self.most:
            self.most.check(table)
        return self.of(**given, **found)

    def schema(self) -> Schema:
        """Return the table's JSON Schema."""
        required = [key.name for key in self.keys if key.required]
        return {
            "type": "object",
            "properties": {key.name: key.schema() for key in self.keys},
            "additionalProperties": False,
            **({"required": required} if required else {}),
            **({"minProperties": 1, "maxProperties": 1} if self.one else {}),
            **(self.most.schema() if self.most else {}),
        }


@dataclass(frozen=True, kw_only=True)
class Rows(Generic[T]):
    """A list of tables, all with the keys of one dataclass."""

    of: type[T]
    what: str = "a list of tables"

    @property
    def item(self) -> Keys[T]:
        """Return the kind of each item."""
        return Keys(of=self.of)

    def read(self, table: Table, key: str) -> tuple[T, ...]:
        """Return each item as an instance of ``of``."""
        return self.values(table.subs(key))

    def values(self, rows: Iterable[Table]) -> tuple[T, ...]:
        """Return each of ``rows`` as an instance of ``of``."""
        return tuple(self.item.value(row) for row in rows)

    def schema(self) -> Schema:
        """Return the list's JSON Schema."""
        return {"type": "array", "items": self.item.schema()}


def _pair(name: str, value: Any) -> Any:
    return name, value


@dataclass(frozen=True, kw_only=True)
class Named:
    """A table with names that the user chooses; the name decides the kind of its value.

    ``refused`` is a pattern of forbidden names, ``because`` the reason. ``to`` makes an item of
    name and value. Items are sorted unless they are ``variables`` of another program.
    """

    entries: tuple[tuple[Text, Kind], ...]
    what: str = "a table of strings"
    placeholder: str = "NAME"
    refused: str = ""
    because: str = ""
    to: Callable[[str, Any], Any] = _pair
    variables: str = ""

    def read(self, table: Table, key: str) -> tuple[Any, ...]:
        """Return the items."""
        if not isinstance(table.values.get(key), dict):
            raise table.wrong(key, self.what, table.values.get(key))
        sub = table.sub(key)
        names = sub.values if self.variables else sorted(sub.values)
        return tuple(self.to(name, self._kind(sub, name).read(sub, name)) for name in names)

    def kind_of(self, name: object) -> Kind | None:
        """Return the kind of the value of ``name``; None if the name is not allowed."""
        return next((kind for names, kind in self.entries if names.takes(name)), None)

    def _kind(self, table: Table, name: str) -> Kind:
        if self.refused and re.fullmatch(self.refused, name):
            raise UsageError(f"{table.where(name)} is not allowed: {self.because}")
        kind = self.kind_of(name)
        if kind is None:
            allowed = " or ".join(names.what for names, _ in self.entries)
            no_name = f"{name!r} is no name that {self.variables} takes"
            because = f"; {no_name}" if self.variables else ""
            raise UsageError(f"{table.where(name)}: the name must be {allowed}{because}")
        return kind

    def schema(self) -> Schema:
        """Return the table's JSON Schema."""
        refused = {"propertyNames": {"not": {"pattern": whole(self.refused)}}}
        return {
            "type": "object",
            "patternProperties": {
                whole(names.pattern): kind.schema() for names, kind in self.entries
            },
            "additionalProperties": False,
            **(refused if self.refused else {}),
        }
