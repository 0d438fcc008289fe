"""Folders of a run in /tmp: gone with the run, and with the next one if it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sifline.machine.scratch import PREFIX, Scratch

HOLD = """
import sys
from pathlib import Path
from sifline.machine.scratch import Scratch
(scratch := Scratch(Path(sys.argv[1]))).path.joinpath("x").touch()
print(scratch.path, flush=True)
sys.stdin.read()
"""


def test_a_folder_is_for_its_user_alone_and_ends_with_its_run(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    assert scratch.path.stat().st_mode & 0o777 == 0o700
    (scratch.path / "x").touch()
    scratch.remove()
    assert [*tmp_path.iterdir()] == []


def test_the_next_run_removes_what_a_killed_one_left_and_nothing_of_a_live_one(
    tmp_path: Path,
) -> None:
    foreign = tmp_path / f"{PREFIX}of-others"
    foreign.mkdir()
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        left = Path(process.stdout.readline().strip())
        Scratch(tmp_path).remove()
        assert (left / "x").exists()
        process.send_signal(signal.SIGKILL)
    assert left.is_dir()
    Scratch(tmp_path).remove()
    assert [*tmp_path.iterdir()] == [foreign]


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user needs root")
def test_folders_of_other_users_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}a").mkdir()
    lock = tmp_path / f"{PREFIX}a.lock"
    lock.touch()
    os.chown(lock, 1234, 1234)
    Scratch(tmp_path).remove()
    assert (tmp_path / f"{PREFIX}a").is_dir()
