"""Which architectures run here: the kernel is asked."""

from __future__ import annotations

import os
from pathlib import Path

from sifline.formats.platforms import MACHINES
from sifline.machine.architectures import runs
from sifline.machine.process import ProcessRunner
from tests.support.recording import RecordingRunner, answer

HERE = MACHINES.get(os.uname().machine, os.uname().machine).partition("/")[0]


def test_what_this_machine_is_runs_here(tmp_path: Path) -> None:
    assert runs(HERE, tmp_path, ProcessRunner())
    assert list(tmp_path.iterdir()) == []


def test_what_no_emulator_runs_does_not(tmp_path: Path) -> None:
    # s390x has another order of bytes: no machine that runs tests is one.
    emulated = any(Path("/proc/sys/fs/binfmt_misc").glob("*s390x*"))
    assert runs("s390x", tmp_path, ProcessRunner()) == emulated
    assert list(tmp_path.iterdir()) == []


def test_an_emulator_that_starts_runs_it(tmp_path: Path) -> None:
    program = str(tmp_path / "program.arm64")
    assert runs("arm64", tmp_path, RecordingRunner({(program,): answer(returncode=132)}))


def test_an_architecture_that_is_not_known_is_tried(tmp_path: Path) -> None:
    assert runs("mips", tmp_path, RecordingRunner({}))
