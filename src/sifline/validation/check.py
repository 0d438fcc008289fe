"""A health check, and the registry of all of them.

A check is a function that returns the evidence in one sentence. It raises ``CheckFailed``
where what it checks is false and ``CheckSkipped`` where it cannot be looked at; its suite
and its phase come from the decorator, its name and its help from the function.
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
        """Its name among all."""
        return f"{self.suite}.{self.name}"


_known: dict[str, Check] = {}


def check(*, suite: str, phase: Phase) -> Callable[[Callable[[Probe], str]], Callable[..., str]]:
    """Register the function as a check, named as it is with dashes."""

    def register(function: Callable[[Probe], str]) -> Callable[..., str]:
        summary = (function.__doc__ or "").strip().splitlines()[0]
        name = function.__name__.replace("_", "-")
        found = Check(suite=suite, name=name, phase=phase, summary=summary, function=function)
        _known[found.key] = found
        return function

    return register


def registered() -> tuple[Check, ...]:
    """Return the checks of all suites that were imported."""
    return tuple(_known.values())
