"""Foreign bases from a real registry: pulled, recorded, noticed when they move, replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Project, docker
from tests.support.registry import Base


@pytest.fixture
def base(registry: str, tmp_path: Path) -> Iterator[Base]:
    made = Base(registry, tmp_path)
    # The engine may hold what others pushed, under whatever name, and would not pull it.
    made.push(f"first {made.name}")
    yield made
    docker("image", "rm", "--force", made.name, check=False)


def test_a_missing_base_is_pulled_and_its_digest_recorded(project: Project, base: Base) -> None:
    name = project.image("a", f"FROM {base.name}\nCOPY own /\n", own="x")

    project.build(name)

    (record,) = (project.root / "build" / "records" / name).glob("build-*.json")
    said = json.loads(record.read_text())
    held = json.loads(docker("image", "inspect", base.name).stdout)[0]
    assert said["base_digests"] == {base.name: held["RepoDigests"][0]}
    assert said["recipe"]["bases"] == {base.name: held["Id"]}


def test_a_folder_of_the_same_name_does_not_stand_for_a_foreign_base(
    project: Project, base: Base
) -> None:
    namesake = project.root / "images" / base.repository.rpartition("/")[2]
    namesake.mkdir()
    (namesake / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /content\n")
    name = project.image("a", f"FROM {base.name}\nCOPY own /\n", own="x")

    assert project.build(name) == {name: "built"}
    assert project.read(name, "content") == f"first {base.name}"


def test_a_moved_tag_is_noticed_with_pull_alone(project: Project, base: Base) -> None:
    name = project.image("a", f"FROM {base.name}\nCOPY own /\n", own="x")
    project.build(name)
    docker("image", "tag", base.name, f"{base.name}-kept")
    base.push(f"second {base.name}")
    docker("image", "tag", f"{base.name}-kept", base.name)
    docker("image", "rm", f"{base.name}-kept")

    assert project.build(name) == {name: "up to date"}
    plan = project.invoke("--dry", f"build.{name}", "--pull").stdout
    assert f"{base.name} has moved in its registry" in plan
    assert project.build(name, "--pull") == {name: "built"}
    assert project.build(name, "--pull") == {name: "up to date"}
    assert project.read(name, "content") == f"second {base.name}"


def test_an_unknown_base_is_an_error_that_names_it(project: Project, registry: str) -> None:
    name = project.image("a", f"FROM {registry}/acme/nothing:1\n")

    done = project.invoke(f"build.{name}")

    assert done.returncode == 1
    assert f"{registry}/acme/nothing:1 cannot be pulled" in done.stderr.splitlines()[-1]


def test_an_offline_site_pulls_nothing(project: Project, base: Base) -> None:
    name = project.image("a", f"FROM {base.name}\nCOPY own /\n", own="x")
    project.site("away", "offline = true\n")

    done = project.invoke(f"build.{name}", "--site", "away")

    assert done.returncode == 3
    assert f"{name} is built on {base.name}, which is not in the engine" in done.stderr


def test_an_offline_site_has_no_foreign_reader_of_dockerfiles(project: Project) -> None:
    name = project.image("a", "# syntax=docker/dockerfile:1\nFROM scratch\nCOPY x /\n", x="x")
    project.site("away", "offline = true\n")

    for words in (("--dry", f"build.{name}"), (f"build.{name}",)):
        done = project.invoke(*words, "--site", "away")
        assert done.returncode == 3
        assert "its line # syntax=docker/dockerfile:1 needs network access" in done.stderr


def test_a_site_replaces_a_base_without_touching_the_dockerfile(
    project: Project, base: Base
) -> None:
    name = project.image("a", "ARG V=22.04\nFROM ubuntu:${V} AS x\nCOPY own /\n", own="x")
    project.site("lab", f'[bases]\n"ubuntu:22.04" = "{base.name}"\n')

    assert project.build(name, "--site", "lab") == {name: "built"}
    assert project.read(name, "content") == f"first {base.name}"
    assert project.read(name, "own") == "x"


def test_a_site_names_an_image_of_ours_that_is_built_first_and_whose_changes_count(
    project: Project,
) -> None:
    base = project.image("base", "FROM scratch\nCOPY content /\n", content="first")
    name = project.image("a", "FROM ubuntu:22.04\nCOPY own /\n", own="x")
    project.site("lab", f'offline = true\n[bases]\n"ubuntu:22.04" = "sifline/{base}"\n')
    site = ("--site", "lab")

    assert project.build(name, *site) == {base: "built", name: "built"}
    assert project.build(name, *site) == {base: "up to date", name: "up to date"}
    (project.root / "images" / base / "content").write_text("second")
    drawn = project.invoke("graph", *site).stdout
    assert f"{name}  build: built on {base}, which is built anew  FROM ubuntu:22.04" in drawn
    assert project.build(name, *site) == {base: "built", name: "built"}
    assert project.read(name, "content") == "second"
