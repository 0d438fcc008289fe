"""Suite infrastructure: the nodes answer, agree with each other and are known to Slurm."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import product

from sifline.engines.slurm import SlurmNode
from sifline.model import Cluster, Node
from sifline.validation.check import Phase, check
from sifline.validation.outcome import CheckFailed, CheckSkipped, cause, reason
from sifline.validation.probe import Probe

SUITE = "infrastructure"
infrastructure = check(suite=SUITE, phase=Phase.INFRASTRUCTURE)

# MUNGE accepts 300 s of skew, but time stamps in logs and build tools suffer earlier.
SKEW_SECONDS = 2.0

# Ranks, one on each node, for a PMIx fence.
RANKS = 2
FENCE = re.compile(r"^fence (\d+) (\d+) (\S+) (comes|leaves)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A node's clock, read between two readings of this machine's; seconds since the epoch."""

    before: float
    clock: float
    after: float

    @property
    def ahead(self) -> tuple[float, float]:
        """Return the least and the most that the node can be ahead of this machine."""
        return self.clock - self.after, self.clock - self.before


@infrastructure
def nodes_answer(probe: Probe) -> str:
    """Every node lets the administrator in and lets them become root."""
    answers = probe.everywhere(["id", "-u"], sudo=True)
    others = [name for name, result in answers.items() if result.stdout.strip() != "0"]
    if others:
        raise CheckFailed(f"sudo does not make the administrator root on {', '.join(others)}")
    return f"SSH and sudo work on {', '.join(answers)}"


@infrastructure
def clocks_agree(probe: Probe) -> str:
    """The clocks of all nodes agree to two seconds."""
    probe.need_pair()

    def read(node: Node) -> Reading:
        before = time.time()
        clock = float(probe.run(node, ["date", "+%s.%N"]).stdout)
        return Reading(before=before, clock=clock, after=time.time())

    probe.everywhere(["true"])  # so that the time to connect does not blur the reading
    return judge_clocks(probe.each(probe.cluster.nodes, read))


def judge_clocks(readings: Mapping[str, Reading]) -> str:
    """Compare the certain skew of each pair of nodes with the limit."""
    slowest = min(readings, key=lambda name: readings[name].ahead[1])
    fastest = max(readings, key=lambda name: readings[name].ahead[0])
    skew = readings[fastest].ahead[0] - readings[slowest].ahead[1]
    if skew > SKEW_SECONDS:
        raise CheckFailed(f"the clock of {fastest} is {skew:.1f} s ahead of {slowest}'s")
    return f"the clocks of {len(readings)} nodes agree to {SKEW_SECONDS:g} s"


@infrastructure
def munge_credentials_cross_nodes(probe: Probe) -> str:
    """A MUNGE credential made on one node is accepted by the next one, all the way round."""
    probe.need_pair()
    nodes = probe.cluster.nodes
    credentials = probe.everywhere(["munge", "--no-input"], check=False)
    for name, made in credentials.items():
        if not made.ok:
            raise CheckFailed(f"{name} makes no MUNGE credential: {made.tail(1)}")
    for giver, taker in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        credential = credentials[giver.name].stdout
        result = probe.run(taker, ["unmunge"], input=credential, check=False)
        if not result.ok or "Success" not in result.stdout:
            raise CheckFailed(
                f"{taker.name} refuses the MUNGE credential of {giver.name}: {result.tail(1)}"
            )
    return f"{len(nodes)} credentials were accepted by another node each"


@infrastructure
def controller_answers(probe: Probe) -> str:
    """The Slurm controller answers an ordinary user."""
    return probe.slurm.ping()


@infrastructure
def nodes_registered(probe: Probe) -> str:
    """Every compute node is ready, with the cores, memory and GPUs of the cluster file."""
    probe.need_nodes(1)
    return judge_nodes(probe.cluster, probe.slurm.nodes())


