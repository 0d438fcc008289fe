"""The program ``sifline``: what ``invoke`` does, with the image as a word of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sifline
from sifline.tasks.console import dotted

TASKS = """
from pathlib import Path
from sifline.tasks import namespace
ns = namespace(Path(__file__).parent)
"""
CALL = "from sifline.tasks.console import main; import sys; sys.argv[0] = 'sifline'; main()"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "tasks.py").write_text(TASKS)
    for name in ("hello-mpi", "pytorch-cuda12.1-mpi4.1"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        (folder / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", CALL, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("build a", "build.a"),
        ("build.a", "build.a"),
        ("build a.b --force", "build.a.b --force"),
        ("build --force a", "build.a --force"),
        ("build --jobs 2 a", "build.a --jobs 2"),
        ("build --jobs a", "build --jobs a"),
        ("build --all", "build --all"),
        ("build a test b", "build.a test.b"),
        ("build test", "build.test"),
        ("build doctor", "build doctor"),
        ("build nothing", "build nothing"),
        ("graph --format dot lint", "graph --format dot lint"),
        ("cluster a", "cluster a"),
        ("cluster list", "cluster.list"),
        ("--dry build a", "--dry build.a"),
        ("info a.sif", "info a.sif"),
        ("cluster up --name x", "cluster.up --name x"),
        ("shell a -- build b", "shell.a -- build b"),
        ("validate --suite a", "validate --suite a"),
        ("--help build", "--help build"),
        ("--list build", "--list build"),
        ("doctor", "doctor"),
    ],
)
def test_an_image_is_joined_to_the_verb_before_it(typed: str, meant: str) -> None:
    assert dotted(typed.split(), ["a", "a.b", "b", "test"]) == meant.split()


@pytest.mark.parametrize(
    "words", [("graph", "hello-mpi", "--format", "dot"), ("graph.hello-mpi", "--format", "dot")]
)
def test_it_does_what_invoke_does(
    project: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")

    done = call(project / "images", *words)

    assert (done.returncode, 'label="hello-mpi' in done.stdout) == (0, True), done


def test_an_image_that_is_not_there_gets_the_nearest_name(project: Path) -> None:
    done = call(project, "build", "helo-mpi")

    assert (done.returncode, done.stdout) == (2, "")
    assert "no image 'helo-mpi' in images/. Did you mean hello-mpi?" in done.stderr


def test_it_says_its_release(tmp_path: Path) -> None:
    done = call(tmp_path, "--version")

    assert done.stdout.startswith(f"sifline {sifline.__version__} (Invoke 3.")


def test_its_help_says_what_to_begin_with_and_which_flags_every_verb_takes(project: Path) -> None:
    done = call(project, "--help")

    assert done.stdout.startswith(f"sifline {sifline.__version__} turns Dockerfiles"), done
    assert "invoke make.hello-mpi" in done.stdout
    assert re.search(r"--dry, -R +print what would be done", done.stdout), done.stdout


def test_elsewhere_its_help_says_where_it_works(tmp_path: Path) -> None:
    done = call(tmp_path, "--help")

    assert (done.returncode, done.stdout) == (2, "")
    assert "no tasks.py in this folder" in done.stderr


def test_elsewhere_it_says_where_it_works(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("from invoke import task\n@task\ndef other(c): pass\n")

    done = call(tmp_path, "build", "a")

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done
    assert "has no tasks of sifline" in done.stderr


def test_without_a_task_file_it_says_what_is_missing(tmp_path: Path) -> None:
    done = call(tmp_path, "build", "a")

    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done
    assert "no tasks.py in this folder or one above it" in done.stderr
