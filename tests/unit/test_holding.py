"""Which containers are left over: those of runs that ended, whatever became of their files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sifline.engines.docker import holding
from sifline.engines.docker.engine import LABEL_PURPOSE
from sifline.machine import process_table
from sifline.pipeline import Pipeline
from sifline.report.terminal import Terminal
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

ENDED = """
import sys
from pathlib import Path
from sifline.engines.docker.holding import holding
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer
with holding(context_of(Path(sys.argv[1]), RecordingRunner({("docker",): answer()}))) as label:
    print(label)
    sys.stdout.flush()
    {}
"""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is asked by its command."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")


def ended(root: Path, how: str = "pass") -> str:
    """Return the purpose of a run in ``root`` that has ended."""
    argv = [sys.executable, "-c", ENDED.replace("{}", how, 1), str(root)]
    repository = Path(__file__).parents[2]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=repository)
    return done.stdout.strip().partition("=")[2]


def removed(root: Path, *purposes: str) -> list[str]:
    """Return which of the purposes of containers are taken for left over."""
    lines = "".join(f"{number} {purpose}\n" for number, purpose in enumerate(purposes))
    runner = RecordingRunner(
        {
            ("docker", "ps", "--all", "--no-trunc"): answer(lines),
            ("docker", "ps", "--all", "--quiet"): answer(),
        }
    )
    holding.sweep(context_of(root, runner))
    asked = [argv[-1] for argv in runner.argvs if "--quiet" in argv]
    return sorted(word.removeprefix(f"label={LABEL_PURPOSE}=") for word in asked)


@contextmanager
def living(root: Path) -> Iterator[str]:
    """Hold containers; yield their purpose."""
    with holding.holding(context_of(root, RecordingRunner({("docker",): answer()}))) as label:
        yield label.partition("=")[2]


def killed(root: Path) -> str:
    return ended(root, "import os; os.kill(os.getpid(), 9)")


def test_what_ended_and_killed_runs_left_goes(tmp_path: Path) -> None:
    left = [ended(tmp_path), killed(tmp_path)]
    assert len([*(tmp_path / "build" / "held").iterdir()]) == 1

    assert removed(tmp_path, *left) == sorted(left)
    assert [*(tmp_path / "build" / "held").iterdir()] == []


def test_it_goes_also_where_somebody_removed_the_files(tmp_path: Path) -> None:
    left = killed(tmp_path)
    shutil.rmtree(tmp_path / "build")

    assert removed(tmp_path, left) == [left]


def test_what_a_living_run_holds_stays_also_where_somebody_removes_its_file(
    tmp_path: Path,
) -> None:
    with living(tmp_path) as purpose:
        assert removed(tmp_path, purpose) == []
        for path in (tmp_path / "build" / "held").iterdir():
            path.unlink()
        assert removed(tmp_path, purpose) == []
        shutil.rmtree(tmp_path / "build")
        assert removed(tmp_path, purpose) == []


def test_another_process_of_the_same_number_is_not_the_run(tmp_path: Path) -> None:
    purpose = ended(tmp_path)
    name = purpose.rsplit(":", 2)[0]

    assert removed(tmp_path, f"{name}:{os.getpid()}:1") == [f"{name}:{os.getpid()}:1"]


def test_a_process_that_proc_hides_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden(pid: int) -> str:
        raise FileNotFoundError

    with living(tmp_path) as purpose:
        (path,) = (tmp_path / "build" / "held").iterdir()
        path.unlink()
        monkeypatch.setattr(process_table, "begin", hidden)
        assert removed(tmp_path, purpose) == []


def test_what_is_of_others_or_of_other_machines_stays(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    others = killed(tmp_path / "other")
    name, _, rest = ended(tmp_path).partition(":")
    another_machine = f"{name}:00000000-0000-0000-0000-000000000000:{rest.partition(':')[2]}"
    folder = tmp_path / "build" / "held"

    strange = [
        f"{name.rpartition('/')[2]}:{rest}",
        "",
        "/scratch/x",
        f"{folder}/0123",
        f"{folder}/0123:77",
        str(folder),
    ]
    assert removed(tmp_path, others, another_machine, *strange) == []


def test_a_shell_of_an_apptainer_of_this_machine_has_no_part_in_the_engine(tmp_path: Path) -> None:
    version = answer("apptainer version 1.4.5")
    runner = RecordingRunner({("/usr/bin/apptainer", "--version"): version}, tools={"apptainer"})
    pipeline = Pipeline(context_of(tmp_path, runner), Terminal())

    with pipeline.work.labelled(sif=True) as label:
        assert label == ""

    assert {argv[0] for argv in runner.argvs} == {"/usr/bin/apptainer"}
    assert not (tmp_path / "build").exists()
