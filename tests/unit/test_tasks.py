"""The Invoke namespace: names, lists, completion, refusals.

Invoke is called in this process; ``test_a_user_gets_what_is_looked_at_here`` says that a user who
starts it gets the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
from invoke.parser import Parser

import sifline
from sifline.errors import UsageError
from sifline.model import Workspace
from sifline.tasks import flags, helps, images, making, namespace, own_texts, reference
from sifline.tasks.support import READER_GONE, Run, output
from tests.support.fake_engine import fake_engine
from tests.support.invoking import engine_without_images, invoke, invoke_here

TASKS = """
from pathlib import Path
from sifline.tasks import namespace
ns = namespace(Path(__file__).parent)
"""
OWN = f"""
from invoke import task
{TASKS}
@task
def own(c, colour="red"):
    print(colour)

ns.add_task(own)
"""
DOTTED = "pytorch-cuda12.1-mpi4.1"


@pytest.fixture(autouse=True)
def _no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m pytest`` runs a ``__main__.py``, as ``python -m invoke`` does."""
    monkeypatch.setattr(sys, "argv", ["pytest"])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Locks are there: runs of other checkouts are at images of the same names.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "tasks.py").write_text(TASKS)
    add(tmp_path, DOTTED)
    add(tmp_path, "hello-mpi")
    return tmp_path


def add(project: Path, name: str, dockerfile: str = "FROM scratch\n") -> None:
    folder = project / "images" / name
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(dockerfile)


