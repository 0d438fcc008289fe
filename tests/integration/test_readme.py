"""What README and tutorial tell a person to type, typed in a fresh copy of this checkout."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sifline import virtual
from sifline.config.clusters import VARIABLE
from tests.support.command import ROOT
from tests.support.contexts import context_of

pytestmark = pytest.mark.long

# Instead of the usual name, which the cluster of somebody's work may have on this machine.
CLUSTER = "readme"
# Outside of this checkout, whose git would ignore all of it.
COPY = Path.home() / ".cache" / "sifline" / "readme-test"
# A block marked "console skip" is for people alone: nox runs this test, PyTorch takes long.
BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """Return what stands behind the prompts."""
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other checkout runs this test: it has the same copy and cluster."""
    COPY.parent.mkdir(parents=True, exist_ok=True)
    with COPY.with_suffix(".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def copy_files() -> None:
    """Make ``COPY`` what git holds or would hold, and leave nothing else there but .venv."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    COPY.mkdir(exist_ok=True)
    for path in COPY.iterdir():
        if path.name != ".venv":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, COPY / name)


@pytest.fixture
def copy() -> Iterator[Path]:
    """A fresh copy of this checkout, at the same place each time.

    Its .venv stays there: scripts/bootstrap makes it anew where the lock file changed, as for a
    person. And what a killed run left of its cluster is our own.
    """
    with alone():
        context = context_of(COPY)
        virtual.down(CLUSTER, context)
        copy_files()
        try:
            yield COPY
        finally:
            virtual.down(CLUSTER, context)


def run(copy: Path, document: str) -> str:
    """Run what ``document`` tells a person to type, line by line, and return what it printed."""
    wanted = commands((copy / document).read_text(encoding="utf-8"))
    assert "scripts/bootstrap invoke quickstart" in wanted
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    environment[VARIABLE] = CLUSTER
    # Not through standard input: srun would read the rest of it, and bash find nothing to do.
    script = copy / "build" / "typed.sh"
    script.parent.mkdir(exist_ok=True)
    # With the time of each command, for whoever wonders where it goes (pytest -rP).
    lines = ["PS4='+ $EPOCHREALTIME '", *wanted, "echo the end"]
    script.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        ["bash", "-o", "errexit", "-o", "pipefail", "-o", "xtrace", str(script)],
        stdin=subprocess.DEVNULL,
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    sys.stdout.write("".join(re.findall(r"^\+ .*\n", done.stderr, re.MULTILINE)))
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.endswith("the end\n")
    return done.stdout


def test_every_command_of_readme_and_tutorial_works_where_it_stands(copy: Path) -> None:
    printed = run(copy, "README.md")

    assert "MPI job passed: rank 0 on compute-01 sum 6" in printed
    # Nobody deployed PyTorch here, and the job that needs it says so.
    assert "0 failed, 1 skipped" in printed
    # One greeting from each of two nodes.
    assert len(re.findall(r"^hello$", printed, re.MULTILINE)) == 2

    printed = run(copy, "docs/tutorial/first-image.md")

    assert "hello-you (docker): 12 passed" in printed
    assert len(re.findall(r"^hello you$", printed, re.MULTILINE)) == 2
    assert len(re.findall(r"^hello-you +\S+ +sent ", printed, re.MULTILINE)) == 3
    assert len(re.findall(r"^hello-you +\S+ +held already ", printed, re.MULTILINE)) == 3
