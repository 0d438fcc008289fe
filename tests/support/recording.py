"""A runner for tests: it starts nothing, answers from a table and remembers what was asked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sifline.errors import MissingError
from sifline.machine.process import CommandFailed, Result
from sifline.machine.streams import Argv, OnLine


@dataclass(frozen=True, kw_only=True)
class Call:
    """One command that was asked for, with what tests like to look at."""

    argv: tuple[str, ...]
    input: str | None = None
    cwd: Path | None = None
    env: Mapping[str, str] | None = None
    timeout: float | None = None
    without: frozenset[str] = frozenset()


def answer(
    stdout: str = "", *, stderr: str = "", returncode: int = 0, seconds: float = 0.0
) -> Result:
    """Return what a command shall have done; its argv is filled in when it is asked for."""
    return Result(argv=(), returncode=returncode, stdout=stdout, stderr=stderr, seconds=seconds)


@dataclass(kw_only=True)
class Standing:
    """A command that runs beside others; ``written`` is what it was fed."""

    ended: bool
    written: str = ""

    def write(self, text: str) -> bool:
        """Take what it is fed."""
        self.written += text
        return not self.ended


class RecordingRunner:
    """Answers each command from ``answers`` by the longest prefix of its argument list.

    An answer is a ``Result`` (see ``answer``), an exception to raise, or a list of these
    that is used up from the front, its last entry for ever. A command no prefix fits fails
    the test. Tools not in ``tools`` are missing, and running one raises MissingError as the
    real runner does; ``tools`` None means that every tool is there.
    """

    def __init__(
        self,
        answers: Mapping[tuple[str, ...], Result | Exception | list[Result | Exception]]
        | None = None,
        *,
        tools: Mapping[str, str] | set[str] | None = None,
    ) -> None:
        self.calls: list[Call] = []
        self._answers = {
            prefix: list(given) if isinstance(given, list) else [given]
            for prefix, given in (answers or {}).items()
        }
        self._tools = tools

    @property
    def argvs(self) -> list[tuple[str, ...]]:
        """The argument lists that were asked for, in order."""
        return [call.argv for call in self.calls]

    def which(self, tool: str) -> str | None:
        """Return where ``tool`` is said to be, or None."""
        if self._tools is None:
            return f"/usr/bin/{tool}"
        if isinstance(self._tools, Mapping):
            return self._tools.get(tool)
        return f"/usr/bin/{tool}" if tool in self._tools else None

    def attach(self, argv: Argv, *, env: Mapping[str, str] | None = None) -> int:
        """Record the command; return the status of its answer."""
        self.calls.append(Call(argv=tuple(argv), env=env))
        return self._answer(tuple(argv)).returncode

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
        """Record the command and answer it; lines go to ``on_line``, output to ``log``."""
        asked = tuple(argv)
        call = Call(argv=asked, input=input, cwd=cwd, env=env, timeout=timeout)
        self.calls.append(replace(call, without=frozenset(without)))
        given = self._answer(asked)
        for line in [*given.stdout.splitlines(), *given.stderr.splitlines()]:
            if on_line:
                on_line(line)
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(given.stdout + given.stderr, encoding="utf-8")
        if check and not given.ok:
            raise CommandFailed(f"{asked[0]} ended with status {given.returncode}", given)
        return given

    @contextmanager
    def beside(self, argv: Argv, *, on_line: OnLine) -> Iterator[Standing]:
        """Record the command; its lines go to ``on_line``, and it runs until the block ends."""
        self.calls.append(Call(argv=tuple(argv)))
        given = self._answer(tuple(argv))
        for line in [*given.stdout.splitlines(), *given.stderr.splitlines()]:
            on_line(line)
        yield Standing(ended=given.returncode != 0)

    def stop(self) -> None:
        """Nothing runs that could be ended."""

    def check(self) -> None:
        """Nobody calls ``stop``."""

    def _answer(self, asked: tuple[str, ...]) -> Result:
        if self._tools is not None and self.which(asked[0]) is None and "/" not in asked[0]:
            raise MissingError(f"{asked[0]} is not installed")
        fitting = [prefix for prefix in self._answers if asked[: len(prefix)] == prefix]
        if not fitting:
            raise AssertionError(f"the test has no answer for: {' '.join(asked)}")
        queue = self._answers[max(fitting, key=len)]
        given = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(given, Exception):
            raise given
        return Result(
            argv=asked,
            returncode=given.returncode,
            stdout=given.stdout,
            stderr=given.stderr,
            seconds=given.seconds,
        )
