"""Completion as a person meets it: real shells at a terminal, or fish's own question for it.

A shell takes longer to start than to complete a line: one of each kind completes all lines in
all folders, and each test looks at one answer.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
NODES = """
nodes:
  - {name: head, role: controller}
  - {name: n1, role: compute}
  - {name: n2, role: compute}
"""
SHELLS = ("bash", "zsh", "fish")
PATIENCE = 120
PROMPT = "ready-to-type>"
DOTTED = "pytorch-cuda12.1-mpi4.1"
BINARIES = Path(sys.executable).parent

# Task files of projects by what kind of project it is; "none" is no project.
TASK_FILES = {
    "ours": OURS,
    "theirs": THEIRS,
    "both": f"{THEIRS}\n{OURS}\nns.add_task(mine)\n",
    "trapped": OURS,
    "none": "",
}
COMPLETED = [
    ("invoke build.h", ["build.hello-mpi"]),
    ("inv build.py", [f"build.{DOTTED}"]),
    ("invoke buil", ["build", "build.hello-mpi", f"build.{DOTTED}"]),
    ("invoke cluster.s", ["cluster.scale", "cluster.shell", "cluster.status"]),
    ("invoke build.hello-mpi --for", ["--force"]),
    ("sifline build h", ["hello-mpi"]),
    ("sifline test hello-mpi --run", ["--runtime"]),
    ("invoke build --all test.hello-mpi --run", ["--runtime"]),
    (f"invoke test.{DOTTED} --runtime ", ["apptainer", "docker"]),
    ("invoke test.hello-mpi --runtime=do", ["--runtime=docker"]),
    ("invoke completion --shell ", ["bash", "fish", "zsh"]),
    ("invoke completion --shell=z", ["--shell=zsh"]),
    ("invoke deploy --all --cluster ", ["lab", "up"]),
    ("invoke cluster.down --cluster ", ["up"]),
    ("invoke build --site m", ["machine-room"]),
    ("invoke validate --suite mpi-job,gpu", ["mpi-job,gpu-resources"]),
    ("invoke validate --check counts-", ["counts-match"]),
    ("invoke validate --cluster lab --node n", ["n1", "n2"]),
    ("invoke deploy --all --cluster lab --without n1,h", ["n1,head"]),
    ("invoke --list clu", ["cluster"]),
    ("invoke --list-format n", ["nested"]),
    ("invoke cluster.up --cluster clusters/l", ["clusters/lab.yaml"]),
    ("invoke cluster.up --cluster=clusters/l", ["--cluster=clusters/lab.yaml"]),
    ("invoke shell.hello-mpi -- clusters/l", ["clusters/lab.yaml"]),
]
FOLDER = "invoke sbom --output buil"
BY_INVOKE = [("invoke mi", ["mine"]), ("inv mine --col", ["--colour"])]
UNCHANGED = ["invoke tas", "invoke build --jobs tas", "invoke build --tas"]


class Question(NamedTuple):
    """A half-typed line, and the kind of project where it is typed."""

    kind: str
    line: str


QUESTIONS = [
    *(Question("ours", line) for line, _ in COMPLETED),
    Question("ours", FOLDER),
    *(Question("theirs", line) for line, _ in BY_INVOKE),
    *(Question("both", line) for line in ("invoke min", "invoke build.h")),
    *(Question("ours", line) for line in UNCHANGED),
    Question("trapped", "invoke build.h"),
    Question("none", "invoke zz"),
]
Answers = Mapping[Question, list[str]]


@pytest.fixture(
    scope="module",
    # No kind of shell waits for another.
    params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in SHELLS],
)
def shell(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if not shutil.which(name):
        pytest.skip(f"{name} is not installed (apt-get install {name})")
    return name


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a project of each kind in it."""
    folder = tmp_path_factory.mktemp("home")
    for kind, tasks in TASK_FILES.items():
        fill(project(folder, kind), tasks)
    for name in ("sifline", "re", "pathlib"):
        (project(folder, "trapped") / f"{name}.py").write_text("open('trap', 'w')\n")
    return folder


