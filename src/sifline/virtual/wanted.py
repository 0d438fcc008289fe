"""The virtual cluster that a cluster file describes, limited to what this machine has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sifline.config.clusters import STATE_FILE, Virtual, load_virtual
from sifline.engines.docker.containers import Container, Containers, Machine
from sifline.errors import MissingError, UsageError
from sifline.machine.context import Context
from sifline.model import Cluster, Node, Role, SshAccess, Workspace
from sifline.virtual.found import WORKSPACE, check_name, checkout_name, cluster_label

DEFAULT_IMAGE = Virtual.image
# Users of the image: one with sudo, and one without.
ADMIN = "admin"
JOB_USER = "alice"
MOST_NODES = 64
SSH_PORT = 22
KEY = "id_ed25519"
KNOWN_HOSTS = "known_hosts"
# How many compute nodes cluster.scale asked for.
COUNT = "compute-nodes"
# Memory kept for everything else on the machine: Slurm refuses a node that has less than
# configured.
USABLE_PERCENT = 90
# systemd and Apptainer mount; slurmd sets the priority of steps and limits their devices.
CAPABILITIES = ("SYS_ADMIN", "SYS_NICE")
# The default profiles forbid mounts, and Apptainer needs an unmasked /proc.
UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")
TMPFS = ("/run:mode=0755", "/run/lock:mode=1777", "/tmp:exec,mode=1777")  # noqa: S108 - in the node
NVIDIA_MAJOR = 195


@dataclass(frozen=True, kw_only=True)
class Description:
    """The description of a virtual cluster in a cluster file, and the image of its nodes.

    ``hosts``: the file has no section ``virtual``, so it describes hosts.
    """

    name: str
    cluster: Cluster
    image: str
    hosts: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The wanted cluster: its description, and the engine's options for each node."""

    cluster: Cluster
    image: str
    options: dict[str, tuple[str, ...]]

    def spec(self, node: str) -> str:
        """Return a digest of everything that decides the node's container but its address."""
        return hashlib.sha256(json.dumps([self.image, self.options[node]]).encode()).hexdigest()


def describe(cluster_file: Path, name: str | None = None) -> Description:
    """Read the description of the cluster ``name``, before anything is built for it.

    :param name: the name of the cluster; default: the one in its file.
    :raises UsageError: for an invalid name or file.
    """
    if name is not None:
        check_name(name)
    cluster, section = load_virtual(cluster_file)
    name = cluster.name if name is None else name
    check_name(name)
    if len(cluster.nodes) > MOST_NODES:
        raise UsageError(
            f"{cluster_file}: {len(cluster.nodes)} nodes are too many for one machine;"
            f" at most {MOST_NODES}"
        )
    image = (section or Virtual()).image
    return Description(name=name, cluster=cluster, image=image, hosts=section is None)


def image_in_engine(image: str, engine: Containers) -> str:
    """Return the id of ``image`` in the engine."""
    image_id = engine.image_id(f"sifline/{image}:latest")
    if not image_id:
        raise MissingError(f"the engine has no image {image}; run invoke build.{image}")
    return image_id


def image_of_engine(image: str, context: Context) -> str:
    """Return the id of a node image in the engine.

    :raises MissingError: if it does not exist.
    """
    return image_in_engine(image, Containers(context.runner))


def fit(description: Description, folder: Path, machine: Machine, context: Context) -> Cluster:
    """Return the described cluster, with no more cores and memory than this machine has.

    :param folder: the folder of its key, its known hosts and its file.
    """
    described = scaled(description.cluster, folder)
    memory = machine.memory_mb * USABLE_PERCENT // 100
    nodes = []
    for node in described.nodes:
        fit = replace(
            node,
            address="",
            cpus=min(node.cpus, machine.cpus),
            memory_mb=min(node.memory_mb, memory),
        )
        if (fit.cpus, fit.memory_mb) != (node.cpus, node.memory_mb):
            context.progress(
                f"{node.name} gets {fit.cpus} of {node.cpus} cpus and {fit.memory_mb} of"
                f" {node.memory_mb} MiB: this machine has no more"
            )
        nodes.append(fit)
    return replace(
        described,
        name=description.name,
        nodes=tuple(nodes),
        ssh=SshAccess(
            user=ADMIN,
            port=SSH_PORT,
            identity_file=folder / KEY,
            known_hosts=folder / KNOWN_HOSTS,
        ),
        source=folder / STATE_FILE,
        job_user=described.job_user or JOB_USER,
    )


