"""What runs in a fork of the warm interpreter does what it does in one of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.command import ROOT
from tests.support.waiting import until

SAID = "import os, sys; print(os.getcwd(), sys.argv, sys.path[0], os.environ['WHAT'])"


def alone(words: Sequence[str], folder: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def forked(words: Sequence[str], folder: Path) -> tuple[int, str, str]:
    done = warm.run(words, cwd=folder, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("-c", SAID, "a", "b c"),
        ("-c", "import sys; print('ü'); sys.exit(3)"),
        ("-c", "import os; os.kill(os.getpid(), 9)"),
        ("-c", "import sys; print(repr(sys.stdin.read()), file=sys.stderr)"),
        ("-c", "import subprocess as s; print(s.run(['false']).returncode)"),
        ("-c", "import atexit; atexit.register(print, 'in the end')"),
        ("-m", "invoke", "--version"),
        ("-m", "invoke", "--list"),
        ("-m", "invoke", "no.such.task"),
        ("-m", "platform", "--terse"),
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_it_does_the_same(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHAT", "here")
    assert forked(words, ROOT) == alone(words, ROOT)


def test_it_reads_what_is_put_in(tmp_path: Path) -> None:
    program = "import sys; print(sys.stdin.read().upper())"
    done = warm.run(["-c", program], cwd=tmp_path, input="so\n", timeout=60)
    assert done.stdout == "SO\n\n"


def test_programs_do_not_meet_and_run_side_by_side(tmp_path: Path) -> None:
    """Each waits for a file that another one makes."""
    program = (
        "import os, sys, time\n"
        "open(sys.argv[1], 'w').close()\n"
        "while not os.path.exists(sys.argv[2]): time.sleep(0.01)\n"
    )
    pairs = [("a", "b"), ("b", "c"), ("c", "a")]
    with ThreadPoolExecutor() as pool:
        done = pool.map(lambda pair: forked(["-c", program, *pair], tmp_path), pairs)
        assert list(done) == [(0, "", "")] * 3


def test_what_takes_too_long_is_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    program = "import os, time; print(os.getpid(), file=open('pid', 'w')); time.sleep(600)"
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run(["-c", program], cwd=tmp_path, timeout=2)
    assert time.monotonic() - began < 60
    number = int((tmp_path / "pid").read_text())
    until(lambda: not Path("/proc", str(number)).exists(), "the end of what was killed")
