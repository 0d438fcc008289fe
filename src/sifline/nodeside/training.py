"""A small training job for several processes inside an image: it converges, or it fails.

Each process learns the same line from points of its own, with PyTorch's DistributedDataParallel
over gloo, and prints its result as one line of JSON. Started by torchrun or by srun, whose
variables give the rank and the first host.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import struct
import sys
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

STEPS = 200
POINTS = 64
TRUE = torch.tensor([[2.0, -3.0, 0.5]])
BIAS = 0.25
# Below Linux's ephemeral ports; the same for all processes of a job, and another for the next job.
FIRST_PORT, PORTS = 20000, 12000
# Returns the IPv4 address of an interface, netdevice(7).
SIOCGIFADDR = 0x8915
# Seconds that a process waits for the others.
PATIENCE = 60


def first_host(nodes: str) -> str:
    """Return the first name in a Slurm host list: ``n[01-03,7],login`` begins with ``n01``."""
    match = re.match(r"([^,\[]*)(?:\[([0-9]+)[^\]]*\])?([^,\[]*)", nodes)
    if not match or not match[0]:
        raise SystemExit(f"training: cannot read the list of nodes {nodes!r}")
    return match[1] + (match[2] or "") + match[3]


def find_others() -> None:
    """Set the variables of torchrun (RANK and others) from those of srun."""
    env = os.environ
    if "RANK" in env:
        return
    if "SLURM_PROCID" not in env:
        raise SystemExit("training: start it with torchrun or with srun")
    env["RANK"], env["WORLD_SIZE"] = env["SLURM_PROCID"], env["SLURM_NTASKS"]
    env["MASTER_ADDR"] = first_host(env["SLURM_STEP_NODELIST"])
    env["MASTER_PORT"] = str(FIRST_PORT + int(env["SLURM_JOB_ID"]) % PORTS)
    if name := interface_to(env["MASTER_ADDR"]):
        env.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_to(host: str) -> str:
    """Return the network interface through which ``host`` is reached; "" if unknown.

    Gloo uses the address of the machine's own name, which on Debian may be 127.0.1.1 and
    unreachable for others. For this host itself, the first interface that leads elsewhere is used.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))  # UDP: sends nothing
        except OSError:
            return ""
        own, found = probe.getsockname()[0], {}
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no IPv4 address
                told = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                found[name] = socket.inet_ntoa(told[20:24])
    others = [name for name, address in found.items() if not address.startswith("127.")]
    return next((name for name in others if found[name] == own), next(iter(others), ""))


def train(rank: int) -> tuple[torch.nn.Module, float, float]:
    """Return the trained model, and the loss over all processes before and after."""
    # Each process has other points and another start: only if the gradients are averaged do all
    # end with the same parameters.
    torch.manual_seed(rank)
    points = torch.randn(POINTS, TRUE.shape[1])
    values = points @ TRUE.T + BIAS
    model = DistributedDataParallel(torch.nn.Linear(TRUE.shape[1], 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(points), values)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    ends = torch.stack([losses[0], losses[-1]])
    dist.all_reduce(ends)
    first, last = (ends / dist.get_world_size()).tolist()
    return model.module, first, last


def spread(model: torch.nn.Module) -> float:
    """Return the largest difference between this process's parameters and another's."""
    own = torch.cat([item.detach().flatten() for item in model.parameters()])
    all_of_them = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(all_of_them, own)
    return max(float((other - own).abs().max()) for other in all_of_them)


def main() -> None:
    """Train and print the result as a line of JSON."""
    find_others()
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=PATIENCE))
    rank = dist.get_rank()
    total = torch.tensor([rank + 1])
    dist.all_reduce(total)
    model, first, last = train(rank)
    found = {
        "rank": rank,
        "size": dist.get_world_size(),
        "host": socket.gethostname(),
        "sum": int(total),
        "first": first,
        "last": last,
        "spread": spread(model),
        "weights": [round(value, 3) for value in model.weight.flatten().tolist()],
        "bias": round(float(model.bias), 3),
        "torch": torch.__version__,
        "container": os.environ.get("APPTAINER_CONTAINER", ""),
    }
    # One write: lines of several processes are mixed otherwise.
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    dist.barrier()
    # With PyTorch 2.4 on a busy machine, closing gloo may wait for ever; the result is printed
    # already.
    os._exit(0)


if __name__ == "__main__":
    main()
