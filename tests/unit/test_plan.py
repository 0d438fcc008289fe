"""The plan: parents first, a reason for all that is built, and nothing else is built."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.errors import UsageError
from sifline.model import BuiltImage, Image, Prepare, Source, Step
from sifline.model.recipe import FORMAT
from sifline.stages import plan
from sifline.stages.plan import Held


def image(name: str, *parents: str, bases: Sequence[str] = ()) -> Image:
    sources = [Source(written=parent, image=parent) for parent in parents]
    sources += [Source(written=base, reference=base) for base in bases]
    return Image(
        name=name, folder=Path(name), tag=f"sifline/{name}:latest", sources=tuple(sources)
    )


def catalog(*images: Image) -> dict[str, Image]:
    return {item.name: item for item in images}


CHAIN = catalog(image("z"), image("a", "z"), image("b", "a"))


class World:
    """An engine that holds what was built, and folders whose content is a word."""

    def __init__(self, images: Mapping[str, Image]) -> None:
        self.images = dict(images)
        self.content = dict.fromkeys(images, "first")
        self.bases = {base: f"{base} 1" for item in images.values() for base in item.bases}
        self.held: dict[str, tuple[BuiltImage, ...]] = {}
        self.builds = 0

    @property
    def tags(self) -> frozenset[str]:
        """The common tag of whatever is there."""
        return frozenset(self.images[name].tag for name, found in self.held.items() if found)

    def plan(self, *wanted: str, forced: Sequence[str] = ()) -> tuple[Step, ...]:
        return plan.builds(
            self.images,
            wanted or self.images,
            Held(images=self.held, bases=self.bases, tags=self.tags),
            lambda item: self.content[item.name],
            forced=forced,
        )

    def build(self, *wanted: str) -> list[str]:
        """Do what the plan says, as the build stage does; return what was built."""
        done = []
        for name in [step.image.name for step in self.plan(*wanted) if step.needed]:
            # Its parents are there by now, so that its recipe is known.
            (step,) = [item for item in self.plan(name) if item.image.name == name]
            assert step.recipe is not None
            self.builds += 1
            made = BuiltImage(
                image=step.image,
                image_id=f"{name}@{self.builds}",
                fingerprint=step.fingerprint,
                size=1,
                reused=False,
                recipe=step.recipe,
            )
            self.held[name] = (made, *self.held.get(name, ()))
            done.append(name)
        return done

    def reasons(self, *wanted: str) -> dict[str, str]:
        return {step.image.name: step.reason for step in self.plan(*wanted) if step.needed}


def test_parents_come_first() -> None:
    assert plan.order(CHAIN, ["b"]) == ("z", "a", "b")


def test_only_what_is_wanted_is_in_the_plan() -> None:
    assert plan.order(CHAIN, ["a"]) == ("z", "a")


def test_a_circle_is_refused_with_its_path() -> None:
    images = catalog(image("a", "b"), image("b", "c"), image("c", "b"))

    with pytest.raises(UsageError, match="circle: b → c → b"):
        plan.order(images, ["a"])


def test_an_image_built_on_itself_is_a_circle() -> None:
    with pytest.raises(UsageError, match="circle: a → a"):
        plan.order(catalog(image("a", "a")), ["a"])


def test_a_chain_of_two_thousand_images_has_an_order() -> None:
    images = catalog(image("i0"), *(image(f"i{n}", f"i{n - 1}") for n in range(1, 2000)))

    assert plan.order(images, ["i1999"])[-1] == "i1999"


def test_nothing_to_do_when_all_is_there() -> None:
    world = World(CHAIN)

    assert world.build() == ["z", "a", "b"]
    assert world.reasons() == {}


def test_a_removed_image_is_built_again_and_what_stands_on_it() -> None:
    world = World(CHAIN)
    world.build()
    del world.held["a"]

    assert world.reasons() == {
        "a": "not in the engine",
        "b": "built on a, which is built anew",
    }


def test_a_parent_rebuilt_elsewhere_is_noticed_by_its_digest() -> None:
    world = World(CHAIN)
    world.build()
    world.held["a"] = (replace(world.held["a"][0], image_id="sha256:another"),)

    assert world.reasons() == {"b": "parent a: a@2 → another"}


def test_a_base_that_is_another_in_the_engine_is_noticed() -> None:
    world = World(catalog(image("a", bases=["ubuntu:22.04"])))
    world.build()
    world.bases["ubuntu:22.04"] = "ubuntu 2"

    assert world.reasons() == {"a": "base ubuntu:22.04: ubuntu:22.04 → ubuntu 2"}


def test_a_base_pruned_from_the_engine_is_no_change() -> None:
    world = World(catalog(image("a", bases=["ubuntu"])))
    world.build()
    world.bases.clear()

    assert world.reasons() == {}


def test_a_base_that_moved_in_its_registry_is_a_reason() -> None:
    world = World(catalog(image("a", bases=["ubuntu"])))
    world.build()
    moved = frozenset({"ubuntu"})
    held = Held(images=world.held, bases=world.bases, moved=moved, tags=world.tags)

    (step,) = plan.builds(world.images, ["a"], held, lambda _: "first")

    assert step.reason == "ubuntu has moved in its registry"


def test_an_image_that_lost_its_tag_alone_takes_nothing_along() -> None:
    world = World(CHAIN)
    world.build()
    held = Held(images=world.held, tags=world.tags - {"sifline/a:latest"})

    steps = plan.builds(world.images, world.images, held, lambda _: "first")

    assert [(step.image.name, step.reason, step.changes) for step in steps if step.needed] == [
        ("a", "its tag sifline/a:latest is gone", False)
    ]


def test_a_forced_image_takes_its_children_along_but_not_its_parents() -> None:
    world = World(CHAIN)
    world.build()

    assert {step.image.name: step.reason for step in world.plan(forced=["a"])} == {
        "z": "",
        "a": "--force",
        "b": "built on a, which is built anew",
    }


def test_an_older_version_that_fits_again_is_kept() -> None:
    world = World(CHAIN)
    world.build()
    world.content["b"] = "second"
    world.build()
    world.content["b"] = "first"

    (*_, step) = world.plan("b")

    assert (step.needed, step.held and step.held.image_id) == (False, "b@3")


def test_an_image_of_an_older_format_is_built_anew() -> None:
    world = World(catalog(image("a")))
    world.build()
    (made,) = world.held["a"]
    old = replace(made, fingerprint="0", recipe={**made.recipe, "format": FORMAT - 1})
    world.held["a"] = (old,)

    assert world.reasons() == {"a": "it was built by another version of sifline"}


def test_a_long_list_of_changes_is_cut() -> None:
    world = World(catalog(image("a")))
    world.build()
    world.images["a"] = replace(
        world.images["a"], build_args=(("A", "1"), ("B", "2"), ("C", "3")), target="x"
    )

    reason = world.reasons()["a"]

    assert reason == "argument A is new: 1; argument B is new: 2; and 2 more"


# Properties

NAMES = [f"i{number}" for number in range(8)]


BASES = ("ubuntu", "debian:12")


def drawn(numbers: Sequence[tuple[int, int, int]]) -> dict[str, Image]:
    """Return any graph without circles: an image is built on some of those before it.

    Of each image the first number tells which of those by its bits, the second which bases; the
    third is its place among the folders. Sets that are drawn within sets take longer than the
    tests themselves.
    """
    made = [
        image(name, *chosen(parents, NAMES[:number]), bases=chosen(bases, BASES))
        for number, (name, (parents, bases, _)) in enumerate(zip(NAMES, numbers, strict=False))
    ]
    order = sorted(range(len(made)), key=lambda number: numbers[number][-1])
    return catalog(*(made[number] for number in order))


def chosen(bits: int, names: Sequence[str]) -> list[str]:
    return [name for place, name in enumerate(names) if bits >> place & 1]


NUMBERS = st.tuples(
    st.integers(0, 2 ** len(NAMES) - 1), st.integers(0, 2 ** len(BASES) - 1), st.integers(0, 99)
)
CATALOGS = st.one_of(
    *(st.tuples(*[NUMBERS] * size).map(drawn) for size in range(1, len(NAMES) + 1))
)


def below(images: Mapping[str, Image], name: str) -> set[str]:
    """The image and all that is built on it, however far."""
    found = {name}
    while True:
        more = {other.name for other in images.values() if found.intersection(other.parents)}
        if more <= found:
            return found
        found |= more


@given(CATALOGS, st.randoms())
def test_the_order_of_folders_does_not_change_the_plan(
    images: dict[str, Image], chance: random.Random
) -> None:
    shuffled = list(images.items())
    chance.shuffle(shuffled)

    assert World(dict(shuffled)).plan() == World(images).plan()


@given(CATALOGS)
def test_every_image_comes_after_all_it_is_built_on(images: dict[str, Image]) -> None:
    order = plan.order(images, images)

    assert sorted(order) == sorted(images)
    for name in order:
        assert all(order.index(parent) < order.index(name) for parent in images[name].parents)


@given(CATALOGS)
def test_what_was_built_is_up_to_date(images: dict[str, Image]) -> None:
    world = World(images)

    assert sorted(world.build()) == sorted(images)
    assert world.reasons() == {}


CHANGES = {
    "argument": lambda item: replace(item, build_args=(("A", "changed"),)),
    "target": lambda item: replace(item, target="changed"),
    "label": lambda item: replace(item, labels=(("l", "changed"),)),
    "root file system": lambda item: replace(item, prepare=Prepare(suite="changed")),
    "base": lambda item: replace(
        item, sources=(*item.sources, Source(written="new", reference="new"))
    ),
}


@given(CATALOGS, st.data(), st.sampled_from([*CHANGES, "content", "removed", "parent"]))
def test_any_single_change_rebuilds_the_image_and_what_depends_on_it_and_nothing_else(
    images: dict[str, Image], data: st.DataObject, change: str
) -> None:
    world = World(images)
    world.build()
    name = data.draw(st.sampled_from(sorted(images)))
    fingerprint = world.held[name][0].fingerprint
    world.bases["new"] = "new 1"
    if change == "content":
        world.content[name] = "changed"
    elif change == "removed":
        del world.held[name]
    elif change == "parent":
        more = image("extra")
        world.images["extra"], world.content["extra"] = more, "first"
        world.build("extra")
        source = Source(written="extra", image="extra")
        world.images[name] = replace(images[name], sources=(*images[name].sources, source))
    else:
        world.images[name] = CHANGES[change](images[name])

    needed = set(world.reasons(*images))
    world.build(*images)

    assert needed == below(images, name)
    assert (world.held[name][0].fingerprint == fingerprint) is (change == "removed")
    assert world.reasons() == {}


@given(CATALOGS, st.data())
def test_equal_content_has_an_equal_fingerprint(
    images: dict[str, Image], data: st.DataObject
) -> None:
    one, two = World(images), World(images)
    one.build()
    two.build()

    marks = [{name: held[0].fingerprint for name, held in it.held.items()} for it in (one, two)]
    assert marks[0] == marks[1]
