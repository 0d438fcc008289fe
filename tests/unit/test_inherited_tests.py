"""Which tests an image has to pass: its own, and those of what it begins with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sifline.machine import gpus
from sifline.model import BuiltImage, Image, Sif
from sifline.pipeline import Pipeline
from sifline.report.terminal import Terminal
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner

IMAGES = {
    "base": "FROM scratch",
    "files": "FROM scratch",
    "middle": "FROM sifline/files AS f\nFROM sifline/base\nCOPY --from=f / /f",
    "leaf": "ARG B=sifline/middle\nFROM $B",
}


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    for name, dockerfile in IMAGES.items():
        (tmp_path / "images" / name / "tests").mkdir(parents=True)
        (tmp_path / "images" / name / "Dockerfile").write_text(dockerfile)
    here = context_of(tmp_path, RecordingRunner())
    return Pipeline(here, Terminal())


def inherited(pipeline: Pipeline, subject: BuiltImage | Sif) -> list[str]:
    folders = pipeline.planner.testing.folders(subject)
    return [path.parent.name if path.name == "tests" else path.name for path in folders]


IMAGE = BuiltImage(
    image=Image(name="leaf", folder=Path(), tag=""),
    image_id="",
    fingerprint="",
    size=0,
    reused=False,
)
SIF = Sif(name="leaf", path=Path("leaf.sif"), sha256="", size=0)


def test_parents_come_first_and_what_is_only_copied_from_does_not_count(
    pipeline: Pipeline,
) -> None:
    assert inherited(pipeline, IMAGE) == ["base", "middle", "leaf"]


def test_a_sif_has_to_pass_those_of_every_sif_as_well(pipeline: Pipeline) -> None:
    assert inherited(pipeline, SIF) == ["sif", "base", "middle", "leaf"]


def test_one_without_a_folder_of_tests_has_those_of_what_it_begins_with(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    (tmp_path / "images" / "leaf" / "tests").rmdir()
    assert inherited(pipeline, IMAGE) == ["base", "middle"]


def test_begun_with_an_image_from_elsewhere_it_has_its_own_alone(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    (tmp_path / "images" / "leaf" / "image.toml").write_text('[build-args]\nB = "debian:12"\n')
    assert inherited(pipeline, IMAGE) == ["leaf"]


def test_byte_code_is_no_other_version_of_the_tests(pipeline: Pipeline, tmp_path: Path) -> None:
    tests = tmp_path / "images" / "leaf" / "tests"
    (tests / "test_x.py").write_text("")
    before = pipeline.planner.testing.key(IMAGE)
    (tests / "__pycache__").mkdir()
    (tests / "__pycache__" / "test_x.cpython-311.pyc").write_bytes(b"code")
    assert pipeline.planner.testing.key(IMAGE) == before
    (tests / "test_x.py").write_text("# another")
    assert pipeline.planner.testing.key(IMAGE) != before


def test_what_passed_without_a_gpu_is_tested_again_with_one(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    seen = [pipeline.planner.testing.key(IMAGE)]
    for name in ("nvidiactl", "nvidia0", "nvidia1"):
        (tmp_path / name).touch()
    seen.append(pipeline.planner.testing.key(IMAGE))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nvidia-ctk").touch(mode=0o755)
    seen.append(pipeline.planner.testing.key(IMAGE))
    assert [key["gpus"] for key in seen] == [["0"], ["2"], ["2", "nvidia-ctk"]]


SKIPPING = '[tests.skip]\ntest_x = "%s"\n'


def test_what_an_image_skips_those_built_on_it_skip_too(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    (images / "base" / "tests" / "test_x.py").write_text("def test_x(): pass\n")
    (images / "middle" / "image.toml").write_text(SKIPPING % "no need")
    testing = pipeline.planner.testing
    before = testing.key(replace(IMAGE, image=replace(IMAGE.image, name="base")))

    assert testing.skip("leaf") == {"test_x": "no need (images/middle/image.toml)"}
    assert testing.skip("base") == {} == before["skip"]
    assert testing.key(IMAGE)["skip"] == testing.skip("leaf")


def test_an_image_that_skips_a_test_which_is_not_there_is_broken(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    (images / "leaf" / "tests" / "test_x.py").write_text("def test_x(): pass\n")
    # A test of the leaf is none of the middle's.
    (images / "middle" / "image.toml").write_text(SKIPPING % "no need")

    whole, broken = pipeline.planner.sound(["base", "middle", "leaf"])

    assert whole == ["base"]
    assert "tests.skip.test_x: middle has no such test" in broken["leaf"].message


def test_sifs_own_tests_can_be_skipped_too(pipeline: Pipeline, tmp_path: Path) -> None:
    own = 'test_it_is_hardly_larger_than_its_image = "sparse files"\n'
    (tmp_path / "images" / "base" / "image.toml").write_text(f"[tests.skip]\n{own}")

    assert pipeline.planner.sound(["base"])[0] == ["base"]
