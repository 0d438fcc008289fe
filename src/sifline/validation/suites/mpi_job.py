"""Suite mpi-job: an MPI program runs in a deployed image on several nodes, as a user's job."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sifline.model import Node
from sifline.validation.check import Phase, check
from sifline.validation.outcome import CheckFailed, reason
from sifline.validation.probe import Probe, deployed

SUITE = "mpi-job"
IMAGE = "hello-mpi"
RANKS = 4
NODES = 2

FIELD = re.compile(r"(\w+)=(\S*)")


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The line that one rank printed."""

    rank: int
    size: int
    host: str
    sum: int
    expected: int
    os: str
    container: str


@check(suite=SUITE, phase=Phase.END_TO_END)
def four_ranks_on_two_nodes(probe: Probe) -> str:
    """Four ranks on two nodes add up their numbers, each inside the deployed image."""
    probe.need_nodes(NODES)
    paths = deployed(probe, IMAGE)
    result = probe.slurm.srun(
        ["apptainer", "exec", paths[0], "hello-mpi"],
        options=[f"--nodes={NODES}", f"--ntasks={RANKS}", "--mpi=pmix"],
    )
    if not result.ok:
        raise CheckFailed(f"srun ended with status {result.returncode}: {reason(result.stderr)}")
    hosts = {host_os(probe, node) for node in probe.cluster.compute}
    return judge(read_ranks(result.stdout), paths, hosts)


def host_os(probe: Probe, node: Node) -> str:
    """Return the system of a node in the notation of the program: ``debian-12``."""
    argv = ["sh", "-c", '. /etc/os-release; echo "$ID-$VERSION_ID"']
    return probe.run(node, argv).stdout.strip()


def read_ranks(text: str) -> tuple[Rank, ...]:
    """Read the lines ``rank=0 size=4 host=… sum=6 expected=6 os=… container=…``."""
    ranks = []
    for line in text.splitlines():
        if not line.startswith("rank="):
            continue
        fields = dict(FIELD.findall(line))
        try:
            numbers = {key: int(fields[key]) for key in ("rank", "size", "sum", "expected")}
            words = {key: fields[key] for key in ("host", "os", "container")}
            ranks.append(Rank(**numbers, **words))  # type: ignore[arg-type]
        except (KeyError, ValueError):
            raise CheckFailed(f"a rank printed a line that cannot be read: {line}") from None
    return tuple(sorted(ranks, key=lambda item: item.rank))


def judge(ranks: Sequence[Rank], paths: Sequence[str], host_systems: set[str]) -> str:
    """Return what the ranks prove; every rank must fulfil all of it."""
    if [item.rank for item in ranks] != list(range(RANKS)):
        raise CheckFailed(f"ranks {[item.rank for item in ranks]} instead of 0 to {RANKS - 1}")
    total = sum(range(RANKS))
    hosts = sorted({item.host for item in ranks})
    for item in ranks:
        if item.size != RANKS:
            raise CheckFailed(f"rank {item.rank} sees {item.size} ranks instead of {RANKS}")
        if item.sum != total:
            raise CheckFailed(f"rank {item.rank} has the sum {item.sum} instead of {total}")
        if item.container not in paths:
            raise CheckFailed(
                f"rank {item.rank} runs in {item.container or 'no container'} "
                f"instead of {paths[0]}"
            )
        if item.os in host_systems:
            raise CheckFailed(f"rank {item.rank} sees {item.os}, as the nodes do")
    if len(hosts) != NODES:
        raise CheckFailed(f"all ranks ran on {', '.join(hosts)} instead of {NODES} nodes")
    each = ", ".join(f"rank {item.rank} on {item.host} sum {item.sum}" for item in ranks)
    return f"{each}; inside {ranks[0].os}, on {', '.join(sorted(host_systems))} nodes"
