"""Why an image would be built, through whatever it is built on."""

from __future__ import annotations

from sifline.stages.explain import from_parents


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