def refused(project: Path, *words: str) -> str:
    """The one line of a refusal; its exit code is that of wrong input."""
    done = invoke_here(project, *words)
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--list",),
        ("--list", "--list-format", "json"),
        ("--help", f"build.{DOTTED}"),
        ("--complete", "--", "inv build.py"),
        ("build",),
        ("biuld.hello-mpi",),
        ("build", "--al"),
        ("build.hello-mpi",),
        ("shell.hello-mpi", "--", "build.nothing", "--unheard-of"),
        ("clean.hello-mpi", "--sifs", "--dry"),
        ("own", "--colour", "blue"),
    ],
    ids=" ".join,
)
def test_a_user_gets_what_is_looked_at_here(
    project: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")
    (project / "build" / "sif").mkdir(parents=True)
    (project / "build" / "sif" / "hello-mpi.sif").write_text("x")
    if words[0] == "own":
        (project / "tasks.py").write_text(OWN)

    theirs, ours = invoke(project, *words), invoke_here(project, *words)

    assert (theirs.returncode, theirs.stdout, theirs.stderr) == (
        ours.returncode,
        ours.stdout,
        ours.stderr,
    )
    assert theirs.stdout or theirs.stderr


@pytest.mark.parametrize("layout", ["flat", "nested", "json"])
def test_a_name_with_dots_is_listed(project: Path, layout: str) -> None:
    done = invoke_here(project, "--list", "build", "--list-format", layout)

    assert done.returncode == 0
    assert DOTTED in done.stdout


def on_a_terminal(project: Path, columns: int, *words: str, typed: bytes = b"") -> tuple[int, str]:
    """Start invoke on a terminal of that width; return its status and what it showed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", *words],
        cwd=project,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.STDOUT,
    ) as process:
        os.close(theirs)
        os.write(ours, typed)
        shown = b""
        # The end of a terminal is an error on Linux.
        with contextlib.suppress(OSError):
            while found := os.read(ours, 1 << 16):
                shown += found
    os.close(ours)
    return process.returncode, shown.decode()


@pytest.mark.parametrize("words", [("--list",), ("--help", "build.hello-mpi"), ("-l", "build")])
@pytest.mark.parametrize("columns", [20, 40, 80])
def test_lists_and_helps_are_whole_on_a_narrow_terminal(
    project: Path, words: tuple[str, ...], columns: int
) -> None:
    add(project, "x" * 60)

    status, shown = on_a_terminal(project, columns, *words)

    assert (status, "Traceback" in shown) == (0, False), shown
    assert ("x" * 60 in shown) is ("build" in words)
    if words == ("--list",):
        assert max(map(len, shown.splitlines())) <= max(columns, 2 + 16 + 3 + 20)


@pytest.mark.parametrize(
    ("words", "lines"), [(("--list",), 1), (("config", "--json"), 1), (("config.hello-mpi",), 0)]
)
def test_whoever_reads_the_first_line_alone_sees_no_error(
    project: Path, words: tuple[str, ...], lines: int
) -> None:
    for number in range(300):
        add(project, f"image-{number}")
    status, said = read_lines(project, lines, *words)

    # A short list is written whole before its reader goes.
    ended = {0, -signal.SIGPIPE} if words == ("--list",) else {READER_GONE}
    assert (status in ended, said) == (True, b"")


def read_lines(project: Path, lines: int, *words: str) -> tuple[int, bytes]:
    """Read that many lines of invoke's output, then no more: its status, and what it said."""
    # With it Python keeps nothing back to write when it ends; few users set it.
    usual = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", *words],
        cwd=project,
        env=usual,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    return process.returncode, said


@pytest.mark.parametrize(
    "words",
    [
        *(("status",), ("status", "--json"), ("explain",), ("graph",), ("config",)),
        *(("info", "--all"), ("--dry", "build", "--all"), ("clean", "--all", "--dry")),
        *(("validate", "--list"), ("cluster.list", "--json"), ("--debug", "config")),
        ("completion", "--shell", "bash"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("empty_engine")
def test_a_verb_whose_output_nobody_reads_ends_quietly(
    project: Path, words: tuple[str, ...]
) -> None:
    status, said = read_lines(project, 0, *words)

    # Where the command line has --list, the signal itself ends it: nothing is begun there.
    gone = -signal.SIGPIPE if "--list" in words else READER_GONE
    assert (status, b"Traceback" in said) == (gone, False)
    assert said == b"" or "--debug" in words


def test_in_a_pipe_to_head_the_shell_sees_what_it_sees_of_others(project: Path) -> None:
    for number in range(300):
        add(project, f"image-{number}")
    script = '"$0" -m invoke config --json | head -n 1; echo "${PIPESTATUS[@]}"'

    done = subprocess.run(
        ["bash", "-c", script, sys.executable],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("{\n141 0\n", "")


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (("--quiet", "status"), {"quiet"}),
        (("status", "-q"), {"quiet"}),
        (("--wide", "--dry", "status"), {"wide", "dry"}),
        (("status", "--verbose", "--dry", "--echo"), {"verbose", "dry", "echo"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
@pytest.mark.usefixtures("empty_engine")
def test_flags_of_every_task_stand_before_it_and_behind_it(
    project: Path, words: tuple[str, ...], own: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = list[Run]()

    def noted(run: Run) -> None:
        runs.append(run)

    monkeypatch.setattr(Run, "draw", noted)

    done = invoke_here(project, *words)

    (run,) = runs
    flags = ("quiet", "verbose", "wide", "dry", "echo")
    assert (done.returncode, {name for name in flags if getattr(run, name)}) == (0, own)


def test_behind_a_flag_of_ours_debug_is_still_read(project: Path) -> None:
    assert "invoke.program" in invoke(project, "--wide", "--debug", "config").stderr


@pytest.mark.parametrize(
    ("flag", "first", "steps"),
    [
        ((), r"\[build hello-mpi\] done in \d+\.\d s", 1),
        (("--quiet",), "", 0),
        (("--verbose",), r"\[build hello-mpi\] building: not in the engine", 1),
    ],
    ids=str,
)
def test_progress_is_a_line_for_each_step_or_all_that_tools_print_or_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, flag: tuple[str, ...], first: str, steps: int
) -> None:
    fake_engine(project, monkeypatch)

    done = invoke_here(project, *flag, "build.hello-mpi")

    said = done.stderr.splitlines()
    assert done.returncode == 0
    assert re.fullmatch(first, said[0] if said else "")
    assert len([line for line in said if "done in" in line]) == steps
    printed = "[build hello-mpi] #3 [2/2] RUN make --jobs" in said
    assert printed is ("--verbose" in flag)
    # The step, and the next command.
    assert (len(said) <= 2) is ("--verbose" not in flag)


@pytest.mark.usefixtures("empty_engine")
def test_in_a_pipe_a_table_costs_no_import_of_rich(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "invoke", "status"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )

    imported = re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)
    assert "sifline.report.tables" in imported
    assert [name for name in imported if name.partition(".")[0] == "rich"] == []


def test_quiet_and_verbose_contradict_each_other(project: Path) -> None:
    assert "--quiet, or --verbose; not both" in refused(project, "-q", "status", "--verbose")


def test_the_json_list_is_json(project: Path) -> None:
    listed = json.loads(invoke_here(project, "--list", "--list-format", "json").stdout)

    (build,) = (item for item in listed["collections"] if item["name"] == "build")
    assert [task["name"] for task in build["tasks"]] == ["all", "hello-mpi", DOTTED]


@pytest.mark.parametrize(
    "words",
    [("--help", f"build.{DOTTED}"), (f"build.{DOTTED}", "--help")],
    ids=["before", "after"],
)
def test_help_of_a_name_with_dots(project: Path, words: tuple[str, ...]) -> None:
    done = invoke_here(project, *words)

    assert done.returncode == 0
    assert "--force" in done.stdout
    assert done.stdout.startswith(f"build.{DOTTED}: Build the Docker image")
    assert f"  invoke build.{DOTTED}\n" in done.stdout


def test_the_list_of_one_verb_has_all_its_images(project: Path) -> None:
    (project / "images" / "hello-mpi" / "image.toml").write_text('description = "Says hello"\n')

    done = invoke_here(project, "--list", "build")

    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    assert rows == [["build.hello-mpi", "Says hello"], [f"build.{DOTTED}"]]


def test_the_list_of_all_tasks_is_one_screen_of_80_columns(project: Path) -> None:
    for number in range(50):
        add(project, f"image-{number}")

    lines = invoke_here(project, "--list").stdout.splitlines()

    # A terminal of a laptop has about 50; the verbs of deployed images came after the first 40.
    assert len(lines) <= 44
    assert [line for line in lines if len(line) > 80 or line.startswith("      ")] == []
    assert "52 images" in lines[-2]


def test_without_a_word_it_says_what_it_is_and_where_to_begin(project: Path) -> None:
    done = invoke_here(project)

    named = re.findall(r"invoke ([\w.-]+)(?: build)?  ", done.stdout)
    assert (done.returncode, len(named)) == (0, 5)
    assert named == ["doctor", "quickstart", "--list", "make.hello-mpi", "status"]
    assert "the 2 images that are here" in done.stdout


@pytest.mark.parametrize("task", sorted(helps.tasks()))
def test_each_help_has_a_line_a_paragraph_and_two_examples(project: Path, task: str) -> None:
    told = helps.doc(helps.tasks()[task])

    shown = invoke_here(project, "--help", task).stdout

    assert shown.startswith(f"{task}: {told.summary}\n")
    assert len(told.examples) == 2, told
    assert told.paragraphs
    examples = [example.replace("<image>", "hello-mpi") for example in told.examples]
    assert all(f"  {example}\n" in shown for example in examples)


def test_the_page_of_commands_is_made_of_the_helps() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
    again = f"python -m sifline.tasks.reference {page}"

    assert page.read_text() == reference.reference(), f"make it anew: {again}"


def test_a_flag_that_takes_a_value_shows_which(project: Path) -> None:
    shown = invoke_here(project, "--help", "shell.hello-mpi").stdout

    assert "  --volume SOURCE:TARGET[:ro]   " in shown
    assert "  --sif   " in shown


@pytest.mark.parametrize("task", [*sorted(helps.tasks()), "build.hello-mpi", "shell.hello-mpi"])
def test_a_help_shows_the_flags_that_the_task_takes(project: Path, task: str) -> None:
    shown = invoke_here(project, "--help", task).stdout

    written = {name.replace("[no-]", "") for name in re.findall(r"(?m)^  (--\S+)", shown)}
    assert written == {flag for flag in flags.of_task(task) or () if not flag.startswith("--no-")}


@pytest.mark.parametrize(
    ("task", "usages"),
    [
        ("build", ["build.<image> [flags]", "build --all [flags]"]),
        ("build.hello-mpi", ["build.hello-mpi [flags]"]),
        (
            "shell",
            ["shell.<image> [flags] [-- COMMAND]", "shell FILE.sif [flags] [-- COMMAND]"],
        ),
        (
            "convert",
            [
                "convert.<image> [flags]",
                "convert --all [flags]",
                "convert --source SOURCE [--output FILE.sif] [flags]",
            ],
        ),
        ("diff", ["diff.<image> [flags]", "diff FILE.sif FILE.sif [flags]"]),
        ("cluster.shell", ["cluster.shell [flags] [-- COMMAND]"]),
    ],
)
def test_a_help_shows_how_a_task_is_called(project: Path, task: str, usages: list[str]) -> None:
    shown = invoke_here(project, "--help", task).stdout

    assert re.findall(r"(?m)^Usage: invoke (.*)$", shown) == usages


@pytest.mark.parametrize("task", sorted(helps.tasks()))
def test_no_flag_of_a_task_is_short_but_that_for_help(project: Path, task: str) -> None:
    done = invoke_here(project, task, "-h")

    assert (done.returncode, done.stdout.split(":")[0]) == (0, task)
    assert [flag for flag in flags.of_task(task) or () if not flag.startswith("--")] == []


def test_only_the_tasks_that_are_meant_cost_a_parser(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["inv", "--dry", f"build.{DOTTED}"])

    names = {str(context.name) for context in namespace(project).to_contexts()}

    assert {name for name in names if name.endswith((DOTTED, "hello-mpi"))} == {f"build.{DOTTED}"}


@pytest.mark.parametrize(
    ("task", "flag"), [("shell.hello-mpi", "volume"), ("build.hello-mpi", "build-arg")]
)
def test_a_flag_that_may_be_repeated_keeps_every_value(
    project: Path, task: str, flag: str
) -> None:
    contexts = namespace(project).to_contexts()

    (parsed,) = Parser(contexts).parse_argv([task, f"--{flag}", "a=b", f"--{flag}=c:d"])

    assert parsed.args[flag].value == ["a=b", "c:d"]


def test_each_image_has_the_help_of_every_flag(project: Path) -> None:
    contexts = [
        context for context in namespace(project).to_contexts() if str(context.name)[:5] == "build"
    ]

    assert len(contexts) == 3
    assert [flag for context in contexts for flag, text in context.help_tuples() if not text] == []


def test_completion_offers_names_with_dots(project: Path) -> None:
    done = invoke_here(project, "--complete", "--", "inv build.py")

    assert f"build.{DOTTED}" in done.stdout.split()


def test_every_task_of_one_call_runs(project: Path) -> None:
    for name in (DOTTED, "hello-mpi"):
        path = project / "build" / "sif" / f"{name}.sif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")

    done = invoke_here(
        project, f"clean.{DOTTED}", "--sifs", "--yes", "clean.hello-mpi", "--sifs", "--yes"
    )

    assert [line.split()[:2] for line in done.stdout.splitlines() if ".sif" in line] == [
        ["removed", f"build/sif/{DOTTED}.sif"],
        ["removed", "build/sif/hello-mpi.sif"],
    ]
    assert list((project / "build" / "sif").iterdir()) == []


def test_a_verb_over_all_images_needs_the_flag(project: Path) -> None:
    assert "build.<image>, or build --all" in refused(project, "build")


def test_the_verb_that_only_looks_does_not(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")

    assert "no Docker engine answers" in invoke_here(project, "status").stderr


def test_a_new_folder_shows_up_with_no_other_step(project: Path) -> None:
    add(project, "new")

    assert "build.new" in invoke_here(project, "--list", "build").stdout


def test_an_unknown_image_gets_the_nearest_names(project: Path) -> None:
    assert "Did you mean hello-mpi?" in refused(project, "build.helo-mpi")


def test_an_unknown_verb_gets_the_nearest_names(project: Path) -> None:
    assert "Did you mean build?" in refused(project, "biuld.hello-mpi")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("biuld", "--all"), "no verb 'biuld'. Did you mean build?"),
        (("--help", "biuld"), "no verb 'biuld'. Did you mean build?"),
        (("--list", "biuld"), "no verb 'biuld'. Did you mean build?"),
        (("help",), "for help: invoke --list, or invoke --help <verb>"),
        (("build", "helo-mpi"), "no image 'helo-mpi' in images/. Did you mean hello-mpi?"),
        (("build", "doctr"), "no verb 'doctr'. Did you mean doctor"),
        (
            ("cluster.shell", "sinfo", "-N", "--cluster", "x"),
            "a command follows two dashes: invoke cluster.shell --cluster x -- sinfo -N",
        ),
        (("keys", "list"), "a command follows two dashes: invoke keys -- list"),
        (("shell.hello-mpi", "ls"), "two dashes: invoke shell.hello-mpi -- ls"),
        (("cluster.shell", "id"), "two dashes: invoke cluster.shell -- id"),
        # Words that are nearly tasks, flags in front, and flags and quotes of the command.
        (("cluster.shell", "sinfo"), "two dashes: invoke cluster.shell -- sinfo\n"),
        (
            ("cluster.shell", "--node", "compute-01", "sinfo", "-N"),
            "two dashes: invoke cluster.shell --node compute-01 -- sinfo -N\n",
        ),
        (
            ("cluster.shell", "--user=alice", "bash", "-c", "id; ls"),
            "two dashes: invoke cluster.shell --user=alice -- bash -c 'id; ls'\n",
        ),
        (("cluster.shell", "srun", "--", "hostname"), "invoke cluster.shell -- srun hostname\n"),
        (("cluster.shell", "compute-01"), "; a node is named by --node compute-01\n"),
        (("-q", "shell.hello-mpi", "tests"), "two dashes: invoke -q shell.hello-mpi -- tests\n"),
        (("cluster.up", "mycluster"), "for the cluster mycluster say --cluster mycluster"),
        (("deploy.hello-mpi", "virtual"), "for the cluster virtual say --cluster virtual"),
        (("build", "hello-mpi"), "say build.hello-mpi"),
        (("cluster.stat",), "Did you mean cluster.status"),
    ],
)
def test_a_word_that_is_no_task_is_refused_with_what_to_say(
    project: Path, words: tuple[str, ...], message: str
) -> None:
    assert message in refused(project, *words)


def test_tasks_of_other_makes_are_left_to_invoke(project: Path) -> None:
    tasks = project / "tasks.py"
    own = "from invoke import task\n@task\ndef own(c): print('ran')\nns.add_task(own)\n"
    tasks.write_text(f"{tasks.read_text()}\n{own}")

    assert invoke_here(project, "own").stdout == "ran\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lst",), "invoke has no flag --lst. Did you mean --list"),
        (("build", "--al"), "build has no flag --al. Did you mean --all"),
        (("build.hello-mpi", "-s", "x"), "has no flag -s. See invoke --help build.hello-mpi."),
        (("-qz", "status"), "invoke has no flag -z. See invoke --help."),
        (("build.hello-mpi", "--all"), "build.hello-mpi has no flag --all."),
        (("build.hello-mpi", "--forse=yes"), "Did you mean --force"),
        (("test.hello-mpi", "--runtime", "docker", "--runtme", "x"), "Did you mean --runtime?"),
        (("clean.hello-mpi", "--sifs", "build", "--sifs"), "build has no flag --sifs."),
        (("cluster.up", "--clutser", "x"), "has no flag --clutser. Did you mean --cluster"),
        (("doctor", "--jsn"), "See invoke --help doctor."),
        (("build.hello-mpi", "--build-arg"), "--build-arg: needs a value"),
        (("build.hello-mpi", "--jobs", "many"), "--jobs 'many': takes a whole number"),
    ],
)
def test_an_unknown_flag_gets_the_nearest_ones(
    project: Path, words: tuple[str, ...], message: str
) -> None:
    assert message in refused(project, *words)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("convert", "--source", "x.tar", "--output", ""), "--output"),
        (("convert", "--source", "x.tar", "--output="), "--output"),
        (("convert", "--source", "x.tar", "--sif-name", ""), "--sif-name"),
        (("convert", "--source", "", "--all"), "--source"),
        (("graph", "--output", ""), "--output"),
        (("sbom.hello-mpi", "--output", ""), "--output"),
    ],
)
def test_an_empty_value_of_a_flag_that_names_something_is_refused(
    project: Path, words: tuple[str, ...], flag: str
) -> None:
    assert f"error: {flag}: the value is empty" in refused(project, *words)


