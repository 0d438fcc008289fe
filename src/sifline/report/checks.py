"""Checks of a cluster or of this machine: their list, and how each ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sifline.errors import MissingError, StepFailed
from sifline.model import Status
from sifline.report import screen
from sifline.report.tables import table

if TYPE_CHECKING:
    from sifline.model import CheckResult


def checks(results: Sequence[CheckResult]) -> str:
    """Return a table of check results and a line that counts them."""
    rows = [
        (item.suite, (item.status.value, item.name, f"{item.seconds:.1f} s", item.message))
        for item in results
    ]
    counts = ", ".join(
        f"{sum(item.status is status for item in results)} {status.value}" for status in Status
    )
    lines = [_by_suite(("result", "check", "took", "what was found"), rows), counts]
    left_out = dict.fromkeys(name for item in results for name in item.left_out)
    lines += [f"not checked, by --node or --without: {', '.join(left_out)}"] if left_out else []
    return "\n".join(lines)


def listing(suites: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """Return suites and their checks."""
    rows = [(suite, item) for suite, items in suites.items() for item in items]
    return _by_suite(("check", "what it says"), rows)


def checks_of(suites: Mapping[str, Sequence[tuple[str, str]]]) -> list[dict[str, str]]:
    """Return the same for JSON."""
    return [
        {"suite": suite, "check": name, "summary": doc}
        for suite, items in suites.items()
        for name, doc in items
    ]


def _by_suite(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table of checks, with a heading for each suite; without one if there is one suite.

    In a pipe the suite is a column, so that each line that ``grep`` finds names it.
    """
    suites = [*dict.fromkeys(suite for suite, _ in rows)]
    if len(suites) == 1:
        return table(head, [row for _, row in rows])
    if screen.current() != screen.PLAIN:
        groups = [[(suite,), *(row for its, row in rows if its == suite)] for suite in suites]
        return table(head, [line for group in groups for line in group])
    place = head.index("check")
    lines = [(*row[:place], suite, *row[place:]) for suite, row in rows]
    return table((*head[:place], "suite", *head[place:]), lines)


def refuse_failures(
    results: Sequence[CheckResult], subject: str, *, exit_missing: bool = False
) -> None:
    """Raise where a check failed: 1 for a cluster, 3 where the machine lacks something."""
    failed = [item.name for item in results if item.status is Status.FAILED]
    if failed:
        kind = MissingError if exit_missing else StepFailed
        raise kind(
            f"{subject}: {len(failed)} of {len(results)} checks failed: {', '.join(failed)}"
        )
