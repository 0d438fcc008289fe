"""Bills of materials and differences, asked for as a user does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.engine import Project, docker

# Foreign, since the projects have no folder of that name.
FIRST = "FROM docker.io/sifline/debian-bookworm\nENV KIND=one\nLABEL org.example.a=1\n"
SECOND = FIRST.replace("one", "two") + (
    "RUN printf 'Name: mine\\nVersion: 2\\n' > /METADATA && mkdir /mine-2.dist-info"
    " && mv /METADATA /mine-2.dist-info/METADATA\n"
)


@pytest.fixture
def name(project: Project) -> str:
    """An image with one version in the engine."""
    made = project.image("a", FIRST)
    project.build(made)
    return made


def renew(project: Project, name: str) -> None:
    (project.root / "images" / name / "Dockerfile").write_text(SECOND)
    project.build(name)


def told(project: Project, *words: str) -> dict[str, object]:
    done = project.invoke(*words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return dict(found[0] if isinstance(found, list) else found)


def refused(project: Project, *words: str) -> tuple[int, str]:
    done = project.invoke(*words)
    return done.returncode, done.stderr.splitlines()[-1]


def test_a_bill_of_an_image_and_of_its_sif(project: Project, name: str) -> None:
    of_image = told(project, f"sbom.{name}")
    of_sif = told(project, f"sbom.{name}", "--sif")
    of_file = told(project, "sbom", f"build/sif/{name}.sif")

    packages = inside(name, "dpkg-query", "--show").splitlines()
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


def inside(name: str, *command: str) -> str:
    return docker("run", "--rm", f"sifline/{name}", *command).stdout


def test_a_bill_in_a_place_of_one_s_own(project: Project, name: str) -> None:
    done = project.invoke(f"sbom.{name}", "--output", "mine.json")

    assert done.returncode == 0, done.stderr
    assert "mine.json" in done.stdout
    assert json.loads((project.root / "mine.json").read_text())["bomFormat"] == "CycloneDX"
    assert not (project.root / "build" / "sbom").exists()


def test_an_image_is_compared_with_its_version_before(project: Project, name: str) -> None:
    assert refused(project, f"diff.{name}")[0] == 2
    renew(project, name)

    found = told(project, f"diff.{name}")

    assert found["same"] is False
    added = found["added"]
    assert isinstance(added, list)
    assert [(item["name"], item["version"]) for item in added] == [("mine", "2")]
    assert found["removed"] == []
    assert found["environment"] == [{"name": "KIND", "before": "one", "after": "two"}]
    shown = project.invoke(f"diff.{name}").stdout
    assert "mine" in shown
    assert "KIND" in shown


def test_an_image_is_compared_with_what_is_named(project: Project, name: str) -> None:
    project.invoke(f"convert.{name}")
    first = str(told(project, "info", f"build/sif/{name}.sif")["sif"]["fingerprint"])  # type: ignore[index]
    renew(project, name)

    for against in (first, first[:8], f"build/sif/{name}.sif"):
        found = told(project, f"diff.{name}", "--against", against)
        assert [item["name"] for item in found["added"]] == ["mine"]  # type: ignore[attr-defined]
    same = told(project, f"diff.{name}", "--against", f"sifline/{name}:latest")
    assert same["same"] is True
    status, said = refused(project, f"diff.{name}", "--against", "no-such-image:1")
    assert (status, "no image no-such-image:1" in said) == (3, True)


def test_two_sif_files_are_compared(project: Project, name: str, tmp_path: Path) -> None:
    project.invoke(f"convert.{name}")
    old, new = tmp_path / "old.sif", Path("build/sif") / f"{name}.sif"
    (project.root / new).rename(old)
    renew(project, name)
    project.invoke(f"convert.{name}")

    there = told(project, "diff", str(old), str(new))
    back = told(project, "diff", str(new), str(old))

    assert [item["name"] for item in there["added"]] == ["mine"]  # type: ignore[attr-defined]
    assert there["added"] == back["removed"]


def test_an_image_that_is_not_built_yet(project: Project) -> None:
    made = project.image("b", FIRST)

    assert refused(project, f"diff.{made}") == (
        3,
        f"error: the engine holds no {made} yet; run invoke build.{made}",
    )
    done = project.invoke(f"sbom.{made}")  # as other verbs do, it is built first
    assert done.returncode == 0, done.stderr