def test_an_output_in_the_home_folder_of_a_user_is_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project))
    assert output(Path("~/x.svg")) == project / "x.svg"
    with pytest.raises(UsageError, match="unknown user"):
        output(Path("~no-such-user/x.svg"))


def test_an_output_in_a_folder_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        output(Path("/tmp") / ("x" * 300) / "x.sif")


@pytest.mark.parametrize(
    "words",
    [
        ("cluster.up", "--cluster", "build.yaml"),
        ("cluster.up", "--cluster", "--odd.yaml"),
        ("cluster.up", "--cluster=build.yaml"),
    ],
)
def test_the_value_of_a_flag_is_neither_task_nor_flag(
    project: Path, words: tuple[str, ...]
) -> None:
    assert "yaml: no such file" in refused(project, *words)


def test_what_stands_behind_the_dashes_is_for_another_program(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")

    done = invoke_here(project, "shell.hello-mpi", "--", "build.nothing", "--unheard-of")

    assert "no Docker engine answers" in done.stderr


def test_tasks_that_a_task_file_adds_have_their_own_flags(project: Path) -> None:
    (project / "tasks.py").write_text(
        f"from invoke import task\n{TASKS}\n"
        "@task\ndef mine(c, colour='red'):\n    print(colour)\n\nns.add_task(mine)\n"
    )

    assert invoke_here(project, "mine", "--colour", "blue").stdout == "blue\n"


def test_a_folder_without_dockerfile_says_so(project: Path) -> None:
    (project / "images" / "empty").mkdir()

    assert "images/empty has no Dockerfile" in refused(project, "build.empty")


def test_no_images_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)

    assert "no images/ folder" in refused(tmp_path, "--list")


