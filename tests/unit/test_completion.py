"""What completion knows, against Invoke and the readers of the values; shells: tests/scripts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from invoke.main import program

from sifline.config import image_names
from sifline.config.clusters import find_cluster
from sifline.config.sites import load_site
from sifline.errors import UsageError
from sifline.model import Workspace
from sifline.tasks import flags, namespace
from sifline.tasks.completion import ASK_INVOKE, DONE, FILES, answer
from sifline.tasks.shells import script

TASKS = "from sifline.tasks import namespace\n"
IMAGES = ("hello-mpi", "pytorch-cuda12.1")
CALL = "from sifline.tasks import completion; completion.main()"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    add(tmp_path, *(f"images/{name}/Dockerfile" for name in IMAGES))
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


def add(project: Path, *files: str) -> None:
    for name in files:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def words(project: Path, *typed: str) -> list[str]:
    """The candidates for the last of the words that are typed."""
    said = answer(typed, project)
    assert said.code == 0
    return [candidate.word for candidate in said.found]


def spelled(context: Any) -> dict[str, bool]:
    """Each flag of one of Invoke's contexts, in all spellings, with whether a value follows."""
    found = {
        name: argument.takes_value
        for flag, argument in context.flags.items()
        for name in context.names_for(flag)
    }
    return found | dict.fromkeys(context.inverse_flags, False)


def ours(known: Mapping[str, flags.Flag]) -> dict[str, bool]:
    return {name: flag.takes is not flags.Takes.NOTHING for name, flag in known.items()}


def test_the_flags_of_every_task_are_those_that_invoke_makes_of_it(project: Path) -> None:
    for context in namespace(project).to_contexts():
        for name in (str(context.name), *context.aliases):
            assert ours(flags.of_task(name) or {}) == spelled(context), name


def test_invokes_own_flags_are_those_that_it_has(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "argv", ["invoke"], raising=False)
    # A list or the first words alone would let SIGPIPE end this process from now on.
    monkeypatch.setattr(sys, "argv", ["invoke", "status"])
    namespace(project)  # adds ours

    assert ours(flags.CORE) == spelled(program.initial_context)


def test_every_flag_has_its_help(project: Path) -> None:
    names = [str(context.name) for context in namespace(project).to_contexts()]

    without = {
        written
        for name in names
        for written, flag in (flags.of_task(name) or {}).items()
        if not flag.help
    }

    assert without == set()


def test_images_are_offered_once_the_verb_is_clear(project: Path) -> None:
    assert words(project, "bui") == ["build", *(f"build.{name}" for name in IMAGES)]
    # In the order of invoke --list.
    assert words(project, "co") == ["convert", "config", "compat", "completion"]
    assert words(project, "deploy.p") == ["deploy.pytorch-cuda12.1"]


def test_all_is_offered_for_all_images_alone(project: Path) -> None:
    assert words(project, "build", "--a") == ["--all"]
    assert words(project, "build.hello-mpi", "--a") == []


def test_flags_are_those_of_the_task_that_stands_before(project: Path) -> None:
    typed = ("clean.hello-mpi", "--sifs", "cluster.up", "--cluster", "clean", "--")

    ours = ["--cluster", "--json", "--dry", "--help", "--quiet", "--verbose", "--wide"]
    assert words(project, *typed) == ours


def test_the_clusters_that_are_offered_are_there(project: Path) -> None:
    add(project, "clusters/lab.yaml", "clusters/old.yml", "clusters/notes.md")
    add(project, "build/clusters/standing/cluster.yaml", "build/clusters/fallen/log")

    offered = words(project, "deploy", "--cluster", "")

    assert offered == ["lab", "old", "standing"]
    assert all(find_cluster(name, Workspace(root=project)).is_file() for name in offered)