def project(home: Path, kind: str) -> Path:
    return home / kind / "a project"


def fill(folder: Path, tasks: str) -> None:
    for name in (DOTTED, "hello-mpi"):
        (folder / "images" / name).mkdir(parents=True)
        (folder / "images" / name / "Dockerfile").write_text("FROM scratch\n")
    for name in ("clusters/lab.yaml", "sites/machine-room.toml", "build/clusters/up/cluster.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "clusters" / "lab.yaml").write_text(NODES)
    if tasks:
        (folder / "tasks.py").write_text(tasks)


@pytest.fixture(scope="module")
def script(shell: str, home: Path) -> str:
    """What a user is given for the shell."""
    return made(shell, project(home, "ours"), sys.executable)


@pytest.fixture(scope="module")
def answers(shell: str, home: Path, script: str) -> Answers:
    """What becomes of each line; all candidates take the place of its last word."""
    return ask(shell, home, script, QUESTIONS)


def made(shell: str, folder: Path, python: str | Path) -> str:
    """Return what a user of ``python`` is given for a shell."""
    return subprocess.run(
        [python, "-m", "invoke", "completion", "--shell", shell],
        cwd=folder,
        env={**os.environ, "SHELL": "/bin/false"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def ask(shell: str, home: Path, script: str, questions: Sequence[Question]) -> Answers:
    """Have one shell complete every line in its folder."""
    (home / "completion").write_text(script)
    found = ASKED[shell](home, questions)
    return dict(zip(questions, found, strict=True))


def environment(home: Path) -> dict[str, str]:
    path = f"{BINARIES}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


def ask_bash(home: Path, questions: Sequence[Question]) -> list[list[str]]:
    start = home / ".bashrc"
    start.write_text(f"PS1='{PROMPT}'\nsource '{home / 'completion'}'\n")
    argv = ["bash", "--noprofile", "--rcfile", str(start), "-i"]
    return type_lines(argv, home, questions, "\x1b*")  # readline's insert-completions


def ask_zsh(home: Path, questions: Sequence[Question]) -> list[list[str]]:
    (home / ".zshrc").write_text(
        f"PS1='{PROMPT}'\nsource '{home / 'completion'}'\n"
        "zle -C all complete-word _generic; bindkey '^Xa' all\n"
        "zstyle ':completion:all:*' completer _all_matches _complete\n"
        "zstyle ':completion:all:*' insert true\n"
    )
    return type_lines(["zsh", "--no-globalrcs", "-i"], home, questions, "\x18a")


FISH = """
source $argv[1]
for number in (seq 2 2 (count $argv))
    cd $argv[$number] || exit 1
    complete -C $argv[(math $number + 1)]
    printf '\\0'
end
"""


def ask_fish(home: Path, questions: Sequence[Question]) -> list[list[str]]:
    words = [word for kind, line in questions for word in (str(project(home, kind)), line)]
    done = subprocess.run(
        ["fish", "--no-config", "-c", FISH, str(home / "completion"), *words],
        env=environment(home),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=PATIENCE + 10 * len(questions),
    )
    *answers, _ = done.stdout.split("\0")
    return [sorted(line.split("\t")[0] for line in answer.splitlines()) for answer in answers]


ASKED = {"bash": ask_bash, "zsh": ask_zsh, "fish": ask_fish}


def type_lines(
    argv: list[str], home: Path, questions: Sequence[Question], insert_all: str
) -> list[list[str]]:
    """Type each line at a shell, let it insert what fits, and have it write down the words."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        argv,
        cwd=home,
        env={**environment(home), "ZDOTDIR": str(home)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written = home / "words"
    found = []
    try:
        read_until(ours, PROMPT)
        for kind, line in questions:
            enter(ours, f"cd '{project(home, kind)}'")
            written.unlink(missing_ok=True)
            # From the beginning of the line (^A) to its end (^E) it becomes another command.
            enter(ours, f"{line}{insert_all}\x01printf '%s\\n' >'{written}' \x05")
            whole = len(line.split()) - (not line.endswith(" "))
            found.append(sorted(written.read_text().splitlines()[whole:]))
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return found


def enter(terminal: int, keys: str) -> None:
    """Type a command, and wait until the shell has done it and takes another."""
    # What is typed is shown as well, and then has quotes in it.
    os.write(terminal, f"{keys}; echo it-is-d''one\r".encode())
    read_until(terminal, "it-is-done", PROMPT)


def read_until(terminal: int, *ends: str) -> None:
    """Read what the shell shows until all of ``ends`` came, one behind the other."""
    seen, place, waiting = "", 0, list(ends)
    while waiting:
        if (found := seen.find(waiting[0], place)) >= 0:
            place = found + len(waiting.pop(0))
            continue
        ready, _, _ = select.select([terminal], [], [], PATIENCE)
        assert ready, f"nothing more after {PATIENCE} s: {seen!r}"
        seen += os.read(terminal, 4096).decode(errors="replace")


@pytest.mark.parametrize(("line", "words"), COMPLETED)
def test_a_line_is_completed(answers: Answers, line: str, words: list[str]) -> None:
    assert answers[Question("ours", line)] == words


def test_for_a_file_no_task_is_offered(answers: Answers) -> None:
    # Not all shells put a slash behind a folder.
    assert [word.rstrip("/") for word in answers[Question("ours", FOLDER)]] == ["build"]


@pytest.mark.parametrize(("line", "words"), BY_INVOKE)
def test_in_another_project_invoke_knows(answers: Answers, line: str, words: list[str]) -> None:
    assert answers[Question("theirs", line)] == words


def test_with_tasks_of_its_own_besides_all_are_completed(answers: Answers) -> None:
    assert answers[Question("both", "invoke min")] == ["mine"]
    assert answers[Question("both", "invoke build.h")] == ["build.hello-mpi"]


@pytest.fixture
def unchanged(shell: str) -> Callable[[str], list[str]]:
    """What is seen where nothing fits: fish tells candidates, the others leave the word."""
    return lambda word: [] if shell == "fish" else [word]


def test_outside_every_project_nothing_is_said(
    answers: Answers, unchanged: Callable[[str], list[str]]
) -> None:
    assert answers[Question("none", "invoke zz")] == unchanged("zz")


@pytest.mark.parametrize("line", UNCHANGED)
def test_files_are_not_offered_where_none_belongs(
    answers: Answers, unchanged: Callable[[str], list[str]], line: str
) -> None:
    assert answers[Question("ours", line)] == unchanged(line.rsplit(maxsplit=1)[-1])


def test_with_its_python_gone_invoke_still_knows(shell: str, home: Path, script: str) -> None:
    question = Question("ours", "invoke build.h")
    gone = script.replace(sys.executable, "/nowhere/python")

    assert gone != script
    assert ask(shell, home, gone, [question]) == {question: ["build.hello-mpi"]}


def test_a_python_in_a_folder_of_any_name_is_found(shell: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / "Ada's $HOME").symlink_to(sys.prefix)
    python = tmp_path / "Ada's $HOME" / "bin" / "python"
    script = made(shell, project(home, "ours"), python)
    question = Question("ours", "invoke build --site m")

    # Invoke, which is asked where our program fails, does not know the values of flags.
    assert "$HOME" in script
    assert ask(shell, home, script, [question]) == {question: ["machine-room"]}


def test_no_module_of_the_folder_at_hand_is_run(answers: Answers, home: Path) -> None:
    assert answers[Question("trapped", "invoke build.h")] == ["build.hello-mpi"]
    assert not (project(home, "trapped") / "trap").exists()