@pytest.mark.parametrize(
    ("dockerfile", "message"),
    [
        ("RUN true\n", "images/bad/Dockerfile: line 1: RUN comes before the first FROM"),
        ("FROM scratch\nFRMO x\n", "images/bad/Dockerfile: line 2: 'FRMO'"),
        ("FROM sifline/helo-mpi\n", "there is no images/helo-mpi. Did you mean hello-mpi?"),
        ("FROM sifline/helo-mpi\n", "Did you mean hello-mpi? Images named sifline/… are folders"),
        ("FROM sifline/bad\n", "in a circle: bad → bad"),
    ],
)
def test_a_dockerfile_that_cannot_be_used_is_refused(
    project: Path, dockerfile: str, message: str
) -> None:
    add(project, "bad", dockerfile)

    assert message in refused(project, "build.bad")


def test_an_unknown_value_of_a_flag_is_refused(project: Path) -> None:
    assert "--runtime 'dcoker': takes docker or apptainer. Did you mean docker?" in refused(
        project, "test.hello-mpi", "--runtime", "dcoker"
    )


def test_no_engine_is_one_line_and_its_own_exit_code(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")

    done = invoke_here(project, "build.hello-mpi")

    assert done.returncode == 3
    assert "no Docker engine answers; run scripts/bootstrap" in done.stderr


def test_a_graph_needs_no_engine_and_says_what_is_not_known(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")

    done = invoke_here(project, "graph", "--format", "dot")

    assert done.returncode == 0
    assert "the states are not known: no Docker engine answers" in done.stderr
    assert 'label="hello-mpi\\nunknown"' in done.stdout


@pytest.mark.parametrize("words", [("--format", "svg"), ("--output", "x.svg")])
def test_an_svg_without_graphviz_names_what_to_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    engine_without_images(project, monkeypatch)
    monkeypatch.setenv("PATH", f"{project}/bin")

    done = invoke_here(project, "graph", *words)

    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1), done
    assert "is not installed; run scripts/bootstrap, or draw without it: " in done.stderr
    assert not (project / "x.svg").exists()


@pytest.fixture
def empty_engine(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine_without_images(project, monkeypatch)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("explain.child",), "  FROM ghcr.io/acme/hello-mpi: images/hello-mpi"),
        (("--dry", "build.child"), "not in the engine (FROM ghcr.io/acme/hello-mpi)"),
        (("graph",), "child  build: not in the engine  FROM ghcr.io/acme/hello-mpi"),
        (("explain.child", "--json"), '"ghcr.io/acme/hello-mpi"'),
    ],
)
@pytest.mark.usefixtures("empty_engine")
def test_what_is_resolved_to_a_folder_is_shown_as_it_is_written(
    project: Path, words: tuple[str, ...], shown: str
) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.sifline]\nown-references = ["ghcr.io/acme/{name}"]\n'
    )
    add(project, "child", "FROM ghcr.io/acme/hello-mpi\n")

    assert shown in invoke_here(project, *words).stdout


