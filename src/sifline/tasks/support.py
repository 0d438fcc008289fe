"""What all tasks share: the pipeline, and the one place that turns errors into one line."""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap
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
# As a shell reports a program that SIGPIPE ended.
READER_GONE = 128 + signal.SIGPIPE
PIECE = 4096
# Where Invoke's configuration holds our own flags.
SECTION = "sifline"
MAX_DIGITS = 6
# Characters that move the cursor, change colours or the direction of text.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of a task: its workspace, and the values of Invoke's own flags.

    ``over_all`` means that the task acts on every image, so broken ones do not stop the others.
    """

    workspace: Workspace
    dry: bool
    echo: bool
    over_all: bool = False
    quiet: bool = False
    verbose: bool = False
    wide: bool = False

    @classmethod
    def of(cls, workspace: Workspace, c: Any) -> Run:
        """Read Invoke's flags, and ours that every task takes, from its context ``c``."""
        own = c.config.get(SECTION, {})
        return cls(
            workspace=workspace,
            dry=bool(c.config.run.dry),
            echo=bool(c.config.run.echo),
            quiet=bool(own.get("quiet")),
            verbose=bool(own.get("verbose")),
            wide=bool(own.get("wide")),
        )

    def draw(self) -> None:
        """Draw tables as wide as the terminal, if there is one, and in its colours.

        :raises UsageError: where the flags contradict each other.
        """
        if self.quiet and self.verbose:
            raise UsageError("--quiet, or --verbose; not both")
        if sys.stdout.isatty():
            from sifline.report import screen

            screen.use(screen.Screen.of(sys.stdout, os.environ, wide=self.wide))

    @property
    def debug(self) -> bool:
        """Return whether ``invoke --debug`` was given."""
        import logging

        return logging.getLogger("invoke").isEnabledFor(logging.DEBUG)

    @property
    def command(self) -> list[str]:
        """Return the words after ``--``; Invoke's own copy has lost the quotes."""
        return sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []

    @cached_property
    def terminal(self) -> Terminal:
        """Return the progress display."""
        from sifline.report.terminal import Terminal

        return Terminal(quiet=self.quiet, verbose=self.verbose, wide=self.wide)

    def pipeline(
        self, *, build_arg: Sequence[str] = (), jobs: int = 0, **options: Any
    ) -> Pipeline:
        """Return the pipeline of this checkout with the given flags.

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
            output=show.output if self.verbose else None,
            without=docker_client.WITHOUT,
            hide=docker_client.hidden(os.environ),
        )
        context = Context(
            workspace=self.workspace, runner=runner, progress=show, waiting=show.waiting
        )
        if jobs < 0:
            raise UsageError("--jobs: takes a number from 0 on; 0 means one step per core")
        chosen = Options(build_args=tuple(build_arg), jobs=jobs, **options)
        return Pipeline(context, show, chosen)

    def become_password(self) -> str:
        """Ask for the password of sudo on the nodes; without a terminal read a line of the input.

        :raises UsageError: if none was given.
        """
        from getpass import getpass

        password = ""
        if sys.stdin.isatty():
            # Ctrl-D means that no password was given.
            with self.terminal.asking(), suppress(EOFError):
                password = getpass("password of sudo on the nodes: ")
        else:
            password = sys.stdin.readline().rstrip("\n")
        if not password:
            raise UsageError("--ask-become-pass: no password was given")
        return password

    def agreed(self, verb: str, things: Sequence[str]) -> bool:
        """Print what would be removed, and ask for confirmation on the terminal.

        :raises UsageError: if there is no terminal.
        """
        # On standard error, as the question: standard output may be a file.
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
            sys.stderr.write("nothing was removed\n")
        return agreed

    def sound(
        self, pipeline: Pipeline, images: Sequence[T]
    ) -> tuple[list[T], dict[str, SiflineError]]:
        """Separate usable images from broken ones; an image named by the user is checked later."""
        if not self.over_all:
            return list(images), {}
        broken = pipeline.planner.sound([name for name in images if isinstance(name, str)])[1]
        return [item for item in images if item not in broken], broken

    def print(self, text: str) -> None:
        """Print a result to standard output; progress goes to standard error."""
        from sifline.report import screen

        # File names may contain bytes that are not text.
        encoding = sys.stdout.encoding or "utf-8"
        shown = visible(text).rstrip("\n").encode(encoding, "backslashreplace").decode(encoding)
        try:
            text = screen.current().coloured(shown) + "\n"
            # Of a longer piece Python writes what the pipe takes, and tells nobody of the rest.
            for start in range(0, len(text), PIECE):
                sys.stdout.write(text[start : start + PIECE])
                sys.stdout.flush()
        except BrokenPipeError:
            # Python would fail once more, when it writes what is left at its end.
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())
            raise ReaderGone from None

    def next(self, command: str) -> None:
        """Print what to do next, unless only results are wanted."""
        self.terminal.aside(f"next: {command}", whole=True)

    def cluster_flag(self) -> str:
        """Return --cluster for a suggested command, if only another than the usual one stands."""
        if not self.workspace.clusters.is_dir():
            return ""
        from sifline.config.clusters import default, standing_clusters

        standing = {*standing_clusters(self.workspace)}
        others = standing - {default()}
        return f" --cluster {others.pop()}" if len(standing) == len(others) == 1 else ""

    def write(self, path: Path, text: str) -> None:
        """Write a result to a file, completely or not at all; to a pipe or device directly."""
        from sifline.machine import records

        content = f"{text.rstrip()}\n".encode()
        path = output(path)
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
        """Exit with the status of a program that used the terminal.

        A program that a signal ended has a negative status; shells use 128 plus the signal number.
        """
        from invoke.exceptions import Exit

        if status:
            raise Exit(code=status if status > 0 else 128 - status)


class ReaderGone(BrokenPipeError):
    """Whoever read standard output has had enough, as head does."""


def guarded(body: Callable[[], None], *, debug: bool) -> None:
    """Call ``body``; on failure print one line and exit with its code."""
    from invoke.exceptions import Exit

    # Commands run in process groups of their own, so they must be ended explicitly.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminate)
    try:
        body()
    except (SiflineError, KeyboardInterrupt, OSError) as error:
        if debug and not isinstance(error, KeyboardInterrupt | ReaderGone):
            raise
        raise Exit(*_told(error)) from None


def _told(error: SiflineError | KeyboardInterrupt | OSError) -> tuple[str, int]:
    """Return the message for the user, and the exit code."""
    if isinstance(error, SiflineError):
        return complain(error), error.exit_code
    if isinstance(error, ReaderGone):
        return "", READER_GONE
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"error: {where}{error.strerror}; fix that and run it again", 1
    # A second interruption cut the clean-up short.
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
    """Return what the user reads: the details, then the one line that says what failed.

    The line ends with its section of the troubleshooting page, if there is one.
    """
    from sifline.report import screen
    from sifline.tasks.troubleshooting import section

    columns = screen.size(sys.stderr)[0] if sys.stderr.isatty() else 0
    details = "".join(
        f"{screen.folded_to(f'  | {line}', columns, '  |     ')}\n"
        for line in visible(error.details).splitlines()
    )
    text, more = error.message, section(error.message, error.details)
    if more:
        text += f" See {more}" if text.endswith((".", "?", "!")) else f"; see {more}"
    message = visible(f"error: {text}")
    if not columns:
        return details + message
    # A path or a command is to be copied: it stays whole.
    lines = textwrap.wrap(message, columns, break_long_words=False, break_on_hyphens=False)
    message = "\n".join(lines)
    if screen.has_colours(sys.stderr, os.environ):
        message = screen.emphasised("error:", "error:", "red") + message.removeprefix("error:")
    return details + message


def visible(text: str) -> str:
    """Return ``text`` with its control characters escaped: labels and names may be anybody's."""
    return _UNSEEN.sub(lambda match: ascii(match.group())[1:-1], text)


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def cluster_of(given: str) -> str:
    """Return the cluster to act on: of the flag, of the environment, or the default."""
    from sifline.config.clusters import default

    return given or default()


