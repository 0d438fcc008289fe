"""Health checks: their results."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(str, Enum):
    """How a check ended. A check that could not run is skipped, never passed."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The result of one check on a cluster: its evidence, or why it was skipped.

    ``left_out`` are nodes that the user excluded.
    """

    suite: str
    name: str
    status: Status
    message: str
    seconds: float
    left_out: tuple[str, ...] = ()
