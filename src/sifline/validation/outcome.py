"""Why a check did not pass, in one line."""

from __future__ import annotations

from sifline.engines.ssh.faults import SshFailed
from sifline.errors import SiflineError


class CheckFailed(Exception):
    """The check failed."""


class CheckSkipped(Exception):
    """The check could not run; the message says why."""


def reason(stderr: str) -> str:
    """Return the first line of srun's error output."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[0] if lines else "it printed nothing"


def cause(stderr: str) -> str:
    """Return the last line of a process's own output: there a traceback names the error."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    # A step daemon is called slurmstepd or slurmstepd-NODE.
    own = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))]
    return own[-1] if own else reason(stderr)


def one_line(error: Exception) -> str:
    """Return an error as one line; the last line of its details if it has any.

    An error about an unreachable node keeps its own message, with the next command.
    """
    if isinstance(error, SshFailed):
        return error.message
    details = getattr(error, "details", "")
    last = [line.strip() for line in str(details).splitlines() if line.strip()][-1:]
    if isinstance(error, SiflineError) and last and last[0] not in str(error):
        return f"{error}: {last[0]}"
    return str(error)
