from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.bootstrap import ROOT, SCRIPT, copy_checkout, finished, run, start
from tests.support.calls import signalled
from tests.support.waiting import until

# Making an environment is the longest there is among the scripts.
pytestmark = pytest.mark.long
Done = subprocess.CompletedProcess[str]
MISSING = 3
USAGE = 2


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_checkout(tmp_path / "a b")


class Making(NamedTuple):
    """How a checkout was made ready: interrupted at first, then by two at once."""

    checkout: Path
    interrupted: Done
    both: tuple[Done, Done]


@pytest.fixture(scope="module")
def making(tmp_path_factory: pytest.TempPathFactory) -> Making:
    """One environment, which takes ten seconds, is made for all tests that say of none how."""
    checkout = copy_checkout(tmp_path_factory.mktemp("ready") / "my checkout")
    process = start(checkout, "true")
    # The mark is made first; the packages take seconds after it.
    until((checkout / ".venv" / "sifline-stamp").exists, "the mark in .venv")
    assert process.poll() is None, "it ended before it was interrupted"
    process.send_signal(signal.SIGINT)
    interrupted = finished(process)
    both = [start(checkout, "python", "-c", "import sifline") for _ in range(2)]
    first, second = (finished(process) for process in both)
    return Making(checkout, interrupted, (first, second))


@pytest.fixture
def ready(making: Making) -> Path:
    """A checkout that bootstrap has made ready, in a folder whose name has a space."""
    for done in making.both:
        assert done.returncode == 0, done.stderr
    return making.checkout


def test_the_script_runs_by_its_first_line() -> None:
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("usage: scripts/bootstrap")
    assert "COMMAND" in done.stdout


@pytest.mark.parametrize("flag", ["--instal", "-n", "--no-install=yes"])
def test_a_wrong_flag_is_named_in_one_line(flag: str) -> None:
    done = run(ROOT, flag, "true")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (USAGE, "", 1)
    assert flag.partition("=")[0] in done.stderr
    assert "scripts/bootstrap --help" in done.stderr


def test_without_the_project_it_is_no_checkout_and_says_so(tmp_path: Path) -> None:
    shutil.copytree(SCRIPT.parent, tmp_path / "scripts")

    done = run(tmp_path, "true")

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(tmp_path / "requirements" / "dev.lock") in done.stderr
    assert "whole checkout" in done.stderr


def test_alone_it_lacks_its_modules_and_says_so(tmp_path: Path) -> None:
    alone = tmp_path / "scripts"
    alone.mkdir()
    shutil.copy(SCRIPT, alone)

    done = run(tmp_path, "true")

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"No module named 'bootstrapping' in {alone}" in done.stderr
    assert "whole checkout" in done.stderr


