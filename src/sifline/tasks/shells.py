"""The completion scripts of bash, zsh and fish, which call ``completion``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sifline.errors import UsageError, did_you_mean

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """Return the completion script for that shell; "" for the shell in use.

    :raises UsageError: for another shell.
    """
    from shlex import quote

    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UsageError(
            f"--shell {name!r}: takes {' or '.join(SHELLS)}.{did_you_mean(name, SHELLS)}"
        )
    text = Path(__file__).with_name(f"completion.{name}").read_text(encoding="utf-8")
    return text.replace("@PYTHON@", quote(sys.executable))
