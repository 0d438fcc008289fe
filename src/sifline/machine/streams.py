"""Reads the output of a process line by line, masks secrets, and writes the log."""

from __future__ import annotations

import contextvars
import shlex
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from sifline.errors import StepFailed

HIDDEN = "***"
TIME = "%Y-%m-%dT%H:%M:%SZ"

Argv = Sequence[str]
OnLine = Callable[[str], None]


def masked(text: str, hidden: Sequence[str]) -> str:
    """Return ``text`` with ``***`` in place of the secrets ``hidden``."""
    for secret in hidden:
        text = text.replace(secret, HIDDEN)
    return text


class Log:
    """The log file of a command, and each line of its output; without a path there is no file.

    Each line begins with its time, in UTC, as ISO 8601 writes it.
    """

    def __init__(self, path: Path | None, argv: Argv) -> None:
        self._file: IO[str] | None = None
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("a", encoding="utf-8", errors="backslashreplace")
                self._write(f"+ {shlex.join(argv)}")
            except OSError as error:
                raise no_log(path, error) from None

    def __enter__(self) -> Callable[[str], None]:
        return self._write

    def __exit__(self, *_: object) -> None:
        if self._file:
            with suppress(OSError):  # reported already, by the line that could not be written
                self._file.close()

    def _write(self, line: str) -> None:
        if self._file:
            self._file.write(f"{time.strftime(TIME, time.gmtime())} {line}\n")
            self._file.flush()


class Streams:
    """Reads both streams of a process at once, so that neither can block the other.

    :param sinks: get each line as it comes.
    :param hide: texts to mask in everything that is read.
    :param unshown: texts to mask except in the returned standard output.
    """

    def __init__(
        self,
        out: IO[str],
        err: IO[str],
        sinks: Sequence[OnLine | None],
        *,
        hide: Sequence[str],
        unshown: Sequence[str],
    ) -> None:
        self._lock = threading.Lock()
        self._sinks = [sink for sink in sinks if sink]
        self._lines: dict[str, deque[str]] = {"out": deque(), "err": deque()}
        self._hide = sorted(hide, key=len, reverse=True)
        self._unshown = unshown
        self.fault: OSError | None = None
        self._threads = [
            (self._reader(name, stream), stream) for name, stream in (("out", out), ("err", err))
        ]
        for thread, _ in self._threads:
            thread.start()

    def _reader(self, name: str, stream: IO[str]) -> threading.Thread:
        # In the caller's context: messages of on_line belong to the caller's step.
        context = contextvars.copy_context()
        return threading.Thread(target=context.run, args=(self._read, name, stream), daemon=True)

    def _read(self, name: str, stream: IO[str]) -> None:
        for line in stream:
            kept = masked(line, self._hide)
            shown = masked(kept, self._unshown)
            with self._lock:
                self._lines[name].append(kept if name == "out" else shown)
                try:
                    for sink in self._sinks:
                        sink(shown.rstrip("\n"))
                except OSError as error:
                    # Continue reading: a command whose output is not read would never end.
                    self.fault, self._sinks = error, []

    def join(self) -> None:
        """Wait until all is read; the process has ended."""
        for thread, stream in self._threads:
            # A daemon started by the command may keep the pipe open, so the wait is limited.
            thread.join(timeout=5)
            if not thread.is_alive():
                stream.close()

    def text(self, name: str) -> str:
        """Return the text of the stream ``out`` or ``err``."""
        with self._lock:
            return "".join(self._lines[name])


def no_log(path: Path | None, error: OSError) -> StepFailed:
    """Return the error for a log that cannot be written."""
    return StepFailed(f"the log {path} cannot be written: {error.strerror}; make room, or fix it")
