"""The command line of this checkout, called as a person does."""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import warm

ROOT = Path(__file__).parents[2]


def invoke(*words: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a command line as a person types it; it never ends in a traceback."""
    done = warm.run(["-m", "invoke", *words], cwd=ROOT, timeout=seconds)
    assert "Traceback" not in done.stderr, done.stderr
    return done
