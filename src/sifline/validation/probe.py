"""Access to a cluster for one check, within its time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sifline.engines.registry import ask
from sifline.engines.slurm import Slurm
from sifline.engines.ssh.nodes import Ssh
from sifline.machine.process import Result
from sifline.machine.streams import Argv
from sifline.model import Cluster, Node
from sifline.validation.outcome import CheckFailed, CheckSkipped, one_line

CHECK_SECONDS = 120

# Seconds that a check may use after its time limit, to cancel its job.
GRACE_SECONDS = 5.0


class Probe:
    """Runs commands on a cluster for one check; all of them end within its time limit."""

    def __init__(self, ssh: Ssh, *, seconds: float) -> None:
        self._ssh = ssh
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self.slurm: Slurm = _Jobs(self)

    @property
    def cluster(self) -> Cluster:
        """Return the cluster to check."""
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
        """Run ``argv`` on ``node``, at most for the remaining time of the check."""
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
        """Run ``argv`` on all nodes, or on ``nodes``; an unreachable node is a failure."""
        return self.each(
            nodes or self.cluster.nodes,
            lambda node: self.run(node, argv, sudo=sudo, user=user, check=check),
        )

    def each(self, nodes: Sequence[Node], work: Callable[[Node], Any]) -> dict[str, Any]:
        """Call ``work`` for the nodes in parallel; one failure names all that failed."""
        done, failed = self._ssh.each(nodes, work)
        if failed:
            raise CheckFailed("; ".join(one_line(error) for error in failed.values()))
        return done

    def holdings(self, *, read: bool = False) -> dict[str, dict[str, Any]]:
        """Return the content of every node's registry; ``read`` makes the nodes read all files."""
        reading = {"read": "yes"} if read else {}
        return self.each(self.cluster.nodes, lambda node: ask(self, node, "list", **reading))

    def need_nodes(self, count: int) -> None:
        """Skip the check if the cluster has fewer compute nodes than ``count``."""
        self._need(count, len(self.cluster.compute), "compute nodes")

    def need_pair(self) -> None:
        """Skip the check if there is no second node to compare with."""
        self._need(2, len(self.cluster.nodes), "nodes")

    def _need(self, count: int, found: int, what: str) -> None:
        if found < count and self.cluster.left_out:
            raise CheckSkipped(f"it needs {count} {what}, and --node and --without leave {found}")
        if found < count:
            raise CheckSkipped(f"the cluster has fewer than {count} {what}")

    @property
    def job_user(self) -> str:
        """Return the ordinary user for checks and jobs."""
        if not self.cluster.job_user:
            raise CheckSkipped(f"{self.cluster.source} names no job_user")
        return self.cluster.job_user


class _Jobs(Slurm):
    """Slurm, for checks: a job needs a node to run on."""

    def __init__(self, probe: Probe) -> None:
        super().__init__(probe)
        self._probe = probe

    def srun(
        self,
        argv: Argv,
        *,
        options: Sequence[str] = (),
        timeout: float = 60,
        check: bool = False,
    ) -> Result:
        """Run ``argv`` as a job on the chosen nodes; see ``Slurm.srun``."""
        self._probe.need_nodes(1)
        return super().srun(argv, options=options, timeout=timeout, check=check)


def deployed(probe: Probe, image: str) -> tuple[str, ...]:
    """Return the path of ``image`` on the compute nodes, and the file it leads to."""
    held = probe.holdings()
    for entry in (entry for answer in held.values() for entry in answer["images"].values()):
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
