"""What a check is, where checks are known, and what they use to look at a cluster.

A check is a function that returns the evidence in one sentence. It raises ``CheckFailed``
where what it checks is false and ``CheckSkipped`` where it cannot be looked at; its suite
and its phase come from the decorator, its name and its help from the function.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sifline.engines.registry import ask
from sifline.engines.slurm import Slurm
from sifline.engines.ssh import Ssh
from sifline.errors import SiflineError
from sifline.machine.process import Argv, Result
from sifline.model import Cluster, Node

CHECK_SECONDS = 120

# What a check may still do when its time is over: cancel its job.
GRACE_SECONDS = 5.0


class Phase(str, Enum):
    """When a check is due: what stands, what was put there, what runs. In this order."""

    INFRASTRUCTURE = "infrastructure"
    DEPLOYMENT = "deployment"
    END_TO_END = "end to end"


class CheckFailed(Exception):
    """What the check looks at is not as it should be."""


class CheckSkipped(Exception):
    """The check could not look; the reason says why."""


class Probe:
    """What checks use to look at a cluster; all its commands end in the check's time."""

    def __init__(self, ssh: Ssh, *, seconds: float) -> None:
        self._ssh = ssh
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self.slurm = Slurm(self)

    @property
    def cluster(self) -> Cluster:
        """The cluster that is judged."""
        return self._ssh.cluster

    def run(
        self,
        node: Node,
        argv: Argv,
        *,
        sudo: bool = False,
        user: str | None = None,
        input: str | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> Result:
        """Run ``argv`` on ``node``, for as long as the check has left at most."""
        left = self._until - time.monotonic()
        if left <= -GRACE_SECONDS:
            raise CheckFailed(f"did not end within {self._seconds:g} s")
        return self._ssh.run(
            node,
            argv,
            sudo=sudo,
            user=user,
            input=input,
            timeout=max(GRACE_SECONDS, min(timeout, left)),
            check=check,
        )

    def everywhere(
        self,
        argv: Argv,
        *,
        nodes: Sequence[Node] = (),
        sudo: bool = False,
        user: str | None = None,
        check: bool = True,
    ) -> dict[str, Result]:
        """Run ``argv`` on all nodes, or on ``nodes``; one that does not answer is a failure."""
        return self.each(
            nodes or self.cluster.nodes,
            lambda node: self.run(node, argv, sudo=sudo, user=user, check=check),
        )

    def each(self, nodes: Sequence[Node], work: Callable[[Node], Any]) -> dict[str, Any]:
        """Do ``work`` for the nodes side by side; all that fail are named in one failure."""
        done, failed = self._ssh.each(nodes, work)
        if failed:
            raise CheckFailed("; ".join(one_line(error) for error in failed.values()))
        return done

    def holdings(self, *, read: bool = False) -> dict[str, dict[str, Any]]:
        """Return what the registry of every node lists; ``read`` has all files read in full."""
        reading = {"read": "yes"} if read else {}
        return self.each(self.cluster.nodes, lambda node: ask(self, node, "list", **reading))

    def need_nodes(self, count: int) -> None:
        """Skip the check where the cluster has fewer compute nodes than ``count``."""
        if len(self.cluster.compute) < count:
            raise CheckSkipped(f"the cluster has fewer than {count} compute nodes")

    @property
    def job_user(self) -> str:
        """The ordinary user whose eyes count."""
        if not self.cluster.job_user:
            raise CheckSkipped(f"{self.cluster.source} names no job_user")
        return self.cluster.job_user


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check as it is known: where it belongs, what it says, and the function."""

    suite: str
    name: str
    phase: Phase
    summary: str
    function: Callable[[Probe], str]

    @property
    def key(self) -> str:
        """Its name among all."""
        return f"{self.suite}.{self.name}"


_known: dict[str, Check] = {}


def check(*, suite: str, phase: Phase) -> Callable[[Callable[[Probe], str]], Callable[..., str]]:
    """Register the function as a check, named as it is with dashes."""

    def register(function: Callable[[Probe], str]) -> Callable[..., str]:
        summary = (function.__doc__ or "").strip().splitlines()[0]
        name = function.__name__.replace("_", "-")
        found = Check(suite=suite, name=name, phase=phase, summary=summary, function=function)
        _known[found.key] = found
        return function

    return register


def known() -> tuple[Check, ...]:
    """Return all checks, phase by phase, and in a phase what others rest on first."""
    from sifline.validation import (
        cgroup_isolation,
        gpu_resources,
        infrastructure,
        mpi_job,
        registry,
        training_job,
    )

    modules = (infrastructure, gpu_resources, cgroup_isolation, registry, mpi_job, training_job)
    suites, phases = [module.SUITE for module in modules], list(Phase)
    return tuple(
        sorted(
            _known.values(),
            key=lambda item: (phases.index(item.phase), suites.index(item.suite)),
        )
    )


def deployed(probe: Probe, image: str) -> tuple[str, ...]:
    """Return the path of ``image`` on the compute nodes, and the file it leads to."""
    held = probe.holdings()
    for entry in held[probe.cluster.controller.name]["images"].values():
        if entry["name"] == image:
            missing = [
                node.name
                for node in probe.cluster.compute
                if not any(
                    other["path"] == entry["path"] and other["found"]
                    for other in held[node.name]["images"].values()
                )
            ]
            if missing:
                raise CheckFailed(f"{entry['path']} is missing on {', '.join(missing)}")
            argv = ["readlink", "--canonicalize", entry["path"]]
            found = probe.run(probe.cluster.compute[0], argv).stdout.strip()
            return entry["path"], found
    raise CheckSkipped(f"{image} is not deployed; invoke deploy.{image} {probe.cluster.flag}")


def reason(stderr: str) -> str:
    """Return the first line of srun's complaint."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[0] if lines else "it printed nothing"


def cause(stderr: str) -> str:
    """Return the last line that a process said itself: there a traceback names the error."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    # A step daemon calls itself slurmstepd or slurmstepd-NODE.
    own = [line for line in lines if not line.startswith(("srun:", "slurmstepd"))]
    return own[-1] if own else reason(stderr)


def one_line(error: Exception) -> str:
    """Return an error as one line; the last line of its details where there are any."""
    details = getattr(error, "details", "")
    last = [line.strip() for line in str(details).splitlines() if line.strip()][-1:]
    if isinstance(error, SiflineError) and last and last[0] not in str(error):
        return f"{error}: {last[0]}"
    return str(error)
