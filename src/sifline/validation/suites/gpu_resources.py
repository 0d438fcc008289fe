"""Suite gpu-resources: Slurm offers the GPUs in the cluster file and allocates them to jobs."""

from __future__ import annotations

from sifline.validation.check import Phase, check
from sifline.validation.outcome import CheckFailed, CheckSkipped
from sifline.validation.probe import Probe

SUITE = "gpu-resources"
resources = check(suite=SUITE, phase=Phase.INFRASTRUCTURE)

SHOW = ["printenv", "CUDA_VISIBLE_DEVICES"]


def gpus(probe: Probe) -> dict[str, int]:
    """Return the number of GPUs of each compute node in the cluster file."""
    probe.need_nodes(1)
    found = {node.name: node.gpus for node in probe.cluster.compute}
    if not any(found.values()):
        raise CheckSkipped("the cluster file names no GPUs")
    return found


@resources
def counts_match(probe: Probe) -> str:
    """Slurm offers as many GPUs on each node as the cluster file names and devices exist."""
    expected = gpus(probe)
    offered = {name: node.gpus for name, node in probe.slurm.nodes().items()}
    faults = [
        f"{name} offers {offered.get(name, 0)} GPUs instead of {count}"
        for name, count in expected.items()
        if offered.get(name, 0) != count
    ]
    for node in probe.cluster.compute:
        argv = ["sh", "-c", "ls /dev | grep -c '^nvidia[0-9][0-9]*$'"]
        count = int(probe.run(node, argv, check=False).stdout or 0)
        if count != node.gpus:
            faults.append(f"{node.name} has {count} GPU devices instead of {node.gpus}")
    if faults:
        raise CheckFailed("; ".join(faults))
    return ", ".join(f"{name} offers {count}" for name, count in expected.items())


@resources
def one_gpu_is_one_device(probe: Probe) -> str:
    """A job that asks for one GPU sees one device."""
    gpus(probe)
    result = probe.slurm.srun(SHOW, options=["--ntasks=1", "--gres=gpu:1"])
    devices = [word for word in result.stdout.strip().split(",") if word]
    if len(devices) != 1:
        raise CheckFailed(
            f"a job with --gres=gpu:1 sees {len(devices)} devices in CUDA_VISIBLE_DEVICES"
            + ("" if result.ok else f": {result.tail(1)}")
        )
    return f"CUDA_VISIBLE_DEVICES of a job with one GPU is {devices[0]}"


@resources
def too_many_gpus_are_refused(probe: Probe) -> str:
    """A job that asks one node for more GPUs than any has is refused."""
    wanted = max(gpus(probe).values()) + 1
    options = ["--nodes=1", "--ntasks=1", f"--gres=gpu:{wanted}"]
    result = probe.slurm.srun(["true"], options=options)
    if result.ok:
        raise CheckFailed(f"a job with {wanted} GPUs on one node ran, but no node has so many")
    if "Requested node configuration is not available" not in result.stderr:
        raise CheckFailed(
            f"a job with {wanted} GPUs was not refused for its GPUs: {result.tail(1)}"
        )
    return f"a job with {wanted} GPUs on one node was refused"
