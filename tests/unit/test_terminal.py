"""Progress: rows on a real (pseudo) terminal, whole plain lines elsewhere."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from subprocess import Popen

import pytest

from sifline.machine.process import ProcessRunner
from sifline.report import terminal
from sifline.report.terminal import Terminal
from tests.support.waiting import PATIENCE, ended_within, until

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|(.)", re.DOTALL)


class Screen:
    """A pseudo terminal; what is written to it is read as a terminal would show it.

    It knows what is needed here: line ends, cursor up, erased lines, lines that are too long.
    """

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self._master, self.slave = pty.openpty()
        self.raw = ""
        self.resize(columns, rows)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def resize(self, columns: int, rows: int) -> None:
        self.columns = columns
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        with suppress(OSError):  # the other end is closed
            while data := os.read(self._master, 65536):
                self.raw += data.decode()

    def finish(self) -> None:
        """Read what is still on its way; nobody can write any more."""
        if self._reader.is_alive():
            os.close(self.slave)
            self._reader.join(PATIENCE)
            assert not self._reader.is_alive()

    def end(self) -> None:
        self.finish()
        os.close(self._master)

    @property
    def lines(self) -> list[str]:
        lines, row, column = [""], 0, 0
        for parameters, command, char in SEQUENCE.findall(self.raw):
            if command == "A":
                row = max(0, row - int(parameters or 1))
            elif command == "K":
                lines[row] = ""
            elif char == "\r":
                column = 0
            elif char:
                if char == "\n" or column == self.columns:
                    row, column = row + 1, 0
                    lines.extend([""] * (row + 1 - len(lines)))
                if char != "\n":
                    lines[row] = lines[row][:column].ljust(column) + char
                    column += 1
        return [line for line in lines if line]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(terminal, "TICK_SECONDS", 0.02)
    made = Screen()
    yield made
    made.end()


def on(screen: Screen, *, quiet: bool = False) -> Terminal:
    return Terminal(open(screen.slave, "w", encoding="utf-8", closefd=False), quiet=quiet)


def soon(true: Callable[[], object]) -> None:
    """Wait until it is true of what is shown; fail where that never comes."""
    until(true, "what is to be shown")


def soon_shows(screen: Screen, *expected: str) -> None:
    """Wait until these are the rows. They are drawn again and again: a look may see half."""
    seen = list[str]()

    def look() -> bool:
        seen[:] = [re.sub(r"\d+\.\d s", "N s", row) for row in rows(screen)]
        return seen == list(expected)

    until(look, f"the rows {expected}")


def ticks(show: Terminal, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what waits until a terminal, in which a step runs, had time to draw or to speak."""
    passed, wait = list[float | None](), show._idle.wait

    def counted(seconds: float | None = None) -> bool:
        passed.append(seconds)
        return wait(seconds)

    def some() -> None:
        before = len(passed)
        until(lambda: len(passed) > before + 3, "the terminal's next look")

    monkeypatch.setattr(show._idle, "wait", counted)
    return some


def rows(screen: Screen) -> list[str]:
    """The lines without the spinner and the seconds."""
    return [re.sub(r"^[⠀-⣿] (\[.*?\]+) \d+ s", r"\1", line).strip() for line in screen.lines]


