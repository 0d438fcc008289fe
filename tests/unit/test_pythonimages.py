"""Programs that are run in forks of one interpreter do what they would do alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from sifline.imagetests import Ran
from sifline.imagetests import python as pythonimages
from tests.support.processes import read_all

# Costs as much as a large library, for whoever counts it.
SLOW = """
import os
with open(os.environ["IMPORTED"], "a") as file:
    file.write("once ")
value = [1]
"""


class Here:
    """This machine in place of a container."""

    name, runtime, gpus, no_gpus = "here", "docker", 0, "none"

    def __init__(self, kept: bool) -> None:
        self.kept = kept

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> Ran:
        assert (user, workdir) == (None, None)
        words = [sys.executable if word == "python3" else word for word in argv]
        done = subprocess.run(
            words, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
        )
        return Ran(
            argv=tuple(argv),
            returncode=done.returncode,
            stdout=done.stdout,
            stderr=done.stderr,
        )


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that gets a word for each import of the module ``slow``."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "slow.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("IMPORTED", str(folder / "imported"))
    yield folder / "imported"
    for pid, environment in read_all("environ"):
        if pid != os.getpid() and os.fsencode(folder) in environment:
            os.kill(pid, signal.SIGKILL)


def both(source: str, *, env: Mapping[str, str] | None = None) -> tuple[Ran, Ran]:
    """Run ``source`` in an interpreter of its own, and in a fork; return both."""
    alone = pythonimages.python(Here(kept=False), source, env=env, loaded=["slow"])
    forked = pythonimages.python(Here(kept=True), source, env=env, loaded=["slow"])
    return alone, forked


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("import slow, sys; print(slow.value); print('error', file=sys.stderr)", 0),
        ("print(__name__, 'ü' * 100_000)", 0),
        ("import sys; sys.exit(7)", 7),
        ("import sys; sys.exit('no')", 1),
        ("raise ValueError('what')", 1),
        ("this is no Python", 1),
        ("import atexit; atexit.register(print, 'at the end')", 0),
    ],
)
def test_a_fork_does_what_an_interpreter_of_its_own_does(source: str, status: int) -> None:
    alone, forked = both(source)
    assert (alone.returncode, forked.returncode) == (status, status)
    assert forked.stdout == alone.stdout
    # What stands above it in a traceback is another program.
    assert forked.stderr.splitlines()[-1:] == alone.stderr.splitlines()[-1:]


@pytest.mark.usefixtures("imported")
def test_a_program_that_is_killed_has_the_status_that_a_shell_gives_it() -> None:
    source = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert pythonimages.python(Here(kept=True), source, loaded=["slow"]).returncode == 137


def test_modules_are_imported_once_and_programs_do_not_meet(imported: Path) -> None:
    container = Here(kept=True)
    source = "import slow; slow.value.append(2); print(slow.value)"
    found = [pythonimages.python(container, source, loaded=["slow"]).stdout for _ in range(3)]
    assert found == ["[1, 2]\n"] * 3
    assert imported.read_text() == "once "


def test_each_set_of_variables_has_an_interpreter_of_its_own(imported: Path) -> None:
    container, source = Here(kept=True), "import os; print(os.environ.get('WHAT'))"
    variables = [{"WHAT": "a"}, None, {"WHAT": "b"}, {"WHAT": "a"}]
    found = [pythonimages.python(container, source, env=v, loaded=["slow"]) for v in variables]
    assert [ran.stdout for ran in found] == ["a\n", "None\n", "b\n", "a\n"]
    assert imported.read_text() == "once once once "


@pytest.mark.usefixtures("imported")
def test_a_module_that_cannot_be_imported_is_said_each_time() -> None:
    container = Here(kept=True)
    for _ in range(2):
        ran = pythonimages.python(container, "print(1)", loaded=["slow", "not_there"])
        assert (ran.returncode, ran.stdout) == (1, "")
        assert "No module named 'not_there'" in ran.stderr
