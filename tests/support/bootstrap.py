"""The bootstrap script for its tests, run in a small checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "bootstrap"
PATIENCE = 600  # to make an environment takes ten seconds, where nobody else needs the machine
# What the installation of the project needs; the whole lock file would take four times as long.
BACKEND = {"hatchling", "packaging", "pathspec", "pluggy", "tomli", "tomlkit", "trove-classifiers"}


def copy_checkout(target: Path) -> Path:
    """Copy what bootstrap reads to ``target``, with only the build backend in the lock file."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target / name)
    for name in ("scripts", "src", "ansible"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8")
    entries = re.findall(r"(?m)^[a-z0-9][^\n]*\\\n(?:    --hash[^\n]*\n)+", text)
    kept = [entry for entry in entries if entry.split("==")[0] in BACKEND]
    (target / "requirements").mkdir()
    (target / "requirements" / "dev.lock").write_text("".join(kept), encoding="utf-8")
    return target


def start(
    checkout: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start the checkout's script under this Python."""
    return subprocess.Popen(
        [sys.executable, str(checkout / "scripts" / "bootstrap"), *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    checkout: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the checkout's script to its end."""
    return finished(start(checkout, *arguments, environment=environment))


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a script that was started."""
    try:
        stdout, stderr = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