def test_a_link_in_another_folder_runs_the_script_of_its_checkout(
    ready: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "a second" / "link"
    second.parent.mkdir()
    first.symlink_to(ready / "scripts" / "bootstrap")
    second.symlink_to(first)

    done = subprocess.run(
        [second, "printenv", "VIRTUAL_ENV"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ready}/.venv\n", "")


def test_a_checkout_that_cannot_be_written_to_is_told_in_one_line(checkout: Path) -> None:
    (checkout / "build").touch()  # even root cannot make the folder

    done = run(checkout, "true")

    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(checkout / "build") in done.stderr


def test_no_install_names_what_is_missing_and_the_way_out(checkout: Path) -> None:
    done = run(checkout, "--no-install", "true", environment={"PATH": "/nowhere"})

    assert done.returncode == MISSING
    for package in ("mmdebstrap", "rsync", "openssh-client"):
        assert package in done.stderr
    assert "without --no-install" in done.stderr
    assert not (checkout / ".venv").exists()


def test_without_apt_it_says_what_to_install(checkout: Path) -> None:
    done = run(checkout, "true", environment={"PATH": "/nowhere"})

    assert done.returncode == MISSING
    assert "rsync (copies images to the nodes)" in done.stderr
    assert not (checkout / ".venv").exists()


def test_an_engine_elsewhere_that_is_silent_is_not_replaced_by_a_local_one(checkout: Path) -> None:
    done = run(checkout, "true", environment={"DOCKER_HOST": "unix:///nowhere/docker.sock"})

    assert done.returncode == MISSING
    assert "DOCKER_HOST=unix:///nowhere/docker.sock" in done.stderr


def test_the_command_gets_the_environment_and_its_status_is_passed_on(ready: Path) -> None:
    program = "import sifline, sys; print(sys.prefix, sifline.__file__); sys.exit(7)"

    done = run(ready, "python", "-c", program)

    assert done.returncode == 7
    assert done.stdout.split("\n")[0] == f"{ready}/.venv {ready}/src/sifline/__init__.py"


def test_arguments_of_the_command_arrive_as_they_are(ready: Path) -> None:
    words = ["two words", "", "a\nb", "*", "$HOME", "--help", "--", "--no-install", "'"]

    done = run(ready, "printf", r"%s\0", *words)

    assert (done.returncode, done.stdout.split("\0")) == (0, [*words, ""])


@pytest.mark.parametrize("before", [["--"], ["--no-install", "--"]])
def test_two_dashes_end_the_flags(ready: Path, before: list[str]) -> None:
    done = run(ready, *before, "printf", "%s", "--")

    assert (done.returncode, done.stdout, done.stderr) == (0, "--", "")


def test_a_command_that_begins_with_a_dash_follows_two(ready: Path) -> None:
    done = run(ready, "--", "--help")

    assert done.returncode == USAGE
    assert done.stderr.startswith("bootstrap: error: cannot run --help")


def test_the_command_gets_the_folder_at_hand_and_standard_input(
    ready: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [ready / "scripts" / "bootstrap", "sh", "-c", "pwd; cat"],
        cwd=tmp_path,
        input="typed",
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"{tmp_path}\ntyped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_command(ready: Path, number: signal.Signals) -> None:
    process = start(ready, "sh", "-c", "echo $$; exec sleep 600")
    assert process.stdout

    assert process.stdout.readline() == f"{process.pid}\n"
    assert signalled(process, number) == -number


def test_a_user_without_a_home_folder_needs_none(ready: Path) -> None:
    # Neither is HOME set, nor does the machine know the user: pwd fails in this way for one.
    program = (
        "import os, pwd, runpy, sys; os.environ.pop('HOME', None)\n"
        "def getpwuid(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = getpwuid\n"
        f"script = {str(ready / 'scripts' / 'bootstrap')!r}\n"
        "sys.argv = [script, 'echo', 'run']\n"
        "runpy.run_path(script, run_name='__main__')"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "run\n", "")


def test_where_all_is_there_nothing_is_said_or_installed(ready: Path) -> None:
    log = ready / "build" / "logs" / "venv.log"
    before, worked = log.read_bytes(), seconds_of_work()

    done = run(ready, "--no-install", "true")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # However long it had to wait for a busy machine.
    assert seconds_of_work() - worked < 1
    assert log.read_bytes() == before


def seconds_of_work() -> float:
    """How long the processes that ended had a core."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_byte_code_is_there(ready: Path) -> None:
    assert list((ready / "src" / "sifline" / "__pycache__").glob("errors.*.pyc"))
    assert list((ready / ".venv").glob("lib/*/site-packages/packaging/__pycache__/*.pyc"))


def test_a_command_that_does_not_exist_is_named(ready: Path) -> None:
    done = run(ready, "no-such-command")

    assert done.returncode == USAGE
    assert done.stderr.startswith("bootstrap: error: cannot run no-such-command")


def test_a_changed_project_is_linked_anew_without_new_packages(ready: Path) -> None:
    with (ready / "pyproject.toml").open("a", encoding="utf-8") as project:
        project.write("\n# changed\n")

    done = run(ready, "true")

    assert done.returncode == 0
    assert "linking the project" in done.stderr
    assert "making .venv" not in done.stderr


def test_an_interruption_says_what_to_do(making: Making) -> None:
    said = making.interrupted.stderr

    assert making.interrupted.returncode == 130
    assert "making .venv" in said
    assert "run it again" in said
    assert "Traceback" not in said


def test_an_interrupted_environment_is_made_anew(making: Making) -> None:
    assert making.interrupted.returncode == 130
    assert [done.returncode for done in making.both] == [0, 0], making.both
    assert any("making .venv" in done.stderr for done in making.both)


def test_two_at_once_make_one_environment(making: Making) -> None:
    said = [done.stderr for done in making.both]

    assert [done.returncode for done in making.both] == [0, 0], said
    assert sum("making .venv" in text for text in said) == 1
    assert sum("another bootstrap is at work" in text for text in said) == 1


def test_an_environment_of_someone_else_is_not_touched(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "mine").touch()

    done = run(checkout, "true")

    assert done.returncode == USAGE
    assert "was not made by this script" in done.stderr
    assert (checkout / ".venv" / "mine").exists()


@pytest.mark.spread
def test_a_failing_step_shows_the_end_of_its_log(checkout: Path) -> None:
    (checkout / "requirements" / "dev.lock").write_text(
        "hatchling==1.33.0 \\\n    --hash=sha256:00"
    )

    done = run(checkout, "true")

    assert done.returncode == 1
    assert "build/logs/venv.log" in done.stderr
    assert "hash" in done.stderr.lower()


def test_an_old_python_is_refused_with_a_reason(tmp_path: Path) -> None:
    # What is asked is the version only, so a Python that claims to be old will do.
    program = (
        "import runpy, sys; sys.version_info = (3, 9, 18); sys.version = '3.9.18 (old)'; "
        f"sys.argv = ['bootstrap', 'true']; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.returncode == MISSING
    assert "Python 3.10 or newer is needed, this is 3.9.18" in done.stderr
