"""What a terminal shows of invoke, which is started on one; an emulator reads its bytes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyte

from tests.support.waiting import PATIENCE, until

ROWS = 60
# What stands for the path of the project.
CHECKOUT = b"/tmp/checkout-"


class OnScreen:
    """Invoke, running on a terminal; ``lines`` is what a person sees at the moment."""

    def __init__(
        self, process: subprocess.Popen[bytes], terminal: int, columns: int, project: Path
    ) -> None:
        self._process, self._terminal = process, terminal
        self._path = str(project).encode()
        self._screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        # The end of a terminal is an error on Linux.
        kept = b""
        with contextlib.suppress(OSError):
            while found := os.read(self._terminal, 1 << 16):
                # Of the same length: what is shown would be wrapped at other places.
                read = (kept + found).replace(self._path, CHECKOUT.ljust(len(self._path), b"x"))
                ends = (self._path[:length] for length in range(len(self._path) - 1, 0, -1))
                kept = next((end for end in ends if read.endswith(end)), b"")
                with self._lock:
                    self._stream.feed(read.removesuffix(kept))
        self._stream.feed(kept)

    @property
    def lines(self) -> list[str]:
        with self._lock:
            shown = [line.rstrip() for line in self._screen.display]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def shows(self, true: Callable[[list[str]], object]) -> list[str]:
        """Return the lines as soon as it is ``true`` of them."""
        found = list[list[str]]()

        def look() -> bool:
            found[:] = [self.lines]
            return bool(true(found[0]))

        until(look, f"what is to be shown; there is:\n{chr(10).join(self.lines)}")
        return found[0]

    def end(self) -> int:
        """Wait for the end; return the exit status."""
        status = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status


@contextlib.contextmanager
def on_screen(
    project: Path, columns: int, *words: str, environ: Mapping[str, str] | None = None
) -> Iterator[OnScreen]:
    """Start ``invoke`` with ``words`` on a terminal that is ``columns`` wide."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", *words],
        cwd=project,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **(environ or {})},
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield OnScreen(process, ours, columns, project)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
