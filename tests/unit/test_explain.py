"""Why an image would be built, through whatever it is built on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sifline.model import Image, Source, Step, Verb
from sifline.stages.explain import changes, from_parents, later


def test_a_change_is_told_by_the_way_that_it_takes() -> None:
    parents = {"c": ["b"], "b": ["a"], "a": []}
    own = {"c": ["file c"], "b": [], "a": ["file a", "argument A"]}
    assert from_parents("c", parents, own) == (
        "parent b: parent a: file a",
        "parent b: parent a: argument A",
    )


def test_a_change_that_comes_by_many_ways_is_told_once_by_a_shortest() -> None:
    """Each of 40 images is built on the two before: there are 100 million ways to the first."""
    names = [f"n{number:02}" for number in range(40)]
    parents = {name: names[max(0, at - 2) : at][::-1] for at, name in enumerate(names)}
    own = {name: [f"file {name}"] for name in names}

    found = from_parents(names[-1], parents, own)

    assert [line.rpartition(": ")[2] for line in found] == [
        f"file {name}" for name in reversed(names[:-1])
    ]
    assert max(line.count("parent ") for line in found) == 20


def test_an_image_whose_parents_stay_has_nothing_from_them() -> None:
    assert from_parents("b", {"b": []}, {"b": ["file b"]}) == ()


def step(name: str, *parents: str, reason: str = "", retag: bool = False) -> Step:
    sources = tuple(Source(written=parent, image=parent) for parent in parents)
    image = Image(name=name, folder=Path(name), tag=name, sources=sources)
    return Step(image=image, reason=reason, needed=bool(reason), retag=retag)


@pytest.mark.parametrize(
    ("steps", "own", "child"),
    [
        # The reason of a build stands for a change that nothing tells of: --force, a gone image.
        (
            [step("base", reason="--force"), step("child", "base", reason="built on base")],
            {},
            ("parent base: --force",),
        ),
        # What is told of is no second time a reason.
        (
            [step("base", reason="file a"), step("child", "base", reason="its file b")],
            {"base": ("file a was changed",), "child": ("file b was changed",)},
            ("file b was changed", "parent base: file a was changed"),
        ),
        # A parent that stays, or only gets its tag back, changes nothing.
        ([step("base"), step("child", "base", reason="not there")], {}, ("not there",)),
        (
            [step("base", reason="its tag is gone", retag=True), step("child", "base")],
            {},
            (),
        ),
    ],
)
def test_the_reason_counts_as_a_change_where_nothing_else_is_told(
    steps: list[Step], own: dict[str, tuple[str, ...]], child: tuple[str, ...]
) -> None:
    found = {item.image.name: own.get(item.image.name, ()) for item in steps}

    assert changes(steps, found)["child"] == child


def test_what_comes_later_is_that_of_the_image_alone() -> None:
    one, other = step("one"), step("other")
    steps = [
        one,
        replace(one, verb=Verb.TEST, reason="not tested yet"),
        replace(one, verb=Verb.CONVERT),
        replace(other, verb=Verb.TEST),
    ]

    assert later("one", steps) == ("test: not tested yet", "convert: up to date")
