"""What README and tutorial tell a person to type, typed in a fresh copy of this checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sifline import virtual
from sifline.runner import Context
from tests.support.command import ROOT

CLUSTER = "virtual"
# A block that says so in its first line is for people alone: nox is what runs this test.
BLOCK = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """Return what stands behind the prompts."""
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.fixture
def copy(tmp_path: Path, context: Context) -> Iterator[Path]:
    """A copy of what git holds or would hold, and nothing that was built."""
    if virtual.status(CLUSTER, context):
        pytest.skip(f"the README uses the cluster {CLUSTER}, and one of that name stands")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    yield tmp_path
    virtual.down(CLUSTER, context)


def run(copy: Path, document: str) -> str:
    """Run what ``document`` tells a person to type, line by line, and return what it printed."""
    wanted = commands((copy / document).read_text(encoding="utf-8"))
    assert "scripts/bootstrap invoke quickstart" in wanted
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    # Not through standard input: srun would read the rest of it, and bash find nothing to do.
    script = copy / "build" / "typed.sh"
    script.parent.mkdir(exist_ok=True)
    script.write_text("\n".join([*wanted, "echo the end"]), encoding="utf-8")
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

    assert "hello-you (docker): 11 passed" in printed
    assert len(re.findall(r"^hello you$", printed, re.MULTILINE)) == 2
    assert len(re.findall(r"^hello-you +\S+ +sent ", printed, re.MULTILINE)) == 3
    assert len(re.findall(r"^hello-you +\S+ +held already ", printed, re.MULTILINE)) == 3
