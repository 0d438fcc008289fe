"""The tests that sifline runs of its own on every SIF, and each of them seen red."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sifline.errors import StepFailed
from sifline.model import Image, Sif, TestReport
from sifline.stages.imagetest import Promises, imagetest, suites
from tests.support.contexts import context_of
from tests.support.engine import Project

DOCKERFILE = """FROM sifline/debian-bookworm
ENV GREETING="hello you"
LABEL org.example.told=yes
WORKDIR /work
"""
Judge = Callable[..., TestReport]


@pytest.fixture(scope="module")
def sif(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sif]:
    """The SIF of a small image, built and tested in one run."""
    project = Project(tmp_path_factory.mktemp("suites"))
    name = project.image("plain", DOCKERFILE)
    base = Path(__file__).parents[2] / "images" / "debian-bookworm"
    (project.root / "images" / "debian-bookworm").symlink_to(base)
    done = project.invoke(f"make.{name}")
    assert done.returncode == 0, done.stderr
    assert f"{name} (apptainer): " in done.stdout + done.stderr, done.stdout
    path = project.root / "build" / "sif" / f"{name}.sif"
    yield Sif(name=name, path=path, sha256="", size=path.stat().st_size)
    project.remove_images()


@pytest.fixture
def judge(tmp_path: Path, sif: Sif) -> Judge:
    here = context_of(tmp_path)

    def run(promises: Promises, path: Path = sif.path) -> TestReport:
        image = Image(name=sif.name, folder=tmp_path, tag="", smoke=promises.smoke)
        folders = suites(image, runtime="apptainer")
        subject = replace(sif, path=path)
        return imagetest(subject, folders, here, runtime="apptainer", promises=promises)

    return run


def failed(error: StepFailed) -> set[str]:
    return set(error.message.partition("failed: ")[2].partition(";")[0].split(", "))


def test_a_sound_sif_passes_and_what_cannot_be_looked_at_is_counted(
    judge: Judge, sif: Sif
) -> None:
    report = judge(
        Promises(smoke=(("cat", "/etc/os-release"),), budget=sif.size, image_size=sif.size)
    )
    assert (report.failed, report.skip_reasons) == (0, ("the image has no python3",))
    assert report.passed > 15


def test_a_size_over_the_budget_is_a_failure(judge: Judge, sif: Sif) -> None:
    with pytest.raises(StepFailed) as failure:
        judge(Promises(budget=sif.size - 1, image_size=sif.size // 2))
    assert failed(failure.value) == {
        "test_it_keeps_to_its_budget",
        "test_it_is_hardly_larger_than_its_image",
    }


def test_a_smoke_command_that_fails_is_a_failure(judge: Judge) -> None:
    with pytest.raises(StepFailed) as failure:
        judge(Promises(smoke=(("true",), ("ls", "/no such file"))))
    assert failed(failure.value) == {"test_smoke[ls '/no such file']"}


@pytest.mark.parametrize(
    ("change", "test"),
    [
        ((b"GREETING=hello you", b"GREETING=hello yox"), "test_the_images_variables_are_set"),
        (
            (b'"WorkingDir":"/work"', b'"WorkingDir":"/wrk/"'),
            "test_where_the_image_starts_is_there",
        ),
        (
            (b'"org.example.told":"yes"', b'"org.example.told":"yep"'),
            "test_apptainer_tells_the_labels_of_the_image",
        ),
    ],
    ids=["environment", "working directory", "label"],
)
def test_a_sif_that_is_not_what_its_image_was_is_a_failure(
    judge: Judge, sif: Sif, tmp_path: Path, change: tuple[bytes, bytes], test: str
) -> None:
    """Its note of the image's configuration is changed, and the container is as it was."""
    before, found, after = sif.path.read_bytes().rpartition(change[0])
    assert found
    other = tmp_path / sif.path.name
    other.write_bytes(before + change[1] + after)
    with pytest.raises(StepFailed) as failure:
        judge(Promises(), other)
    assert test in failed(failure.value)
