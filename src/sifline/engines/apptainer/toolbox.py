"""The toolbox: the Docker image that has Apptainer for a machine without one."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from sifline.engines.docker.engine import need_answer, reason
from sifline.errors import MissingError, SiflineError, StepFailed
from sifline.machine.process import Result
from sifline.model import Bind

TOOLBOX = "sifline/toolbox"
# Locked by whoever keeps a container of the toolbox running.
ALIVE = "/sifline-alive"
# How the docker command says that it could not start the container at all.
NOT_STARTED = 125
# What Apptainer needs to make user namespaces and mount with FUSE inside a container.
# Not --privileged: it asks for more, and fails where the engine itself holds less.
TOOLBOX_RIGHTS = (
    *("--cap-add", "SYS_ADMIN"),
    *("--device", "/dev/fuse"),
    *("--security-opt", "apparmor=unconfined"),
    *("--security-opt", "seccomp=unconfined"),
    *("--security-opt", "systempaths=unconfined"),
)
_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Box:
    """A container of the toolbox that is kept running, and all that it sees of the host."""

    name: str
    binds: tuple[Bind, ...]

    def sees(self, bind: Bind) -> bool:
        """Tell whether a command in it finds ``bind`` where a container of its own would."""
        return any(
            held.writable >= bind.writable
            and Path(bind.source).is_relative_to(held.source)
            and Path(held.target, Path(bind.source).relative_to(held.source)) == Path(bind.target)
            for held in self.binds
        )


def new_name() -> str:
    """Return a name that no other container has."""
    return f"sifline-apptainer-{os.getpid()}-{next(_numbers)}"


def start_failure(toolbox: str, result: Result, *, box: Box | None) -> SiflineError | None:
    """Return what kept the toolbox from starting; None where it was not that."""
    if result.returncode not in (1, NOT_STARTED):
        return None
    said = result.stderr
    if box:
        need_answer(result)
        # It runs: the status is that of the command in it.
        return None
    if "No such image" in said or "Unable to find image" in said:
        return MissingError(
            f"no apptainer on this machine, and no image {toolbox}; run invoke build.toolbox"
        )
    need_answer(result)
    if result.returncode != NOT_STARTED:
        return None
    return StepFailed(
        f"the engine did not start {toolbox}: {reason(result)}; run invoke doctor",
        details=result.tail(),
    )
