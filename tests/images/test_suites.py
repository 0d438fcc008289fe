"""The tests that sifline runs of its own on every SIF, and each of them seen red."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sifline.errors import StepFailed
from sifline.model import Image, Sif, TestReport
from sifline.pipeline import Pipeline
from sifline.report.terminal import Terminal
from sifline.stages.imagetest import Promises, imagetest, suites
from tests.support.contexts import context_of
from tests.support.engine import Project

# Foreign, since the project has no folder of that name.
DOCKERFILE = """FROM docker.io/sifline/debian-bookworm
ENV GREETING="hello you"
LABEL org.example.told=yes
WORKDIR /work
"""
Judge = Callable[..., TestReport]


@pytest.fixture(scope="module")
def sif(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sif]:
    """The SIF of a small image."""
    project = Project(tmp_path_factory.mktemp("suites"))
    name = project.image("plain", DOCKERFILE)
    done = project.invoke(f"convert.{name}")
    assert done.returncode == 0, done.stderr
    path = project.root / "build" / "sif" / f"{name}.sif"
    yield Sif(name=name, path=path, sha256="", size=path.stat().st_size)
    project.remove_images()


@pytest.fixture(scope="module")
def judged(sif: Sif, tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Runs the suites on the SIF, or on another at ``path``."""

    def run(promises: Promises, path: Path = sif.path) -> TestReport:
        folder = tmp_path_factory.mktemp("judged")
        image = Image(name=sif.name, folder=folder, tag="", smoke=promises.smoke)
        folders = suites(image, runtime="apptainer")
        subject = replace(sif, path=path)
        here = context_of(folder)
        return imagetest(subject, folders, here, runtime="apptainer", promises=promises)

    return run


def named(error: StepFailed) -> set[str]:
    return set(error.message.partition("failed: ")[2].partition(";")[0].split(", "))


def failed(error: StepFailed) -> set[str]:
    """What failed, as whomever it was run."""
    return {
        re.sub(r"\[(root|user)\]", "", re.sub(r"\[(root|user)-", "[", name))
        for name in named(error)
    }