def side_by_side(*works: Callable[[], object]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def plain(
    *, quiet: bool = False, verbose: bool = True
) -> tuple[Terminal, Callable[[], list[str]]]:
    """A terminal that is none, and the lines it got, with seconds as N."""
    stream = io.StringIO()
    show = Terminal(stream, quiet=quiet, verbose=verbose)
    return show, lambda: re.sub(r"\d+\.\d s", "N s", stream.getvalue()).splitlines()


# On a terminal


def test_each_running_step_has_a_row_below_the_headline(screen: Screen) -> None:
    show = on(screen)
    show.expect(dict.fromkeys(["build a", "build b", "build c"]))
    with show.step("build a") as a, show.step("build b") as b:
        a("apt-get update")
        b("pip install")
        soon_shows(screen, "0 of 3 done", "[build a]  apt-get update", "[build b]  pip install")


def test_a_finished_step_leaves_one_line_above_the_others(screen: Screen) -> None:
    show = on(screen)
    show.expect(dict.fromkeys(["build a", "build b", "build c"]))
    with show.step("build a"):
        soon(lambda: "[build a]" in rows(screen))
        with suppress(ZeroDivisionError), show.step("build b"):
            raise ZeroDivisionError
        with show.step("build c"):
            pass
        soon_shows(
            screen,
            "[build b] failed in N s",
            "[build c] done in N s",
            "1 of 3 done, 1 failed",
            "[build a]",
        )


def test_without_a_total_there_is_no_headline(screen: Screen) -> None:
    with on(screen).step("deploy"):
        soon_shows(screen, "[deploy]")


def test_a_total_that_is_reached_is_not_counted_beyond(screen: Screen) -> None:
    show = on(screen)
    show.expect({"build a": None})
    with show.step("build a"):
        pass
    with show.step("cluster.up"):
        soon(lambda: "[cluster.up]" in rows(screen))

        assert "of 1 done" not in screen.raw


def test_what_is_announced_in_several_parts_is_counted_over_the_whole_run(screen: Screen) -> None:
    show = on(screen)
    show.expect(dict.fromkeys(["build a", "deploy a"]))
    show.expect(dict.fromkeys(["build a", "convert a"]))
    with show.step("build a"):
        pass
    with show.step("convert a"):
        soon(lambda: "1 of 3 done" in rows(screen))


def test_the_headline_says_how_long_the_rest_will_take(screen: Screen) -> None:
    show = on(screen)
    show.expect({"build a": 100.0, "build b": 5000.0}, workers=2)
    with show.step("build a"):
        soon(lambda: "0 of 2 done, about 1 h 23 min left" in rows(screen))


@pytest.mark.parametrize(
    ("rest", "workers", "left"),
    [
        ([], 1, 0),
        ([30.0, 20.0], 1, 50),
        ([30.0, 20.0], 2, 30),
        ([10.0, 10.0, 10.0, 10.0], 2, 20),
        ([30.0, None], 1, 0),
        ([0.0], 1, 0),
    ],
)
def test_time_left_is_told_where_all_of_it_is_known(
    rest: list[float | None], workers: int, left: int
) -> None:
    assert terminal.time_left(rest, workers) == left


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (61, "1 min"), (3599, "1 h 0 min"), (4800, "1 h 20 min")]
)
def test_durations_are_told_in_the_unit_that_fits(seconds: int, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_when_all_is_done_only_lines_that_stay_are_left(screen: Screen) -> None:
    show = on(screen)
    show.line("before")
    with show.step("a"):
        soon(lambda: "[a]" in rows(screen))
        show.line("meanwhile")
    show.line("after")

    soon_shows(screen, "before", "meanwhile", "[a] done in N s", "after")


def test_text_from_outside_is_shown_as_it_is(screen: Screen) -> None:
    show = on(screen)
    with show.step("build [red]x[/red]") as progress:
        progress("\x1b[31mCOPY\x1b[0m [bold]:smile: 'a' 12\r\n done\x07")
        soon(lambda: "COPY" in screen.raw)
        show.line("[bold]line \x1b[31mred[/bold]")

        soon_shows(
            screen,
            "[bold]line red[/bold]",
            "[build [red]x[/red]]  COPY [bold]:smile: 'a' 12 done",
        )
        assert "\x1b[3" not in screen.raw


@pytest.mark.parametrize(("columns", "height"), [(1, 1), (7, 2), (20, 3), (33, 24), (400, 100)])
def test_rows_are_cut_to_the_width(screen: Screen, columns: int, height: int) -> None:
    screen.resize(columns, height)
    show = on(screen)
    with show.step("one") as one, show.step("two") as two:
        one("long " * 99)
        two("漢字" * 99)
        soon(lambda: screen.raw.count("\x1b[2K") > 9)
        live = screen.raw
    screen.finish()

    shown = re.split(r"\r\n|\r|\x1b\[[?\d;]*[A-Za-z]", live)
    assert max(len(row) + len(re.findall("[漢字]", row)) for row in shown) <= max(1, columns - 1)
    assert "".join(screen.lines).startswith("[two] done in ")
    assert "".join(screen.lines).count("[") == 2


def test_there_are_never_more_rows_than_the_terminal_has(screen: Screen) -> None:
    screen.resize(40, 4)
    show = on(screen)
    with ExitStack() as steps:
        for number in range(9):
            steps.enter_context(show.step(f"build {number}"))
        soon(lambda: screen.raw.count("[build 0]") > 2)
        drawn = screen.raw.split("\x1b[2K")[:-1]  # of the last not all may have come

    assert {part.count("\r\n") + 1 for part in drawn if "[build 0]" in part} == {4}


def test_a_question_is_not_wiped_away(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    show = on(screen)
    with show.step("sign a"):
        soon(lambda: "sign a" in screen.raw)
        wait_for_ticks = ticks(show, monkeypatch)
        with show.asking():
            os.write(screen.slave, b"passphrase: ")
            soon(lambda: screen.raw.endswith("passphrase: "))
            wait_for_ticks()
            assert screen.raw.endswith("passphrase: ")
        soon(lambda: not screen.raw.endswith("passphrase: "))


def test_a_long_line_that_stays_is_not_cut(screen: Screen) -> None:
    screen.resize(30, 10)
    show = on(screen)
    with show.step("a"):
        soon(lambda: "[a]" in screen.raw)
        show.line("x" * 70)
    screen.finish()

    assert "".join(screen.lines).startswith("x" * 70 + "[a] done in ")


def test_lines_of_tools_are_folded_at_words_for_a_terminal_and_not_for_a_log(
    screen: Screen,
) -> None:
    screen.resize(40, 10)
    line = "#5 fetched https://mirror.example/debian/main and unpacked it there"
    log = io.StringIO()
    Terminal(log, verbose=True).output(line)
    show = on(screen)
    show.output(line)
    show.output("a/" * 30)
    screen.finish()

    assert log.getvalue() == f"{line}\n"
    assert screen.lines == [
        "#5 fetched",
        "    https://mirror.example/debian/main",
        "    and unpacked it there",
        *("a/" * 20, "a/" * 10),
    ]


def test_wide_lines_are_left_as_they_are(screen: Screen) -> None:
    screen.resize(40, 10)
    Terminal(open(screen.slave, "w", closefd=False), wide=True).output("word " * 10)  # noqa: SIM115
    screen.finish()

    assert "".join(screen.lines) == "word " * 10


def test_a_command_to_copy_is_left_whole(screen: Screen) -> None:
    screen.resize(40, 10)
    on(screen).aside("next: invoke cluster.shell --user alice -- srun x", whole=True)
    screen.finish()

    assert screen.lines[0] == "next: invoke cluster.shell --user alice "


def test_after_a_resize_rows_are_cut_to_the_new_width(screen: Screen) -> None:
    with on(screen).step("a") as progress:
        progress("long " * 99)
        soon(lambda: "long" in screen.raw)
        soon(lambda: widths(screen)[-1] == 79)
        screen.resize(40, 10)
        soon(lambda: widths(screen)[-1] == 39)


def widths(screen: Screen) -> list[int]:
    """How long the rows were that were drawn so far; of the last one not all may have come."""
    drawn = re.split(r"\r|\x1b\[[?\d;]*[A-Za-z]", screen.raw)
    return [0, *(len(row) for row in drawn if row)][:-1]


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_a_step_that_ended_has_a_colour_unless_nobody_wants_one(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, no_colour: str
) -> None:
    monkeypatch.setenv("NO_COLOR", no_colour)
    show = on(screen)
    show.expect({"a": None})
    with suppress(ZeroDivisionError), show.step("a") as progress:
        progress("12 of '34' in https://x")
        soon(lambda: "34" in screen.raw)
        raise ZeroDivisionError
    with show.step("b"):
        pass
    screen.finish()

    found = re.findall(r"\x1b\[[1-9][\d;]*m[^\x1b]*", screen.raw)
    assert found == ([] if no_colour else ["\x1b[31mfailed", "\x1b[32mdone"])


def test_the_cursor_comes_back_after_an_error(screen: Screen) -> None:
    with suppress(ZeroDivisionError), on(screen).step("a"):
        soon(lambda: HIDE in screen.raw)
        raise ZeroDivisionError

    screen.finish()
    assert screen.raw.rindex(SHOW) > screen.raw.rindex(HIDE)


CTRL_C = """
import sys, threading, time
from sifline.report.terminal import Terminal

def work():
    with Terminal().step("a") as progress:
        progress("working")
        time.sleep(600)

try:
    threading.Thread(target=work, daemon=True).start() if sys.argv[1] == "thread" else work()
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("where", ["main", "thread"])
def test_the_cursor_comes_back_after_ctrl_c(screen: Screen, where: str) -> None:
    command = [sys.executable, "-c", CTRL_C, where]
    with Popen(command, stdin=screen.slave, stdout=screen.slave, stderr=screen.slave) as program:
        soon(lambda: "working" in screen.raw)
        with ended_within(program):
            program.send_signal(signal.SIGINT)
            program.wait()

    assert program.returncode == 130
    screen.finish()
    assert screen.raw.rindex(SHOW) > screen.raw.rindex(HIDE)
    assert "working" not in "".join(screen.lines)


IMPORTED = """
import sys, time
from sifline.report import terminal

is_long = sys.argv[1] == "long"
terminal.TICK_SECONDS = 0.02 if is_long else 600
with terminal.Terminal().step("a"):
    last = time.monotonic() + 100
    while is_long and "rich" not in sys.modules and time.monotonic() < last:
        time.sleep(0.02)
sys.exit(int("rich" in sys.modules))
"""


@pytest.mark.parametrize(
    ("step", "imported"), [("short", 0), ("long", 1)], ids=["short step", "long step"]
)
def test_rich_is_imported_only_for_a_display(screen: Screen, step: str, imported: int) -> None:
    with Popen([sys.executable, "-c", IMPORTED, step], stderr=screen.slave) as program:
        pass

    assert program.returncode == imported


def test_a_dumb_terminal_gets_plain_lines(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    show = on(screen)
    with show.step("a") as progress:
        progress("one")
        ticks(show, monkeypatch)()

    screen.finish()
    assert re.sub(r"\d+\.\d", "N", screen.raw) == "[a] done in N s\r\n"


# Elsewhere


def test_each_step_is_one_line() -> None:
    show, lines = plain(verbose=False)

    with show.step("test a") as progress:
        progress("test_one: passed")
        progress("test_two: passed")

    assert lines() == ["[test a] done in N s"]


def test_a_quiet_run_prints_what_stays_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "HEARTBEAT_SECONDS", 0)
    monkeypatch.setattr(terminal, "TICK_SECONDS", 0.001)
    show, lines = plain(quiet=True, verbose=False)

    show("asking")
    show.aside("build a waits for memory")
    with show.step("build a") as progress:
        progress("RUN")
        ticks(show, monkeypatch)()
        show.line("[build a] warning: large")

    assert lines() == ["[build a] warning: large"]


def test_a_quiet_run_draws_no_rows(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    show = on(screen, quiet=True)
    with show.step("build a"):
        ticks(show, monkeypatch)()
    screen.finish()

    assert screen.raw == ""


def test_what_tools_print_belongs_to_the_step_that_runs_them() -> None:
    show, lines = plain()

    with show.step("build a"):
        show.output("#5 RUN make")
    show.output("outside")

    assert lines() == ["[build a] #5 RUN make", "[build a] done in N s", "outside"]


def test_each_new_text_is_one_line_with_its_step() -> None:
    show, lines = plain()

    with show.step("build a") as progress:
        progress("one")
        progress("one")
        progress("two\nlines")

    assert lines() == ["[build a] one", "[build a] two lines", "[build a] done in N s"]


def test_text_outside_any_step_stands_alone() -> None:
    show, lines = plain()

    show("asking")
    show.line("  a table\n  of two lines")

    assert lines() == ["asking", "  a table", "  of two lines"]


@pytest.mark.parametrize(
    ("error", "word"), [(ZeroDivisionError, "failed"), (KeyboardInterrupt, "interrupted")]
)
def test_the_last_line_says_how_a_step_ended(error: type[BaseException], word: str) -> None:
    show, lines = plain()

    with suppress(error), show.step("a"):
        raise error

    assert lines() == [f"[a] {word} in N s"]


def test_what_is_said_through_the_terminal_belongs_to_the_step_of_the_thread() -> None:
    show, lines = plain()
    both = threading.Barrier(2, timeout=PATIENCE)

    def work(name: str) -> None:
        with show.step(name):
            both.wait()
            show(f"this is {name}")
            both.wait()

    side_by_side(lambda: work("a"), lambda: work("b"))

    assert {"[a] this is a", "[b] this is b"} <= set(lines())


def test_the_output_of_a_command_belongs_to_the_step_that_runs_it() -> None:
    show, lines = plain()
    both = threading.Barrier(2, timeout=PATIENCE)

    def work(name: str) -> None:
        with show.step(name):
            both.wait()
            ProcessRunner().run(["echo", f"this is {name}"], on_line=show)
            both.wait()

    side_by_side(lambda: work("a"), lambda: work("b"))

    assert {"[a] this is a", "[b] this is b"} <= set(lines())


def test_a_thread_without_a_step_speaks_for_the_only_one() -> None:
    show, lines = plain()

    with show.step("a"):
        side_by_side(lambda: show("from a pool"))

    assert lines()[0] == "[a] from a pool"


def test_a_thread_without_a_step_speaks_for_itself_beside_two() -> None:
    show, lines = plain()

    with show.step("a"), show.step("b"):
        side_by_side(lambda: show("from a pool"))

    assert lines()[0] == "from a pool"


def test_after_an_inner_step_the_outer_goes_on() -> None:
    show, lines = plain()

    with show.step("other"), show.step("outer"):
        with show.step("inner"):
            show("one")
        show("two")

    assert lines()[:3] == ["[inner] one", "[inner] done in N s", "[outer] two"]


def test_figures_that_run_on_do_not_fill_a_log() -> None:
    show, lines = plain()
    with show.step("convert x"):
        for number in range(50):
            show(f"packing {number} MB, 200 MB/s")
        show("verifying")
    said = [line for line in lines() if "packing" in line or "verifying" in line]
    assert said == ["[convert x] packing 0 MB, 200 MB/s", "[convert x] verifying"]


class Clock:
    """Stands still until it is told how late it is."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_only_a_step_that_says_nothing_gets_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(terminal, "time", clock)
    monkeypatch.setattr(terminal, "TICK_SECONDS", 0.001)
    show, lines = plain()

    with show.step("silent") as silent, show.step("talking") as talking:
        silent("compiling")
        wait_for_ticks = ticks(show, monkeypatch)
        for number in range(6):
            talking(str(number))
            clock.now += 7
            wait_for_ticks()

    assert [line for line in lines() if "still running" in line] == [
        "[silent] still running after 21 s: compiling",
        "[silent] still running after 42 s: compiling",
    ]


def test_a_log_says_at_once_that_a_step_waits_and_that_it_still_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(terminal, "time", clock)
    monkeypatch.setattr(terminal, "TICK_SECONDS", 0.001)
    stream = io.StringIO()
    show = Terminal(stream)

    with show.step("build a") as progress:
        show.waiting("waiting for process 7: the build of a")
        first = stream.getvalue()
        wait_for_ticks = ticks(show, monkeypatch)
        clock.now += 21
        wait_for_ticks()
        progress("building")
        clock.now += 21
        wait_for_ticks()

    assert first == "[build a] waiting for process 7: the build of a\n"
    assert stream.getvalue().splitlines()[1:] == [
        "[build a] after 21 s still waiting for process 7: the build of a",
        "[build a] still running after 42 s: building",
        "[build a] done in 42.0 s",
    ]


def test_what_waits_outside_a_step_says_so_on_a_terminal_too(screen: Screen) -> None:
    on(screen).waiting("waiting for process 7: the SIF a.sif")

    soon(lambda: screen.lines == ["waiting for process 7: the SIF a.sif"])


def test_a_reader_that_went_away_does_not_fail_the_step() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w", encoding="utf-8")

    came_through = list[str]()
    with Terminal(stream).step("a") as progress:
        progress("one")
        came_through.append("behind the progress")
    came_through.append("behind the step")

    assert came_through == ["behind the progress", "behind the step"]
    with pytest.raises(BrokenPipeError):  # so there was something that nobody could read
        stream.close()


class Torn(io.StringIO):
    """Lets others write between any two characters."""

    def write(self, text: str) -> int:
        for char in text:
            super().write(char)
            time.sleep(0)
        return len(text)


def test_lines_of_several_threads_stay_whole() -> None:
    stream = Torn()
    show = Terminal(stream, verbose=True)

    def work(name: str) -> None:
        with show.step(name) as progress:
            for number in range(30):
                progress(f"{name} {number}")
                show.line(f"line {name} {number}")

    side_by_side(*(lambda name=name: work(name) for name in "abcd"))

    expected = [
        f"{said} {name} {number}"
        for name in "abcd"
        for said in (f"[{name}]", "line")
        for number in range(30)
    ]
    found = [line for line in stream.getvalue().splitlines() if " done in " not in line]
    assert sorted(found) == sorted(expected)
