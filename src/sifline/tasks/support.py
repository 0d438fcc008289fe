"""Shared by all tasks: the pipeline, and the one place where errors become one line."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from sifline.errors import SiflineError, UsageError, did_you_mean

if TYPE_CHECKING:
    from sifline.model import Workspace
    from sifline.pipeline import Pipeline
    from sifline.report.terminal import Terminal

T = TypeVar("T", str, str | Path)

INTERRUPTED = 130
# The cluster that is meant where no flag names one, and where this does not either.
CLUSTER_VARIABLE, VIRTUAL = "SIFLINE_CLUSTER", "virtual"
MAX_DIGITS = 6
# What moves the cursor, changes colours or turns the direction of what is read.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of a task: its workspace, and what Invoke's own flags say.

    ``over_all`` says that it is about every image, so that a broken one stands for itself.
    """

    workspace: Workspace
    dry: bool
    echo: bool
    over_all: bool = False

    @classmethod
    def of(cls, workspace: Workspace, c: Any) -> Run:
        """Read Invoke's flags from its context ``c``."""
        return cls(workspace=workspace, dry=bool(c.config.run.dry), echo=bool(c.config.run.echo))

    @property
    def debug(self) -> bool:
        """Whether ``invoke --debug`` was given."""
        import logging

        return logging.getLogger("invoke").isEnabledFor(logging.DEBUG)

    @property
    def command(self) -> list[str]:
        """What stands after ``--``, word by word: Invoke's own copy has lost the quotes."""
        return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []

    @cached_property
    def terminal(self) -> Terminal:
        """Where progress is shown."""
        from sifline.report.terminal import Terminal

        return Terminal()

    def pipeline(
        self, *, build_arg: Sequence[str] = (), jobs: int = 0, **options: Any
    ) -> Pipeline:
        """Return the pipeline of this checkout, which goes by these flags.

        :raises UsageError: naming the flag that cannot be used.
        """
        from sifline.config import docker_client
        from sifline.machine.context import Context
        from sifline.machine.process import ProcessRunner
        from sifline.pipeline import Pipeline
        from sifline.pipeline.options import Options

        show = self.terminal
        runner = ProcessRunner(
            echo=show.line if self.echo else None,
            without=docker_client.WITHOUT,
            hide=docker_client.hidden(os.environ),
        )
        context = Context(workspace=self.workspace, runner=runner, progress=show)
        if jobs < 0:
            raise UsageError("--jobs: takes a number from 1 on; 0 means one step per core")
        chosen = Options(build_args=tuple(build_arg), jobs=jobs, **options)
        return Pipeline(context, show, chosen)

    def become_password(self) -> str:
        """Ask for the password that sudo wants; without a terminal it is a line of the input.

        :raises UsageError: where there is none.
        """
        from getpass import getpass

        password = ""
        if sys.stdin.isatty():
            # Ctrl-D is no password.
            with self.terminal.asking(), suppress(EOFError):
                password = getpass("password of sudo on the nodes: ")
        else:
            password = sys.stdin.readline().rstrip("\n")
        if not password:
            raise UsageError("--ask-become-pass: no password was given")
        return password

    def agreed(self, verb: str, things: Sequence[str]) -> bool:
        """Say what will go, and ask on a terminal whether it may.

        :raises UsageError: where nobody can be asked.
        """
        # Where the question is: standard output may be a file.
        sys.stderr.write(visible("".join(f"would remove {thing}\n" for thing in things)))
        if not sys.stdin.isatty():
            raise UsageError(
                f"{verb}: nothing was removed: without a terminal nobody can be asked; say --yes"
            )
        with self.terminal.asking():
            sys.stderr.write("remove all that? [y/N] ")
            sys.stderr.flush()
            agreed = sys.stdin.readline().strip().lower() in {"y", "yes"}
        if not agreed:
            self.print("nothing was removed")
        return agreed

    def sound(
        self, pipeline: Pipeline, images: Sequence[T]
    ) -> tuple[list[T], dict[str, SiflineError]]:
        """Tell whole images from broken ones; the error of one that is named is raised later."""
        if not self.over_all:
            return list(images), {}
        broken = pipeline.planner.sound([name for name in images if isinstance(name, str)])[1]
        return [item for item in images if item not in broken], broken

    def print(self, text: str) -> None:
        """Print a result to standard output; progress goes to standard error."""
        # Names of files may be no text at all.
        encoding = sys.stdout.encoding or "utf-8"
        shown = visible(text).rstrip("\n").encode(encoding, "backslashreplace").decode(encoding)
        sys.stdout.write(shown + "\n")

    def write(self, path: Path, text: str) -> None:
        """Write a result to a file, whole or not at all; a pipe or device as it comes."""
        from sifline.machine import records

        content = f"{text.rstrip()}\n".encode()
        output(path)
        if self.dry:
            self.print(f"would write {path}")
            return
        try:
            if path.exists() and not path.is_file():
                path.write_bytes(content)
            else:
                records.write_bytes(path, content)
        except OSError as error:
            raise UsageError(f"--output {path}: cannot be written: {error.strerror}") from None
        self.print(f"written to {path}")

    @staticmethod
    def end(status: int) -> None:
        """Pass on the exit status of a program that had the terminal.

        One that a signal ended has a negative number; shells say 128 and that of the signal.
        """
        from invoke.exceptions import Exit

        if status:
            raise Exit(code=status if status > 0 else 128 - status)


