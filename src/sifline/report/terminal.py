"""Progress while steps run: one row per step on a terminal, plain lines elsewhere."""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO

from sifline.model import Progress
from sifline.report import screen

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

HEARTBEAT_SECONDS = 20
COUNTING_SECONDS = 5
TICK_SECONDS = 0.2
SPINNERS = {True: "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", False: "|/-\\"}
# Control sequences (ECMA-48), as tools use them for colours and bars, and control characters.
RATE = re.compile(r"\d [kMG]?B/s")
OUTCOMES = {"done": "green", "failed": "red", "interrupted": "yellow"}
# Of what follows the first line of a text that was folded.
INDENT = "    "
# Nothing is folded for a narrower terminal.
NARROW = 20
MINUTE, HOUR = 60, 3600
CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Step:
    """A running step; calling it reports what the step is doing now."""

    def __init__(self, owner: Terminal, title: str) -> None:
        self.owner = owner
        self.title = title
        self.text = ""
        self.waits = False
        self.started = self.spoken = time.monotonic()

    def __call__(self, text: str) -> None:
        self.owner.say(self, text)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


_current: ContextVar[_Step | None] = ContextVar("sifline_step", default=None)


class Terminal:
    """Shows progress: a row per running step on a terminal, plain lines elsewhere.

    Without a terminal, each step that ends is a line, and a step that takes longer than
    ``HEARTBEAT_SECONDS`` gets one, so that a log never seems dead. Steps may run in several
    threads at once.

    :param quiet: show only lines that stay.
    :param verbose: also print all output of tools, and each new message of progress.
    :param wide: whether lines may be wider than the terminal.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        verbose: bool = False,
        wide: bool = False,
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet, self._verbose = quiet, verbose
        dumb = os.environ.get("TERM") in screen.DUMB
        self._folds = self._stream.isatty() and not wide
        self._terminal = self._stream.isatty() and not dumb and not quiet
        self._colour = screen.has_colours(self._stream, os.environ)
        self._lock = threading.RLock()
        self._steps: list[_Step] = []
        self._live: Live | None = None
        self._idle = threading.Event()
        self._asked = False
        self._expected: dict[str, float | None] = {}
        self._workers = 1
        self._done = self._failed = 0

    def expect(self, steps: Mapping[str, float | None], *, workers: int = 0) -> None:
        """Announce steps, so that the headline counts them and says how long they will take.

        :param steps: seconds that each took the last time, by title; None if unknown. Steps that
            were announced before are not counted twice.
        :param workers: how many of them run at once; 0 for as many as before.
        """
        with self._lock:
            self._expected |= steps
            self._workers = workers or self._workers

    def __call__(self, text: str) -> None:
        """Report what the caller's step is doing now."""
        with self._lock:
            step = self._step_of_caller()
            if step:
                self.say(step, text)
            elif not self._terminal:
                self.aside(text)

    def waiting(self, text: str) -> None:
        """Report that the caller's step waits for another run.

        Without rows that is a line at once: nothing else tells it from work that takes long.
        """
        with self._lock:
            step = self._step_of_caller()
            if not step:
                self.aside(text)
                return
            self.say(step, text, waits=True)
            if not self._terminal and not self._verbose:
                step.spoken = time.monotonic()
                self.aside(f"[{step.title}] {step.text}")

    def _step_of_caller(self) -> _Step | None:
        step = _current.get()
        if step not in self._steps:
            # Threads that a step started itself belong to no step.
            step = self._steps[0] if len(self._steps) == 1 else None
        return step

    def aside(self, text: str, *, whole: bool = False) -> None:
        """Print a line of progress.

        :param whole: do not fold it: it has a command to copy.
        """
        if not self._quiet:
            self.line(text, whole=whole)

    def output(self, text: str) -> None:
        """Print a line that a tool printed, with the step of the caller in front."""
        step = _current.get()
        self.line(f"[{step.title}] {text}" if step else text)

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Show ``title`` while the block runs, then how long it took.

        The value is a function that reports what is being done now, from any thread.
        """
        step = _Step(self, _one_line(title))
        self._open(step)
        token = _current.set(step)
        outcome = "failed"
        try:
            yield step
            outcome = "done"
        except KeyboardInterrupt:
            outcome = "interrupted"
            raise
        finally:
            _current.reset(token)
            self._close(step, outcome)

    def line(self, text: str, *, whole: bool = False) -> None:
        """Print a line that remains on the terminal; folded to its width, unless ``whole``."""
        with self._lock:
            self._print(text, whole=whole)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Draw nothing while the block asks the user: redrawing would erase the question."""
        with self._lock:
            self._asked = True
            self._restore()
        try:
            yield
        finally:
            with self._lock:
                self._asked = False

    def say(self, step: _Step, text: str, *, waits: bool = False) -> None:
        """Report what ``step`` is doing now.

        :param waits: whether it does nothing but wait for another run.
        """
        text = _one_line(text)
        with self._lock:
            new = text != step.text
            # Running figures would fill a log.
            counts = bool(RATE.search(text) and RATE.search(step.text))
            soon = time.monotonic() - step.spoken < COUNTING_SECONDS
            step.text, step.waits = text, waits
            if new and self._verbose and not self._terminal and not (counts and soon):
                step.spoken = time.monotonic()
                self._print(f"[{step.title}] {text}")

    def _open(self, step: _Step) -> None:
        with self._lock:
            self._steps.append(step)
            if len(self._steps) == 1:
                self._idle = threading.Event()
                ticker = threading.Thread(target=self._tick, args=(self._idle,), daemon=True)
                ticker.start()

    def _close(self, step: _Step, outcome: str) -> None:
        with self._lock:
            self._steps.remove(step)
            if step.title in self._expected:
                del self._expected[step.title]
                self._done += outcome == "done"
                self._failed += outcome != "done"
            if not self._quiet:
                self._print(f"[{step.title}] {outcome} in {step.seconds:.1f} s", outcome)
            if not self._steps:
                self._idle.set()
                self._restore()

    def _tick(self, idle: threading.Event) -> None:
        """Redraw the rows, or print heartbeat lines, until no step runs."""
        while not idle.wait(TICK_SECONDS):
            with self._lock:
                if idle.is_set():
                    return
                if not self._terminal:
                    if not self._quiet:
                        self._beat()
                elif not self._asked:
                    self._refresh()

    def _beat(self) -> None:
        for step in self._steps:
            if time.monotonic() - step.spoken > HEARTBEAT_SECONDS:
                step.spoken = time.monotonic()
                after = f"after {step.seconds:.0f} s"
                doing = f"still running {after}: {step.text}"
                waits = f"{after} still {step.text}"
                self._print(f"[{step.title}] {waits if step.waits else doing}")

    def _refresh(self) -> None:
        """Redraw the rows. The display starts here, so short steps need none."""
        with suppress(OSError):
            if self._live is None:
                self._live = self._start()
            self._live.console.size = screen.size(self._stream)
            self._live.refresh()

    def _start(self) -> Live:
        from rich.console import Console
        from rich.live import Live

        console = Console(
            file=self._stream, force_terminal=True, force_interactive=True, soft_wrap=True
        )
        live = Live(
            self,
            console=console,
            auto_refresh=False,  # rich's own thread would draw between our lines
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        atexit.register(self._restore)  # a thread with a step may have been left behind
        live.start()
        return live

    def _restore(self) -> None:
        """Restore the terminal: no rows, a visible cursor."""
        with self._lock:
            live, self._live = self._live, None
            if live:
                with suppress(OSError):
                    live.stop()
                atexit.unregister(self._restore)

    def __rich__(self) -> Group:
        """Return the current rows; rich calls this on every redraw."""
        from rich.console import Group
        from rich.text import Text

        width, _ = screen.size(self._stream)
        wheel = SPINNERS[(self._stream.encoding or "").lower().startswith("utf")]
        turn = wheel[int(time.monotonic() / TICK_SECONDS) % len(wheel)]
        shown = [
            f"{turn} [{step.title}] {step.seconds:.0f} s  {step.text}" for step in self._steps
        ]
        rows = [Text(row, no_wrap=True) for row in [*self._headline(), *shown]]
        for row in rows:
            row.truncate(max(1, width - 1), overflow="ellipsis")
        return Group(*rows)

    def _headline(self) -> list[str]:
        if not self._expected:
            return []
        total = self._done + self._failed + len(self._expected)
        failed = f", {self._failed} failed" if self._failed else ""
        began = {step.title: step.seconds for step in self._steps}
        rest = [
            None if took is None else max(0.0, took - began.get(title, 0.0))
            for title, took in self._expected.items()
        ]
        left = time_left(rest, self._workers)
        if total == 1 and not left:  # its row says as much
            return []
        about = f", about {duration(left)} left" if left else ""
        return [f"{self._done} of {total} done{failed}{about}"]

    def _folded(self, text: str) -> str:
        columns = screen.size(self._stream)[0]
        if columns < NARROW:
            return text
        return "\n".join(screen.folded_to(line, columns, INDENT) for line in text.split("\n"))

    def _print(self, text: str, outcome: str = "", *, whole: bool = False) -> None:
        """Print a line; its ``outcome`` has a colour where the terminal has some."""
        text = CONTROLS.sub("", text)
        if self._folds and not whole:
            text = self._folded(text)
        if outcome and self._colour:
            text = screen.emphasised(text, outcome, OUTCOMES[outcome])
        # A closed terminal must not make a build fail.
        with suppress(OSError):
            if self._live:
                from rich.text import Text

                self._live.console.print(Text.from_ansi(text))
            else:
                self._stream.write(text + "\n")
                self._stream.flush()


def _one_line(text: str) -> str:
    return " ".join(CONTROLS.sub("", text).split())


def time_left(rest: Sequence[float | None], workers: int) -> int:
    """Return how many seconds a run still takes; 0 if unknown.

    :param rest: how long each unfinished step will still take; None if unknown.
    """
    known = [seconds for seconds in rest if seconds is not None]
    if not known or len(known) < len(rest):
        return 0
    return round(max(*known, sum(known) / max(1, workers), 0.0))


def duration(seconds: int) -> str:
    """Return a duration for people, such as ``40 s``, ``3 min`` or ``1 h 20 min``."""
    if seconds < MINUTE:
        return f"{seconds} s"
    minutes = round(seconds / MINUTE)
    hours, minutes = divmod(minutes, MINUTE)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
