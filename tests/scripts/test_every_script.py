"""What each script has to say to a wrong call, and that none is without a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.calls import ROOT, as_nobody, copy, program, refusal, run

FOLDERS = (".ci", ".devcontainer", "images", "scripts", "src")
SHELLS = ("sh", "bash", "zsh", "fish")
USAGE, MISSING = 2, 3


@dataclass(frozen=True, kw_only=True)
class Script:
    """How a script is called.

    ``tests`` are its own, beside those here. ``read_by`` says what reads it where it is not run
    by its first line, and so need not be executable. ``right`` are arguments that are right, and
    ``tool`` is what it misses first on an empty PATH; ``lacking`` has, by what is named then, the
    arguments that lack it. ``modules`` is the folder beside it that it cannot do without.
    """

    tests: str
    read_by: str = ""
    right: tuple[str, ...] = ()
    tool: str = ""
    lacking: dict[str, tuple[str, ...]] = field(default_factory=dict)
    own_options: bool = True
    modules: str = ""


COMPLETION = Script(tests="test_completion.py", read_by="the shell at hand, which sources it")
SCRIPTS = {
    # Arguments and options are those of nox.
    ".ci/run": Script(tests="test_ci_run.py", tool="df", own_options=False),
    ".devcontainer/entrypoint": Script(
        tests="test_container_scripts.py",
        right=("true",),
        tool="chmod",
        lacking={"COMMAND": (), "no COMMAND": ("--",)},
    ),
    "images/python-mpi4.1/entrypoint": Script(
        tests="test_entrypoint.py",
        right=("true",),
        tool="id",
        lacking={"COMMAND": (), "no COMMAND": ("--",)},
    ),
    "images/slurm-node/entrypoint": Script(tests="test_container_scripts.py", tool="chmod"),
    "images/toolbox/as-user": Script(
        tests="test_container_scripts.py",
        right=("12345:12345", "true"),
        tool="chmod",
        lacking={"UID:GID": (), "COMMAND": ("1:1",), "no COMMAND": ("1:1", "--")},
    ),
    # What it misses depends on the machine: see its tests.
    "scripts/bootstrap": Script(tests="test_bootstrap.py", modules="scripts/bootstrapping"),
    "src/sifline/contents/look.sh": Script(
        tests="test_look.py",
        read_by="sh, to which the toolbox hands it",
        right=("/", "/etc/passwd", "/nowhere/out"),
        tool="find",
        lacking={"IMAGE": (), "PATHS": ("/",), "OUT": ("/", "/etc/passwd")},
    ),
    **{f"src/sifline/tasks/completion.{shell}": COMPLETION for shell in ("bash", "zsh", "fish")},
}
CALLED = [name for name, script in SCRIPTS.items() if script is not COMPLETION]
WITH_OPTIONS = [name for name in CALLED if SCRIPTS[name].own_options]
WITH_TOOLS = [name for name in CALLED if SCRIPTS[name].tool]


def language(path: Path) -> str:
    """Return what a file is written in, if it is a script: by its first line, else its name."""
    with path.open("rb") as file:
        first = file.readline(99).decode(errors="replace")
    if not first.startswith("#!"):
        return path.suffix[1:] if path.suffix[1:] in SHELLS else ""
    words = [word.rpartition("/")[2] for word in first[2:].split() if not word.startswith("-")]
    named = words[1] if words[0] == "env" else words[0]
    return "python" if named.startswith("python") else named


def found() -> dict[str, str]:
    """Return the scripts of this checkout and their languages; templates are none yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *FOLDERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    files = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    languages = {name: language(ROOT / name) for name in sorted(files) if name[-3:] != ".j2"}
    return {name: language for name, language in languages.items() if language}


LANGUAGES = found()


def call(name: str, script: Path) -> list[str]:
    """Return how a script is called by absolute paths: an empty PATH does not matter then.

    Those of containers may change the machine, if they do not refuse what they should: not this
    one.
    """
    interpreter = sys.executable if LANGUAGES[name] == "python" else program(LANGUAGES[name])
    in_container = name.startswith((".devcontainer/", "images/"))
    return [*(as_nobody() if in_container else []), interpreter, str(script)]


# No script is forgotten


def test_every_script_is_tested() -> None:
    forgotten = LANGUAGES.keys() - SCRIPTS.keys()
    assert not forgotten, "enter these in SCRIPTS, with tests that run them"