def guarded(body: Callable[[], None], *, debug: bool) -> None:
    """Call ``body``; end the program with one line and an exit code where it fails."""
    from invoke.exceptions import Exit

    # Commands run in groups of their own: they have to be ended, not left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminate)
    try:
        body()
    except (SiflineError, KeyboardInterrupt, OSError) as error:
        if debug and not isinstance(error, KeyboardInterrupt):
            raise
        raise Exit(*_told(error)) from None


def _told(error: SiflineError | KeyboardInterrupt | OSError) -> tuple[str, int]:
    """Return the text for the user, and the exit code."""
    if isinstance(error, SiflineError):
        return complain(error), error.exit_code
    if isinstance(error, BrokenPipeError):
        return "", 0
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror}; fix that and run it again", 1
    # An interruption while another one was handled: the cleaning was cut short.
    if isinstance(error.__context__, KeyboardInterrupt):
        return (
            "\nerror: interrupted before everything was cleaned up; run the same command again: it"
            " removes what is left, and goes on from here",
            INTERRUPTED,
        )
    return (
        "\nerror: interrupted; nothing half-made is left, the same command goes on from here",
        INTERRUPTED,
    )


def complain(error: SiflineError) -> str:
    """Return what the user reads: the details, then the one line that counts."""
    details = "".join(f"  | {line}\n" for line in error.details.splitlines())
    return visible(f"{details}error: {error.message}")


def visible(text: str) -> str:
    """Return ``text`` with its control characters written out: labels and names are others'."""
    return _UNSEEN.sub(lambda match: ascii(match.group())[1:-1], text)


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def cluster_of(given: str) -> str:
    """Return the cluster that a task is about: the flag's, the environment's, or the usual one."""
    return given or os.environ.get(CLUSTER_VARIABLE) or VIRTUAL


def output(path: Path) -> Path:
    """Return ``path`` where something can be written there.

    :raises UsageError: where its folder is missing.
    """
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--output {path}: there is no folder {path.parent}; make it first")
    return path


def one_of(flag: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` where it is allowed.

    :raises UsageError: naming the flag and what it takes.
    """
    if value not in allowed:
        raise UsageError(
            f"--{flag} {value!r}: takes {' or '.join(allowed)}.{did_you_mean(value, allowed)}"
        )
    return value


def seconds(flag: str, text: str) -> float:
    """Read an age such as ``12h`` or ``7d``; no text is no age.

    :raises UsageError: naming the flag and what it takes.
    """
    if not text:
        return 0
    number, unit = text[:-1], text[-1]
    if unit not in UNITS or not number.isdecimal() or len(number) > MAX_DIGITS:
        raise UsageError(f"--{flag} {text!r}: takes a number and {', '.join(UNITS)}, such as 7d")
    return int(number) * UNITS[unit]
