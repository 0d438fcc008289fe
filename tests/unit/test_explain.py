"""Why an image would be built, through whatever it is built on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sifline.model import BuiltImage, Image, Source, Step, Verb
from sifline.model.recipe import recipe
from sifline.stages.explain import changes, from_parents, later, own_changes


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


def test_files_that_dockerignore_excludes_now_are_not_gone(tmp_path: Path) -> None:
    """What a newcomer saw was that all tests were gone."""
    folder, other = tmp_path / "x", tmp_path / "other"
    for place in (folder / "tests", other):
        place.mkdir(parents=True)
        (place / "test_x.py").touch()
    image = Image(name="x", folder=folder, tag="x", contexts=(("other", other),))
    old, new = (recipe(image, context=digest, parents={}, bases={}) for digest in ("1", "2"))
    built = BuiltImage(
        image=image, image_id="1", fingerprint="1", size=1, reused=False, recipe=old
    )
    now = replace(step("x"), image=image, held=built, recipe=new)
    before = ("tests/test_x.py", "tests/test_y.py", "other:test_x.py", "other:test_y.py")

    told = own_changes(
        now, {"files": dict.fromkeys(before, "file 0644 1")}, {".dockerignore": "file 0644 2"}
    )

    assert told == (
        "file .dockerignore is new in the build context",
        "file other:test_x.py is excluded by .dockerignore now",
        "file other:test_y.py is gone",
        "file tests/test_x.py is excluded by .dockerignore now",
        "file tests/test_y.py is gone",
    )
