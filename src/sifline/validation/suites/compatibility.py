"""Suite compatibility: what `deploy` predicts of a deployed image is what happens on the nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from sifline.contents.compatibility import Compatibility
from sifline.contents.compatible import Needs, Refusal, compatible
from sifline.formats import sif, squashfs
from sifline.model import Node, NodeFacts
from sifline.validation.check import Phase, check
from sifline.validation.outcome import CheckFailed, CheckSkipped, reason
from sifline.validation.probe import Probe, deployed
from sifline.validation.suites.mpi_job import IMAGE, read_ranks

SUITE = "compatibility"
RANKS = 2
MPI = ("MPI", "PMIx")

# Prints the version of the C library in the image, and those of the PMIx that are in it.
IN_IMAGE = """getconf GNU_LIBC_VERSION
find / -xdev -name 'libpmix.so.*' -type f -exec grep -aohE 'PMIx [0-9]+[.][0-9]+[.][0-9]+' {} +
"""


@check(suite=SUITE, phase=Phase.END_TO_END)
def images_start_as_predicted(probe: Probe) -> str:
    """A deployed image mounts and starts on each compute node where `deploy` says that it can."""
    probe.need_nodes(1)
    path, user = deployed(probe, IMAGE)[0], probe.job_user
    starts = probe.each(
        probe.cluster.compute,
        lambda node: probe.run(node, ["apptainer", "exec", path, "true"], user=user, check=False),
    )
    faults = []
    for node in probe.cluster.compute:
        head = read_head(probe, node, path)
        needs = Needs(record=_record("", ()), architecture=head[0], compression=head[1])
        found = refusals(needs, read_facts(probe, node), mpi=False)
        went = starts[node.name]
        faults += judge(node.name, found, worked=went.ok, why=reason(went.stderr))
    if faults:
        raise CheckFailed("; ".join(faults))
    return f"{IMAGE} does on {len(starts)} nodes what was predicted"


@check(suite=SUITE, phase=Phase.END_TO_END)
def mpi_starts_as_predicted(probe: Probe) -> str:
    """Ranks of a deployed image meet under srun --mpi=pmix if its PMIx and Slurm's fit."""
    probe.need_nodes(1)
    path, node = deployed(probe, IMAGE)[0], probe.cluster.compute[0]
    argv = ["apptainer", "exec", path, "sh", "-c", IN_IMAGE]
    held = probe.run(node, argv, user=probe.job_user, check=False).stdout.split("\n")
    pmix = tuple(sorted({line.removeprefix("PMIx ") for line in held if line.startswith("PMIx ")}))
    if not pmix:
        raise CheckSkipped(f"the version of PMIx in {path} cannot be read")
    needs = Needs(record=_record(held[0], pmix))
    found = refusals(needs, read_facts(probe, node), mpi=True)
    result = probe.slurm.srun(
        ["apptainer", "exec", path, "hello-mpi"],
        options=[f"--ntasks={RANKS}", f"--nodelist={node.name}", "--nodes=1", "--mpi=pmix"],
    )
    ranks = read_ranks(result.stdout) if result.ok else ()
    met = len(ranks) == RANKS and all(item.size == RANKS for item in ranks)
    why = reason(result.stderr) if not result.ok else f"{len(ranks)} ranks do not know each other"
    faults = judge(node.name, found, worked=met, why=why)
    if faults:
        raise CheckFailed("; ".join(faults))
    return f"PMIx {', '.join(pmix)} of {IMAGE} does what was predicted"


def judge(node: str, found: Sequence[Refusal], *, worked: bool, why: str) -> list[str]:
    """Return the contradictions between what was predicted and what happened on a node.

    What is unknown predicts nothing.
    """
    refused = [item for item in found if item.known]
    if worked and refused:
        return [f"{node}: runs, and is refused: {item.fact}: {item.reason}" for item in refused]
    if not worked and not found:
        return [f"{node}: was predicted to work, and does not: {why}"]
    return []


def refusals(needs: Needs, facts: NodeFacts, *, mpi: bool) -> tuple[Refusal, ...]:
    """Return what speaks against the image: of MPI alone, or of all but that."""
    return tuple(item for item in compatible(needs, facts) if (item.fact in MPI) is mpi)


def read_facts(probe: Probe, node: Node) -> NodeFacts:
    """Return the facts of a node, read anew."""
    argv = ["python3", "-", str(probe.cluster.registry_root), ""]
    text = probe.run(node, argv, input=_program("facts.py")).stdout
    return NodeFacts.of(node.name, json.loads(text), read=time.time())


def read_head(probe: Probe, node: Node, path: str) -> tuple[str, str]:
    """Return the architecture and the compression of a SIF on a node; "" for unknown ones."""
    text = probe.run(node, ["python3", "-", path], input=_program("sif_head.py")).stdout
    found = json.loads(text)
    return (
        sif.ARCHITECTURES.get(str(found["architecture"]), ""),
        squashfs.COMPRESSIONS.get(found["compression"], ""),
    )


def _record(libc: str, pmix: tuple[str, ...]) -> Compatibility:
    mpi = ("Open MPI",) if pmix else ()
    return Compatibility(libc=libc, mpi=mpi, pmix=pmix, complete=True)


@cache
def _program(name: str) -> str:
    return files("sifline.nodeside").joinpath(name).read_text(encoding="utf-8")
