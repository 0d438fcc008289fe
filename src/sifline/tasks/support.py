"""What every task needs: a pipeline to call, and one place where errors become one line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from invoke.exceptions import Exit

from sifline.errors import SiflineError
from sifline.model import Workspace

if TYPE_CHECKING:
    from sifline.pipeline import Pipeline

INTERRUPTED = 130


class Run:
    """One call of a task: its workspace, and what Invoke's own flags say."""

    def __init__(self, workspace: Workspace, c: Any) -> None:
        self.workspace = workspace
        self.dry = bool(c.config.run.dry)
        self._echo = bool(c.config.run.echo)

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
    def pipeline(self) -> Pipeline:
        """The pipeline of this checkout."""
        from sifline.pipeline import Pipeline
        from sifline.report.terminal import Terminal
        from sifline.runner import Context, ProcessRunner

        show = Terminal()
        runner = ProcessRunner(echo=show.line if self._echo else None)
        context = Context(workspace=self.workspace, runner=runner, progress=show)
        return Pipeline(context, show)

    def print(self, text: str) -> None:
        """Print a result to standard output; progress goes to standard error."""
        sys.stdout.write(text.rstrip("\n") + "\n")

    @staticmethod
    def end(status: int) -> None:
        """Pass on the exit status of a program that had the terminal."""
        if status:
            raise Exit(code=status)


def guarded(body: Callable[[], None], *, debug: bool) -> None:
    """Call ``body``; end the program with one line and an exit code where it fails."""
    # Commands run in groups of their own: they have to be ended, not left behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminate)
    try:
        body()
    except SiflineError as error:
        if debug:
            raise
        raise Exit(complain(error), error.exit_code) from None
    except KeyboardInterrupt:
        raise Exit(
            "\nerror: interrupted; nothing half-made is left, the same command goes on from here",
            INTERRUPTED,
        ) from None
    except BrokenPipeError:
        raise Exit("", 0) from None


def complain(error: SiflineError) -> str:
    """Return what the user reads: the details, then the one line that counts."""
    details = "".join(f"  | {line}\n" for line in error.details.splitlines())
    return f"{details}error: {error.message}"


def _terminate(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def one_of(flag: str, value: str, allowed: Sequence[str]) -> str:
    """Return ``value`` where it is allowed.

    :raises UsageError: naming the flag and what it takes.
    """
    from sifline.errors import UsageError, did_you_mean

    if value not in allowed:
        raise UsageError(
            f"--{flag} {value!r}: takes {' or '.join(allowed)}.{did_you_mean(value, allowed)}"
        )
    return value
