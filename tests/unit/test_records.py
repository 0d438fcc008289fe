"""Records: whole or not there at all."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sifline.machine import records
from sifline.machine.process import Interrupted, ProcessRunner
from tests.support.contexts import context_of
from tests.support.waiting import PATIENCE, until


def test_a_record_is_read_back(tmp_path: Path) -> None:
    records.write(tmp_path / "new" / "a.json", {"key": [1, "two"]})

    assert records.read(tmp_path / "new" / "a.json") == {
        "version": records.VERSION,
        "key": [1, "two"],
    }


def test_nothing_else_is_left_beside_it(tmp_path: Path) -> None:
    records.write(tmp_path / "a.json", {})

    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_keeps_the_old_record(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    records.write(path, {"key": 1})

    with pytest.raises(TypeError):
        records.write(path, {"key": object()})

    assert records.read(path) == {"version": records.VERSION, "key": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from sifline.machine import records
def kill(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = kill
records.write(Path(sys.argv[1]), {"key": "new"})
"""


def test_what_a_killed_write_left_goes_with_the_next(tmp_path: Path) -> None:
    path, other = tmp_path / "a[1].json", tmp_path / "a1.json"
    for target in (path, other):
        argv = [sys.executable, "-c", KILLED, str(target)]
        assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    assert len([*tmp_path.iterdir()]) == 2

    records.write(path, {"key": 1})

    (left,) = set(tmp_path.iterdir()) - {path}
    assert left.name.startswith(".a1.json.")


def test_many_who_write_one_record_do_not_take_away_each_others(tmp_path: Path) -> None:
    path, faults = tmp_path / "a.json", list[BaseException]()

    def write() -> None:
        try:
            for number in range(100):
                records.write(path, {"key": number})
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    assert records.read(path) == {"version": records.VERSION, "key": 99}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_half_a_record_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"version": 1, "key"')

    assert records.read(tmp_path / "a.json") is None


def test_a_foreign_version_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"version": 99}')

    assert records.read(tmp_path / "a.json") is None


def test_who_waits_for_a_lock_is_told_and_may_be_interrupted(tmp_path: Path) -> None:
    said, lock = list[str](), tmp_path / "locks" / "a.build.lock"
    runner = ProcessRunner()

    def progress(text: str) -> None:
        said.append(text)

    here = context_of(tmp_path, runner, progress=progress)
    ended = list[BaseException]()

    def wait() -> None:
        try:
            with records.locked(lock, here):
                pass
        except BaseException as error:
            ended.append(error)

    with records.locked(lock):
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: said, "the word of who waits")
        runner.stop()
        thread.join(PATIENCE)

    assert said == ["waiting for another step of this run: a.build"]
    assert [type(error) for error in ended] == [Interrupted]


def test_who_waits_for_a_lock_gets_it_when_it_is_free(tmp_path: Path) -> None:
    order, said, lock = list[str](), list[str](), tmp_path / "a.lock"

    def progress(text: str) -> None:
        said.append(text)

    here = context_of(tmp_path, ProcessRunner(), progress=progress)

    def wait() -> None:
        with records.locked(lock, here):
            order.append("second")

    with records.locked(lock):
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: said, "the word of who waits")
        order.append("first")
    thread.join(PATIENCE)

    assert order == ["first", "second"]


def test_a_sweep_removes_what_a_killed_run_left_and_not_what_is_being_written(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    left, written, record = (
        folder / name for name in (".a.json.1.2.tmp", ".b.json.3.4.tmp", "c.json")
    )
    for path in (left, written, record):
        path.write_text("{")
    with written.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        records.sweep(tmp_path)

    assert sorted(folder.iterdir()) == sorted([written, record])
