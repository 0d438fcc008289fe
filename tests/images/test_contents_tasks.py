"""Bills of materials and differences, asked for as a user does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.engine import Project, docker
from tests.support.recipes import TRIXIE

# What tells of packages is all that there is to look at.
FIRST = """
FROM scratch
COPY status /var/lib/dpkg/
COPY some /site/some-1.dist-info/METADATA
ENV KIND=one
LABEL org.example.a=1
"""
SECOND = FIRST.replace("one", "two") + "COPY mine /mine-2.dist-info/METADATA\n"
FILES = {
    "status": "Package: base-files\nStatus: install ok installed\nVersion: 12\n"
    "Architecture: amd64\n",
    "some": "Name: some\nVersion: 1\n",
    "mine": "Name: mine\nVersion: 2\n",
}


@dataclass(frozen=True, kw_only=True)
class Versions:
    """An image of two versions, the second of which has one package more.

    ``old`` and ``new`` are their SIFs; ``alone`` is what came of comparing the only version.
    """

    project: Project
    name: str
    old: Path
    new: Path
    alone: int


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    project = Project(tmp_path_factory.mktemp("versions"))
    old = project.root / "old.sif"
    try:
        name = project.image("a", FIRST, **FILES)
        new = converted(project, name)
        shutil.copy(new, old)
        alone = refused(project, f"diff.{name}")[0]
        project.image("a", SECOND)
        converted(project, name)
        yield Versions(project=project, name=name, old=old, new=new, alone=alone)
    finally:
        project.remove_images()


def converted(project: Project, name: str) -> Path:
    """Build an image and convert it; return its SIF."""
    done = project.invoke(f"convert.{name}")
    assert done.returncode == 0, done.stderr
    return project.root / "build" / "sif" / f"{name}.sif"


def told(project: Project, *words: str) -> dict[str, object]:
    done = project.invoke(*words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (several,) = [*(found[name] for name in ("images", "bills") if name in found), [found]][:1]
    return dict(several[0])


def refused(project: Project, *words: str) -> tuple[int, str]:
    done = project.invoke(*words)
    return done.returncode, done.stderr.splitlines()[-1]


def test_a_bill_of_an_image_and_of_its_sif(project: Project) -> None:
    name = project.image("debian", f"FROM docker.io/{TRIXIE}\nLABEL org.example.a=1\n")
    assert project.invoke(f"convert.{name}").returncode == 0
    of_image = told(project, f"sbom.{name}")
    of_sif = told(project, f"sbom.{name}", "--sif")
    of_file = told(project, "sbom", f"build/sif/{name}.sif")

    listed = docker("run", "--rm", f"sifline/{name}", "dpkg-query", "--show").stdout
    packages = listed.splitlines()
    assert len(packages) > 50
    assert of_image["packages"] == {"deb": len(packages), "python": 0}
    assert of_sif["packages"] == of_file["packages"] == of_image["packages"]
    files = [Path(str(item["file"])) for item in (of_image, of_sif)]
    assert [file.name for file in files] == [f"{name}.cdx.json", f"{name}.sif.cdx.json"]
    for file in files:
        bill = json.loads(file.read_text())
        assert bill["bomFormat"] == "CycloneDX"
        assert len([item for item in bill["components"] if item["type"] == "library"]) == len(
            packages
        )


def test_a_bill_in_a_place_of_one_s_own(versions: Versions) -> None:
    root = versions.project.root
    done = versions.project.invoke(f"sbom.{versions.name}", "--output", "mine.json")

    assert done.returncode == 0, done.stderr
    assert "mine.json" in done.stdout
    assert json.loads((root / "mine.json").read_text())["bomFormat"] == "CycloneDX"
    (root / "bills").mkdir()
    names = [versions.name, f"{versions.name}-too"]
    (root / "images" / names[1]).symlink_to(names[0])
    lone = versions.project.invoke("sbom", "--all", "--output", "bills")
    assert (lone.returncode, f"{names[1]} is left out: the engine holds no" in lone.stderr) == (
        0,
        True,
    )
    versions.project.build(names[1])
    several = versions.project.invoke("sbom", "--all", "--output", "bills")
    (root / "images" / names[1]).unlink()
    assert several.returncode == 0, several.stderr
    assert sorted(path.name for path in (root / "bills").iterdir()) == sorted(
        f"{name}.cdx.json" for name in names
    )
    assert not (root / "build" / "sbom").exists()


def test_an_image_is_compared_with_its_version_before(versions: Versions) -> None:
    found = told(versions.project, f"diff.{versions.name}")

    assert versions.alone == 2
    assert found["same"] is False
    added = found["added"]
    assert isinstance(added, list)
    assert [(item["name"], item["version"]) for item in added] == [("mine", "2")]
    assert found["removed"] == []
    assert found["environment"] == [{"name": "KIND", "before": "one", "after": "two"}]
    shown = versions.project.invoke(f"diff.{versions.name}").stdout
    assert "mine" in shown
    assert "KIND" in shown


def test_an_image_is_compared_with_what_is_named(versions: Versions) -> None:
    project, task = versions.project, f"diff.{versions.name}"
    first = str(told(project, "info", str(versions.old))["sif"]["fingerprint"])  # type: ignore[index]

    for against in (first, first[:8], str(versions.old)):
        found = told(project, task, "--against", against)
        assert [item["name"] for item in found["added"]] == ["mine"]  # type: ignore[attr-defined]
    for other in (f"sifline/{versions.name}:latest", versions.name):
        assert told(project, task, "--against", other)["same"] is True
    status, said = refused(project, task, "--against", "no-such-image:1")
    assert (status, "no image no-such-image:1" in said) == (3, True)
    unbuilt = project.image("unbuilt", FIRST, **FILES)
    status, said = refused(project, task, "--against", unbuilt)
    shutil.rmtree(project.root / "images" / unbuilt)
    assert (status, f"the engine holds no {unbuilt} yet" in said) == (3, True)


def test_two_sif_files_are_compared(versions: Versions) -> None:
    there = told(versions.project, "diff", str(versions.old), str(versions.new))
    back = told(versions.project, "diff", str(versions.new), str(versions.old))

    assert [item["name"] for item in there["added"]] == ["mine"]  # type: ignore[attr-defined]
    assert there["added"] == back["removed"]


@pytest.mark.parametrize("verb", ["diff", "sbom", "compat", "sizes"])
def test_nothing_is_built_for_a_report(project: Project, verb: str) -> None:
    made = project.image("b", FIRST, **FILES)

    assert refused(project, f"{verb}.{made}") == (
        3,
        f"error: the engine holds no {made} yet; run invoke build.{made}",
    )
    assert project.inspect(made) is None


@pytest.mark.parametrize("verb", ["sbom", "compat"])
def test_nothing_is_converted_for_a_report(project: Project, verb: str) -> None:
    made = project.image("b", FIRST, **FILES)
    project.build(made)

    assert refused(project, f"{verb}.{made}", "--sif") == (
        3,
        f"error: there is no SIF of {made} yet; run invoke convert.{made}",
    )
