"""An image whose files or name cannot be used spoils itself and what is built on it, no other."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sifline.config import image_names
from sifline.errors import UsageError
from sifline.model import Workspace
from sifline.pipeline import testing
from sifline.tasks import completion
from tests.support.invoking import engine_without_images, invoke_here

TASKS = """
from pathlib import Path
from sifline.tasks import namespace
ns = namespace(Path(__file__).parent)
"""
RULE = "lower-case letters and digits"
NAMES = (
    "my_image",
    "My-image",
    "_template",
    "all",
    "-dash",
    "dash-",
    "a b",
    "a$(reboot)",
    "a;b",
    "a..b",
    ".hidden",
    "x" * 200,
    "naïve",
    "a\nb",
)


def image(project: Path, name: str, dockerfile: str = "FROM scratch\n") -> Path:
    folder = project / "images" / name
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(dockerfile)
    return folder


def dockerfile_is_a_folder(folder: Path) -> None:
    (folder / "Dockerfile").unlink()
    (folder / "Dockerfile").mkdir()


def dockerfile_leads_nowhere(folder: Path) -> None:
    (folder / "Dockerfile").unlink()
    (folder / "Dockerfile").symlink_to("nowhere")


def settings_lead_to_themselves(folder: Path) -> None:
    (folder / "image.toml").symlink_to("image.toml")


# What is done to the folder of a whole image, by what the error says.
BREAKS: dict[str, Callable[[Path], object]] = {
    "line 2: 'FRMO' is no": lambda at: (at / "Dockerfile").write_text("FROM scratch\nFRMO x\n"),
    "Is a directory": dockerfile_is_a_folder,
    "No such file": dockerfile_leads_nowhere,
    "unknown key": lambda at: (at / "image.toml").write_text("describtion = 'x'\n"),
    "is not TOML": lambda at: (at / "image.toml").write_text("[\n"),
    "image.toml: cannot be read: Too many levels": settings_lead_to_themselves,
    "'[' has a [ without": lambda at: (at / ".dockerignore").write_text("[\n"),
    "no images/nothing": lambda at: (at / "Dockerfile").write_text("FROM sifline/nothing\n"),
    "in a circle": lambda at: (at / "Dockerfile").write_text("FROM sifline/bad\n"),
    RULE: lambda at: at.rename(at.parent / "Bad_Name"),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS)
    image(tmp_path, "good", "ARG X\nFROM scratch\n")
    engine_without_images(tmp_path, monkeypatch)
    return tmp_path


# One of a file that is read for every verb, one of the build context, one of the name.
SEVERAL = ("line 2: 'FRMO' is no", "'[' has a [ without", RULE)


@pytest.fixture(params=SEVERAL)
def fault(request: pytest.FixtureRequest, project: Path) -> str:
    """What the error says of the one broken image beside the whole one."""
    fault: str = request.param
    BREAKS[fault](image(project, "bad"))
    return fault


@pytest.mark.parametrize("fault", BREAKS)
def test_whatever_is_broken_in_an_image_stays_there(project: Path, fault: str) -> None:
    BREAKS[fault](image(project, "bad"))

    found = json.loads(told(project, "status", "--json"))["images"]

    errors = {item["name"]: item["error"] for item in found}
    assert errors.pop("good") == ""
    (error,) = errors.values()
    assert fault in error
    assert invoke_here(project, "build.good", "--dry").returncode == 0


def told(project: Path, *words: str) -> str:
    """What invoke prints where it does the most of it; the error stands behind all else."""
    done = invoke_here(project, *words)
    assert done.returncode == 1, done
    assert done.stderr.splitlines()[-1].startswith("error: "), done
    return done.stdout


@pytest.mark.parametrize(
    "words",
    [("status",), ("explain",), ("graph",), ("config",), ("info", "--all"), ("build", "--all")],
    ids=" ".join,
)
def test_all_images_have_their_rows_and_the_broken_one_says_so(
    project: Path, fault: str, words: tuple[str, ...]
) -> None:
    dry = ("--dry",) if words[0] == "build" else ()

    rows = told(project, *words, *dry).splitlines()

    (broken,) = (row for row in rows if fault in row)
    assert "bad" in broken.lower() or words[0] in ("config", "info")
    assert any("good" in row for row in rows)


def test_json_of_explanations_has_a_field_for_it(project: Path, fault: str) -> None:
    found = json.loads(told(project, "explain", "--json"))["images"]

    assert sorted(fault in item["error"] for item in found) == [False, True]


def test_json_of_what_is_known_names_the_error_alone(project: Path, fault: str) -> None:
    good, broken = json.loads(told(project, "info", "--all", "--json"))["images"]

    assert ("error" in good, set(broken)) == (False, {"name", "error"})
    assert fault in broken["error"]


def test_json_of_settings_has_the_error_as_the_only_one(project: Path, fault: str) -> None:
    found = json.loads(told(project, "config", "--json"))["settings"]

    (broken,) = (found[name] for name in found if name not in ("", "good"))
    assert [item["key"] for item in broken] == ["error"]
    assert fault in broken[0]["value"]


@pytest.mark.parametrize(
    "words",
    [
        ("status.good",),
        ("explain.good",),
        ("graph.good",),
        ("config.good",),
        ("info.good",),
        ("build.good", "--dry"),
        ("build.good", "--dry", "--build-arg", "X=1"),
        ("clean.good", "--dry"),
    ],
    ids=" ".join,
)
def test_whoever_names_a_whole_image_does_not_meet_the_broken_one(
    project: Path, fault: str, words: tuple[str, ...]
) -> None:
    done = invoke_here(project, *words)

    assert (done.returncode, done.stderr) == (0, "")
    assert fault not in done.stdout


# Neither settings nor what is known of an image ask for its build context.
@pytest.mark.parametrize("verb", ["status", "explain", "graph", "build"])
def test_whoever_names_the_broken_one_is_told(project: Path, fault: str, verb: str) -> None:
    name = "Bad_Name" if fault == RULE else "bad"

    done = invoke_here(project, f"{verb}.{name}")

    assert (done.returncode, done.stdout) == (2, "")
    assert fault in done.stderr


def test_what_is_built_on_a_broken_one_is_broken_as_well(project: Path) -> None:
    image(project, "bad", "FRMO\n")
    image(project, "child", "FROM sifline/bad\n")

    found = json.loads(told(project, "status", "--json"))["images"]

    assert [(item["name"], "FRMO" in item["error"]) for item in found] == [
        ("bad", True),
        ("child", True),
        ("good", False),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("explain",),
        ("graph",),
        ("config",),
        ("info", "--all"),
        ("build", "--all", "--dry"),
        ("clean", "--all", "--unused", "--dry"),
        ("--list", "build"),
    ],
    ids=" ".join,
)
def test_why_it_is_broken_is_said_once(project: Path, words: tuple[str, ...]) -> None:
    image(project, "bad", "FRMO\n")
    (project / "images" / "bad" / "image.toml").write_text("descripton = 'x'\n")

    done = invoke_here(project, *words)

    said = (done.stdout + done.stderr).count("'FRMO'") + (done.stdout + done.stderr).count("key")
    assert (done.returncode, said) == (1, 1)
    assert done.stderr == "error: 1 image is broken, see its error above: bad\n"


def test_several_that_are_broken_are_named_in_one_line(project: Path) -> None:
    image(project, "bad", "FRMO\n")
    image(project, "a\nb")

    done = invoke_here(project, "status")

    assert done.stderr == "error: 2 images are broken, see the errors above: bad, a?b\n"


def test_cleaning_spares_what_is_broken_where_use_counts(project: Path, fault: str) -> None:
    rows = told(project, "clean", "--all", "--unused", "--dry") if fault != RULE else fault

    assert fault in rows
    assert invoke_here(project, "clean", "--all", "--dry").returncode == 0


def test_what_is_broken_is_not_what_has_no_folder_now(project: Path) -> None:
    """Else all that was made of it would be removed as unused."""
    image(project, "bad", "FRMO\n")
    for name in ("bad", "gone"):
        record = project / "build" / "records" / name / "build-0123456789ab.json"
        record.parent.mkdir(parents=True)
        record.write_text("{}")

    told(project, "clean", "--all", "--unused", "--state", "--yes")

    left = sorted(path.parent.name for path in (project / "build" / "records").rglob("*.json"))
    assert left == ["bad"]


@pytest.mark.parametrize("name", NAMES)
def test_a_list_has_a_row_for_a_name_that_cannot_work(project: Path, name: str) -> None:
    image(project, name)

    listed = told(project, "--list", "status")

    shown = image_names.printable(name)
    (row,) = (line for line in listed.splitlines() if line.startswith(f"  status.{shown} "))
    assert row.removeprefix(f"  status.{shown}").strip().startswith("broken:")
    assert "\n  status.good\n" in listed


def test_the_list_of_a_verb_fails_for_an_image_toml_that_is_wrong(project: Path) -> None:
    image(project, "wrong")
    (project / "images" / "wrong" / "image.toml").write_text("descripton = 'x'\n")

    done = invoke_here(project, "--list", "build")

    assert "\n  build.wrong   broken: " in done.stdout
    assert (done.returncode, done.stderr.startswith("error: ")) == (1, True)


@pytest.mark.parametrize("layout", ["nested", "json"])
def test_lists_of_every_kind_have_it(project: Path, layout: str) -> None:
    image(project, "Bad_Name")

    listed = told(project, "--list", "--list-format", layout)

    assert ("Bad_Name" in listed, "broken: images/" in listed) == (True, True)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("all", "-dash")])
def test_a_name_that_cannot_work_is_refused_with_folder_and_rule(project: Path, name: str) -> None:
    image(project, name)

    done = invoke_here(project, f"build.{name}")

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert ("images/" in done.stderr, RULE in done.stderr) == (True, True)


def test_the_next_project_in_a_process_has_lists_of_its_own(project: Path) -> None:
    image(project, "Bad_Name")
    told(project, "--list")
    shutil.rmtree(project / "images" / "Bad_Name")

    assert invoke_here(project, "--list").returncode == 0


def test_completion_offers_names_that_work(project: Path) -> None:
    image(project, "Bad_Name")
    image(project, "bad", "FRMO\n")

    offered = completion.answer(["build."], project).found

    images = {item.word for item in offered} - {"build"}
    assert images == {"build.bad", "build.good"}


def test_a_folder_that_cannot_be_looked_into_is_an_image_and_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image(tmp_path, "good")
    image(tmp_path, "locked")
    image(tmp_path, "lost+found")
    look = os.lstat

    def refuse(path: str) -> object:
        if "good" in path:
            return look(path)
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "lstat", refuse)

    found = image_names.found(Workspace(root=tmp_path))
    assert (found.names, dict(found.refused)) == (("good", "locked"), {})


def test_tests_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "test_x.py").write_text("")
    monkeypatch.setattr(testing, "file_digest", refuse)

    with pytest.raises(UsageError, match=r"cannot be read: .*test_x\.py: Permission denied"):
        testing._tests_digest(tmp_path)
