"""Completion as a person meets it: real shells at a terminal, or fish's own question for it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

OURS = """
from pathlib import Path
from sifline.tasks import namespace
ns = namespace(Path(__file__).parent)
"""
THEIRS = """
from invoke import task

@task
def mine(c, colour="red"):
    pass
"""
PATIENCE = 30
PROMPT = "ready-to-type>"
DOTTED = "pytorch-cuda12.1-mpi4.1"
BINARIES = Path(sys.executable).parent

Complete = Callable[[str], list[str]]


@pytest.fixture(params=["bash", "zsh", "fish"])
def shell(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    return name


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    for name in (DOTTED, "hello-mpi"):
        (folder / "images" / name).mkdir(parents=True)
        (folder / "images" / name / "Dockerfile").write_text("FROM scratch\n")
    for name in ("clusters/lab.yaml", "sites/machine-room.toml", "build/clusters/up/cluster.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "tasks.py").write_text(OURS)
    return folder


@pytest.fixture
def complete(shell: str, project: Path, tmp_path: Path) -> Complete:
    """What becomes of a half-typed line; all candidates take the place of its last word."""
    script = tmp_path / "completion"
    script.write_text(made(shell, project, sys.executable))

    def words(line: str) -> list[str]:
        return ASKED[shell](script, line, project)

    return words


def made(shell: str, project: Path, python: str | Path) -> str:
    """Return what a user of ``python`` is given for a shell."""
    return subprocess.run(
        [python, "-m", "invoke", "completion", "--shell", shell],
        cwd=project,
        env={**os.environ, "SHELL": "/bin/false"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def environment(home: Path) -> dict[str, str]:
    path = f"{BINARIES}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def ask_bash(script: Path, line: str, folder: Path) -> list[str]:
    start = script.parent / ".bashrc"
    start.write_text(f"PS1='{PROMPT}'\nsource '{script}'\n")
    argv = ["bash", "--noprofile", "--rcfile", str(start), "-i"]
    return last_words(argv, line, "\x1b*", folder)  # readline's insert-completions


def ask_zsh(script: Path, line: str, folder: Path) -> list[str]:
    (script.parent / ".zshrc").write_text(
        f"PS1='{PROMPT}'\nsource '{script}'\n"
        "zle -C all complete-word _generic; bindkey '^Xa' all\n"
        "zstyle ':completion:all:*' completer _all_matches _complete\n"
        "zstyle ':completion:all:*' insert true\n"
    )
    return last_words(["zsh", "--no-globalrcs", "-i"], line, "\x18a", folder)


def ask_fish(script: Path, line: str, folder: Path) -> list[str]:
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source '{script}'; complete -C $argv", line],
        cwd=folder,
        env=environment(folder.parent),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    return sorted(line.split("\t")[0] for line in done.stdout.splitlines())


ASKED = {"bash": ask_bash, "zsh": ask_zsh, "fish": ask_fish}


def last_words(argv: list[str], line: str, insert_all: str, folder: Path) -> list[str]:
    """Type ``line`` at a shell, let it insert what fits, and have it write down the words."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        argv,
        cwd=folder,
        env={**environment(folder.parent), "ZDOTDIR": str(folder.parent)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        read_until(ours, PROMPT)
        # From the beginning of the line (^A) to its end (^E) it becomes another command.
        keys = f"{line}{insert_all}\x01printf '%s\\n' >../words \x05; exit\r"
        os.write(ours, keys.encode())
        read_until(ours, "")
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    whole = len(line.split()) - (not line.endswith(" "))
    return sorted((folder.parent / "words").read_text().splitlines()[whole:])


def read_until(terminal: int, end: str) -> None:
    """Read what the shell shows until that ends it, or until it is gone."""
    seen = ""
    while not end or end not in seen:
        ready, _, _ = select.select([terminal], [], [], PATIENCE)
        assert ready, f"nothing more after {PATIENCE} s: {seen!r}"
        try:
            seen += os.read(terminal, 4096).decode(errors="replace")
        except OSError:  # the shell has closed its side
            return


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("invoke build.h", ["build.hello-mpi"]),
        ("inv build.py", [f"build.{DOTTED}"]),
        ("invoke buil", ["build", "build.hello-mpi", f"build.{DOTTED}"]),
        ("invoke cluster.s", ["cluster.shell", "cluster.status"]),
        ("invoke build.hello-mpi --for", ["--force"]),
        ("invoke build --all test.hello-mpi --run", ["--runtime"]),
        (f"invoke test.{DOTTED} --runtime ", ["apptainer", "docker"]),
        ("invoke test.hello-mpi --runtime=do", ["--runtime=docker"]),
        ("invoke completion --shell ", ["bash", "fish", "zsh"]),
        ("invoke completion --shell=z", ["--shell=zsh"]),
        ("invoke deploy --all --cluster ", ["lab", "up"]),
        ("invoke cluster.down --name ", ["up"]),
        ("invoke build --site m", ["machine-room"]),
        ("invoke validate --suite mpi-job,gpu", ["mpi-job,gpu-resources"]),
        ("invoke validate --check counts-", ["counts-match"]),
        ("invoke --list clu", ["cluster"]),
        ("invoke --list-format n", ["nested"]),
        ("invoke cluster.up --file clusters/l", ["clusters/lab.yaml"]),
        ("invoke cluster.up --file=clusters/l", ["--file=clusters/lab.yaml"]),
        ("invoke shell.hello-mpi -- clusters/l", ["clusters/lab.yaml"]),
    ],
)
def test_a_line_is_completed(complete: Complete, line: str, words: list[str]) -> None:
    assert complete(line) == words


