"""The ``docker`` command, and what it says where no engine answers."""

from __future__ import annotations

from sifline.errors import MissingError
from sifline.runner import CommandFailed, Result, Runner


def docker(runner: Runner, *argv: str, check: bool = True, timeout: float | None = None) -> Result:
    """Run the docker command with ``argv``.

    :raises MissingError: where no engine answers, or it may not be used.
    :raises CommandFailed: with ``check``, for any status but 0; when ``timeout`` seconds pass.
    """
    try:
        result = runner.run(["docker", *argv], check=check, timeout=timeout)
    except CommandFailed as error:
        need_answer(error.result)
        raise
    need_answer(result)
    return result


def need_answer(result: Result) -> None:
    """Raise MissingError where a docker command failed because no engine answered."""
    if result.ok:
        return
    if "permission denied" in result.stderr and "docker" in result.stderr:
        raise MissingError(
            "no permission on the Docker engine's socket; run: sudo usermod -aG docker $USER,"
            " then log in again"
        )
    if "Cannot connect to the Docker daemon" in result.stderr or (
        "error during connect" in result.stderr
    ):
        raise MissingError("no Docker engine answers; run scripts/bootstrap, which starts one")
