"""Holds a lock on a node, until its caller ends, or gives no sign of life for two minutes.

Runs on the node as root, with Python 3.9's standard library only. ``turn.py FILE HOLDER`` prints
``busy NAME`` if the holder ``NAME`` has the lock, and again for each other holder, then waits.
Once it has the lock, it prints ``held``. Each line on its standard input is a sign of life. The
lock is flock(2)'s, so that it ends with this process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time

SILENT_SECONDS = 120.0
LOOK_SECONDS = 0.2
LONGEST = 300
NOBODY = "another run"


def main(arguments: list[str]) -> int:
    """Take the lock, and hold it as long as the caller lives."""
    path, holder = arguments
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    caller = Caller()
    if not taken(file, caller):
        return 1
    os.ftruncate(file, 0)
    os.pwrite(file, printable(holder).encode(), 0)
    say("held")
    while caller.lives(SILENT_SECONDS):
        pass
    return 0


def taken(file: int, caller: Caller) -> bool:
    """Wait for the lock, and say who has it; return False if the caller ended meanwhile."""
    told = ""
    while not free(file):
        found = printable(os.pread(file, 4 * LONGEST, 0).decode(errors="replace")) or NOBODY
        if found != told:
            say(f"busy {found}")
            told = found
        if not caller.lives(LOOK_SECONDS):
            return False
    return True


def free(file: int) -> bool:
    """Take the lock if nobody has it; return whether that was so."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Caller:
    """Who started this, at the other end of the standard input."""

    def __init__(self) -> None:
        self._heard = time.monotonic()

    def lives(self, seconds: float) -> bool:
        """Listen for so long; return False at the end of the input, and after a long silence."""
        if select.select([0], [], [], seconds)[0]:
            self._heard = time.monotonic()
            return bool(os.read(0, 4096))
        return time.monotonic() - self._heard < SILENT_SECONDS


def printable(text: str) -> str:
    """Return the first line of ``text``, fit for a terminal."""
    line = text.partition("\n")[0][:LONGEST]
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def say(line: str) -> None:
    """Print a line for the caller."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
