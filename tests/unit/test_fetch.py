from __future__ import annotations

import re
from pathlib import Path

import pytest

from sifline.contents import sif_records
from sifline.engines.docker.images import Docker
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.model import Workspace
from sifline.pipeline.plans import Planner
from sifline.pipeline.sifs import Sifs
from sifline.pipeline.work import Work
from sifline.report.terminal import Terminal
from sifline.stages import fetch
from sifline.stages.fetch import Wanted
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("docker://ubuntu:22.04", "ubuntu-22.04"),
        ("docker://ubuntu", "ubuntu"),
        ("docker://ubuntu:latest", "ubuntu"),
        ("docker://localhost:5000/acme/base", "base"),
        ("docker://localhost:5000/acme/base:1@sha256:0123", "base-1"),
        ("/some/where/x.tar", "x"),
        ("x.tar.gz", "x"),
        ("oci-archive:/some/where/x.tgz", "x"),
        ("docker-archive:x", "x"),
        ("docker-daemon:ubuntu:22.04", "ubuntu-22.04"),
        ("docker-daemon:localhost:5000/acme/base:latest", "base"),
    ],
)
def test_a_sif_is_called_as_its_source(source: str, name: str) -> None:
    assert fetch.is_image(source)
    assert fetch.name_of(source) == name


@pytest.mark.parametrize("source", ["x.def", "x.def.j2", "x", "http://x", "ubuntu:22.04"])
def test_what_is_no_image_elsewhere(source: str) -> None:
    assert not fetch.is_image(source)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("docker-daemon:x:1", "docker-daemon:docker.io/library/x:1", True),
        ("docker-daemon:x", "docker-daemon:x:latest", True),
        ("docker-daemon:x:1", "docker-daemon:a/x:1", False),
        ("docker-daemon:x:1", "docker://x:1", False),
        ("x.tar", "./x.tar", True),
        ("docker-archive:x.tar", "x.tar", True),
        ("x.tar", "/x.tar", False),
        ("a.def", "b/../a.def", True),
    ],
)
def test_a_source_is_the_same_however_it_is_written(one: str, other: str, *, same: bool) -> None:
    assert (fetch.origin_of(one) == fetch.origin_of(other)) is same


@pytest.mark.parametrize("kind", ["docker-daemon:", "docker://"])
@pytest.mark.parametrize(
    "reference", ["-x", "Bad Name:x y", "acme/UPPER:1", "x:", "x::1", "a//b", "x:t@sha256:12", "ü"]
)
def test_a_reference_that_no_image_can_have_is_refused_at_the_door(
    tmp_path: Path, kind: str, reference: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--source '{kind}{reference}': is no refer")):
        sifs(tmp_path)._title(f"{kind}{reference}", "x", None)


@pytest.mark.parametrize(
    "reference",
    ["x", "1f2e3d", "a/b__c:1_X", "HOST/x:1", "localhost:5000/x/y-z:1", f"x:1@sha256:{'0' * 64}"],
)
def test_references_as_docker_takes_them(tmp_path: Path, reference: str) -> None:
    assert sifs(tmp_path)._title(f"docker-daemon:{reference}", "x", None) == "x"


def sifs(root: Path) -> Sifs:
    (root / "images" / "taken").mkdir(parents=True, exist_ok=True)
    (root / "images" / "taken" / "Dockerfile").write_text("FROM scratch\n")
    planner = Planner(context_of(root, RecordingRunner({})), Terminal())
    return Sifs(planner, Work(planner))


def kept(root: Path, name: str, **record: str) -> None:
    """Leave a SIF with its record."""
    space = Workspace(root=root)
    space.sif(name).parent.mkdir(parents=True, exist_ok=True)
    space.sif(name).write_text("x")
    sif_records.write(name, space, record)


def named(root: Path, source: str, image_id: str = "sha256:1") -> str:
    return sifs(root)._named(source, Wanted(image_id=image_id, source=source))


def test_the_sif_of_a_source_is_called_as_it_whatever_the_output(tmp_path: Path) -> None:
    assert named(tmp_path, "docker-daemon:acme/tools:1") == "tools-1"


def test_a_sif_of_another_source_is_never_replaced(tmp_path: Path) -> None:
    source = "docker-daemon:acme/tools:1"
    kept(tmp_path, "tools-1", source="docker-daemon:docker.io/other/tools:1", image_id="sha256:9")
    first = named(tmp_path, source)
    assert first.startswith("tools-1-")
    assert first == named(tmp_path, source)
    assert first != named(tmp_path, "docker-daemon:third/tools:1")


@pytest.mark.parametrize(
    "record",
    [
        {"source": "docker-daemon:docker.io/acme/tools:1", "image_id": "sha256:9"},
        {"source": "another", "image_id": "sha256:1"},
    ],
    ids=["the source, which has another image now", "the image, from another source"],
)
def test_the_sif_of_the_same_source_or_image_is_used_again(
    tmp_path: Path, record: dict[str, str]
) -> None:
    kept(tmp_path, "tools-1", **record)
    assert named(tmp_path, "docker-daemon:acme/tools:1") == "tools-1"


@pytest.mark.parametrize(
    ("source", "beginning"),
    [
        ("docker-daemon:acme/taken", "taken-"),
        ("docker-daemon:Sha:A", "source-"),
        ("/some/Odd File.tar", "source-"),
        (f"docker-daemon:{'x' * 100}", f"{'x' * 91}"),
    ],
)
def test_a_source_that_gives_no_free_name_has_one_all_the_same(
    tmp_path: Path, source: str, beginning: str
) -> None:
    if "xxx" in source:
        kept(tmp_path, "x" * 100, source="another", image_id="sha256:9")
    name = named(tmp_path, source)
    assert name.startswith(beginning)
    assert sifs(tmp_path)._free(name) == name


def test_what_the_registry_said_is_in_the_line(tmp_path: Path) -> None:
    runner = RecordingRunner(
        {
            ("docker", "pull"): answer(stderr="manifest unknown", returncode=1),
            ("docker", "image", "pull"): answer(stderr="manifest unknown", returncode=1),
        },
        tools={"docker"},
    )
    wanted = Wanted(image_id="sha256:1", source="docker://x", pull="x@sha256:1")
    context = context_of(tmp_path, runner)
    with pytest.raises(StepFailed, match="x@sha256:1 cannot be pulled: manifest unknown; check"):
        fetch._bring(wanted, Docker(runner), context)


def test_the_signature_of_an_image_without_a_sif_names_the_command_that_makes_one(
    tmp_path: Path,
) -> None:
    with pytest.raises(MissingError, match=r"no SIF of taken yet; run invoke convert\.taken"):
        sifs(tmp_path).verify_signature(["taken"], signers=(), online=False)
