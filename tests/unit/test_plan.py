"""The plan: parents first, and a reason for all that is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.errors import UsageError
from sifline.model import Image, Step
from sifline.stages import plan


def image(root: Path, name: str, *parents: str) -> Image:
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(f"FROM {' '.join(parents) or 'scratch'}")
    return Image(name=name, folder=folder, tag=f"sifline/{name}:latest", parents=parents)


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Image]:
    made = [image(tmp_path, "a", "z"), image(tmp_path, "b", "a"), image(tmp_path, "z")]
    return {item.name: item for item in made}


def prints(steps: tuple[Step, ...]) -> dict[str, str]:
    return {step.image.name: step.fingerprint for step in steps}


def test_parents_come_first(images: dict[str, Image]) -> None:
    assert plan.order(images, ["b"]) == ("z", "a", "b")


def test_only_what_is_wanted_is_in_the_plan(images: dict[str, Image]) -> None:
    assert plan.order(images, ["a"]) == ("z", "a")


def test_a_circle_is_refused_with_its_path(tmp_path: Path) -> None:
    made = [image(tmp_path, "a", "b"), image(tmp_path, "b", "c"), image(tmp_path, "c", "b")]

    with pytest.raises(UsageError, match="b → c → b"):
        plan.order({item.name: item for item in made}, ["a"])


def test_nothing_to_do_when_all_prints_are_there(images: dict[str, Image]) -> None:
    existing = prints(plan.plan(images, ["b"], {}))

    assert [step.needed for step in plan.plan(images, ["b"], existing)] == [False] * 3


def test_a_removed_image_is_built_again_and_what_stands_on_it(images: dict[str, Image]) -> None:
    existing = prints(plan.plan(images, ["b"], {}))
    del existing["a"]

    steps = plan.plan(images, ["b"], existing)

    assert [(step.image.name, step.reason) for step in steps if step.needed] == [
        ("a", "not in the engine"),
        ("b", "built on a, which is built anew"),
    ]


def test_a_changed_file_rebuilds_only_what_depends_on_it(images: dict[str, Image]) -> None:
    existing = prints(plan.plan(images, ["b"], {}))
    (images["a"].folder / "new").write_text("x")

    steps = plan.plan(images, ["b"], existing)

    assert [step.image.name for step in steps if step.needed] == ["a", "b"]
