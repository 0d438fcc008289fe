"""Whoever waits for a lock learns which process has it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sifline.machine import lock_holders, records
from sifline.machine.lock_holders import holder, waiting_for

HOLD = """
import sys
from pathlib import Path
from sifline.machine import records
with records.locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(lock: Path, folder: Path) -> Iterator[int]:
    """Another process, started in ``folder``, holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield process.pid
        process.communicate()


def test_the_process_and_its_checkout_are_named(tmp_path: Path) -> None:
    ours, theirs, lock = tmp_path / "ours", tmp_path / "theirs", tmp_path / "x.lock"
    (ours / "images").mkdir(parents=True)
    theirs.mkdir()

    with held(lock, theirs) as pid:
        other = waiting_for(lock, "the build of x", ours)
    with held(lock, ours / "images") as own:
        same = waiting_for(lock, "the build of x", ours)

    assert other == f"waiting for process {pid} in {theirs}: the build of x"
    assert same == f"waiting for process {own} of this checkout: the build of x"


def test_a_lock_that_nobody_holds_has_no_holder(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    with records.locked(lock):
        pass
    lock.touch()

    assert holder(lock) == 0
    assert holder(tmp_path / "none.lock") == 0


@pytest.mark.parametrize(
    "locks",
    [
        "",
        "1: POSIX  ADVISORY  WRITE 1 00:01:{inode} 0 EOF\n",
        "1: -> FLOCK  ADVISORY  WRITE 1 00:01:{inode} 0 EOF\n",
        "1: FLOCK  ADVISORY  WRITE -1 00:01:{inode} 0 EOF\n",
        "1: FLOCK  ADVISORY  WRITE 999999999 00:01:{inode} 0 EOF\n",
        "1: FLOCK\n",
    ],
    ids=["empty", "other kind", "waits", "other namespace", "gone", "cut"],
)
def test_what_is_not_known_of_a_holder_is_another_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: str
) -> None:
    lock, table = tmp_path / "x.lock", tmp_path / "locks"
    lock.touch()
    table.write_text(locks.format(inode=lock.stat().st_ino))
    monkeypatch.setattr(lock_holders, "LOCKS", table)

    assert waiting_for(lock, "x", tmp_path) == "waiting for another run: x"
