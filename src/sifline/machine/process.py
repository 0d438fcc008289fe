"""Starts processes from argument lists and returns their results; nothing else does.

It does not know what a command means. Engines build the argument lists and read the results; tests
give them a recording runner instead of this one.

Longer than 300 lines, because nothing else may use ``subprocess``: starting, waiting for and
ending a process, from any thread, stay together.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sifline.errors import MissingError, StepFailed
from sifline.machine.interrupts import undisturbed
from sifline.machine.streams import Argv, Log, OnLine, Streams, masked, no_log

TAIL_LINES = 20
GRACE_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished process. ``stdout`` and ``stderr`` are text; seconds are wall clock.

    ``hidden`` texts may occur in ``stdout``, which programs read, but are never printed.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    seconds: float
    hidden: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """Return whether it ended with status 0."""
        return self.returncode == 0

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of its output, standard error after standard output."""
        printed = [*self.stdout.splitlines(), *self.stderr.splitlines()]
        return masked("\n".join(printed[-lines:]).strip("\n"), self.hidden)

    @property
    def last(self) -> str:
        """The last line of its output that is not empty; its exit status without any."""
        lines = (line.strip() for line in reversed(self.tail().splitlines()))
        return next(filter(None, lines), f"status {self.returncode}")


class CommandFailed(StepFailed):
    """A command ended with a status other than 0, or did not end in time."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message, details=result.tail())
        self.result = result


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a thread other than the main one; Python raises KeyboardInterrupt only there."""


class Runner(Protocol):
    """Starts processes; tests replace it."""

    def run(
        self,
        argv: Argv,
        *,
        check: bool = True,
        input: str | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        log: Path | None = None,
        on_line: OnLine | None = None,
        hide: Sequence[str] = (),
        without: Collection[str] = (),
    ) -> Result:
        """Run ``argv`` to its end and return the result.

        :param without: names of variables that the process does not inherit.
        """

    def beside(self, argv: Argv, *, on_line: OnLine) -> AbstractContextManager[Beside]:
        """Run ``argv`` while the block runs, and end it afterwards."""

    def attach(self, argv: Argv, *, env: Mapping[str, str] | None = None) -> int:
        """Run ``argv`` on the user's own terminal; return its exit status."""

    def which(self, tool: str) -> str | None:
        """Return the path of ``tool`` on the search path, or None."""

    def stop(self) -> None:
        """End all running processes, whichever thread started them."""

    def check(self) -> None:
        """Raise ``Interrupted`` if another thread called ``stop``."""


class Beside(Protocol):
    """A process that runs while this one does other things."""

    def write(self, text: str) -> bool:
        """Write to its standard input; return whether it still reads."""

    @property
    def ended(self) -> bool:
        """Return whether it has ended."""


