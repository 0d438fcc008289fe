"""The one family of errors a user can meet, each with the exit code it ends in.

A message is one line: what failed, the likely cause, the next command.
Everything longer (a log's last lines, a stack) goes into ``details``.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class SiflineError(Exception):
    """What a user sees on one line; never raised itself, only its children.

    ``details`` holds further lines that help to understand the failure, such as the end
    of a log. They are printed below the message.
    """

    exit_code = 1

    def __init__(self, message: str, *, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class StepFailed(SiflineError):
    """Something that should have worked did not: a build step, a job, a node."""

    exit_code = 1


class UsageError(SiflineError):
    """The user's input cannot be used: a flag, a name, a file."""

    exit_code = 2


class MissingError(SiflineError):
    """Something that is needed is not there: a tool, an engine, a permission."""

    exit_code = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean a, b?" for the known words nearest to ``word``, or ""."""
    near = get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f" Did you mean {', '.join(near)}?" if near else ""
