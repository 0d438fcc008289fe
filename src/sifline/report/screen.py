"""What standard output shows: how wide it is, whether in colours, and tables drawn for it."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TextIO

GAP = 2
USUAL_COLUMNS, USUAL_ROWS = 80, 24
# A digest is not shortened further, and texts are narrower only where there is no other way.
LEAST, LEAST_TEXT = 10, 18
UNBROKEN = 8
# Lines of a state and its reason in a row.
HIGHEST = 2
# Stands in a cell for what there is none of.
NOTHING = "-"
DUMB = frozenset({"dumb", "unknown"})
# The heads of columns whose words are coloured, and the words.
STATES = frozenset({"result", "state", "build", "tests", "sif", "sif tests", "action"})
COLOURS = {
    "red": ("failed", "broken", "unhealthy", "altered", "exited", "dead"),
    "yellow": ("stale", "not built", "untested", "skipped", "test", "convert", "build"),
    "green": (
        *("passed", "done", "up to date", "built", "current", "converted", "signed", "keep"),
        *("running", "sent", "held already"),
    ),
}
CODES = {"red": 31, "green": 32, "yellow": 33}
BOLD, NO_STYLE = 1, (0, 0)
_COLOUR = {word: colour for colour, words in COLOURS.items() for word in words}
_WORD = re.compile(rf"({'|'.join(sorted(_COLOUR, key=len, reverse=True))})\b")
# The one kind of word that nobody types: its ends tell one from another.
_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{64}")
# Stands for what begins a colour until the text is printed: whatever else begins with an escape
# character is somebody else's, and written out. No text of others can hold it: each process has
# another one.
_MARK = f"\ufdd0{os.urandom(8).hex()}\ufdd0"
_MARKED = re.compile(rf"{_MARK}(\d{{0,2}}m)")


@dataclass(frozen=True, kw_only=True)
class Screen:
    """A terminal of ``columns``, or what is none: there, lines may be as long as they are."""

    columns: int = 0
    colour: bool = False

    @classmethod
    def of(cls, stream: TextIO, environ: Mapping[str, str], *, wide: bool = False) -> Screen:
        """Return what ``stream`` shows.

        :param wide: whether lines may be longer than the terminal is wide.
        """
        if not stream.isatty():
            return cls()
        return cls(columns=0 if wide else size(stream)[0], colour=has_colours(stream, environ))

    def coloured(self, text: str) -> str:
        """Return a text that holds tables with its colours, as the terminal takes them."""
        return _MARKED.sub("\x1b[\\1", text) if self.colour else text


PLAIN = Screen()
_current: ContextVar[Screen] = ContextVar("sifline_screen", default=PLAIN)


def use(screen: Screen) -> None:
    """Draw all tables for ``screen`` from now on."""
    _current.set(screen)


def current() -> Screen:
    """Return the screen that tables are drawn for."""
    return _current.get()


def has_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Tell whether colours may be written to ``stream`` (https://no-color.org)."""
    return stream.isatty() and environ.get("TERM") not in DUMB and not environ.get("NO_COLOR")


def size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows of the stream's own terminal; of a usual one where it does not know."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except OSError:
        columns, rows = 0, 0
    return columns or USUAL_COLUMNS, rows or USUAL_ROWS


def emphasised(text: str, word: str, colour: str) -> str:
    """Return ``text`` with its last ``word`` in a colour, as a terminal with colours takes it."""
    before, found, after = text.rpartition(word)
    return f"{before}\x1b[{CODES[colour]}m{found}\x1b[0m{after}"


