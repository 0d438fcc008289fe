"""A health check, and the registry of all of them.

A check is a function that returns its evidence in one sentence. It raises ``CheckFailed`` if the
checked property is false and ``CheckSkipped`` if it cannot be checked; suite and phase come from
the decorator, name and help from the function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from sifline.validation.probe import Probe


class Phase(str, Enum):
    """The order of checks: infrastructure, deployment, end to end."""

    INFRASTRUCTURE = "infrastructure"
    DEPLOYMENT = "deployment"
    END_TO_END = "end to end"


@dataclass(frozen=True, kw_only=True)
class Check:
    """A registered check: its suite, phase, summary and function."""

    suite: str
    name: str
    phase: Phase
    summary: str
    function: Callable[[Probe], str]

    @property
    def key(self) -> str:
        """Return its unique name, ``suite.name``."""
        return f"{self.suite}.{self.name}"


_known: dict[str, Check] = {}


def check(*, suite: str, phase: Phase) -> Callable[[Callable[[Probe], str]], Callable[..., str]]:
    """Register a function as a check; its name with dashes is the check's name."""

    def register(function: Callable[[Probe], str]) -> Callable[..., str]:
        summary = (function.__doc__ or "").strip().splitlines()[0]
        name = function.__name__.replace("_", "-")
        found = Check(suite=suite, name=name, phase=phase, summary=summary, function=function)
        _known[found.key] = found
        return function

    return register


def registered() -> tuple[Check, ...]:
    """Return the checks of all imported suites."""
    return tuple(_known.values())
