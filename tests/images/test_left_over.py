"""Containers of a run that was interrupted or killed go; those of a living run stay."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from sifline.engines.docker import holding
from sifline.machine.process import ProcessRunner
from sifline.stages import imagetest
from tests.support.contexts import context_of
from tests.support.conversion import built
from tests.support.engine import Project, docker
from tests.support.waiting import PATIENCE, until
from tests.support.way import Way

TRIXIE = "sifline/debian-trixie"
# Its first test tells that the container runs; the other would outlive any patience.
TESTS = """
def test_first(container):
    assert container.run(["true"]).returncode == 0
def test_second(container):
    container.run(["sleep", "600"])
"""
# Says which label it holds, and holds it until it is killed.
HOLDING = """
import sys
from pathlib import Path
from sifline.engines.docker.holding import holding
from tests.support.contexts import context_of
from sifline.machine.process import ProcessRunner
with holding(context_of(Path(sys.argv[1]), ProcessRunner())) as label:
    print(label, flush=True)
    sys.stdin.read()
"""
pytestmark = pytest.mark.spread


def containers(label: str) -> dict[str, str]:
    """Return the states of the containers of that label, by name."""
    show = ("--format", "{{.Names}} {{.State}}", "--filter", f"label={label}")
    lines = docker("ps", "--all", *show).stdout.splitlines()
    return {name: state for name, _, state in (line.partition(" ") for line in lines)}


@pytest.fixture
def mark() -> Iterator[str]:
    """A label of this test; its containers are removed."""
    found = f"sifline.test={uuid4().hex}"
    yield found
    if left := docker("ps", "--all", "--quiet", "--filter", f"label={found}").stdout.split():
        docker("rm", "--force", *left)


def in_every_state(*labels: str) -> None:
    """Make containers with all ``labels``: one that was never started, and two that were."""
    words = [word for label in labels for word in ("--label", label)]
    docker("create", *words, TRIXIE, "true")
    docker("run", "--detach", *words, TRIXIE, "sleep", "600")
    docker("pause", docker("run", "--detach", *words, TRIXIE, "sleep", "600").stdout.strip())


def killed(root: Path, *labels: str) -> str:
    """Let a run in ``root`` be killed that has containers with ``labels``; return its label."""
    argv = [sys.executable, "-c", HOLDING, str(root)]
    repository = Path(__file__).parents[2]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository
    ) as process:
        assert process.stdout is not None
        label = process.stdout.readline().strip()
        in_every_state(label, *labels)
        process.kill()
    return label


def test_the_next_run_removes_what_a_killed_one_left_whatever_its_state(
    tmp_path: Path, mark: str
) -> None:
    here = context_of(tmp_path, ProcessRunner())
    killed(tmp_path, mark)
    assert sorted(containers(mark).values()) == ["created", "paused", "running"]

    holding.sweep(here)

    assert containers(mark) == {}
    assert [*(tmp_path / "build" / "held").iterdir()] == []


def test_a_container_that_comes_after_its_killed_run_was_swept_goes_with_the_next(
    tmp_path: Path, mark: str
) -> None:
    here = context_of(tmp_path, ProcessRunner())
    label = killed(tmp_path, mark)
    holding.sweep(here)
    docker("create", "--label", label, "--label", mark, TRIXIE, "true")

    holding.sweep(here)

    assert containers(mark) == {}


def test_what_a_killed_run_left_goes_also_where_somebody_removed_its_files(
    tmp_path: Path, mark: str
) -> None:
    killed(tmp_path, mark)
    shutil.rmtree(tmp_path / "build")

    holding.sweep(context_of(tmp_path, ProcessRunner()))

    assert containers(mark) == {}


def test_containers_of_living_runs_and_of_other_checkouts_stay(tmp_path: Path, mark: str) -> None:
    here = context_of(tmp_path / "here", ProcessRunner())
    other = tmp_path / "other"
    killed(other, mark)
    with holding.holding(here) as label:
        in_every_state(label, mark)
        before = containers(mark)

        holding.sweep(here)

        assert containers(mark) == before
        assert len(before) == 6
    assert len(containers(mark)) == 3


def endless(project: Project) -> tuple[str, str]:
    """Write an image whose tests do not end; return its name and the label of its container."""
    name = project.image("a", f"FROM docker.io/{TRIXIE}\n")
    folder = project.root / "images" / name / "tests"
    folder.mkdir()
    (folder / "test_it.py").write_text(TESTS)
    return name, f"sifline.test={name}"


def test_an_interrupted_test_leaves_no_container(project: Project) -> None:
    name, label = endless(project)

    words = (f"test.{name}", "--runtime", "docker")
    status, printed = project.interrupt(*words, when="test_first: passed")

    assert status == 130
    assert "nothing half-made is left" in printed.splitlines()[-1]
    assert containers(label) == {}


def test_the_tests_of_a_killed_run_end_with_it(project: Project) -> None:
    name, label = endless(project)

    def kill(process: subprocess.Popen[str]) -> None:
        assert [*containers(label).values()] == ["running"]
        process.kill()

    # Its tests have its standard error as well: the end of that is theirs.
    project.disturb(f"test.{name}", "--runtime", "docker", when="test_first: passed", act=kill)

    until(lambda: containers(label) == {}, "the end of the container")


def test_what_a_run_and_its_tests_left_when_both_were_killed_goes_with_the_next_command(
    project: Project,
) -> None:
    name, label = endless(project)

    def kill(process: subprocess.Popen[str]) -> None:
        (tests,) = subprocess.run(
            ["pgrep", "--parent", str(process.pid), "--full", "pytest"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        # Stopped first: it must not see its tests end, and clean up after them.
        process.send_signal(signal.SIGSTOP)
        os.kill(int(tests), signal.SIGKILL)
        process.kill()

    project.disturb(f"test.{name}", "--runtime", "docker", when="test_first: passed", act=kill)
    assert [*containers(label).values()] == ["running"]

    assert project.invoke(f"build.{name}").returncode == 0
    assert containers(label) == {}


def test_an_interruption_while_the_engine_makes_the_container_leaves_none(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each answer that the tests still wait for is held back, too.
    monkeypatch.setattr("sifline.machine.process.GRACE_SECONDS", PATIENCE)
    folder = tmp_path / "x" / "tests"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(TESTS)
    argv = imagetest.argv(built("x", TRIXIE), "x", [folder], "docker", tmp_path / "j.xml")
    way = Way(tmp_path / "engine.sock", hold_seconds=0.25)
    env = {"DOCKER_HOST": f"unix://{tmp_path}/engine.sock", "TESTCONTAINERS_RYUK_DISABLED": "true"}
    errors = list[BaseException]()
    runner = ProcessRunner()

    def run() -> None:
        try:
            runner.run([*argv, "--sifline-label", mark], env=env, check=False)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until(lambda: containers(mark), "the container that the client does not know of yet")
        runner.stop()
        thread.join(PATIENCE)
    finally:
        way.close()

    assert [type(error).__name__ for error in errors] == ["Interrupted"]
    # The engine may be removing it already: then nobody waits for that.
    until(lambda: containers(mark) == {}, "the end of the container")
