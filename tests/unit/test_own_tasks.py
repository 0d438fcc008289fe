"""Other people's tasks beside ours in a task file: they are listed, run, and have their flags."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sifline.tasks import completion
from tests.support.invoking import engine_without_images, invoke_here

HEAD = """
from pathlib import Path
from sifline.tasks import namespace
ours = namespace(Path(__file__).parent)
"""
OTHERS = """
from invoke import Collection, task

@task
def lint(c, fast=False, target=""):
    print("lint", fast, target)

@task
def unit(c):
    print("unit")

@task
def config(c, name):
    print("config", name)

@task
def doctor(c):
    print("doctor")

def group(*parts, **more):
    return Collection(*parts, **more)
"""
BESIDE = "import others\nns = ours\nns.add_task(others.lint)\n"
GROUP = "import others\nns = ours\nns.add_collection(others.group('test', others.unit))\n"
BELOW = "import others\nns = others.group(others.config, others.lint, images=ours)\n"
REPLACED = "import others\nns = ours\nns.add_task(others.config)\n"
REPLACED_GROUP = (
    "import others\nns = ours\nns.add_collection(others.group('doctor', others.unit))\n"
    "ns.add_task(others.doctor, name='test')\n"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "images" / "hello"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "others.py").write_text(OTHERS)
    engine_without_images(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(autouse=True)
def forget_others() -> None:
    sys.modules.pop("others", None)


@pytest.mark.parametrize(
    ("tasks", "words", "printed"),
    [
        (BESIDE, ("lint",), "lint False \n"),
        (BESIDE, ("lint", "--fast", "--target", "build.nothing"), "lint True build.nothing\n"),
        (BESIDE, ("lint", "--target=x", "config.hello"), "lint False x\nhello"),
        (GROUP, ("test.unit",), "unit\n"),
        (BELOW, ("config", "x"), "config x\n"),
        (BELOW, ("config", "--name", "x", "lint"), "config x\nlint False \n"),
        (BELOW, ("images.build.hello", "--dry"), "hello  build"),
        (BELOW, ("images.status",), "not built"),
        (BELOW, ("images.graph.hello", "--format", "dot"), "digraph"),
        (REPLACED, ("config", "--name", "x"), "config x\n"),
        (REPLACED_GROUP, ("doctor.unit", "test"), "unit\ndoctor\n"),
    ],
)
def test_tasks_of_others_run_beside_ours(
    project: Path, tasks: str, words: tuple[str, ...], printed: str
) -> None:
    (project / "tasks.py").write_text(HEAD + tasks)

    listed = invoke_here(project, "--list")
    done = invoke_here(project, *words)

    assert (listed.returncode, done.returncode, done.stderr) == (0, 0, "")
    assert all(part in done.stdout for part in printed.split("\n"))


@pytest.mark.parametrize(
    ("tasks", "words", "message"),
    [
        (BESIDE, ("lnit",), "no task 'lnit'. Did you mean lint"),
        (BESIDE, ("biuld.hello",), "no verb 'biuld'. Did you mean build"),
        (BESIDE, ("build.helo",), "no image 'helo' in images/. Did you mean hello?"),
        (BESIDE, ("build", "--al"), "build has no flag --al. Did you mean --all"),
        (GROUP, ("test.unti",), "no task 'test.unti'. Did you mean test.unit"),
        (REPLACED, ("config.hello",), "no task 'config.hello'. Did you mean config"),
    ],
)
def test_what_is_unknown_beside_them_gets_the_nearest_names(
    project: Path, tasks: str, words: tuple[str, ...], message: str
) -> None:
    (project / "tasks.py").write_text(HEAD + tasks)

    done = invoke_here(project, *words)

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done
    assert message in done.stderr


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        (BESIDE, ("lint", "--fst")),
        (BELOW, ("config", "x", "--nothing")),
        (BELOW, ("images.build.helo",)),
        (BELOW, ("build.hello",)),
    ],
)
def test_what_only_invoke_knows_is_refused_in_its_words(
    project: Path, tasks: str, words: tuple[str, ...]
) -> None:
    (project / "tasks.py").write_text(HEAD + tasks)

    done = invoke_here(project, *words)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"No idea what '{words[-1]}' is!\n"


def test_a_sif_file_may_stand_behind_ours_in_a_collection_of_others(project: Path) -> None:
    (project / "tasks.py").write_text(HEAD + BELOW)
    (project / "x.sif").write_text("no SIF")

    done = invoke_here(project, "images.info", "x.sif")

    assert done.returncode == 2
    assert "x.sif: is not a SIF" in done.stderr


@pytest.mark.parametrize(
    "tasks",
    [BESIDE, GROUP, BELOW, "import pathlib, others\nns = ours\nns.add_task(others.lint)\n"],
)
def test_completion_of_such_a_file_is_left_to_invoke(project: Path, tasks: str) -> None:
    (project / "tasks.py").write_text(HEAD + tasks)

    answer = completion.answer(["li"], project)
    offered = invoke_here(project, "--complete", "--", "inv test.")

    assert answer.code == completion.ASK_INVOKE
    assert "test." in offered.stdout
