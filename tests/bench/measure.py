"""Two sides of a comparison, measured in turn in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from statistics import median
from time import perf_counter


def nothing() -> None:
    """Prepare nothing."""


class Unit(Enum):
    """What is compared: how long a side runs, or how many bytes what it returns has."""

    TIME = "s"
    SIZE = "bytes"


@dataclass(frozen=True, kw_only=True)
class Side:
    """What is measured, and what people call it.

    ``run`` is timed, or returns a size in bytes; ``prepare`` comes before each and is not timed.
    """

    what: str
    run: Callable[[], object]
    prepare: Callable[[], object] = nothing


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Ours against its peer: at most ``limit`` times as much, medians of ``rounds``.

    ``most`` are the seconds that ours and the peer may take, where that is the limit. Without a
    limit it is only told, and ``note`` says why.
    """

    what: str
    ours: Side
    peer: Side
    limit: float | None
    most: tuple[float, float] | None = None
    note: str = ""
    rounds: int = 15
    warm: bool = True
    unit: Unit = Unit.TIME


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a comparison came to, in its unit."""

    comparison: Comparison
    ours: float
    peer: float

    @property
    def ratio(self) -> float:
        """How many times as much ours takes."""
        return self.ours / self.peer

    @property
    def reached(self) -> bool:
        """Whether the limit was kept."""
        limit, most = self.comparison.limit, self.comparison.most
        in_time = not most or (self.ours <= most[0] and self.peer <= most[1])
        return in_time and (limit is None or self.ratio <= limit)


def measure(comparison: Comparison) -> Measured:
    """Measure both sides in turn, each as often first as the other."""
    sides = (comparison.ours, comparison.peer)
    if comparison.warm:
        for side in sides:
            figure(side, comparison.unit)
    took: dict[Side, list[float]] = {side: [] for side in sides}
    for number in range(comparison.rounds):
        for side in sides if number % 2 else reversed(sides):
            took[side].append(figure(side, comparison.unit))
    ours, peer = (median(took[side]) for side in sides)
    return Measured(comparison=comparison, ours=ours, peer=peer)


def figure(side: Side, unit: Unit) -> float:
    """Return what a side takes once."""
    side.prepare()
    started = perf_counter()
    result = side.run()
    took = perf_counter() - started
    if unit is Unit.TIME:
        return took
    assert isinstance(result, int)
    return result