def output(path: Path) -> Path:
    """Return ``path``, with ``~`` as in a shell, if its folder exists.

    :raises UsageError: if the folder is missing, or the user is unknown.
    """
    try:
        path = path.expanduser()
    except RuntimeError:
        raise UsageError(f"--output {path}: unknown user") from None
    # Unlike Path.is_dir, this takes names that are too long for any folder.
    if not os.path.isdir(path.absolute().parent):  # noqa: PTH112
        raise UsageError(f"--output {path}: there is no folder {path.parent}; create it first")
    return path


def one_of(flag: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` if it is allowed.

    :raises UsageError: naming the flag and what it takes.
    """
    if value not in allowed:
        raise UsageError(
            f"--{flag} {value!r}: takes {' or '.join(allowed)}.{did_you_mean(value, allowed)}"
        )
    return value


def seconds(flag: str, text: str) -> float:
    """Read an age such as ``12h`` or ``7d`` in seconds; 0 for an empty text.

    :raises UsageError: naming the flag and what it takes.
    """
    if not text:
        return 0
    number, unit = text[:-1], text[-1]
    if unit not in UNITS or not number.isdecimal() or len(number) > MAX_DIGITS:
        raise UsageError(f"--{flag} {text!r}: takes a number and {', '.join(UNITS)}, such as 7d")
    return int(number) * UNITS[unit]


def need_dry(run: Run, *, json: bool) -> None:
    """Refuse JSON of what is done: it is of what would be."""
    if json and not run.dry:
        raise UsageError("--json: prints only the plan of a dry run here; add --dry")
