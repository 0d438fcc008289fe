"""The ``docker`` command, and what it says where no engine answers."""

from __future__ import annotations

import re
from pathlib import Path

from sifline.errors import MissingError
from sifline.runner import CommandFailed, OnLine, Result, Runner

# The whole phrase: the log of a build may speak of permissions, too.
_DENIED = re.compile("permission denied while trying to connect to the docker", re.IGNORECASE)
_SILENT = re.compile("Cannot connect to the Docker daemon|error during connect")


def docker(
    runner: Runner,
    *argv: str,
    check: bool = True,
    timeout: float | None = None,
    log: Path | None = None,
    on_line: OnLine | None = None,
) -> Result:
    """Run the docker command with ``argv``.

    :raises MissingError: where no engine answers, or it may not be used.
    :raises CommandFailed: with ``check``, for any status but 0; when ``timeout`` seconds pass.
    """
    try:
        result = runner.run(
            ["docker", *argv], check=check, timeout=timeout, log=log, on_line=on_line
        )
    except CommandFailed as error:
        need_answer(error.result)
        raise
    need_answer(result)
    return result


def need_answer(result: Result) -> None:
    """Raise MissingError where a docker command failed because no engine answered."""
    if result.ok:
        return
    if _DENIED.search(result.stderr):
        raise MissingError(
            "no permission on the Docker engine's socket; run: sudo usermod -aG docker $USER,"
            " then log in again"
        )
    if _SILENT.search(result.stderr):
        raise MissingError("no Docker engine answers; run scripts/bootstrap, which starts one")