def test_the_sites_that_are_offered_are_there(project: Path) -> None:
    add(project, "sites/default.toml", "sites/machine-room.toml", "sites/README.md")

    offered = words(project, "build", "--site=")

    assert offered == ["--site=default", "--site=machine-room"]
    for word in offered:
        name = word.partition("=")[2]
        assert load_site(Workspace(root=project), name).name == name


def test_the_images_that_are_offered_are_there(project: Path) -> None:
    offered = [word.partition(".")[2] for word in words(project, "test.")]

    assert tuple(offered) == image_names.names(Workspace(root=project))


def test_suites_are_a_list_with_commas(project: Path) -> None:
    assert words(project, "validate", "--suite", "mpi-job,inf") == ["mpi-job,infrastructure"]


def test_checks_are_those_of_the_suites(project: Path) -> None:
    every = words(project, "validate", "--check", "")
    some = words(project, "validate", "--suite", "gpu-resources", "--check", "")

    assert set(some) < set(every)
    assert "counts-match" in some


CLUSTER = """
nodes:
  - {name: head, role: controller}
  - {name: compute-01, role: compute}
  - {name: compute-02, role: compute}
"""


@pytest.mark.parametrize("task", ["deploy", "deploy.hello-mpi", "validate", "cluster.shell"])
@pytest.mark.parametrize("place", ["clusters/lab.yaml", "build/clusters/lab/cluster.yaml"])
def test_the_nodes_that_are_offered_are_those_of_the_cluster(
    project: Path, task: str, place: str
) -> None:
    add(project, place)
    (project / place).write_text(CLUSTER)
    typed = (task, "--cluster", "lab", "--node")

    assert words(project, *typed, "") == ["head", "compute-01", "compute-02"]
    assert words(project, *typed, "head,compute-02"[:-1]) == ["head,compute-01", "head,compute-02"]


def test_the_nodes_that_can_be_left_out_are_those_of_the_usual_cluster(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(project, "clusters/virtual.yaml", "clusters/broken.yaml")
    (project / "clusters" / "virtual.yaml").write_text(CLUSTER)

    assert words(project, "validate", "--without=he") == ["--without=head"]
    monkeypatch.setenv("SIFLINE_CLUSTER", "broken")
    assert words(project, "validate", "--without=he") == []
    monkeypatch.setenv("SIFLINE_CLUSTER", "none")
    assert words(project, "validate", "--without=he") == []


def test_where_a_value_can_be_anything_nothing_is_offered(project: Path) -> None:
    assert words(project, "build", "--jobs", "") == []


@pytest.mark.parametrize(
    "typed",
    [
        ("cluster.up", "--cluster", "clusters/"),
        ("sbom.hello-mpi", "--output", ""),
        ("sbom.hello-mpi", "--output="),
        ("graph", "--output", "x"),
        ("shell.hello-mpi", "--", "buil"),
    ],
)
def test_files_are_left_to_the_shell(project: Path, typed: tuple[str, ...]) -> None:
    assert answer(typed, project).code == FILES


def test_a_folder_below_the_project_is_in_it(project: Path) -> None:
    assert "build" in words(project / "images" / "hello-mpi", "buil")


def test_the_search_root_says_which_project(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    assert answer(("build.h",), elsewhere).code == ASK_INVOKE
    assert words(elsewhere, "--search-root", str(project), "build.h") == ["build.hello-mpi"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tasks.py", "from invoke import task\n"),
        ("tasks.py", f"from invoke import task\n{TASKS}"),
        ("tasks.py", f"import invoke.collection\n{TASKS}"),
        ("tasks/__init__.py", "print('hello')\n"),
    ],
    ids=["foreign", "ours and more", "by module", "package"],
)
def test_a_task_file_with_other_tasks_is_left_to_invoke(
    project: Path, name: str, content: str
) -> None:
    folder = project / "below"
    add(folder, name)
    (folder / name).write_text(content)

    assert answer(("buil",), folder).code == ASK_INVOKE


def test_another_task_file_is_left_to_invoke(project: Path) -> None:
    assert answer(("--collection", "other", "buil"), project).code == ASK_INVOKE


def test_no_task_file_is_left_to_invoke(project: Path) -> None:
    (project / "tasks.py").unlink()

    assert answer(("buil",), project).code == ASK_INVOKE


def test_invoke_is_not_loaded_for_a_candidate(project: Path) -> None:
    look = "import atexit, sys; atexit.register(lambda: print('invoke' in sys.modules))"

    done = subprocess.run(
        [sys.executable, "-c", f"{look}\n{CALL}", "fish", "inv", "build.h"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines() == ["build.hello-mpi\t", "False"]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("info", "my"), ["my.sif"]),
        (("info", "--json", "my"), ["my.sif"]),
        (("diff", "other.sif", "my"), ["my.sif"]),
        (("sign", "--key", "my"), []),
        (("lint-slurm", "sl"), ["slurm.conf"]),
        (("build", "my"), []),
        (("info.hello-mpi", "my"), []),
    ],
)
def test_a_verb_that_takes_a_file_offers_those_of_its_kind(
    project: Path, typed: tuple[str, ...], offered: list[str]
) -> None:
    for name in ("my.sif", "my.txt", "other.sif", "slurm.conf"):
        (project / name).touch()

    assert [candidate.word for candidate in answer(typed, project).found] == offered


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        (("info", "build/si"), FILES),
        (("test", "--json", "/"), FILES),
        (("lint-slurm", "/etc/s"), FILES),
        (("build", "build/si"), DONE),
        (("info.hello-mpi", "build/si"), DONE),
    ],
)
def test_a_path_behind_a_verb_that_takes_a_file_is_completed_by_the_shell(
    project: Path, typed: tuple[str, ...], code: int
) -> None:
    assert answer(typed, project).code == code
    assert answer(typed, project, spaced=True).code == code


