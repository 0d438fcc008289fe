"""Tables on a terminal: no word is broken, the ends of long values stay, states have colours."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sifline.report import screen, tables
from sifline.report.screen import PLAIN, Screen
from sifline.tasks.support import visible

HEAD = ("image", "state", "sha256", "what was found")
ROWS = [
    ("hello-mpi", "failed", "0123456789ab", "the tests in images/hello-mpi/tests do not pass"),
    ("pytorch-cuda12.1-mpi4.1", "up to date", "ba9876543210", "as it was when it was built last"),
]
DIGEST = "sha256:" + "0123456789abcdef" * 4


class Tty(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(columns: int, rows: Sequence[tuple[str, ...]] = ROWS, *, colour: bool = False) -> str:
    """What a terminal of that width gets of a table."""
    here = Screen(columns=columns, colour=colour)
    screen.use(here)
    try:
        return here.coloured(visible(tables.table(HEAD, rows)))
    finally:
        screen.use(PLAIN)


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_table_is_as_wide_as_the_terminal_and_breaks_no_word(columns: int) -> None:
    text = shown(columns)

    assert max(map(len, text.splitlines())) <= columns
    words = {word for row in ROWS for cell in row for word in cell.split()}
    assert words - {"pytorch-cuda12.1-mpi4.1", "images/hello-mpi/tests"} <= set(text.split())


def test_the_reason_of_a_state_is_below_its_row_where_it_would_make_the_row_high() -> None:
    head, reason = ("image", "sif", "state"), "the image was built again since"
    rows = [("base", f"stale: {reason}", f"stale: {reason}"), ("hello", "current", "built")]
    here = Screen(columns=40, colour=False)

    assert screen.drawn([head, *rows], here).splitlines() == [
        "image  sif      state",
        "base   stale    stale",
        "  sif: stale: the image was built again",
        "  since",
        "  state: stale: the image was built",
        "  again since",
        "hello  current  built",
    ]


def test_what_fits_is_one_line_for_each_row() -> None:
    first, second = shown(120).splitlines()[1:]

    assert re.split(" {2,}", first) == list(ROWS[0])
    assert re.split(" {2,}", second) == list(ROWS[1])


def test_a_long_value_keeps_both_ends() -> None:
    text = shown(60, [("x", "sent", DIGEST, f"/scratch/{'images/' * 9}hello-mpi.sif")])

    (digest,) = (word for word in text.split() if "…" in word)
    assert digest.startswith("sha256:0")
    assert digest.endswith("cdef")


def test_a_path_that_is_wider_than_its_column_is_whole_below_its_row() -> None:
    long = f"/scratch/{'images/' * 9}hello-mpi.sif"
    short = "is in /scratch"
    other = f"there is none, deploy it: invoke deploy.{'x' * 40} --cluster virtual"

    text = shown(60, [("x", "sent", "1", long), ("y", "sent", "2", short), ("z", "-", "3", other)])

    assert text.splitlines() == [
        "image  state  sha256  what was found",
        "x      sent   1",
        f"  {long}",
        "y      sent   2       is in /scratch",
        "z      -      3",
        "  there is none, deploy it: invoke",
        f"  deploy.{'x' * 40} --cluster",
        "  virtual",
    ]


def test_a_column_of_long_values_is_below_the_rows_with_its_name() -> None:
    paths = [f"/{letter * 60}" for letter in "ab"]

    text = shown(60, [(path[1], "sent", "1", path) for path in paths])

    assert text.splitlines() == [
        "image  state  sha256",
        *("a      sent   1", "  what was found:", f"  {paths[0]}"),
        *("b      sent   1", "  what was found:", f"  {paths[1]}"),
    ]


@example([("", "0" * 19, "0" * 19, "0" * 19)], 20)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(categories=["L", "N", "P"]), max_size=70)] * 4),
        min_size=1,
    ),
    st.integers(20, 99),
)
def test_no_word_is_ever_broken(rows: list[tuple[str, ...]], columns: int) -> None:
    text = shown(columns, rows)

    assert {cell for row in rows for cell in row if cell} <= set(text.split())


def test_a_row_of_one_cell_is_a_heading_that_makes_no_column_wider() -> None:
    rows = [("infrastructure of the cluster",), *ROWS[:1]]

    assert shown(80, rows).splitlines()[:2] == [
        "image      state   sha256        what was found",
        "infrastructure of the cluster",
    ]


@pytest.mark.parametrize("here", [PLAIN, Screen(columns=0, colour=True)])
def test_in_a_pipe_and_where_lines_may_be_wide_values_are_whole(here: Screen) -> None:
    screen.use(here)
    try:
        text = visible(tables.table(HEAD, [("x" * 99, "sent", DIGEST, "word " * 99)]))
    finally:
        screen.use(PLAIN)

    assert len(text.splitlines()) == 2
    assert {"x" * 99, DIGEST} <= set(text.split())


def test_states_have_colours_and_names_have_none() -> None:
    rows = [("failed", "failed: x", "stale", "passed"), ("b", "up to date", "y", "z")]

    text = shown(80, rows, colour=True)

    assert re.findall(r"\x1b\[(3\d)m([^\x1b]*)", text) == [("31", "failed"), ("32", "up to date")]


def test_a_text_from_outside_brings_no_colours_along() -> None:
    odd = [("\x1b[31mx", "\ufdd031mfailed", "y", "z")]

    text = shown(80, odd, colour=True)

    assert re.findall(r"\x1b\[3\dm", text) == []


@pytest.mark.parametrize(
    ("environ", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "xterm", "NO_COLOR": "0"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_has_colours_unless_they_are_refused(
    environ: dict[str, str], colour: bool
) -> None:
    assert Screen.of(Tty(), environ) == Screen(columns=80, colour=colour)


def test_what_is_no_terminal_is_plain() -> None:
    assert Screen.of(io.StringIO(), {"TERM": "xterm"}) == PLAIN


@given(st.text(st.characters(codec="ascii"), max_size=99), st.integers(10, 99))
def test_what_is_shortened_fits_and_keeps_its_end(text: str, width: int) -> None:
    found = screen.shortened(text, width)

    assert len(found) <= width
    assert text.endswith(found[-(width // 2) :])