class ProcessRunner:
    """Runs real processes; with ``echo`` it first prints each command in shell syntax.

    ``output`` gets each line that goes to a log.

    No process gets the variables in ``without``. Texts in ``hide`` are masked in logs, printed
    lines and errors; the standard output in a result, which may be data, is unchanged.
    """

    def __init__(
        self,
        echo: OnLine | None = None,
        *,
        output: OnLine | None = None,
        without: Collection[str] = (),
        hide: Sequence[str] = (),
    ) -> None:
        self._echo, self._output, self._without = echo, output, without
        self._hide = tuple(sorted(hide, key=len, reverse=True))
        self._running = _Running()

    def which(self, tool: str) -> str | None:
        """Return the path of ``tool`` on the search path, or None."""
        return shutil.which(tool)

    def attach(self, argv: Argv, *, env: Mapping[str, str] | None = None) -> int:
        """Run ``argv`` on the user's own terminal; return its exit status."""
        self._say(argv)
        with ExitStack() as starting:
            starting.enter_context(undisturbed())
            with _starting(argv):
                process = subprocess.Popen(list(argv), env=_environment(env, self._without))
            return self._attached(process, starting)

    def _attached(self, process: subprocess.Popen[bytes], starting: ExitStack) -> int:
        try:
            starting.close()
            return process.wait()
        except BaseException:
            # Killed at once, it would leave what it started elsewhere, such as a container.
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            process.kill()
            process.wait()
            raise

    @contextmanager
    def beside(self, argv: Argv, *, on_line: OnLine) -> Iterator[Beside]:
        """Run ``argv`` while the block runs; at its end close the process's input, and end it.

        ``on_line`` gets each line of both streams as it is printed. If this process is killed, the
        end of its input tells the other one.

        :raises MissingError: if the program does not exist.
        """
        self._running.check()
        self._say(argv)
        with ExitStack() as starting:
            starting.enter_context(undisturbed())
            process = _started(argv, None, _environment(None, self._without), feed=True)
            assert process.stdout is not None
            assert process.stderr is not None
            streams = Streams(
                process.stdout, process.stderr, [on_line], hide=(), unshown=self._hide
            )
        try:
            with self._running.holding(process):
                yield _Beside(process)
        finally:
            with suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
            _end(process)
            streams.join()

    def stop(self) -> None:
        """End all running processes and interrupt the work of the other threads.

        Each other thread gets ``Interrupted`` once: from its current command or its next one. Its
        clean-up commands after that run normally, as after a Ctrl-C.
        """
        self._running.stop()

    def check(self) -> None:
        """Raise ``Interrupted`` if another thread called ``stop``: for waits without a process.

        :raises Interrupted: once for each ``stop``.
        """
        self._running.check()

    def run(
        self,
        argv: Argv,
        *,
        check: bool = True,
        input: str | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        log: Path | None = None,
        on_line: OnLine | None = None,
        hide: Sequence[str] = (),
        without: Collection[str] = (),
    ) -> Result:
        """Run ``argv`` to its end and return the result.

        ``on_line`` gets each line of both streams as it is printed. ``log`` gets the command and
        all lines. ``env`` is added to this process's environment. Texts in ``hide`` are masked
        everywhere.

        :raises CommandFailed: with ``check``, for a status other than 0; always when
            ``timeout`` seconds pass, after the process group was ended.
        :raises MissingError: if the program does not exist.
        :raises StepFailed: if the log cannot be written.
        :raises Interrupted: if another thread called ``stop``.
        """
        self._running.check()
        self._say(argv)
        started = time.monotonic()
        with Log(log, argv) as sink, ExitStack() as starting:
            given = _environment(env, {*self._without, *without})
            starting.enter_context(undisturbed())
            process = _started(argv, cwd, given, feed=input is not None)
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                streams = Streams(
                    *(process.stdout, process.stderr),
                    [sink, on_line, self._output if log else None],
                    hide=hide,
                    unshown=self._hide,
                )
            except BaseException:  # no more threads
                _end(process)
                raise
            returncode = self._wait(process, streams, input, timeout, starting)
        if streams.fault:
            raise no_log(log, streams.fault)
        result = Result(
            argv=tuple(argv),
            returncode=returncode if returncode is not None else -signal.SIGKILL,
            stdout=streams.text("out"),
            stderr=streams.text("err"),
            seconds=time.monotonic() - started,
            hidden=self._hide,
        )
        if returncode is None:
            raise CommandFailed(f"{argv[0]} did not end within {timeout:g} s", result)
        if check and not result.ok:
            raise CommandFailed(f"{argv[0]} ended with status {returncode}", result)
        return result

    def _wait(
        self,
        process: subprocess.Popen[str],
        streams: Streams,
        input: str | None,
        timeout: float | None,
        starting: ExitStack,
    ) -> int | None:
        """Write standard input and wait; return the status, None on timeout.

        The process has ended when this returns.
        """
        try:
            starting.close()  # from here on an interruption ends the process
            with self._running.holding(process):
                if input is not None and process.stdin:
                    with suppress(BrokenPipeError):
                        process.stdin.write(input)
                        process.stdin.close()
                return process.wait(timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            return None
        except BaseException:
            _end(process)
            raise
        finally:
            streams.join()

    def _say(self, argv: Argv) -> None:
        if self._echo:
            self._echo(f"+ {shlex.join(argv)}")


class _Beside:
    """Writes to a process that runs beside this one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def write(self, text: str) -> bool:
        """Write to its standard input; return whether it still reads."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(text)
            self._process.stdin.flush()
        except (OSError, ValueError):  # it ended, or the block did
            return False
        return not self.ended

    @property
    def ended(self) -> bool:
        """Return whether it has ended."""
        return self._process.poll() is not None


class _Running:
    """The processes of all threads, so that one thread can end those of the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()
        self._stops = 0
        self._heard = threading.local()

    def stop(self) -> None:
        with self._lock:
            self._stops += 1
            self._heard.stops = self._stops
            processes = tuple(self._processes)
        _end(*processes)

    def check(self) -> None:
        """Raise ``Interrupted`` if this thread has not yet noticed a ``stop``.

        :raises Interrupted: once for each stop.
        """
        if getattr(self._heard, "stops", 0) < self._stops:
            self._heard.stops = self._stops
            raise Interrupted

    @contextmanager
    def holding(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Register ``process`` during the block, so that ``stop`` in another thread ends it."""
        with self._lock:
            self.check()
            self._processes.add(process)
        try:
            yield
        finally:
            with self._lock:
                self._processes.discard(process)
        self.check()


def _started(
    argv: Argv, cwd: Path | None, env: Mapping[str, str] | None, *, feed: bool
) -> subprocess.Popen[str]:
    with _starting(argv):
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            text=True,
            # Engines and nodes use UTF-8, whatever the caller's locale is.
            encoding="utf-8",
            errors="replace",
            # A process group of its own: mmdebstrap hangs up its whole group when it fails, and
            # processes that a command started must end with it.
            start_new_session=True,
        )


@contextmanager
def _starting(argv: Argv) -> Iterator[None]:
    """Convert errors of starting a program into ours."""
    try:
        yield
    except FileNotFoundError:
        raise _missing(argv) from None
    except PermissionError as error:
        raise MissingError(f"cannot run {argv[0]}: {error.strerror}") from None
    except (OSError, ValueError) as error:  # too long, or a NUL in it
        raise StepFailed(
            f"cannot run {argv[0]}: {error}; look for a very long or odd value of a setting"
        ) from None


def _end(*processes: subprocess.Popen[str]) -> None:
    """End the commands and all they started: SIGTERM, time to clean up, then SIGKILL."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    last = time.monotonic() + GRACE_SECONDS
    try:
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0, last - time.monotonic()))
    finally:  # a second interruption ends the waiting
        for process in processes:
            _signal(process, signal.SIGKILL)
    for process in processes:
        process.wait()


def _signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _environment(
    extra: Mapping[str, str] | None, without: Collection[str]
) -> dict[str, str] | None:
    """Return the environment of a process; None to inherit all of ours."""
    if not extra and not os.environ.keys() & set(without):
        return None
    own = {name: value for name, value in os.environ.items() if name not in without}
    return {**own, **(extra or {})}


def _missing(argv: Argv) -> MissingError:
    return MissingError(f"{argv[0]} is not installed; run scripts/bootstrap, or invoke doctor")
