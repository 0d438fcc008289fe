"""What standard output shows: how wide it is, whether in colours, and tables drawn for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2
USUAL_COLUMNS, USUAL_ROWS = 80, 24
# Columns narrower than that say nothing: a terminal that has less room wraps the lines itself.
LEAST, LEAST_TEXT = 10, 18
UNBROKEN = 8
DUMB = frozenset({"dumb", "unknown"})
# The heads of columns whose words are coloured, and the words.
STATES = frozenset({"result", "state", "build", "tests", "sif", "sif tests", "action"})
COLOURS = {
    "red": ("failed", "broken", "unhealthy", "altered", "exited", "dead"),
    "yellow": ("stale", "not built", "not tested", "skipped", "test", "convert", "build"),
    "green": (
        *("passed", "done", "up to date", "built", "current", "converted", "signed", "keep"),
        *("running", "sent", "held already"),
    ),
}
CODES = {"red": 31, "green": 32, "yellow": 33}
_COLOUR = {word: colour for colour, words in COLOURS.items() for word in words}
_WORD = re.compile(rf"({'|'.join(sorted(_COLOUR, key=len, reverse=True))})\b")
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
    """Return ``text`` without its middle where it is wider: its end says more than its middle.

    Of a path the name of the file stays whole, where there is room for it.
    """
    if len(text) <= width:
        return text
    name = len(text) - text.rfind("/")
    after = name if "/" in text and width // 2 < name < width - 1 else max(1, width // 2)
    return f"{text[: max(0, width - 1 - after)]}…{text[-after:]}"


def widths(lines: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the widths of the columns of a table that fits ``room``, as far as that is possible.

    Texts are wrapped first, then what has no spaces is shortened; the widest column gives way.
    """
    columns = list(zip(*lines, strict=True))
    found = [max(map(len, column)) for column in columns]
    words = [max(map(len, " ".join(column).split()), default=0) for column in columns]
    texts = [max(LEAST_TEXT, word) for word in words]
    values = [
        # A path within a text is shortened before names are; a size keeps its unit.
        width if width <= UNBROKEN else min(word, LEAST_TEXT) if word < width else width
        for width, word in zip(found, words, strict=True)
    ]
    for floors in (texts, values, [LEAST_TEXT] * len(found), [LEAST] * len(found)):
        while sum(found) + GAP * (len(found) - 1) > room:
            spare = [(width, place) for place, width in enumerate(found) if width > floors[place]]
            if not spare:
                break
            found[max(spare)[1]] -= 1
    return found


def drawn(lines: Sequence[Sequence[str]], screen: Screen) -> str:
    """Return a table, the first line its head, as wide as the screen; for ``Screen.coloured``."""
    from io import StringIO

    from rich.console import Console
    from rich.table import Table

    head, *rows = lines
    chosen = widths(lines, screen.columns or sum(map(len, map("".join, lines))) + len(head) * GAP)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="")
    for name, width in zip(head, chosen, strict=True):
        title = _cell(name, width)
        title.stylize("bold")
        table.add_column(title, width=width)
    for row in rows:
        texts = [_cell(cell, width) for cell, width in zip(row, chosen, strict=True)]
        for name, text in zip(head, texts, strict=True):
            _colour(text, name)
        table.add_row(*texts)
    stream = StringIO()
    console = Console(
        file=stream,
        width=sum(chosen) + GAP * len(chosen),
        height=USUAL_ROWS,
        force_terminal=screen.colour,
        color_system="standard" if screen.colour else None,
        highlight=False,
        legacy_windows=False,
    )
    console.print(table)
    shown = (line.rstrip() for line in stream.getvalue().splitlines())
    return "\n".join(shown).replace("\x1b[", _MARK)


def _cell(text: str, width: int) -> Text:
    from rich.text import Text

    return Text(" ".join(shortened(word, width) for word in text.split(" ")))


def _colour(text: Text, head: str) -> None:
    """Colour the word of a state at the beginning of a cell."""
    if head in STATES and (found := _WORD.match(text.plain)):
        text.stylize(_COLOUR[found[1]], 0, found.end())