@pytest.mark.parametrize(
    ("flag", "offered"),
    [("--method", ["stream", "apptainer"]), ("--compression", ["zstd", "gzip"])],
)
def test_the_ways_to_convert_are_offered(project: Path, flag: str, offered: list[str]) -> None:
    found = answer(("convert.hello-mpi", flag, ""), project).found

    assert [candidate.word for candidate in found] == offered


@pytest.mark.parametrize(
    ("half", "line", "written"),
    [
        ("build.h", "inv build.h", "build.hello-mpi"),
        ("", "inv completion --shell=", "bash zsh fish"),
        ("z", "inv completion --shell=z", "zsh"),
        ("'build.h'", "inv 'build.h'", "build.hello-mpi"),
        ("build.h", "inv 'never closed build.h", "build.hello-mpi"),
        ("", "inv test.hello-mpi --runtime ", "docker apptainer"),
    ],
)
def test_bash_gets_what_it_takes_for_the_last_word(
    project: Path, half: str, line: str, written: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALL, "bash", half, line],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.split() == written.split()


def test_a_shell_that_is_not_known_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"--shell 'fsh': takes bash or zsh or fish\. Did"):
        script("fsh")


def test_without_a_name_it_is_the_shell_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")

    assert script("") == script("zsh")
    assert "compdef" in script("")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (("build", "h"), ["hello-mpi"]),
        (("build", "--force", "h"), ["hello-mpi"]),
        (("cluster", "st"), ["status"]),
        (("build", "hello-mpi", "--forc"), ["--force"]),
        (("cluster.st",), ["cluster.status"]),
        (("test", "hello-mpi", "--runtime", "d"), ["docker"]),
        (("info", "he"), ["hello-mpi", "here.sif"]),
        (("build", "he"), ["hello-mpi"]),
    ],
)
def test_behind_a_verb_of_the_program_sifline_stands_an_image(
    project: Path, typed: tuple[str, ...], offered: list[str]
) -> None:
    (project / "here.sif").touch()

    found = answer(typed, project, spaced=True).found

    assert sorted(candidate.word for candidate in found) == sorted(offered)
