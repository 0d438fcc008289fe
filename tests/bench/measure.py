"""Two sides of a comparison, timed in turn in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter


def nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is timed, and what people call it; ``prepare`` comes before each and is not timed."""

    what: str
    run: Callable[[], object]
    prepare: Callable[[], object] = nothing


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ours against its peer: at most ``limit`` times as long, medians of ``rounds``.

    Without a limit it is only told, and ``note`` says why.
    """

    what: str
    ours: Side
    peer: Side
    limit: float | None
    note: str = ""
    rounds: int = 15
    warm: bool = True


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a comparison came to, in seconds."""

    comparison: Comparison
    ours: float
    peer: float

    @property
    def ratio(self) -> float:
        """How many times as long ours takes."""
        return self.ours / self.peer

    @property
    def reached(self) -> bool:
        """Whether the limit was kept."""
        limit = self.comparison.limit
        return limit is None or self.ratio <= limit


def measure(comparison: Comparison) -> Measured:
    """Time both sides in turn, each as often first as the other."""
    sides = (comparison.ours, comparison.peer)
    if comparison.warm:
        for side in sides:
            seconds(side)
    took: dict[Side, list[float]] = {side: [] for side in sides}
    for number in range(comparison.rounds):
        for side in sides if number % 2 else reversed(sides):
            took[side].append(seconds(side))
    ours, peer = (median(took[side]) for side in sides)
    return Measured(comparison=comparison, ours=ours, peer=peer)


def seconds(side: Side) -> float:
    """Return how long a side takes once."""
    side.prepare()
    started = perf_counter()
    side.run()
    return perf_counter() - started
