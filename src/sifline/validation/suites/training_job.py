"""Suite training-job: PyTorch trains one model on several nodes, in a deployed image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from sifline.validation.check import Phase, check
from sifline.validation.outcome import CheckFailed, cause
from sifline.validation.probe import Probe, deployed

SUITE = "training-job"
IMAGE = "pytorch-cuda12.1-mpi4.1"
PROCESSES = 4
NODES = 2
# The line on which the program's points lie, and the allowed error.
WEIGHTS, BIAS = (2.0, -3.0, 0.5), 0.25
LOSS = 1e-6
# PyTorch is read from the SIF for the first time, which takes long.
SECONDS = 110


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The result of one process: the loss over all points before and after, and its parameters.

    ``spread`` is the largest difference between the parameters of two processes.
    """

    rank: int
    size: int
    host: str
    sum: int
    first: float
    last: float
    spread: float
    weights: tuple[float, ...]
    bias: float
    torch: str
    container: str


@check(suite=SUITE, phase=Phase.END_TO_END)
def one_model_on_two_nodes(probe: Probe) -> str:
    """Four processes on two nodes train one model (gloo): it converges, and is the same on all."""
    probe.need_nodes(NODES)
    paths = deployed(probe, IMAGE)
    program = (resources.files("sifline") / "nodeside" / "training.py").read_text("utf-8")
    result = probe.slurm.srun(
        ["apptainer", "exec", paths[0], "python3", "-c", program],
        options=[f"--nodes={NODES}", f"--ntasks={PROCESSES}", "--kill-on-bad-exit=1"],
        timeout=SECONDS,
    )
    if not result.ok:
        raise CheckFailed(f"srun ended with status {result.returncode}: {cause(result.stderr)}")
    return judge(read(result.stdout), paths)


def read(text: str) -> tuple[Trained, ...]:
    """Parse the lines of JSON that the processes printed, by rank."""
    found = []
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        try:
            values = json.loads(line)
            found.append(Trained(**{**values, "weights": tuple(values["weights"])}))
        except (ValueError, KeyError, TypeError):
            raise CheckFailed(f"a process printed a line that cannot be read: {line}") from None
    return tuple(sorted(found, key=lambda item: item.rank))


def judge(found: Sequence[Trained], paths: Sequence[str]) -> str:
    """Return what the processes prove; every process must fulfil all of it."""
    ranks = [item.rank for item in found]
    if ranks != list(range(PROCESSES)):
        raise CheckFailed(f"processes {ranks} instead of 0 to {PROCESSES - 1}")
    for item in found:
        _judge(item, paths)
    hosts = sorted({item.host for item in found})
    if len(hosts) != NODES:
        raise CheckFailed(f"all processes ran on {', '.join(hosts)} instead of {NODES} nodes")
    one = found[0]
    return (
        f"{PROCESSES} processes on {', '.join(hosts)}: loss {one.first:.3g} to {one.last:.1g},"
        f" the same parameters on all; PyTorch {one.torch} in {paths[0]}"
    )


def _judge(item: Trained, paths: Sequence[str]) -> None:
    who, total = f"process {item.rank}", sum(range(1, PROCESSES + 1))
    if (item.size, item.sum) != (PROCESSES, total):
        raise CheckFailed(
            f"{who} sees {item.size} processes with the sum {item.sum}"
            f" instead of {PROCESSES} with {total}"
        )
    if item.spread != 0:
        raise CheckFailed(f"{who}: the parameters of the processes are {item.spread:g} apart")
    if not item.last < LOSS < item.first:
        raise CheckFailed(f"{who}: the loss went from {item.first:g} to {item.last:g}")
    if (item.weights, item.bias) != (WEIGHTS, BIAS):
        raise CheckFailed(f"{who} learnt {item.weights} and {item.bias} instead of its line")
    if item.container not in paths:
        raise CheckFailed(
            f"{who} runs in {item.container or 'no container'} instead of {paths[0]}"
        )
