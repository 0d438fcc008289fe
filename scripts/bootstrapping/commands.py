"""The commands that bootstrap runs, their logs, and what it says to the user."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "build" / "logs"
# Ordinary users lack these on their search path, and dockerd lives there.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin:/usr/sbin:/sbin"])


class Stop(Exception):
    """Bootstrap cannot go on. Codes as everywhere in sifline: 1 failed, 2 usage, 3 missing."""

    def __init__(self, message: str, code: int = 1, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.details = details


def say(text: str) -> None:
    """Tell the user; standard output belongs to COMMAND."""
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


def which(tool: str) -> str | None:
    """Return where ``tool`` is, or None."""
    return shutil.which(tool, path=SEARCH)


def quiet(argv: Sequence[str]) -> bool:
    """Return whether a command ends well; what it prints does not matter."""
    try:
        return not subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=20,
            check=False,
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


def do(
    argv: Sequence[str],
    log: str,
    *,
    cwd: Path = ROOT,
    settings: Mapping[str, str] | None = None,
    may_fail: bool = False,
) -> None:
    """Run a command to its end, its output in ``log``, showing now and then that it lives."""
    LOGS.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", **(settings or {})}
    # Set on some machines; an environment without byte code starts every command slowly.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.monotonic()
    with (LOGS / log).open("a", encoding="utf-8") as output:
        print("+", shlex.join(argv), file=output, flush=True)
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment,
        )
        try:
            while process.poll() is None:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    say(f"  … {time.monotonic() - started:.0f} s, see build/logs/{log}")
        except KeyboardInterrupt:
            # A child that goes on would write into what the next run makes anew.
            process.terminate()
            process.wait()
            raise
    if process.returncode and not may_fail:
        raise Stop(
            f"{' '.join(argv[:4])} … ended with status {process.returncode}; fix what it says "
            f"below, then run scripts/bootstrap again (all of it: build/logs/{log})",
            details=tail(LOGS / log),
        )


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a file."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def as_root(argv: Sequence[str]) -> list[str]:
    """Return ``argv`` so that it runs as root."""
    if os.geteuid() == 0:
        return list(argv)
    if not which("sudo"):
        raise Stop(f"needs root or sudo for: {shlex.join(argv)}; run that as root, then again", 3)
    return ["sudo", "DEBIAN_FRONTEND=noninteractive", *argv]


def can_be_root() -> bool:
    """Tell whether ``as_root`` has a way."""
    return os.geteuid() == 0 or bool(which("sudo"))


def ask_password() -> None:
    """Let sudo ask once, on the terminal, before output goes to log files."""
    if (
        os.geteuid() != 0
        and which("sudo")
        and subprocess.run(["sudo", "-v"], check=False).returncode
    ):
        raise Stop("sudo refused; run scripts/bootstrap as root", 3)