@pytest.mark.usefixtures("empty_engine")
def test_explain_needs_no_apptainer(project: Path) -> None:
    done = invoke_here(project, "explain.hello-mpi")

    assert (done.returncode, done.stderr) == (0, "")
    assert "hello-mpi: to be built: not in the engine" in done.stdout


@pytest.mark.parametrize("verb", ["deploy.hello-mpi", "provision", "validate"])
def test_what_uses_sudo_on_nodes_takes_a_password_for_it(verb: str) -> None:
    assert "--ask-become-pass" in (flags.of_task(verb) or {})


def test_a_password_is_a_line_of_the_input_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(workspace=Workspace(root=tmp_path), dry=False, echo=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("two words \n"))
    assert run.become_password() == "two words "
    with pytest.raises(UsageError, match="--ask-become-pass: no password was given"):
        run.become_password()


def test_the_end_of_input_at_the_question_for_a_password_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getpass(_: str) -> str:
        raise EOFError

    run = Run(workspace=Workspace(root=tmp_path), dry=False, echo=False)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", getpass)
    with pytest.raises(UsageError, match="--ask-become-pass: no password was given"):
        run.become_password()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--cluster", "a b;c"), "cluster name 'a b;c'"),
        (("--cluster", "nope.yaml"), "nope.yaml: no such file"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_before_anything_is_built(
    project: Path, words: tuple[str, ...], message: str
) -> None:
    (project / "clusters").mkdir()
    (project / "clusters" / "virtual.yaml").write_text(
        "nodes: [{name: c, role: controller}, {name: n, role: compute}]\n"
        "name: v\npartitions: [{name: p}]\n"
    )

    assert message in refused(project, "cluster.up", *words)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"hello", "is not a SIF"), (b"", "is not a SIF")],
    ids=["text", "empty"],
)
def test_a_file_that_is_no_sif_is_refused_by_info(
    project: Path, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An engine that holds nothing: info looks, it never builds.
    fake = project / "bin" / "docker"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho '[]'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    path = project / "build" / "sif" / "hello-mpi.sif"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    assert message in refused(project, "info.hello-mpi")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("diff", "--all"), "diff has no flag --all"),
        (("shell", "--all"), "shell has no flag --all"),
        (("shell",), "which image? Say shell.<image>, or FILE.sif\n"),
        (("diff", "a.sif"), "diff compares two"),
        (("diff", "a.sif", "b.sif", "--against", "x"), "diff compares two"),
        (("diff", "a.sif", "b.sif", "c.sif"), "diff: c.sif: takes 2 SIF files at most"),
        (("diff",), "which image? Say diff.<image>, or FILE.sif\n"),
        (("sbom",), "which image? Say sbom.<image>, or FILE.sif"),
        (("compat",), "which image? Say compat.<image>, or FILE.sif"),
        (("compat", "a.sif", "--sif"), "--sif is for images"),
        (
            ("graph", "--format", "mermade"),
            "takes text or dot or mermaid or svg. Did you mean mer",
        ),
        (("graph", "--output", "x.png"), "--output x.png: nothing is drawn as .png; end it in"),
        (("sizes",), "which image? Say sizes.<image>, or FILE.sif"),
        (("sizes", "--all", "a.sif"), "sizes: --all, or files; not both"),
        (("sizes", "a.sif", "b.sif"), "sizes: b.sif: takes 1 SIF files at most"),
        (("sbom", "a.sif", "--sif"), "--sif is for images"),
        (("sbom", "--all", "--output", "x.json"), "--output x.json: takes one bill"),
        (("sbom.hello-mpi", "--output", "none/x.json"), "there is no folder none"),
        (("info", "a.sif", "b.sif"), "info: b.sif: takes 1 SIF files at most"),
        (("convert", "--all", "--source", "x.tar"), "--all, or --source; not both"),
        (("convert.hello-mpi", "--source", "x.tar"), "convert.hello-mpi has no flag --source"),
        (("clean", "--all", "--environments"), "--all, or --environments; not both"),
        (("clean", "--environments", "--sifs"), "--environments: stands alone; the other flags"),
        (("clean.hello-mpi", "--environments"), "clean.hello-mpi has no flag --environments"),
    ],
)
def test_what_bills_and_differences_refuse(
    project: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in refused(project, *words)


@pytest.mark.parametrize("task", ["clean", "convert", "cluster.down"])
def test_what_foreign_means_is_told_of_each_task_alone(project: Path, task: str) -> None:
    meant = {"clean": "versions of the image", "convert": "--output", "cluster.down": "cluster"}
    shown = " ".join(invoke_here(project, "--help", task).stdout.split())
    text = (flags.of_task(task) or {})["--foreign"].help

    assert f"--foreign {text}" in shown
    assert [name for name, words in meant.items() if words in text] == [task]


@pytest.mark.parametrize("texts", [own_texts.HELP, own_texts.VALUES])
def test_a_text_of_one_task_is_of_a_flag_that_it_has(
    texts: Mapping[str, Mapping[str, str]],
) -> None:
    bodies = helps.tasks()
    for flag, by_task in texts.items():
        for task in by_task:
            taken = flags.parameters(bodies[task], over_all=bodies[task] in images.VERBS)
            assert flag in {item.name for item in taken}, (flag, task)
    assert {*texts} <= {*flags.HELP}


def test_what_converts_sources_is_a_flag_without_an_image_alone() -> None:
    one, every = (flags.of(flags.parameters(making.convert, over_all=x)) for x in (False, True))

    assert "--source" not in one
    assert every["--source"].name == "source"


def test_the_checks_are_listed_for_scripts_as_well(project: Path) -> None:
    shown = invoke_here(project, "validate", "--list")
    found = json.loads(invoke_here(project, "validate", "--list", "--json").stdout)["checks"]

    assert [(item["suite"], item["check"]) for item in found] == [
        tuple(row.split()[:2]) for row in shown.stdout.splitlines()[1:]
    ]
    assert all(item["summary"] in shown.stdout for item in found)


@pytest.mark.parametrize("verb", ["shell", "diff"])
def test_help_promises_all_images_where_that_works(project: Path, verb: str) -> None:
    shown = invoke_here(project, "--help", verb).stdout

    assert ("--all" in shown, "every image" in shown) == (False, False)
    assert "--all" in invoke_here(project, "--help", "build").stdout


@pytest.fixture
def with_sif(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")
    path = project / "build" / "sif" / "hello-mpi.sif"
    path.parent.mkdir(parents=True)
    path.write_text("x")
    return path


def test_nothing_is_removed_where_nobody_can_be_asked(project: Path, with_sif: Path) -> None:
    done = invoke_here(project, "clean.hello-mpi", "--sifs")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("would remove build/sif/hello-mpi.sif (0 MB)\nerror: clean:")
    assert "say --yes" in done.stderr
    assert with_sif.exists()


@pytest.mark.parametrize(("typed", "left"), [(b"y\n", False), (b"n\n", True), (b"\n", True)])
def test_on_a_terminal_it_asks(project: Path, with_sif: Path, typed: bytes, left: bool) -> None:
    status, shown = on_a_terminal(project, 80, "clean.hello-mpi", "--sifs", typed=typed)

    assert (status, with_sif.exists()) == (0, left), shown
    assert "would remove build/sif/hello-mpi.sif" in shown
    assert "remove all that? [y/N]" in shown
    assert ("nothing was removed" in shown) is left


def test_environments_are_removed_as_images_are(project: Path, with_sif: Path) -> None:
    cache = project / ".ruff_cache"
    cache.mkdir()

    would = invoke_here(project, "--dry", "clean", "--environments")
    asked = invoke_here(project, "clean", "--environments")
    assert (would.returncode, would.stdout) == (0, "would remove .ruff_cache (0 MB)\n")
    assert (asked.returncode, cache.exists()) == (2, True)
    assert "say --yes" in asked.stderr

    done = invoke_here(project, "clean", "--environments", "--yes")
    assert (done.returncode, cache.exists(), with_sif.exists()) == (0, False, True)
    assert done.stdout == "removed .ruff_cache (0 MB)\nfreed 0 MB\n"


@pytest.mark.usefixtures("with_sif")
def test_there_is_no_question_where_nothing_would_go(project: Path) -> None:
    done = invoke_here(project, f"clean.{DOTTED}", "--sifs")

    assert (done.returncode, done.stdout) == (0, "nothing to remove\n")


NODES = """
nodes:
  - {name: head, role: controller, address: 192.0.2.1}
  - {name: n1, role: compute, address: 192.0.2.2}
"""


@pytest.mark.parametrize("verb", ["validate", "deploy.hello-mpi"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--node", "n2"), "--node n2: clusters/lab.yaml has no node 'n2'. Did you mean n1?"),
        (("--node", ""), "--node '': names no node; say such as"),
        (("--without", "head,n1"), "no node of lab is left"),
    ],
)
def test_nodes_that_are_not_there_are_refused(
    project: Path, verb: str, words: tuple[str, ...], said: str
) -> None:
    (project / "clusters").mkdir()
    (project / "clusters" / "lab.yaml").write_text(NODES)

    assert said.replace("clusters/", f"{project}/clusters/") in refused(
        project, verb, "--cluster", "lab", *words
    )


@pytest.mark.parametrize("task", ["build", "test", "convert", "make"])
def test_json_of_what_is_made_is_of_the_dry_run(project: Path, task: str) -> None:
    assert "--json: prints only the plan of a dry run here; add --dry" in refused(
        project, f"{task}.hello-mpi", "--json"
    )


@pytest.mark.usefixtures("empty_engine")
def test_a_plan_for_scripts_says_the_same_as_for_people(project: Path) -> None:
    add(project, "bad", "FORM scratch\n")
    done = invoke_here(project, "--dry", "build", "--all", "--json")
    built = {"action": "build", "needed": True, "reason": "not in the engine"}
    *found, broken = json.loads(done.stdout)["steps"]

    assert found == [{"image": name, **built} for name in ("hello-mpi", DOTTED)]
    assert broken["image"] == "bad"
    assert "FORM" in broken["error"]
    assert done.returncode == 1


def test_a_graph_for_scripts_is_no_drawing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")
    found = json.loads(invoke_here(project, "graph", "--json").stdout)["images"]

    assert {item["name"] for item in found} == {"hello-mpi", DOTTED}
    assert "--json: is printed, and no drawing" in refused(
        project, "graph", "--json", "--format", "dot"
    )


def test_lists_and_first_words_name_the_release(project: Path) -> None:
    """Invoke prints its own version before it loads a task file."""
    assert invoke_here(project, "--list").stdout.startswith(f"sifline {sifline.__version__}\n")
    assert invoke_here(project).stdout.startswith(f"sifline {sifline.__version__} turns")


def test_a_cluster_that_nothing_names_is_that_of_the_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The engine may have virtual clusters of others.
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")
    monkeypatch.setenv("SIFLINE_CLUSTER", "lab")
    assert "no cluster 'lab'" in refused(project, "validate")
    assert "no cluster 'mine'" in refused(project, "validate", "--cluster", "mine")
    monkeypatch.delenv("SIFLINE_CLUSTER")
    assert "no cluster 'virtual'" in refused(project, "validate")


@pytest.mark.parametrize("verb", ["sbom", "compat", "sizes"])
def test_a_report_on_a_file_needs_no_engine(
    project: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{project}/no.sock")
    (project / "x.sif").write_text("no SIF")

    done = invoke_here(project, verb, "x.sif")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: x.sif: is not a SIF;")


@pytest.mark.parametrize("verb", ["sbom", "compat"])
@pytest.mark.usefixtures("empty_engine")
def test_a_report_over_broken_images_alone_tells_of_them(project: Path, verb: str) -> None:
    for name in (DOTTED, "hello-mpi"):
        (project / "images" / name / "Dockerfile").write_text("FRMO x\n")

    done = invoke_here(project, verb, "--all")

    assert done.returncode == 1
    assert "2 images are broken" in done.stderr