def test_for_a_file_no_task_is_offered(complete: Complete) -> None:
    # Not all shells put a slash behind a folder.
    assert [word.rstrip("/") for word in complete("invoke cluster.up --file buil")] == ["build"]


@pytest.mark.parametrize(
    ("line", "words"), [("invoke mi", ["mine"]), ("inv mine --col", ["--colour"])]
)
def test_in_another_project_invoke_knows(
    complete: Complete, project: Path, line: str, words: list[str]
) -> None:
    (project / "tasks.py").write_text(THEIRS)

    assert complete(line) == words


def test_with_tasks_of_its_own_besides_all_are_completed(
    complete: Complete, project: Path
) -> None:
    (project / "tasks.py").write_text(f"{THEIRS}\n{OURS}\nns.add_task(mine)\n")

    assert complete("invoke min") == ["mine"]
    assert complete("invoke build.h") == ["build.hello-mpi"]


@pytest.fixture
def unchanged(shell: str) -> Callable[[str], list[str]]:
    """What is seen where nothing fits: fish tells candidates, the others leave the word."""
    return lambda word: [] if shell == "fish" else [word]


def test_outside_every_project_nothing_is_said(
    complete: Complete, unchanged: Complete, project: Path
) -> None:
    (project / "tasks.py").unlink()

    assert complete("invoke zz") == unchanged("zz")


@pytest.mark.parametrize("line", ["invoke tas", "invoke build --jobs tas", "invoke build --tas"])
def test_files_are_not_offered_where_none_belongs(
    complete: Complete, unchanged: Complete, line: str
) -> None:
    assert complete(line) == unchanged(line.rsplit(maxsplit=1)[-1])


def test_with_its_python_gone_invoke_still_knows(complete: Complete, tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(script.read_text().replace(sys.executable, "/nowhere/python"))

    assert complete("invoke build.h") == ["build.hello-mpi"]


def test_a_python_in_a_folder_of_any_name_is_found(
    shell: str, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "Ada's $HOME").symlink_to(sys.prefix)
    script = tmp_path / "completion"
    script.write_text(made(shell, project, tmp_path / "Ada's $HOME" / "bin" / "python"))

    # Invoke, which is asked where our program fails, does not know the values of flags.
    assert "$HOME" in script.read_text()
    assert ASKED[shell](script, "invoke build --site m", project) == ["machine-room"]


def test_no_module_of_the_folder_at_hand_is_run(complete: Complete, project: Path) -> None:
    for name in ("sifline", "re", "pathlib"):
        (project / f"{name}.py").write_text("open('trap', 'w')\n")

    assert complete("invoke build.h") == ["build.hello-mpi"]
    assert not (project / "trap").exists()
