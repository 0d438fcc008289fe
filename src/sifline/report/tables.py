"""How a table and a line of results are drawn, for people, and JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from sifline.report import screen

if TYPE_CHECKING:
    from sifline.errors import SiflineError

# Raised where a script that reads an output would have to change; more keys are no such change.
SCHEMA = 1


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return ``rows`` under ``head``, columns aligned, the last one left ragged.

    On a terminal it is as wide as that, elsewhere each row is a line with whole values. A row of
    one cell is a heading.
    """
    lines = [list(head), *([_on_one_line(cell) for cell in row] for row in rows)]
    if screen.current() != screen.PLAIN:
        return screen.drawn(lines, screen.current())
    full = [line for line in lines if len(line) > 1]
    widths = [max(len(line[column]) for line in full) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip()
        if len(line) > 1
        else line[0]
        for line in lines
    )


def _on_one_line(cell: str) -> str:
    """A text from outside, such as the value of an argument, in a cell."""
    if cell.isprintable():
        return cell
    return "".join(char if char.isprintable() else "?" for char in cell)


def short(digest: str) -> str:
    """Return the first 12 digits of a digest, without the name of its algorithm."""
    return digest.removeprefix("sha256:")[:12]


def fitting(lines: Sequence[str]) -> str:
    """Return lines that fit the screen; a table or a difference among them is as it is."""
    return "\n".join(line if "\n" in line else screen.folded(line, "    ") for line in lines)


def dump(**values: Any) -> str:
    """Return ``values`` (dataclasses, paths and enumerations included) as a JSON object.

    Its first key is ``schema``, the number of the form that docs/reference/json.md describes.
    """
    plain = json.loads(json.dumps(values, default=_plain, sort_keys=True))
    return json.dumps({"schema": SCHEMA, **plain}, indent=2)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def broken(errors: Mapping[str, SiflineError]) -> list[str]:
    """Return a line for each image whose files cannot be used."""
    return [broken_line(name, error.message) for name, error in errors.items()]


def broken_values(errors: Mapping[str, SiflineError]) -> list[dict[str, str]]:
    """Return the same for JSON."""
    return [{"name": name, "error": error.message} for name, error in errors.items()]


def broken_line(name: str, error: str) -> str:
    """Return the line of an image whose files cannot be used."""
    return screen.folded(f"{_on_one_line(name)}: broken: {error}")
