"""The benchmark's own judgement: sides in turn, medians, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.bench import measure as timing
from tests.bench.__main__ import USAGE, main, report
from tests.bench.figures import FIGURES
from tests.bench.measure import Comparison, Measured, Side, measure


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: made.now)
    return made


def comparison(ours: Callable[[], object], peer: Callable[[], object]) -> Comparison:
    return Comparison(
        what="It",
        ours=Side(what="`ours`", run=ours),
        peer=Side(what="`peer`", run=peer),
        limit=2,
        rounds=4,
        warm=False,
    )


def measured(ours: float, peer: float) -> Measured:
    return Measured(comparison=comparison(lambda: 0, lambda: 0), ours=ours, peer=peer)


def test_each_side_is_first_as_often_as_the_other() -> None:
    calls: list[str] = []

    measure(comparison(lambda: calls.append("ours"), lambda: calls.append("peer")))

    assert calls == ["peer", "ours", "ours", "peer", "peer", "ours", "ours", "peer"]


def test_medians_are_compared_so_that_one_slow_round_does_not_count(clock: Clock) -> None:
    ours = iter([50.0, 3.0, 2.0, 4.0])

    done = measure(comparison(lambda: clock.pass_(next(ours)), lambda: clock.pass_(1.0)))

    assert (done.ours, done.peer, done.ratio) == (3.5, 1.0, 3.5)


def test_preparing_is_not_timed(clock: Clock) -> None:
    ours = Side(what="`ours`", run=lambda: clock.pass_(2.0), prepare=lambda: clock.pass_(9.0))
    peer = Side(what="`peer`", run=lambda: clock.pass_(1.0))

    assert measure(Comparison(what="It", ours=ours, peer=peer, limit=2, rounds=3)).ratio == 2.0


def test_a_limit_is_reached_where_it_is_kept_exactly() -> None:
    assert [measured(2.0, 1.0).reached, measured(2.1, 1.0).reached] == [True, False]


@pytest.mark.parametrize(
    ("ours", "peer", "reached"), [(9.0, 3.0, True), (9.1, 3.0, False), (1.0, 3.1, False)]
)
def test_a_limit_in_seconds_is_for_both_sides(ours: float, peer: float, *, reached: bool) -> None:
    told = replace(comparison(lambda: 0, lambda: 0), limit=None, most=(9, 3))
    found = Measured(comparison=told, ours=ours, peer=peer)

    assert found.reached is reached
    assert f"| 9 s and 3 s | {'reached' if reached else '**missed**'} |" in report([found], {})


def test_the_page_shows_each_figure_and_what_it_was_measured_on() -> None:
    page = report([measured(12.34, 10.0), measured(0.0305, 0.01)], {"Docker": "20", "git": "2"})

    assert page.splitlines()[-6:] == [
        "| what | ours | peer | ratio | at most | |",
        "|---|---|---|---|---|---|",
        "| It (4 rounds) | `ours` 12.3 s | `peer` 10.0 s | 1.23 | 2 | reached |",
        "| It (4 rounds) | `ours` 30 ms | `peer` 10 ms | 3.05 | 2 | **missed** |",
        "",
        "Docker 20; git 2.",
    ]


def test_an_unknown_figure_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["context", "lists"]) == USAGE
    assert "no figure 'lists'. Did you mean list" in capsys.readouterr().err


def test_each_figure_says_what_it_compares() -> None:
    assert [name for name, figure in FIGURES.items() if not figure.__doc__] == []
