"""Health checks: how one ended."""

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
    """One check on a cluster: what was found, or why it could not be looked at."""

    suite: str
    name: str
    status: Status
    message: str
    seconds: float
