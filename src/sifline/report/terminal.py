"""Progress while it runs: one moving line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

HEARTBEAT_SECONDS = 20
TICK_SECONDS = 0.2


class Terminal:
    """Says what is being done now: one moving line on a terminal, plain lines elsewhere.

    Where there is no terminal a line is printed for each new word of progress, and one every
    ``HEARTBEAT_SECONDS`` while there is none, so that a log never looks dead.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._lock = threading.Lock()
        self._title = ""
        self._text = ""
        self._started = 0.0
        self._spoken = 0.0
        self._done = threading.Event()

    def __call__(self, text: str) -> None:
        """Say what is being done now."""
        with self._lock:
            self._text = text
            if not self._live:
                self._print(f"[{self._title}] {text}" if self._title else text)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show ``title`` while the block runs, then how long it took."""
        with self._lock:
            self._title, self._text = title, ""
            self._started = self._spoken = time.monotonic()
            self._done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(self._done,), daemon=True)
        ticker.start()
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            self._done.set()
            ticker.join()
            with self._lock:
                seconds = time.monotonic() - self._started
                self._clear()
                self._print(f"[{title}] {outcome} in {seconds:.1f} s")
                self._title = ""

    def line(self, text: str) -> None:
        """Print a line that stays."""
        with self._lock:
            self._clear()
            self._print(text)

    def _tick(self, done: threading.Event) -> None:
        while not done.wait(TICK_SECONDS):
            with self._lock:
                seconds = time.monotonic() - self._started
                if self._live:
                    self._clear()
                    shown = f"[{self._title}] {seconds:4.0f} s  {self._text}"
                    self._stream.write(shown[: _width() - 1])
                    self._stream.flush()
                elif time.monotonic() - self._spoken > HEARTBEAT_SECONDS:
                    self._print(f"[{self._title}] still at it after {seconds:.0f} s: {self._text}")

    def _clear(self) -> None:
        if self._live:
            self._stream.write("\r\x1b[2K")

    def _print(self, text: str) -> None:
        self._spoken = time.monotonic()
        self._stream.write(text + "\n")
        self._stream.flush()


def _width() -> int:
    return shutil.get_terminal_size().columns