def scaled(cluster: Cluster, folder: Path) -> Cluster:
    """Return ``cluster`` with as many compute nodes as ``cluster.scale`` gave it, if it did."""
    try:
        count = int((folder / COUNT).read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return cluster
    return with_compute(cluster, count)


def with_compute(cluster: Cluster, count: int) -> Cluster:
    """Return ``cluster`` with ``count`` compute nodes: its first ones, and more like its last."""
    kept = cluster.compute[:count]
    others = [node for node in cluster.nodes if node.role is not Role.COMPUTE]
    last, names = cluster.compute[-1], {node.name for node in cluster.nodes}
    more = list[Node]()
    name = last.name
    while len(kept) + len(more) < count:
        name = _next(name, names)
        names.add(name)
        more.append(replace(last, name=name))
    return replace(cluster, nodes=(*others, *kept, *more))


def _next(name: str, taken: Collection[str]) -> str:
    """Return the first name after ``name`` that is free: compute-09, compute-10."""
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    stem, number, width = (stem, int(digits), len(digits)) if digits else (f"{name}-", 1, 0)
    while True:
        number += 1
        found = f"{stem}{number:0{width}d}"
        if found not in taken:
            return found


def want(cluster: Cluster, image: str, key: str, workspace: Workspace) -> Wanted:
    """Return ``cluster`` with the engine's options for each of its nodes.

    :param image: the id of the nodes' image.
    :param key: the public SSH key that may log in, in one line.
    """
    options = {node.name: _options(cluster, node, key, workspace) for node in cluster.nodes}
    return Wanted(cluster=cluster, image=image, options=options)


def _options(cluster: Cluster, node: Node, key: str, workspace: Workspace) -> tuple[str, ...]:
    """Return the options of ``docker run`` for one node."""
    return (
        f"--name={container_name(cluster.name, node.name)}",
        f"--hostname={node.name}",
        f"--network={network_name(cluster.name)}",
        f"--network-alias={node.name}",
        f"--label={cluster_label(cluster.name)}",
        f"--label=sifline.node={node.name}",
        f"--label=sifline.role={node.role.value}",
        f"--label={WORKSPACE}={checkout_name(workspace)}",
        "--cgroupns=private",
        *(f"--cap-add={capability}" for capability in CAPABILITIES),
        *(f"--security-opt={option}" for option in UNCONFINED),
        *(f"--tmpfs={tmpfs}" for tmpfs in TMPFS),
        # What the image has there stays hidden: the first node to start makes the homes.
        f"--mount=type=volume,source={home_volume(cluster.name)},target=/home,volume-nocopy",
        "--shm-size=1g",
        "--device=/dev/fuse",
        # One rule for each device: Slurm can only remove single devices, not a wildcard rule.
        *(f"--device-cgroup-rule=c {NVIDIA_MAJOR}:{minor} rwm" for minor in range(node.gpus)),
        f"--env=NODE_GPUS={node.gpus}",
        f"--env=NODE_AUTHORIZED_KEY={key}",
    )


def container_name(name: str, node: str) -> str:
    """Return the name of the container of a node of the cluster ``name``."""
    return f"sifline-{name}-{node}"


def network_name(name: str) -> str:
    """Return the name of the network of the cluster ``name``."""
    return f"sifline-{name}"


def home_volume(name: str) -> str:
    """Return the name of the volume that is /home on all nodes of the cluster ``name``."""
    return f"sifline-{name}-home"


def has_key(folder: Path) -> bool:
    """Return whether the cluster has its own SSH key."""
    return (folder / KEY).is_file() and (folder / f"{KEY}.pub").is_file()


def public_key(folder: Path, context: Context) -> str:
    """Return the cluster's public SSH key; create the key pair if there is none."""
    private, public = folder / KEY, folder / f"{KEY}.pub"
    if not has_key(folder):
        folder.mkdir(parents=True, exist_ok=True)
        new, new_public = folder / f"{KEY}.new", folder / f"{KEY}.new.pub"
        for path in (new, new_public):
            path.unlink(missing_ok=True)
        context.runner.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sifline", "-f", str(new)]
        )
        new_public.replace(public)
        new.replace(private)
    return public.read_text(encoding="utf-8").strip()


def stands(wanted: Wanted, found: Iterable[Container]) -> bool:
    """Return whether ``found`` are the wanted nodes, and all of them run."""
    running = [item for item in found if item.running and item.address]
    return fits(wanted, running) and len(running) == len(wanted.options)


def fits(wanted: Wanted, found: Iterable[Container]) -> bool:
    """Return whether all of ``found`` are wanted nodes as they should be, running or not."""
    return all(
        item.fixed
        and item.labels["sifline.node"] in wanted.options
        and item.labels.get("sifline.spec") == wanted.spec(item.labels["sifline.node"])
        for item in found
    )