def shortened(text: str, width: int) -> str:
    """Return ``text`` without its middle where it is wider."""
    if len(text) <= width:
        return text
    after = max(1, width // 2)
    return f"{text[: max(0, width - 1 - after)]}…{text[-after:]}"


def widths(lines: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the widths of the columns of a table that fits ``room``, as far as that is possible.

    Texts are wrapped and digests shortened, other words stay whole; the widest column gives way.
    """
    columns = list(zip(*lines, strict=True))
    found = [max(map(len, column)) for column in columns]
    words = [
        # A size keeps its unit.
        width if width <= UNBROKEN else max(map(_least, column))
        for width, column in zip(found, columns, strict=True)
    ]
    for floors in ([max(LEAST_TEXT, word) for word in words], words):
        while _total(found) > room:
            spare = [(width, place) for place, width in enumerate(found) if width > floors[place]]
            if not spare:
                break
            found[max(spare)[1]] -= 1
    return found


def folded(text: str, indent: str = "") -> str:
    """Return a line as lines that fit the current screen; a word that is wider has its own.

    :param indent: what the lines after the first begin with.
    """
    return folded_to(text, current().columns, indent)


def folded_to(text: str, columns: int, indent: str = "") -> str:
    """Return a line as lines of at most ``columns``, 0 for any; see ``folded``."""
    if not columns or len(text) <= columns:
        return text
    return textwrap.fill(
        text,
        columns,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _total(columns: Sequence[int]) -> int:
    return sum(columns) + GAP * (len(columns) - 1)


def _least(cell: str) -> int:
    """How wide a column must be so that the words of ``cell`` stay whole."""
    return max(LEAST if _DIGEST.fullmatch(word) else len(word) for word in cell.split(" "))


@dataclass(kw_only=True)
class _Row:
    """A row of a table, and the cells that are printed below it: head and text, by column.

    ``reasons`` are heads and cells of which only the state is left in the row. A ``heading`` has
    one cell; another row may be left with one, where all its others are below.
    """

    cells: list[str]
    heading: bool
    below: dict[int, tuple[str, str]] = field(default_factory=dict)
    reasons: list[tuple[str, str]] = field(default_factory=list)

    def put_below(self, place: int, name: str) -> None:
        """Print the cell below the row, unless it says that there is nothing."""
        cell, self.cells[place] = self.cells[place], ""
        if cell:
            self.below[place] = name, "" if cell == NOTHING else cell


def _make_fit(head: Sequence[str], rows: Sequence[_Row], room: int) -> None:
    """Put the cells with the longest words below their rows, until the others fit ``room``.

    Where no word is long the last column goes as a whole. The first one stays, for it says what a
    row is about.
    """
    while _total(widths(_beside_each_other(head, rows), room)) > room:
        long = [
            (least, place)
            for row in rows
            for place, cell in enumerate(row.cells)
            if place and (least := _least(cell)) > LEAST_TEXT
        ]
        if not long:
            last = max(
                (place for row in rows for place, cell in enumerate(row.cells) if cell), default=0
            )
            if not last:
                return
            for row in rows:
                row.put_below(last, head[last])
            continue
        longest, place = max(long)
        for row in rows:
            # All paths of a column, not the longest alone.
            if _least(row.cells[place]) > max(LEAST_TEXT, longest // 2):
                row.put_below(place, head[place])


def _move_reasons(head: Sequence[str], rows: Sequence[_Row], room: int) -> None:
    """Put the states whose reason would make a row high below it; their word stays."""
    chosen = widths([head, *(row.cells for row in rows)], room)
    for row in rows:
        for place, cell in enumerate(row.cells):
            state, colon, _ = cell.partition(": ")
            high = len(_wrapped(cell, chosen[place])) > HIGHEST
            if colon and head[place] in STATES and high:
                row.reasons.append((head[place], cell))
                row.cells[place] = state


def drawn(lines: Sequence[Sequence[str]], screen: Screen) -> str:
    """Return a table, the first line its head, as wide as the screen; for ``Screen.coloured``.

    A row of one cell is a heading. What is too wide for its column is below its row.
    """
    room = screen.columns or sum(map(len, map("".join, lines))) + len(lines[0]) * GAP
    rows = [_Row(cells=[*cells], heading=len(cells) == 1) for cells in lines[1:]]
    body = [row for row in rows if not row.heading]
    _make_fit(lines[0], body, room)
    head = _without_empty(lines[0], body)
    _move_reasons(head, body, room)
    chosen = widths([head, *(row.cells for row in body)], room)
    bold = (BOLD, sys.maxsize) if screen.colour else NO_STYLE
    shown = _beside(head, chosen, [bold] * len(head), bottom=True)
    for row in rows:
        if row.heading:
            shown += [text for _, text in _wrapped(row.cells[0], room, bold)]
            continue
        named = zip(row.cells, head, strict=True)
        shown += _beside(row.cells, chosen, [_style(*cell, screen) for cell in named])
        for name, cell in filter(_says_something, row.below.values()):
            text = cell if name in head else f"{name}: {cell}"
            style = _style(text, name, screen)
            shown += [f"{'':{GAP}}{line}" for _, line in _wrapped(text, room - GAP, style)]
        for name, cell in row.reasons:
            shown += [f"{'':{GAP}}{line}" for _, line in _wrapped(f"{name}: {cell}", room - GAP)]
    return "\n".join(shown)


def _says_something(below: tuple[str, str]) -> bool:
    return bool(below[1])


def _without_empty(head: Sequence[str], rows: Sequence[_Row]) -> list[str]:
    """Remove the columns of which all is below the rows; return the names of the others."""
    names, *lines = _beside_each_other(head, rows)
    for row, cells in zip(rows, lines, strict=True):
        row.cells = cells
    return names


def _beside_each_other(head: Sequence[str], rows: Sequence[_Row]) -> list[list[str]]:
    """Return head and rows without the columns of which all is below the rows."""
    gone = {place for row in rows for place in row.below}
    gone -= {place for row in rows for place, cell in enumerate(row.cells) if cell}
    lines = [head, *(row.cells for row in rows)]
    return [[cell for place, cell in enumerate(line) if place not in gone] for line in lines]


def _style(cell: str, head: str, screen: Screen) -> tuple[int, int]:
    """Return the colour of a cell that begins with the word of a state, and how far it goes."""
    found = _WORD.match(cell) if head in STATES and screen.colour else None
    return (CODES[_COLOUR[found[1]]], found.end()) if found else NO_STYLE


def _wrapped(cell: str, width: int, style: tuple[int, int] = NO_STYLE) -> list[tuple[int, str]]:
    """Return the lines of a cell, each with its width, its first characters in a colour."""
    words = (
        shortened(word, width) if _DIGEST.fullmatch(word) else word for word in cell.split(" ")
    )
    lines = textwrap.wrap(" ".join(words), width, break_long_words=False, break_on_hyphens=False)
    (code, left), made = style, list[tuple[int, str]]()
    for line in lines:
        end = max(0, min(left, len(line)))
        shown = f"{_MARK}{code}m{line[:end]}{_MARK}0m{line[end:]}" if end else line
        made.append((len(line), shown))
        left -= len(line) + 1
    return made


def _beside(
    cells: Sequence[str],
    chosen: Sequence[int],
    styles: Sequence[tuple[int, int]],
    *,
    bottom: bool = False,
) -> list[str]:
    """Return the lines of a row, whose cells begin together, or end together at the ``bottom``."""
    parts = [*map(_wrapped, cells, chosen, styles)]
    height = max(map(len, parts))
    for part in parts:
        missing = [(0, "")] * (height - len(part))
        part[:] = [*missing, *part] if bottom else [*part, *missing]
    return [
        "".join(
            text + " " * (width + GAP - length)
            for (length, text), width in zip(line, chosen, strict=True)
        ).rstrip()
        for line in zip(*parts, strict=True)
    ]
