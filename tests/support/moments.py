"""A run that is ended at a moment which it tells itself, not after a time.

The run is a process of its own, whose runner and progress report to a ``Teller``. At the
moment that a test asks for, it stands still until the test has sent its signal.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass

HELD = "held: "
PATIENCE_SECONDS = 120


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The ``times``-th line with ``words`` among the commands (``+ argv``) and the progress."""

    words: str
    times: int = 1

    def __str__(self) -> str:
        return f"{self.words} {self.times}"


class Teller:
    """Stands still at a moment, in the thread that comes to it, until standard input ends."""

    def __init__(self, words: str, times: str) -> None:
        self._words = words
        self._left = int(times)
        self._lock = threading.Lock()

    def __call__(self, line: str) -> None:
        """Take a line of the run's progress, or a command that it is about to start."""
        if self._words not in line:
            return
        with self._lock:
            self._left -= 1
            held = self._left == 0
        if held:
            sys.stdout.write(f"{HELD}{line}\n")
            sys.stdout.flush()
            sys.stdin.read()


def ended_at(
    moment: Moment, signal_: signal.Signals, program: str, arguments: Sequence[object]
) -> int:
    """Run a Python program, send it the signal while it stands at ``moment``: its status.

    The program makes its ``Teller`` of its first two arguments; ``arguments`` come after them.
    """
    words = [moment.words, moment.times, *arguments]
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        told = process.stdout.readline()
        process.send_signal(signal_)
        try:
            # Standard input ends here: other threads than the interrupted one go on.
            _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    assert told.startswith(HELD), f"it ended before {moment}: {errors[-2000:]}"
    return process.returncode
