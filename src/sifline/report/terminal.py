"""Progress while steps run: one row per step on a terminal, plain lines elsewhere."""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO

from sifline.model import Progress

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

HEARTBEAT_SECONDS = 20
COUNTING_SECONDS = 5
TICK_SECONDS = 0.2
SPINNERS = {True: "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", False: "|/-\\"}
# Control sequences (ECMA-48), as tools use them for colours and bars, and control characters.
RATE = re.compile(r"\d [kMG]?B/s")
CONTROLS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class _Step:
    """A running step; calling it reports what the step is doing now."""

    def __init__(self, owner: Terminal, title: str) -> None:
        self.owner = owner
        self.title = title
        self.text = ""
        self.started = self.spoken = time.monotonic()

    def __call__(self, text: str) -> None:
        self.owner.say(self, text)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


_current: ContextVar[_Step | None] = ContextVar("sifline_step", default=None)


class Terminal:
    """Shows progress: a row per running step on a terminal, plain lines elsewhere.

    Without a terminal, each new message is a line, and a step without messages for
    ``HEARTBEAT_SECONDS`` gets a line, so that a log never seems dead. Steps may run in several
    threads at once.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty() and os.environ.get("TERM") not in (
            "dumb",
            "unknown",
        )
        self._lock = threading.RLock()
        self._steps: list[_Step] = []
        self._live: Live | None = None
        self._idle = threading.Event()
        self._asked = False
        self._total = self._done = self._failed = 0

    def total(self, steps: int) -> None:
        """Set the number of steps to come, for the headline."""
        with self._lock:
            self._total, self._done, self._failed = steps, 0, 0

    def __call__(self, text: str) -> None:
        """Report what the caller's step is doing now."""
        step = _current.get()
        with self._lock:
            if step not in self._steps:
                # Threads that a step started itself belong to no step.
                step = self._steps[0] if len(self._steps) == 1 else None
            if step:
                self.say(step, text)
            elif not self._terminal:
                self._print(text)

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

    def line(self, text: str) -> None:
        """Print a line that remains on the terminal."""
        with self._lock:
            self._print(text)

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

    def say(self, step: _Step, text: str) -> None:
        """Report what ``step`` is doing now."""
        text = _one_line(text)
        with self._lock:
            new = text != step.text
            # Running figures would fill a log.
            counts = bool(RATE.search(text) and RATE.search(step.text))
            soon = time.monotonic() - step.spoken < COUNTING_SECONDS
            step.text = text
            if new and not self._terminal and not (counts and soon):
                step.spoken = time.monotonic()
                self._print(f"[{step.title}] {text}")

    def _open(self, step: _Step) -> None:
        with self._lock:
            if self._done + self._failed >= self._total:
                self._total = 0
            self._steps.append(step)
            if len(self._steps) == 1:
                self._idle = threading.Event()
                ticker = threading.Thread(target=self._tick, args=(self._idle,), daemon=True)
                ticker.start()

    def _close(self, step: _Step, outcome: str) -> None:
        with self._lock:
            self._steps.remove(step)
            self._done += outcome == "done"
            self._failed += outcome != "done"
            self._print(f"[{step.title}] {outcome} in {step.seconds:.1f} s")
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
                    self._beat()
                elif not self._asked:
                    self._refresh()

    def _beat(self) -> None:
        for step in self._steps:
            if time.monotonic() - step.spoken > HEARTBEAT_SECONDS:
                step.spoken = time.monotonic()
                doing = f"still running after {step.seconds:.0f} s: {step.text}"
                self._print(f"[{step.title}] {doing}")

    def _refresh(self) -> None:
        """Redraw the rows. The display starts here, so short steps need none."""
        with suppress(OSError):
            if self._live is None:
                self._live = self._start()
            self._live.console.size = _size(self._stream)
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

        width, _ = _size(self._stream)
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
        if not self._total:
            return []
        failed = f", {self._failed} failed" if self._failed else ""
        return [f"{self._done} of {self._total} done{failed}"]

    def _print(self, text: str) -> None:
        text = CONTROLS.sub("", text)
        # A closed terminal must not make a build fail.
        with suppress(OSError):
            if self._live:
                from rich.text import Text

                self._live.console.print(Text(text))
            else:
                self._stream.write(text + "\n")
                self._stream.flush()


def _one_line(text: str) -> str:
    return " ".join(CONTROLS.sub("", text).split())


def _size(stream: TextIO) -> tuple[int, int]:
    """Return columns and rows of the stream's terminal; a default if they are unknown."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except OSError:
        columns, rows = 0, 0
    return columns or 80, rows or 24