def judge_nodes(cluster: Cluster, found: Mapping[str, SlurmNode]) -> str:
    """Compare the resources in Slurm with those in the cluster file."""
    faults = []
    for node in cluster.compute:
        if node.name not in found:
            faults.append(f"{node.name} is not known to Slurm")
            continue
        seen = found[node.name]
        if not seen.usable:
            faults.append(f"{node.name} is {seen.state}")
        for what, is_now, should in (
            ("CPUs", seen.cpus, node.cpus),
            ("MiB", seen.memory_mb, node.memory_mb),
            ("GPUs", seen.gpus, node.gpus),
        ):
            if is_now != should:
                faults.append(f"{node.name} has {is_now} {what} instead of {should}")
    if faults:
        raise CheckFailed("; ".join(faults))
    states = ", ".join(f"{node.name} {found[node.name].state}" for node in cluster.compute)
    return f"{states}, with the resources of {cluster.source.name}"


@infrastructure
def slurm_versions_equal(probe: Probe) -> str:
    """All daemons are of one Slurm version, and it is the one that is installed."""
    probe.need_nodes(1)
    versions = {
        node.name: probe.run(node, [daemon, "-V"], sudo=True).stdout.split()[-1]
        for node in probe.cluster.nodes
        for daemon in ["slurmctld" if node is probe.cluster.controller else "slurmd"]
    }
    for name, node in probe.slurm.nodes().items():
        if name in versions and node.version != versions[name]:
            raise CheckFailed(
                f"slurmd on {name} runs as {node.version} with {versions[name]} installed"
            )
    if len(set(versions.values())) > 1:
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        raise CheckFailed(f"versions differ: {listed}")
    (version,) = set(versions.values())
    if len(versions) == 1:
        return f"slurmd runs as the installed {version}; no other node to compare with"
    return f"Slurm {version} on {len(versions)} nodes"


@infrastructure
def pmix_fence_spans_nodes(probe: Probe) -> str:
    """A PMIx fence holds the ranks of all nodes, which MPI programs need when they start."""
    probe.need_nodes(RANKS)
    plugins = probe.slurm.srun(["true"], options=["--mpi=list"])
    if not plugins.ok:
        raise CheckFailed(f"srun does not list its plugins: {reason(plugins.stderr)}")
    if "pmix" not in (plugins.stdout + plugins.stderr).split():
        raise CheckSkipped("Slurm has no plugin pmix")
    program = (resources.files("sifline") / "nodeside" / "fence.py").read_text("utf-8")
    result = probe.slurm.srun(
        ["python3", "-c", program],
        options=[f"--nodes={RANKS}", f"--ntasks={RANKS}", "--mpi=pmix", "--kill-on-bad-exit=1"],
    )
    if not result.ok:
        said = cause(result.stderr)
        if said.startswith("fence: no PMIx for programs"):
            raise CheckSkipped(said.removeprefix("fence: "))
        raise CheckFailed(f"srun ended with status {result.returncode}: {said}")
    return judge_fence(result.stdout)


def judge_fence(text: str) -> str:
    """Check the lines of the program in their order: no rank leaves before all have entered."""
    lines = FENCE.findall(text)
    order = [(late, rank, what) for late, rank, _, what in lines]
    hosts = {rank: host for _, rank, host, _ in lines}
    ranks = [str(rank) for rank in range(RANKS)]
    if sorted(order) != sorted(product(ranks, ranks, ("comes", "leaves"))):
        said = ", ".join(" ".join(line) for line in order)
        raise CheckFailed(f"the ranks did not go through {RANKS} fences: {said or 'nothing'}")
    for late in ranks:
        first = next(rank for at, rank, what in order if (at, what) == (late, "leaves"))
        if order.index((late, first, "leaves")) < order.index((late, late, "comes")):
            raise CheckFailed(
                f"rank {first} on {hosts[first]} left the fence before rank {late} on"
                f" {hosts[late]} had come: MPI programs can crash as they start. Set"
                " PMIxCollFence=ring in mpi.conf on all nodes; a job helps itself with"
                " SLURM_PMIX_FENCE=ring"
            )
    if len(set(hosts.values())) < RANKS:
        raise CheckFailed(f"all ranks ran on {hosts['0']} instead of {RANKS} nodes")
    where = " and ".join(hosts[rank] for rank in ranks)
    return f"the ranks on {where} left the fence only after all had entered it"
