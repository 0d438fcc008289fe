"""Runs Slurm's commands on the controller, as the cluster's job user."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from sifline.errors import StepFailed
from sifline.formats.node_lists import expand_in_order
from sifline.machine.process import Result
from sifline.machine.remote import Remote
from sifline.machine.streams import Argv
from sifline.model import Cluster, Role

# Seconds that a job may wait for its resources before srun gives up.
QUEUE_SECONDS = 20

FIELDS = "%N|%T|%c|%m|%G|%v"


@dataclass(frozen=True, kw_only=True)
class SlurmNode:
    """A node as slurmctld reports it; ``memory_mb`` in MiB, ``version`` of its slurmd."""

    name: str
    state: str
    cpus: int
    memory_mb: int
    gres: str
    version: str

    @property
    def answers(self) -> bool:
        """Return whether the node responds; Slurm marks others with a star."""
        return not self.state.endswith("*")

    @property
    def usable(self) -> bool:
        """Return whether it runs jobs, or could."""
        return self.state in {"idle", "mixed", "allocated", "completing", "planned"}

    @property
    def gpus(self) -> int:
        """Return the number of its GPUs."""
        return gpu_count(self.gres)


class Slurm:
    """Runs jobs as the cluster's job user and asks slurmctld; every call has a time limit."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    @property
    def _cluster(self) -> Cluster:
        return self._remote.cluster

    def srun(
        self,
        argv: Argv,
        *,
        options: Sequence[str] = (),
        timeout: float = 60,
        check: bool = False,
    ) -> Result:
        """Run ``argv`` as a job and return its output and status.

        The job waits at most ``QUEUE_SECONDS`` for resources, and is cancelled after ``timeout``
        seconds. It does not run on nodes that the user left out.

        :raises CommandFailed: after the time limit; with ``check``, for any status but 0.
        """
        name = f"sifline-{secrets.token_hex(4)}"
        minutes = int(timeout // 60) + 1
        command = [
            "srun",
            f"--job-name={name}",
            f"--time={minutes}",
            f"--immediate={QUEUE_SECONDS}",
            *partition_option(self._cluster),
            *_without(self._cluster),
            *options,
            *argv,
        ]
        try:
            return self._as_user(command, timeout=timeout, check=check)
        except StepFailed:
            # A lost connection or a killed srun may leave the job running.
            with suppress(StepFailed):
                self.cancel(name)
            raise

    def cancel(self, name: str) -> None:
        """Cancel the job user's jobs with that name, if there are any."""
        self._as_user(["scancel", f"--name={name}"], timeout=20, check=False)

    def nodes(self) -> dict[str, SlurmNode]:
        """Return all nodes by name.

        :raises CommandFailed: if slurmctld does not answer.
        """
        asked = ["sinfo", "--Node", "--noheader", f"--format={FIELDS}"]
        return read_nodes(self._as_user(asked, timeout=30).stdout)

    def ping(self) -> str:
        """Return the output of ``scontrol ping``.

        :raises StepFailed: if slurmctld is down.
        """
        result = self._as_user(["scontrol", "ping"], timeout=30, check=False)
        if not result.ok or not re.search(r"\bis UP\b", result.stdout):
            raise StepFailed(
                f"slurmctld on {self._cluster.controller.name} does not answer; look at: "
                "systemctl status slurmctld, journalctl --unit slurmctld",
                details=result.tail(),
            )
        return result.stdout.strip().splitlines()[0]

    def _as_user(self, argv: Argv, *, timeout: float, check: bool = True) -> Result:
        return self._remote.run(
            self._cluster.controller,
            argv,
            user=self._cluster.job_user or None,
            timeout=timeout,
            check=check,
        )


def partition_option(cluster: Cluster) -> list[str]:
    """Return the option of srun for a job that may need any node of a cluster.

    The default partition may lack a node that is asked for. Slurm takes one partition of a list
    that has the nodes and lets the user in. Where jobs get whole nodes the checks of shared ones
    cannot work, so those partitions are named only for nodes that are in no other.
    """
    if not any(part.nodes for part in cluster.partitions):
        return []
    if "slurm_common_partitions" in dict(cluster.variables):
        return []  # Slurm's are other ones
    up = [part for part in cluster.partitions if part.state == "up"]
    shared = [part for part in up if not part.exclusive]
    every = [node.name for node in cluster.compute]
    reached = {name for part in shared for name in expand_in_order(part.nodes) if part.nodes}
    whole = any(not part.nodes for part in shared) or reached.issuperset(every)
    names = [part.name for part in (shared if whole else up)]
    return [f"--partition={','.join(names)}"] if names else []


def _without(cluster: Cluster) -> list[str]:
    names = [node.name for node in cluster.left_out if node.role is Role.COMPUTE]
    return [f"--exclude={','.join(names)}"] if names else []


def read_nodes(text: str) -> dict[str, SlurmNode]:
    """Parse the output of sinfo for ``FIELDS``; a node is listed once for each partition."""
    nodes = {}
    for line in text.splitlines():
        name, state, cpus, memory, gres, version = line.strip().split("|")
        nodes[name] = SlurmNode(
            name=name,
            state=state,
            cpus=int(cpus),
            memory_mb=int(memory),
            gres="" if gres == "(null)" else gres,
            version=version,
        )
    return nodes


def gpu_count(gres: str) -> int:
    """Return the number of GPUs in a GRES string: ``gpu:a100:4(S:0-1),gpu:2`` has 6."""
    total = 0
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        kind, *rest = item.split(":")
        if kind == "gpu":
            # Without a count Slurm means one.
            total += int(rest[-1]) if rest and rest[-1].isdigit() else 1
    return total
