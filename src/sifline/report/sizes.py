"""What takes the space in images and SIFs, as text and as values for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sifline.contents.sizes import MOST_COPIES, MOST_HIDDEN, Copies, Hidden, Report
from sifline.model.units import megabytes
from sifline.report import screen
from sifline.report.tables import table

WIDTH = 90
# Copies to name in a group; the others are counted.
MOST_NAMES = 2


def sizes(reports: Iterable[Report]) -> str:
    """Return the reports as text."""
    return "\n\n".join("\n".join(_lines(item)) for item in reports)


def values(reports: Iterable[Report]) -> list[dict[str, Any]]:
    """Return the reports as values for JSON, in bytes, with all copies and all hidden files."""
    return [
        {
            **asdict(item),
            "folders": [_path(folder) for folder in item.folders],
            "copies": None
            if item.copies is None
            else [
                {"size": copy.size, "waste": copy.waste, "paths": [f"/{x}" for x in copy.paths]}
                for copy in item.copies
            ],
            "hidden": None if item.hidden is None else [_path(hidden) for hidden in item.hidden],
            "wasted": item.wasted,
            "buried": item.buried,
        }
        for item in reports
    ]


def _path(item: Any) -> dict[str, Any]:
    return {**asdict(item), "path": f"/{item.path}"}


def _lines(item: Report) -> Iterator[str]:
    yield screen.folded(f"{item.name}: {'; '.join(_heads(item))}", "  ")
    yield from (screen.folded(f"note: {note}", "  ") for note in item.notes)
    if item.layers:
        yield "\nlayers, the newest last:"
        yield _sized(
            ("size", "made by"),
            [(layer.size, _shortened(layer.instruction)) for layer in item.layers],
        )
    yield f"\nlargest folders, of {megabytes(item.total)} in {item.files} files:"
    yield _sized(("size", "folder"), [(found.size, f"/{found.path}") for found in item.folders])
    yield from _copies(item)
    yield from _hidden(item)


def _heads(item: Report) -> Iterator[str]:
    """Yield the sizes of the image and of the SIF, and the budget."""
    if item.image is not None:
        yield f"Docker image {megabytes(item.image)}"
    if item.sif is None:
        yield "no SIF yet"
        return
    parts = [f"SIF {megabytes(item.sif)}"]
    if item.image is not None:  # a SIF file has no image and no settings
        parts += [f"{_percent(item.sif, item.image)} of the image"] if item.image else []
        parts.append(
            "no budget"
            if not item.budget
            else f"{_percent(item.sif, item.budget)} of its budget of {megabytes(item.budget)}"
        )
    yield ", ".join(parts)


def _copies(item: Report) -> Iterator[str]:
    if item.copies is None:
        yield f"\nduplicate files: unknown: {item.unknown['copies']}"
        return
    if not item.copies:
        yield "\nduplicate files: none of 1 MB or more"
        return
    yield f"\nduplicate files, which waste {megabytes(item.wasted)}:"
    yield _sized(
        ("waste", "files"), [(copy.waste, _names(copy)) for copy in item.copies[:MOST_COPIES]]
    )
    yield from _more(item.copies[MOST_COPIES:], "groups")


def _names(copy: Copies) -> str:
    names = ", ".join(f"/{path}" for path in copy.paths[:MOST_NAMES])
    more = len(copy.paths) - MOST_NAMES
    return f"{names} and {more} more" if more > 0 else names


def _hidden(item: Report) -> Iterator[str]:
    if item.hidden is None:
        yield f"\nhidden by later layers: unknown: {item.unknown['hidden']}"
        return
    if not item.hidden:
        yield "\nhidden by later layers: nothing"
        return
    yield f"\nhidden by later layers, which delete or replace {megabytes(item.buried)}:"
    shown = item.hidden[:MOST_HIDDEN]
    yield _sized(("size", "what"), [(found.size, _what(found)) for found in shown])
    yield from _more(item.hidden[MOST_HIDDEN:], "paths")


def _what(found: Hidden) -> str:
    return f"/{found.path} {'replaced' if found.replaced else 'deleted'}"


def _more(rest: Sequence[Copies] | Sequence[Hidden], what: str) -> Iterator[str]:
    if rest:
        yield f"and {len(rest)} more {what}"


def _sized(head: tuple[str, str], rows: Sequence[tuple[int, str]]) -> str:
    """Return a table whose first column is in bytes."""
    numbers = [megabytes(size) for size, _ in rows]
    width = max(map(len, numbers), default=0)
    cells = zip(numbers, rows, strict=True)
    return table(head, [(number.rjust(width), text) for number, (_, text) in cells])


def _shortened(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"
