"""The errors that users see, each with its exit code.

A message is one line: what failed, the likely cause, the next command.
Everything longer (a log's last lines, a stack) goes into ``details``.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class SiflineError(Exception):
    """Base of all errors that are printed as one line; only its subclasses are raised.

    ``details`` holds further lines that help to understand the failure, such as the end
    of a log. They are printed below the message.
    """

    exit_code = 1

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def add(self, advice: str) -> None:
        """Append what else can be done to the message."""
        self.message += f"; {advice}"
        self.args = (self.message,)


class StepFailed(SiflineError):
    """Something failed that should have worked: a build step, a job, a node (status 1)."""

    exit_code = 1


class UsageError(SiflineError):
    """The user's input is invalid: a flag, a name, a file (status 2)."""

    exit_code = 2


class MissingError(SiflineError):
    """A requirement is missing: a tool, an engine, a permission (status 3)."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean a, b?" for the known words nearest to ``word``, or ""."""
    near = get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f" Did you mean {', '.join(near)}?" if near else ""
