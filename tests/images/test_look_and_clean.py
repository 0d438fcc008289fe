"""Looking at images and cleaning up after them: graph, status, config, clean."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import uuid4
from xml.etree import ElementTree

import pytest

from tests.support.engine import Project, docker

BASE = "docker.io/sifline/debian-trixie"
SMALL = "FROM scratch\nCOPY file /file\n"

# Each makes small images of its own.
pytestmark = pytest.mark.spread


# Looking


def test_graph_draws_every_edge_in_each_format(project: Project) -> None:
    parent = project.image("parent", f"FROM {BASE}\n")
    child = project.image("child", f"FROM sifline/{parent}\n")

    text = project.invoke("graph").stdout
    dot = project.invoke("graph", "--format", "dot").stdout
    mermaid = project.invoke("graph", "--format", "mermaid").stdout

    assert text.index(BASE) < text.index(parent) < text.index(child)
    assert f'"{parent}" -> "{child}"' in dot
    assert mermaid.startswith("flowchart")


def test_graph_is_drawn_for_browsers(project: Project, tmp_path: Path) -> None:
    if not shutil.which("dot"):
        pytest.skip("Graphviz (dot) is not installed")
    parent = project.image("parent", f"FROM {BASE}\n")
    child = project.image("child", f"FROM sifline/{parent}\n")

    svg = project.invoke("graph", "--format", "svg", "--output", str(tmp_path / "g.svg"))

    assert svg.returncode == 0
    root = ElementTree.parse(tmp_path / "g.svg").getroot()  # noqa: S314 - our own
    shown = "".join(root.itertext())
    assert parent in shown
    assert child in shown


def test_status_tells_each_image_for_people_and_for_scripts(project: Project) -> None:
    built, new = project.image("a", SMALL, file="x"), project.image("b", SMALL, file="y")
    project.build(built)

    table = project.invoke("status").stdout.splitlines()
    told = json.loads(project.invoke("status", "--json").stdout)
    found = {item["name"]: item for item in told["images"]}

    assert [line.split()[0] for line in table] == ["image", built, new]
    assert (found[built]["stale"], found[new]["stale"]) == ("", "not in the engine")
    assert found[built]["image_id"] == (project.inspect(built) or {})["Id"]


def test_config_names_the_origin_of_each_value(project: Project) -> None:
    name = project.image("a", "FROM scratch\nARG A=0\nARG B=0\nARG C=0\nCOPY file /\n", file="x")
    (project.root / "images" / name / "image.toml").write_text(
        '[build-args]\nA = "1"\nB = "1"\nC = "1"\n'
    )
    project.site("lab", '[build-args]\nB = "2"\nC = "2"\n')

    flags = ("--site", "lab", "--build-arg", "C=3")
    shown = project.invoke(f"config.{name}", "--show", "--json", *flags).stdout

    rows = {item["key"]: item for item in json.loads(shown)["settings"][name]}
    said = {
        key: (rows[f"build-args.{key}"]["value"], rows[f"build-args.{key}"]["origin"])
        for key in "ABC"
    }
    assert said == {
        "A": ("1", f"images/{name}/image.toml"),
        "B": ("2", "sites/lab.toml"),
        "C": ("3", "--build-arg"),
    }


# Cleaning


def test_clean_leaves_a_name_that_somebody_gave_an_image_of_ours(project: Project) -> None:
    name = project.image("a", f"FROM {BASE}\nCOPY x /x\n", x=uuid4().hex)
    project.build(name)
    own = f"sifline/{name}:release-1.0"
    docker("tag", f"sifline/{name}", own)

    project.build(name, "--force")
    assert docker("image", "inspect", own, check=False).returncode == 0
    project.invoke(f"clean.{name}", "--yes")

    assert docker("image", "inspect", own, check=False).returncode == 0
    assert project.inspect(name) is None


def test_clean_all_unused_takes_what_has_no_folder_now_and_was_built_here(
    project: Project, tmp_path: Path
) -> None:
    kept, gone = project.image("kept", SMALL, file="x"), project.image("gone", SMALL, file="y")
    project.invoke("build", "--all")
    (tmp_path / "other").mkdir()
    other = Project(tmp_path / "other", prefix=project.prefix)
    elsewhere = other.image("elsewhere", SMALL, file="z")
    other.build(elsewhere)
    shutil.rmtree(project.root / "images" / gone)

    project.invoke("clean", "--yes", "--all", "--unused")

    assert project.inspect(gone) is None
    assert project.inspect(kept) is not None
    assert other.inspect(elsewhere) is not None


def test_clean_spares_versions_of_other_checkouts_unless_it_is_asked(
    project: Project, tmp_path: Path
) -> None:
    name = project.image("a", SMALL, file="x")
    project.build(name)
    (tmp_path / "other").mkdir()
    other = Project(tmp_path / "other", prefix=project.prefix)
    other.image("a", SMALL, file="theirs")
    other.build(name)
    theirs = str((other.inspect(name) or {})["Id"])

    done = project.invoke(f"clean.{name}", "--yes")

    assert done.stdout.count("removed image") == 1
    assert "--foreign removes it as well" in done.stdout
    assert (other.inspect(name) or {})["Id"] == theirs
    assert other.build(name) == {name: "up to date"}

    done = project.invoke(f"clean.{name}", "--yes", "--foreign")

    assert done.stdout.count("removed image") == 1
    assert docker("image", "inspect", theirs, check=False).returncode != 0


def unnamed(folder: Path, dockerfile: str, **labels: str) -> str:
    """Build an image without a name, as anybody may; return its id."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(dockerfile)
    words = [
        word for item in labels.items() for word in ("--label", "sifline.{}={}".format(*item))
    ]
    docker("buildx", "build", "--iidfile", f"{folder}.id", *words, str(folder))
    return Path(f"{folder}.id").read_text()


