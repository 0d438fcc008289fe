"""What containers of python-mpi4.1 and of all built on it start with, run on this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.calls import NOBODY, PATH, as_nobody, copy, program, refusal, run, signalled

SCRIPT = "images/python-mpi4.1/entrypoint"
MISSING, NOT_RUNNABLE, NOT_FOUND = 3, 126, 127
OWN = os.getuid()
# What bash itself keeps for the programs that it starts.
OF_BASH = {"PWD", "OLDPWD", "SHLVL", "_"}

needs_root = pytest.mark.skipif(OWN != 0, reason="only root can become another user")


class Container:
    """Folders that stand for a container's, and the script in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.script = copy(SCRIPT, root / "usr bin")
        self.home = root / "home"
        self.scratch = root / "scratch"
        self.made = self.scratch / f"home-{OWN}"
        for folder in (self.home, self.scratch):
            folder.mkdir()
        self.env = {
            "PATH": PATH,
            "HOME": str(self.home),
            "TMPDIR": str(self.scratch),
        }

    def argv(self, *words: str | Path, uid: int = OWN) -> list[str | Path]:
        return [*(as_nobody(uid) if uid != OWN else []), program("bash"), self.script, *words]

    def run(
        self,
        *words: str | Path,
        env: Mapping[str, str | Path | None] | None = None,
        uid: int = OWN,
        input: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run the script with ``words``; of ``env``, None means not set."""
        settings = {**self.env, **(env or {})}
        given = {key: str(value) for key, value in settings.items() if value is not None}
        return run(self.argv(*words, uid=uid), env=given, cwd=self.root, input=input)

    def see(
        self, variable: str, *, env: Mapping[str, str | Path | None] | None = None, uid: int = OWN
    ) -> str:
        """Return what the command finds in its environment."""
        done = self.run("printenv", variable, env=env, uid=uid)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.rstrip("\n")


@pytest.fixture
def box(public: Path) -> Container:
    return Container(public)


# A home


def test_a_home_that_can_be_written_to_is_kept(box: Container) -> None:
    assert box.see("HOME") == str(box.home)
    assert list(box.scratch.iterdir()) == []


def test_a_home_with_a_space_is_kept(box: Container) -> None:
    (box.root / "a home").mkdir()

    assert box.see("HOME", env={"HOME": box.root / "a home"}) == f"{box.root}/a home"


def test_a_file_for_a_home_gives_another_one(box: Container) -> None:
    box.home.rmdir()
    box.home.touch()

    assert box.see("HOME") == str(box.made)


@pytest.mark.parametrize("home", [None, "", "/nowhere/home", "home"])
def test_a_home_that_is_none_gives_another_one(box: Container, home: str | None) -> None:
    # The last is a folder where the script starts, but would not be one elsewhere.
    assert box.see("HOME", env={"HOME": home}) == str(box.made)


def test_the_other_home_is_the_users_alone(box: Container) -> None:
    box.see("HOME", env={"HOME": None})

    assert stat.S_IMODE(box.made.stat().st_mode) == 0o700


def test_the_other_home_is_used_again(box: Container) -> None:
    box.run("sh", "-c", "echo kept > ~/file", env={"HOME": None})

    assert box.run("sh", "-c", "cat ~/file", env={"HOME": None}).stdout == "kept\n"


def test_a_scratch_folder_that_is_missing_is_made(box: Container) -> None:
    scratch = box.root / "a b" / "c"

    assert box.see("HOME", env={"HOME": None, "TMPDIR": scratch}) == f"{scratch}/home-{OWN}"


def test_a_relative_scratch_folder_gives_an_absolute_home(box: Container) -> None:
    assert box.see("HOME", env={"HOME": None, "TMPDIR": "scratch"}) == str(box.made)


@pytest.fixture
def stranger() -> Iterator[int]:
    """A user whose home below /tmp is not there yet, and then is removed."""
    uid = NOBODY + os.getpid()
    yield uid
    shutil.rmtree(f"/tmp/home-{uid}", ignore_errors=True)


@needs_root
@pytest.mark.parametrize("tmpdir", [None, ""])
def test_without_a_scratch_folder_it_is_below_tmp(
    box: Container, stranger: int, tmpdir: str | None
) -> None:
    home = f"/tmp/home-{stranger}"

    assert box.see("HOME", uid=stranger, env={"HOME": "/", "TMPDIR": tmpdir}) == home
    assert Path(home).stat().st_uid == stranger


@needs_root
def test_a_home_of_another_user_gives_another_one(box: Container) -> None:
    box.scratch.chmod(0o1777)

    assert box.see("HOME", uid=NOBODY) == f"{box.scratch}/home-{NOBODY}"


@needs_root
def test_a_home_that_cannot_be_entered_gives_another_one(box: Container) -> None:
    os.chown(box.home, NOBODY, NOBODY)
    box.home.chmod(0o600)
    box.scratch.chmod(0o1777)

    assert box.see("HOME", uid=NOBODY) == f"{box.scratch}/home-{NOBODY}"


def test_without_any_place_to_write_to_it_names_both_and_the_way_out(box: Container) -> None:
    place = box.home / "file"
    place.touch()

    status, said = refusal(box.run("true", env={"HOME": "/nowhere", "TMPDIR": place}))

    assert status == MISSING
    for word in ("/nowhere", f"{place}/home-{OWN}", "TMPDIR", "mount"):
        assert word in said


def test_without_a_home_the_message_says_so(box: Container) -> None:
    status, said = refusal(box.run("true", env={"HOME": None, "TMPDIR": "/dev/null"}))

    assert (status, "HOME (not set)" in said) == (MISSING, True)


# Nobody else's home


def _file(place: Path, elsewhere: Path) -> None:
    place.touch()


def _link(place: Path, elsewhere: Path) -> None:
    elsewhere.mkdir()
    place.symlink_to(elsewhere)


def _link_to_nothing(place: Path, elsewhere: Path) -> None:
    place.symlink_to(elsewhere)


@pytest.mark.parametrize("squat", [_file, _link, _link_to_nothing])
def test_what_is_no_folder_is_no_home(box: Container, squat: Callable[[Path, Path], None]) -> None:
    squat(box.made, box.root / "elsewhere")

    status, said = refusal(box.run("true", env={"HOME": None}))

    assert (status, str(box.made) in said) == (MISSING, True)


@needs_root
def test_a_folder_that_another_user_made_is_no_home(box: Container) -> None:
    box.scratch.chmod(0o1777)
    trap = box.scratch / f"home-{NOBODY}"
    trap.mkdir()
    trap.chmod(0o777)

    status, said = refusal(box.run("true", uid=NOBODY, env={"HOME": None}))

    assert (status, str(trap) in said) == (MISSING, True)


@needs_root
def test_a_link_of_another_user_is_not_followed(box: Container) -> None:
    own = box.root / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    box.scratch.chmod(0o1777)
    (box.scratch / f"home-{NOBODY}").symlink_to(own)

    assert refusal(box.run("true", uid=NOBODY, env={"HOME": None}))[0] == MISSING


# A name


@pytest.mark.parametrize("variable", ["USER", "LOGNAME"])
def test_a_user_that_is_known_has_its_name(box: Container, variable: str) -> None:
    try:
        name = pwd.getpwuid(OWN).pw_name
    except KeyError:
        pytest.skip("this machine does not know the user who runs the tests")

    assert box.see(variable) == name


@needs_root
@pytest.mark.parametrize("variable", ["USER", "LOGNAME"])
def test_a_user_without_a_name_gets_one(box: Container, variable: str) -> None:
    box.scratch.chmod(0o1777)

    assert box.see(variable, uid=NOBODY) == f"uid{NOBODY}"


@pytest.mark.parametrize("variable", ["USER", "LOGNAME"])
def test_a_name_that_is_set_is_kept(box: Container, variable: str) -> None:
    assert box.see(variable, env={variable: "ada"}) == "ada"


# The command


WORDS = ["two words", "", "'", '"', "a\nb", "*", "$HOME", "\\", "--help", "--", "-n", "ü", "`x`"]


def test_arguments_arrive_as_they_are(box: Container) -> None:
    assert box.run("printf", r"%s\0", *WORDS).stdout.split("\0") == [*WORDS, ""]


def test_nothing_else_of_the_environment_changes(box: Container) -> None:
    given = {"EMPTY": "", "with.dot": "1", "LINES_": "a\nb", "USER": "ada", "LOGNAME": "ada"}

    seen = box.run("env", "--null", env=given).stdout.split("\0")[:-1]

    found = dict(line.split("=", 1) for line in seen)
    assert {key: found[key] for key in found.keys() - OF_BASH} == {**box.env, **given}


def test_the_command_runs_where_the_container_starts(box: Container) -> None:
    assert box.run("pwd").stdout == f"{box.root.resolve()}\n"


def test_standard_input_is_the_commands(box: Container) -> None:
    assert box.run("cat", input="a\nb").stdout == "a\nb"


@pytest.mark.parametrize("status", [0, 1, 2, 3, 126, 127, 255])
def test_the_status_is_passed_on_and_nothing_is_said(box: Container, status: int) -> None:
    done = box.run("sh", "-c", f"exit {status}")

    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_a_command_with_a_space_is_found_on_a_path_with_one(box: Container) -> None:
    executable(box.root / "my tools" / "my tool", "#!/bin/sh\necho found\n")

    assert box.run("my tool", env={"PATH": f"{box.root}/my tools:{PATH}"}).stdout == "found\n"


def test_after_two_dashes_a_command_may_begin_with_one(box: Container) -> None:
    executable(box.root / "tools" / "--help", "#!/bin/sh\necho run\n")

    assert box.run("--", "--help", env={"PATH": f"{box.root}/tools:{PATH}"}).stdout == "run\n"


def test_only_the_first_two_dashes_are_taken_away(box: Container) -> None:
    assert box.run("--", "printf", "%s|", "--", "a", "--").stdout == "--|a|--|"
    assert refusal(box.run("--", "--", "true"))[0] == NOT_FOUND


# Signals


def test_the_command_is_the_same_process(box: Container) -> None:
    assert box.run("sh", "-c", "exit 0").returncode == 0
    process = start(box, "sh", "-c", "echo $$; exec cat")
    assert process.stdout
    assert process.stdin

    assert int(process.stdout.readline()) == process.pid
    process.communicate("")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_command(box: Container, number: signal.Signals) -> None:
    process = start(box, "sh", "-c", "echo ready; exec sleep 600")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"

    assert signalled(process, number) == -number


def test_a_command_may_answer_a_signal(box: Container) -> None:
    process = start(box, "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do read -r x; done")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"

    # The shell looks at its traps when a line has come.
    assert signalled(process, signal.SIGTERM, input="line\n") == 9


def start(box: Container, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(word) for word in box.argv(*words)],
        env=box.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# What cannot be run


@pytest.mark.parametrize("command", ["no-such-command", "./no-such-file", "", "main", "if", "set"])
def test_a_command_that_is_not_there_is_named(box: Container, command: str) -> None:
    # Neither the script's own functions nor words of the shell are commands.
    status, said = refusal(box.run(command))

    assert status == NOT_FOUND
    assert f"'{command}'" in said


def test_a_folder_is_no_command(box: Container) -> None:
    status, said = refusal(box.run("./home"))

    assert (status, "'./home' cannot be run" in said) == (NOT_RUNNABLE, True)


@pytest.mark.parametrize("command", ["./plain file", "plain file"])
def test_a_file_that_is_not_executable_is_named(box: Container, command: str) -> None:
    (box.root / "plain file").touch()

    status, said = refusal(box.run(command, env={"PATH": f"{PATH}:{box.root}"}))

    assert (status, f"'{command}' cannot be run" in said) == (NOT_RUNNABLE, True)


@pytest.mark.parametrize("content", ["#!/no/such/interpreter\n", "\x7fELF\0\0broken\0"])
def test_a_file_that_this_machine_cannot_run_is_named(box: Container, content: str) -> None:
    executable(box.root / "odd", content)

    done = box.run("./odd")

    assert (done.returncode, done.stdout) == (NOT_RUNNABLE, "")
    assert "odd: cannot " in done.stderr