CLOSED = """FROM docker.io/sifline/debian-bookworm
RUN mkdir --mode=0700 /opt/app && echo x > /opt/app/note \\
    && printf '#!/bin/sh\\necho hi\\n' > /usr/local/bin/begin && chmod 0700 /usr/local/bin/begin
ENTRYPOINT ["begin"]
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can run it as another user")
def test_what_only_root_can_run_or_read_is_told_and_fails_for_users(
    judged: Judge, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    try:
        name = project.image("closed", CLOSED)
        done = project.invoke(f"convert.{name}")
        assert done.returncode == 0, done.stderr
        smoke = (("cat", "/opt/app/note"), ("true",))
        path = tmp_path / "build" / "sif" / f"{name}.sif"
        path.chmod(0o600)  # as the umask of a careful root has it
        with pytest.raises(StepFailed) as failure:
            judged(Promises(smoke=smoke), path)
    finally:
        project.remove_images()

    assert (
        "warning: only root can read or run 2 files of it, and users of a cluster are not root:"
        " /usr/local/bin/begin (it starts with that), /opt/app/note;"
    ) in done.stderr
    assert named(failure.value) >= {
        "test_what_it_starts_with_can_be_run[user]",
        "test_smoke[user-cat /opt/app/note]",
    }
    assert not any("[root" in item for item in named(failure.value))


def test_a_sound_sif_passes_and_what_cannot_be_looked_at_is_counted(
    judged: Judge, sif: Sif
) -> None:
    report = judged(
        Promises(smoke=(("cat", "/etc/os-release"),), budget=sif.size, image_size=sif.size)
    )
    assert (report.failed, report.skip_reasons) == (0, ("the image has no python3",))
    assert report.passed > 15


def pipeline_of(root: Path) -> Pipeline:
    """Return the pipeline of a checkout without images."""
    (root / "images").mkdir()
    return Pipeline(context_of(root), Terminal())


def test_a_sif_that_was_only_found_is_tested_before_it_can_be_deployed(
    sif: Sif, tmp_path: Path
) -> None:
    pipeline = pipeline_of(tmp_path)
    tested = pipeline.work.tested_file(sif.path)
    assert (tested.sif.path, tested.sif.size) == (sif.path, sif.size)
    told = re.fullmatch(r"(\d+) passed, \d+ skipped, the tests of every SIF alone", tested.tests)
    assert told
    assert int(told[1]) > 10


def test_a_sif_that_was_found_and_fails_is_not_deployed(sif: Sif, tmp_path: Path) -> None:
    change = (b"GREETING=hello you", b"GREETING=hello yox")
    other = changed(sif, tmp_path / sif.path.name, change)
    pipeline = pipeline_of(tmp_path)
    with pytest.raises(StepFailed, match="test_the_images_variables_are_set"):
        pipeline.work.tested_file(other)


def test_a_sif_file_is_tested_by_its_name(sif: Sif, tmp_path: Path) -> None:
    project = Project(tmp_path)
    done = project.invoke("test", str(sif.path))
    assert done.returncode == 0, done.stderr
    assert sif.name in done.stdout
    (report,) = (tmp_path / "build" / "reports").iterdir()
    assert report.name == f"{sif.name}.test-file.xml"


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--runtime", "docker"], "a SIF file runs in Apptainer"), (["--all"], "not both")],
)
def test_a_sif_file_takes_no_flags_of_images(tmp_path: Path, words: list[str], said: str) -> None:
    done = Project(tmp_path).invoke("test", "x.sif", *words)
    assert (done.returncode, said in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def broken(judged: Judge, sif: Sif) -> set[str]:
    """What fails where the SIF keeps none of its promises."""
    smoke = (("true",), ("ls", "/no such file"))
    with pytest.raises(StepFailed) as failure:
        judged(Promises(smoke=smoke, budget=sif.size - 1, image_size=sif.size // 2))
    return failed(failure.value)


def test_a_size_over_the_budget_is_a_failure(broken: set[str]) -> None:
    assert {name for name in broken if not name.startswith("test_smoke")} == {
        "test_it_keeps_to_its_budget"
    }


def test_a_sif_that_is_larger_than_its_image_is_a_warning(judged: Judge, sif: Sif) -> None:
    report = judged(Promises(image_size=sif.size // 2))
    assert report.warnings
    assert all(
        warning.startswith("test_it_is_hardly_larger_than_its_image")
        for warning in report.warnings
    )


def test_a_smoke_command_that_fails_is_a_failure(broken: set[str]) -> None:
    assert {name for name in broken if name.startswith("test_smoke")} == {
        "test_smoke[ls '/no such file']"
    }


# Its note of the image's configuration is changed, and the container is as it was.


def changed(sif: Sif, target: Path, *changes: tuple[bytes, bytes]) -> Path:
    """Write a SIF whose note says something else, in as many letters."""
    content = sif.path.read_bytes()
    for old, new in changes:
        before, found, after = content.rpartition(old)
        assert found
        content = before + new + after
    target.write_bytes(content)
    return target


@pytest.fixture(scope="module")
def untrue(judged: Judge, sif: Sif, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What fails where its variables and labels are others."""
    changes = (
        (b"GREETING=hello you", b"GREETING=hello yox"),
        (b'"org.example.told":"yes"', b'"org.example.told":"yep"'),
    )
    other = changed(sif, tmp_path_factory.mktemp("untrue") / sif.path.name, *changes)
    with pytest.raises(StepFailed) as failure:
        judged(Promises(), other)
    return failed(failure.value)


@pytest.mark.parametrize(
    "test",
    ["test_the_images_variables_are_set", "test_apptainer_tells_the_labels_of_the_image"],
    ids=["environment", "label"],
)
def test_a_sif_that_is_not_what_its_image_was_is_a_failure(untrue: set[str], test: str) -> None:
    assert test in untrue
    assert len(untrue) == 2  # each change is found by its own test


def test_a_sif_without_the_working_directory_of_its_image_is_a_failure(
    judged: Judge, sif: Sif, tmp_path: Path
) -> None:
    change = (b'"WorkingDir":"/work"', b'"WorkingDir":"/wrk/"')
    with pytest.raises(StepFailed) as failure:
        judged(Promises(), changed(sif, tmp_path / sif.path.name, change))
    assert "test_where_the_image_starts_is_there" in failed(failure.value)