def test_every_entry_is_a_script_with_tests() -> None:
    gone = SCRIPTS.keys() - LANGUAGES.keys()
    untested = {
        s.tests for s in SCRIPTS.values() if not Path(__file__).with_name(s.tests).exists()
    }

    assert (gone, untested) == (set(), set())


@pytest.mark.parametrize("name", sorted(LANGUAGES.keys() & SCRIPTS.keys()))
def test_what_is_run_by_its_first_line_is_executable_and_nothing_else_is(name: str) -> None:
    read_by = SCRIPTS[name].read_by
    assert os.access(ROOT / name, os.X_OK) == (not read_by), f"read by {read_by or 'nothing'}"


@pytest.mark.parametrize("name", LANGUAGES)
def test_it_parses(name: str) -> None:
    written_in = LANGUAGES[name]
    if written_in == "python":
        compile((ROOT / name).read_bytes(), name, "exec")
        return
    if not shutil.which(written_in):
        pytest.skip(f"{written_in} is not installed (apt-get install {written_in})")
    done = run([written_in, "-n", ROOT / name])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("first", "named", "written_in"),
    [
        ("#!/bin/sh", "a", "sh"),
        ("#!/usr/bin/env bash", "a", "bash"),
        ("#!/usr/bin/env -S python3", "a", "python"),
        ("#! /usr/bin/python3.11 -u", "a", "python"),
        ("# sourced", "a.zsh", "zsh"),
        ("text", "a.py", ""),
    ],
)
def test_a_script_is_known_by_its_first_line_or_its_name(
    tmp_path: Path, first: str, named: str, written_in: str
) -> None:
    (tmp_path / named).write_text(f"{first}\nmore\n")

    assert language(tmp_path / named) == written_in


# What all of them have to say


def placed(name: str, folder: Path) -> Path:
    """Copy a script into ``folder``, and its modules."""
    if modules := SCRIPTS[name].modules:
        shutil.copytree(ROOT / modules, folder / Path(modules).name)
    return copy(name, folder)


@pytest.mark.parametrize("name", CALLED)
def test_help_is_usage_on_standard_output(name: str) -> None:
    # By its first line, as a person calls it, where that is how it is called.
    argv = call(name, ROOT / name) if SCRIPTS[name].read_by else [ROOT / name]

    done = run([*argv, "--help"])

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")
    assert "exit status" in done.stdout


@pytest.mark.parametrize("name", CALLED)
def test_help_is_the_same_from_a_folder_with_a_space(name: str, public: Path, plain: Path) -> None:
    # The checkout itself may lie where the user who runs some of them cannot enter.
    spaced, other = (
        run([*call(name, placed(name, folder)), "--help"]) for folder in (public, plain)
    )

    assert (spaced.returncode, spaced.stderr) == (0, "")
    assert spaced.stdout == other.stdout
    assert spaced.stdout.startswith("usage: ")


@pytest.mark.parametrize("name", WITH_OPTIONS)
@pytest.mark.parametrize("option", ["--no-such-option", "-z", "--helpp"])
def test_an_unknown_option_is_named_in_one_line(name: str, option: str, public: Path) -> None:
    script = placed(name, public)

    status, said = refusal(run([*call(name, script), option, *SCRIPTS[name].right]))

    assert status == USAGE
    assert option in said
    assert "--help" in said


@pytest.mark.parametrize(
    ("name", "lacking"), [(name, what) for name in CALLED for what in SCRIPTS[name].lacking]
)
def test_a_missing_argument_is_named_in_one_line(name: str, lacking: str, public: Path) -> None:
    script, words = placed(name, public), SCRIPTS[name].lacking[lacking]

    status, said = refusal(run([*call(name, script), *words]))

    assert status == USAGE
    assert lacking in said


@pytest.mark.parametrize("path", ["", "/nowhere"])
@pytest.mark.parametrize("name", WITH_TOOLS)
def test_a_missing_tool_is_named_in_one_line(name: str, path: str, public: Path) -> None:
    script, expected = placed(name, public), SCRIPTS[name]
    argv = [*call(name, script), *expected.right]

    status, said = refusal(run(argv, env={"PATH": path}, cwd=public))

    assert status == MISSING
    assert f" {expected.tool} is not found" in said
    assert (path or "empty") in said