def test_of_unnamed_images_only_those_go_that_a_killed_run_of_ours_left(
    project: Project, tmp_path: Path
) -> None:
    """A child of ours inherits all labels, so that they tell nothing."""
    name = project.image("a", SMALL, file="x")
    project.build(name)
    child = unnamed(tmp_path / "child", f"FROM sifline/{name}\nENV A=b\n")
    marks = {"image": name, "fingerprint": "f" * 64}
    ours = [
        unnamed(tmp_path / f"left-{number}", f"FROM scratch\nENV A={number}\n", **marks)
        for number in range(2)
    ]
    logs = project.root / "build" / "logs"
    (logs / f"{name}.build.0123abcd.id").write_text(ours[0])

    done = project.invoke("clean", "--yes", "--all", "--unused", "--docker")

    assert done.stdout.count("removed image") == 1
    assert held(child, *ours) == [True, False, True]

    # So does the next build.
    (logs / f"{name}.build.0123abcd.id").write_text(ours[1])
    (project.root / "images" / name / "file").write_text("y")
    project.build(name)
    assert held(child, *ours) == [True, False, False]
    assert [*logs.glob("*.id")] == []
    docker("image", "rm", child)


def held(*ids: str) -> list[bool]:
    """Tell of each image whether the engine has it."""
    return [docker("image", "inspect", one, check=False).returncode == 0 for one in ids]


def test_an_image_that_a_container_uses_can_be_cleaned_later(project: Project) -> None:
    name = project.image("a", SMALL, file="x")
    project.build(name)
    container = docker("create", f"sifline/{name}", "none").stdout.strip()
    assert "a container uses it" in project.invoke(f"clean.{name}", "--yes").stdout
    docker("rm", container)

    assert project.invoke(f"clean.{name}", "--yes").stdout.count("removed image") == 1
    assert project.inspect(name) is None


def test_clean_unused_spares_a_stale_image_that_is_at_hand(project: Project) -> None:
    name = project.image("a", SMALL, file="x")
    project.build(name)
    (project.root / "images" / name / "file").write_text("y")

    project.invoke(f"clean.{name}", "--yes", "--unused")

    assert project.inspect(name) is not None


def test_clean_unused_spares_what_is_up_to_date(project: Project) -> None:
    name = project.image("a", SMALL, file="first")
    project.build(name)
    old = (project.inspect(name) or {})["Id"]
    (project.root / "images" / name / "file").write_text("second")
    project.build(name)
    new = (project.inspect(name) or {})["Id"]

    done = project.invoke(f"clean.{name}", "--yes", "--unused")

    assert done.stdout.count("removed image") == 1
    assert docker("image", "inspect", str(old), check=False).returncode != 0
    assert (project.inspect(name) or {})["Id"] == new
    assert project.build(name) == {name: "up to date"}


def test_clean_takes_what_was_remembered_of_an_image(project: Project) -> None:
    name = project.image("a", SMALL, file="x")
    project.build(name)
    assert project.invoke(f"compat.{name}").returncode == 0
    ours = str((project.inspect(name) or {})["Id"]).rpartition(":")[2]
    kept = project.root / "build" / "cache" / "compatibility"
    (kept / "0000.json").write_text("{}")  # of an image that is gone

    project.invoke("clean", "--yes", "--all", "--unused")
    assert [path.stem for path in kept.iterdir()] == [ours]

    project.invoke(f"clean.{name}", "--yes")
    assert [*kept.iterdir()] == []


def test_clean_older_than_spares_the_young(project: Project) -> None:
    name = project.image("a", SMALL, file="x")
    project.build(name)

    done = project.invoke(f"clean.{name}", "--yes", "--older-than", "1h")

    assert done.stdout == "nothing to remove\n"
    assert project.inspect(name) is not None


def test_clean_keeps_an_image_that_a_container_uses(project: Project) -> None:
    name = project.image("a", SMALL, file="x")
    project.build(name)
    container = docker("create", f"sifline/{name}", "none").stdout.strip()

    done = project.invoke(f"clean.{name}", "--yes", "--docker")
    docker("rm", container)

    assert "a container uses it" in done.stdout
    assert project.inspect(name) is not None


def test_clean_in_dry_mode_removes_nothing(project: Project) -> None:
    name = project.image("a", SMALL, file="x")
    project.build(name)

    done = project.invoke("--dry", f"clean.{name}")

    assert "would remove image" in done.stdout
    assert project.inspect(name) is not None
