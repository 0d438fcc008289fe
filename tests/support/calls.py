"""Scripts called as their users call them, where nothing of this machine can come to harm."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 12345  # a user that no machine knows
PATIENCE = 120
PATH = os.environ["PATH"]


def program(name: str) -> str:
    """Return where a program is: with an emptied PATH it has to be called by that."""
    found = shutil.which(name)
    assert found, f"{name} is needed by this test"
    return found


def copy(script: str, folder: Path) -> Path:
    """Copy a script of the checkout into ``folder``, which others may enter."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(ROOT / script, folder))


def as_nobody(uid: int = NOBODY) -> list[str]:
    """Return what turns root into a user without rights; others have few enough."""
    if os.geteuid():
        return []
    return [program("setpriv"), f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` to its end, with nothing but ``env`` in its environment."""
    return subprocess.run(
        [*map(str, argv)],
        env={"PATH": PATH, "LC_ALL": "C.UTF-8"} if env is None else dict(env),
        cwd=cwd,
        input=input,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def signalled(process: subprocess.Popen[str], number: int, input: str = "") -> int:
    """Send a signal to a process that runs; return the status with which it ends then."""
    assert process.poll() is None, "it ended before it was signalled"
    try:
        process.send_signal(number)
        process.communicate(input if process.stdin else None, timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    return process.returncode


def refusal(done: subprocess.CompletedProcess[str]) -> tuple[int, str]:
    """Return the status and the one line of a call that was refused before it did anything."""
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr.rstrip("\n")
