"""Suite cgroup-isolation: a job gets its memory, cores and devices, and no others."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from typing import Any

from sifline.model import Node
from sifline.validation.check import Phase, check
from sifline.validation.outcome import CheckFailed, CheckSkipped
from sifline.validation.probe import Probe

SUITE = "cgroup-isolation"
isolation = check(suite=SUITE, phase=Phase.INFRASTRUCTURE)

LIMIT_MB = 100
WANTED_MB = 300
SURVIVED = "survived"

# These programs run inside a job, with the node's own Python.
TAKE_MEMORY = (
    "import sys; b = bytearray(b'x') * (int(sys.argv[1]) << 20); print(sys.argv[2], len(b))"
)

# A mask that the kernel does not enforce can be widened by any process.
WIDEN_CORES = """
import json, os
given = os.sched_getaffinity(0)
try:
    os.sched_setaffinity(0, range(os.cpu_count()))
except OSError:
    pass
print(json.dumps({
    "given": sorted(given),
    "taken": sorted(os.sched_getaffinity(0)),
    "allocated": int(os.environ["SLURM_CPUS_ON_NODE"]),
}))
"""

OPEN_DEVICES = """
import glob, json, os, re
found = {}
for path in glob.glob("/dev/nvidia[0-9]*"):
    try:
        os.close(os.open(path, os.O_RDWR))
        found[re.sub(r"\\D", "", path)] = 0
    except OSError as error:
        found[re.sub(r"\\D", "", path)] = error.errno
given = os.environ.get("SLURM_STEP_GPUS") or os.environ.get("SLURM_JOB_GPUS") or ""
print(json.dumps({"given": [word for word in given.split(",") if word], "devices": found}))
"""


@isolation
def memory_is_limited(probe: Probe) -> str:
    """A job that uses more memory than it asked for is killed."""
    result = probe.slurm.srun(
        ["python3", "-c", TAKE_MEMORY, str(WANTED_MB), SURVIVED],
        options=["--ntasks=1", f"--mem={LIMIT_MB}M"],
    )
    if SURVIVED in result.stdout:
        raise CheckFailed(f"a job of {LIMIT_MB} MiB used {WANTED_MB} MiB and was not killed")
    if "oom_kill" not in result.stderr and "Out Of Memory" not in result.stderr:
        raise CheckFailed(
            f"the job ended with status {result.returncode}, not because it ran out of memory: "
            f"{result.tail(1)}"
        )
    return f"a job of {LIMIT_MB} MiB was killed when it used {WANTED_MB} MiB"


@isolation
def cores_are_limited(probe: Probe) -> str:
    """A job runs on the cores it was given, and cannot move to others."""
    probe.need_nodes(1)
    node = max(probe.cluster.compute, key=lambda item: item.cpus)
    if node.cpus == 1:
        raise CheckSkipped("no node has a second CPU that could be withheld")
    result = probe.slurm.srun(
        ["python3", "-c", WIDEN_CORES],
        options=[f"--nodelist={node.name}", "--ntasks=1", "--cpus-per-task=1"],
    )
    return judge_cores(answer(result.stdout, result.tail(1)), node)


def judge_cores(found: Mapping[str, Any], node: Node) -> str:
    """Compare the CPUs of a job of one CPU, and those it could move to, with its allocation."""
    allocated, taken = int(found["allocated"]), found["taken"]
    if len(found["given"]) != allocated:
        raise CheckFailed(
            f"a job with {allocated} CPUs on {node.name} was bound to {len(found['given'])}"
        )
    if len(taken) != allocated:
        raise CheckFailed(
            f"a job with {allocated} CPUs on {node.name} moved to {len(taken)}: {taken}"
        )
    return f"a job with {allocated} of {node.cpus} CPUs on {node.name} could not leave CPU {taken}"


@isolation
def allocated_gpu_opens(probe: Probe) -> str:
    """A job can open the device of the GPU it was given."""
    node, given, devices = gpu_job(probe)
    refused = [
        f"/dev/nvidia{number}: {errno.errorcode.get(devices.get(number, errno.ENOENT))}"
        for number in given
        # Opening a device without a driver fails with ENXIO.
        if devices.get(number, errno.ENOENT) not in (0, errno.ENXIO)
    ]
    if refused:
        raise CheckFailed(f"a job on {node.name} cannot open its own GPU: {', '.join(refused)}")
    return f"the job on {node.name} reached its GPU /dev/nvidia{', '.join(given)}"


@isolation
def other_gpus_stay_closed(probe: Probe) -> str:
    """A job cannot open the device of a GPU that it was not given."""
    node, given, devices = gpu_job(probe)
    others = sorted(set(devices) - set(given))
    if not others:
        raise CheckSkipped(f"{node.name} has no GPU beyond the one of the job")
    reached = [
        f"/dev/nvidia{number} ({errno.errorcode.get(devices[number], 'opened')})"
        for number in others
        if devices[number] != errno.EPERM
    ]
    if reached:
        raise CheckFailed(f"a job on {node.name} got at a GPU of others: {', '.join(reached)}")
    return f"the job on {node.name} was refused /dev/nvidia{', '.join(others)} (EPERM)"


def gpu_job(probe: Probe) -> tuple[Node, list[str], dict[str, int]]:
    """Run a job with one GPU; return its node, its devices, and the results of opening them."""
    probe.need_nodes(1)
    node = max(probe.cluster.compute, key=lambda item: item.gpus)
    if not node.gpus:
        raise CheckSkipped("the cluster file names no GPUs")
    result = probe.slurm.srun(
        ["python3", "-c", OPEN_DEVICES],
        options=[f"--nodelist={node.name}", "--ntasks=1", "--gres=gpu:1"],
    )
    found = answer(result.stdout, result.tail(1))
    if not found["given"]:
        raise CheckFailed(f"a job with --gres=gpu:1 on {node.name} was given no GPU")
    return node, found["given"], found["devices"]


def answer(stdout: str, otherwise: str) -> dict[str, Any]:
    """Return the JSON that a job printed."""
    try:
        return dict(json.loads(stdout))
    except ValueError:
        raise CheckFailed(f"the job printed no answer: {otherwise}") from None
