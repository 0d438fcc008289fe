"""Virtual clusters: containers with systemd, OpenSSH and Slurm that stand in for hosts.

What comes out is a cluster like any other: its file, its SSH key and its known host keys are
in ``build/clusters/NAME/``. The engine's labels are the truth of what stands.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from sifline.config.clusters import STATE_FILE, dump_cluster, load_cluster, load_virtual
from sifline.engines.docker.containers import Busy, Container, Containers, Machine
from sifline.engines.ssh import Ssh
from sifline.errors import MissingError, SiflineError, StepFailed, UsageError, did_you_mean
from sifline.machine import records
from sifline.machine.interrupts import submit
from sifline.machine.process import Context
from sifline.model import Cluster, Node, NodeState, Role, SshAccess, Workspace

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_IMAGE = "slurm-node"
IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")
# What the image has: a user with sudo, and one without.
ADMIN = "admin"
JOB_USER = "alice"

NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
LONGEST_NAME = 40
MOST_NODES = 64
PARALLEL = 8

SSH_PORT = 22
READY_SECONDS = 30
POLL_SECONDS = 0.05
LOOK_SECONDS = 1.0
BUSY_SECONDS = 10

WORKSPACE = "sifline.workspace"

KEY = "id_ed25519"
KNOWN_HOSTS = "known_hosts"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"

# Of the machine's memory, for all that runs beside the nodes: Slurm refuses a node that has
# less than it was told.
USABLE_PERCENT = 90

# systemd and Apptainer mount; slurmd sets the priority of steps and limits their devices.
CAPABILITIES = ("SYS_ADMIN", "SYS_NICE")
# Mounts are what the default profiles forbid, and Apptainer needs a /proc without masks.
UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")
TMPFS = ("/run:mode=0755", "/run/lock:mode=1777", "/tmp:exec,mode=1777")  # noqa: S108 - in the node
NVIDIA_MAJOR = 195


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """A cluster as it shall stand: its description, and each node's container by name."""

    cluster: Cluster
    image: str
    options: dict[str, tuple[str, ...]]

    def spec(self, node: str) -> str:
        """Whatever changes this changes the container."""
        return hashlib.sha256(json.dumps([self.image, self.options[node]]).encode()).hexdigest()


def up(cluster_file: Path, name: str, context: Context) -> Cluster:
    """Bring the cluster ``name`` up as ``cluster_file`` describes it, and return it.

    One that stands so already is left alone; anything else of that name is made anew.

    :raises UsageError: for a name or a file that cannot be used.
    :raises MissingError: where the image or the engine is missing.
    :raises StepFailed: where a node does not come up; nothing of the cluster is left then.
    """
    image = image_of(cluster_file, name)
    engine = Containers(context.runner)
    described = load_cluster(cluster_file, standing=False)
    if len(described.nodes) > MOST_NODES:
        raise UsageError(
            f"{cluster_file}: {len(described.nodes)} nodes are too many for one machine;"
            f" at most {MOST_NODES}"
        )
    image_id = _held(image, engine)
    with _locked(name, context):
        found = engine.find(_label(name))
        _refuse_other_checkout(
            name,
            found,
            context,
            f"choose another --name, or take it down, here with: invoke cluster.down --name {name}"
            " --foreign",
        )
        try:
            return _bring(described, name, image_id, found, context)
        except BaseException:
            # What cannot be removed now is removed by the next run.
            if not (_folder(name, context.workspace) / STATE_FILE).exists():
                with suppress(SiflineError):
                    _down(name, context)
            raise


def image_of(cluster_file: Path, name: str) -> str:
    """Return the image that the nodes of ``name`` are made of, before anything is built.

    :raises UsageError: for a name or a file that cannot be used.
    """
    _check_name(name)
    load_cluster(cluster_file, standing=False)
    section = load_virtual(cluster_file)
    section.only("image")
    image = section.text("image", DEFAULT_IMAGE)
    if not IMAGE_NAME.fullmatch(image):
        raise section.wrong("image", "the name of an image", image)
    return image


def down(name: str, context: Context, *, foreign: bool = False) -> Sequence[str]:
    """Remove all that is of the cluster ``name``; return what that was.

    :param foreign: even where another checkout brought it up.
    :raises UsageError: where another checkout brought it up.
    :raises StepFailed: where the engine cannot remove something.
    """
    _check_name(name)
    with _locked(name, context):
        if not foreign:
            _refuse_other_checkout(
                name,
                _found(name, context),
                context,
                f"take it down there, or here with: invoke cluster.down --name {name} --foreign",
            )
        return _down(name, context)


def status(name: str, context: Context) -> tuple[NodeState, ...]:
    """Return the nodes of the cluster ``name``, the controller first; none where none stands."""
    return tuple(
        NodeState(
            node=item.labels["sifline.node"],
            role=item.labels["sifline.role"],
            address=item.address,
            state=item.state,
            checkout=item.labels.get(WORKSPACE, ""),
        )
        for item in _found(name, context)
    )


def shell_argv(
    name: str, node: str, context: Context, *, command: Sequence[str], user: str = ""
) -> list[str]:
    """Return the command line that opens ``node``, or runs ``command`` there; as root or ``user``.

    :raises UsageError: where the cluster or the node does not stand, with the nearest names,
        and where another checkout brought the cluster up.
    """
    found = _found(name, context)
    _refuse_other_checkout(
        name, found, context, "open it there, or bring up your own: invoke cluster.up --name NAME"
    )
    nodes = {item.labels["sifline.node"]: item for item in found}
    if not nodes:
        raise UsageError(f"no cluster {name} stands; run invoke cluster.up --name {name}")
    if node not in nodes:
        hint = did_you_mean(node, nodes) or f" Its nodes are {', '.join(nodes)}."
        raise UsageError(f"cluster {name} has no node {node!r}.{hint}")
    if not nodes[node].running:
        raise StepFailed(
            f"{node} of cluster {name} is {nodes[node].state}; run invoke cluster.up --name {name}"
        )
    return Containers(context.runner).shell_argv(
        nodes[node].name,
        list(command) or ["bash", "-l"],
        user=user,
        terminal=sys.stdin.isatty(),
    )


# What shall stand


def _check_name(name: str) -> None:
    """Names are part of paths and of the engine's names."""
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise UsageError(
            f"cluster name {name[: LONGEST_NAME + 1]!r}: use lower-case letters, digits and"
            f" inner dashes, at most {LONGEST_NAME}"
        )


def _held(image: str, engine: Containers) -> str:
    """The id of ``image`` in the engine."""
    image_id = engine.image_id(f"sifline/{image}:latest")
    if not image_id:
        raise MissingError(f"the engine has no image {image}; run invoke build.{image}")
    return image_id


def _fit(
    described: Cluster, name: str, folder: Path, machine: Machine, context: Context
) -> Cluster:
    """``described`` as this machine can stand in for it."""
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
        name=name,
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


def _want(cluster: Cluster, image: str, key: str, workspace: Workspace) -> _Wanted:
    options = {node.name: _options(cluster, node, key, workspace) for node in cluster.nodes}
    return _Wanted(cluster=cluster, image=image, options=options)


def _options(cluster: Cluster, node: Node, key: str, workspace: Workspace) -> tuple[str, ...]:
    """What ``docker run`` is told for one node."""
    return (
        f"--name=sifline-{cluster.name}-{node.name}",
        f"--hostname={node.name}",
        f"--network=sifline-{cluster.name}",
        f"--network-alias={node.name}",
        f"--label={_label(cluster.name)}",
        f"--label=sifline.node={node.name}",
        f"--label=sifline.role={node.role.value}",
        f"--label={WORKSPACE}={_checkout(workspace)}",
        "--cgroupns=private",
        *(f"--cap-add={capability}" for capability in CAPABILITIES),
        *(f"--security-opt={option}" for option in UNCONFINED),
        *(f"--tmpfs={tmpfs}" for tmpfs in TMPFS),
        "--shm-size=1g",
        "--device=/dev/fuse",
        # One rule for each device: Slurm can only take away what is not allowed as a whole.
        *(f"--device-cgroup-rule=c {NVIDIA_MAJOR}:{minor} rwm" for minor in range(node.gpus)),
        f"--env=NODE_GPUS={node.gpus}",
        f"--env=NODE_AUTHORIZED_KEY={key}",
    )


def _public_key(folder: Path, context: Context) -> str:
    """The cluster's own SSH key, made where there is none."""
    private, public = folder / KEY, folder / f"{KEY}.pub"
    if not (private.is_file() and public.is_file()):
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


# What stands


def _label(name: str) -> str:
    return f"sifline.cluster={name}"


def _checkout(workspace: Workspace) -> str:
    """What the engine remembers of who brought a cluster up."""
    return str(workspace.root.absolute())


def _folder(name: str, workspace: Workspace) -> Path:
    return workspace.clusters.absolute() / name


def _locked(name: str, context: Context) -> AbstractContextManager[None]:
    return records.locked(context.workspace.build / "locks" / f"cluster.{name}.lock", context)


def _found(name: str, context: Context) -> list[Container]:
    _check_name(name)
    found = Containers(context.runner).find(_label(name))
    return sorted(
        found,
        key=lambda item: (
            item.labels["sifline.role"] != Role.CONTROLLER.value,
            item.labels["sifline.node"],
        ),
    )


def _refuse_other_checkout(
    name: str, found: Sequence[Container], context: Context, advice: str
) -> None:
    """Refuse a cluster that another checkout brought up.

    Also where no such folder is here: the engine may serve other machines and containers.
    """
    owners = {item.labels.get(WORKSPACE, "") for item in found}
    if not found:
        # A run that was killed, or begins just now, may have come no further than the network.
        owners = Containers(context.runner).network_labels(_label(name), WORKSPACE)
    for other in sorted(owners - {_checkout(context.workspace), ""}):
        raise UsageError(f"the cluster {name} belongs to the checkout {other}; {advice}")


def _stands(wanted: _Wanted, found: Iterable[Container]) -> bool:
    specs = {
        item.labels["sifline.node"]: item.labels.get("sifline.spec")
        for item in found
        if item.running and item.address
    }
    return specs == {node: wanted.spec(node) for node in wanted.options}


# Up


def _bring(
    described: Cluster, name: str, image_id: str, found: Iterable[Container], context: Context
) -> Cluster:
    """Make ``found`` what is described, or leave it where it is."""
    folder = _folder(name, context.workspace)
    machine = Containers(context.runner).machine()
    fitted = _fit(described, name, folder, machine, context)
    wanted = _want(fitted, image_id, _public_key(folder, context), context.workspace)
    if not _stands(wanted, found):
        _down(name, context, keep_folder=True)
        found = _up(wanted, context)
    return _settle(wanted, found, context)


def _up(wanted: _Wanted, context: Context) -> tuple[Container, ...]:
    engine, cluster = Containers(context.runner), wanted.cluster
    context.progress(f"starting {', '.join(node.name for node in cluster.nodes)}")

    def start(node: Node) -> None:
        label = f"--label=sifline.spec={wanted.spec(node.name)}"
        for left in engine.find(_label(cluster.name)):
            if left.labels["sifline.node"] == node.name:
                engine.remove(left.name)
        engine.start([*wanted.options[node.name], label], wanted.image)

    network = f"sifline-{cluster.name}"
    # In a thread as the nodes are: an interrupt then waits until the engine has made it.
    labels = [_label(cluster.name), f"{WORKSPACE}={_checkout(context.workspace)}"]
    _each([network], lambda name: engine.create_network(name, labels))
    _each(cluster.nodes, lambda node: _despite_a_killed_run(lambda: start(node)))
    found = engine.find(_label(cluster.name))
    ended = [item for item in found if not (item.running and item.address)]
    if ended:
        raise _not_up(ended[0], "ended while it started", engine)
    return found


def _settle(wanted: _Wanted, found: Iterable[Container], context: Context) -> Cluster:
    """Write what stands, when it can be used; the cluster's file comes last."""
    containers = {item.labels["sifline.node"]: item for item in found}
    cluster = replace(
        wanted.cluster,
        nodes=tuple(
            replace(node, address=containers[node.name].address) for node in wanted.cluster.nodes
        ),
    )
    path, hosts = cluster.source, cluster.source.with_name(KNOWN_HOSTS)
    text = dump_cluster(cluster, path.parent)
    if not (hosts.is_file() and _read(path) == text):
        path.unlink(missing_ok=True)
        keys = _each(cluster.nodes, lambda node: _host_key(containers[node.name], context))
        _write(hosts, "".join(keys))
        context.progress("logging in to each node")
        _log_in(cluster, context)
        _write(path, text)
    return load_cluster(path)


def _host_key(container: Container, context: Context) -> str:
    """The line for known_hosts of a node that answers; read through the engine, not the wire."""
    engine = Containers(context.runner)
    _wait(container, engine)
    kind, key, *_ = engine.execute(container.name, "cat", HOST_KEY).stdout.split()
    names = f"{container.address},{container.labels['sifline.node']}"
    return f"{names} {kind} {key}\n"


def _wait(container: Container, engine: Containers) -> None:
    """Return when sshd answers.

    :raises StepFailed: where the node ended, or time is over, with what the node printed.
    """
    started = looked = time.monotonic()
    while not _answers(container.address):
        now = time.monotonic()
        if now - started > READY_SECONDS:
            raise _not_up(container, f"does not answer on SSH after {READY_SECONDS} s", engine)
        if now - looked > LOOK_SECONDS:
            looked = now
            state = engine.execute(container.name, "true", check=False)
            if not state.ok:
                raise _not_up(container, "ended while it started", engine)
        time.sleep(POLL_SECONDS)


def _answers(address: str) -> bool:
    with suppress(OSError), socket.create_connection((address, SSH_PORT), timeout=1) as wire:
        return wire.recv(4) == b"SSH-"
    return False


def _not_up(container: Container, what: str, engine: Containers) -> StepFailed:
    return StepFailed(
        f"{container.labels['sifline.node']} {what}; is the image current? try: invoke"
        f" build.{DEFAULT_IMAGE}",
        details=engine.log(container.name),
    )


def _log_in(cluster: Cluster, context: Context) -> None:
    with Ssh(cluster, context.runner) as ssh:
        _, failed = ssh.each(cluster.nodes, lambda node: ssh.run(node, ["true"]))
    for error in failed.values():
        raise error


# Down


def _down(name: str, context: Context, *, keep_folder: bool = False) -> list[str]:
    engine, label = Containers(context.runner), _label(name)
    folder = _folder(name, context.workspace)
    removed = list[str]()

    def remove() -> None:
        found = engine.find(label)
        if found:
            context.progress(f"removing {', '.join(sorted(item.name for item in found))}")
        _each(found, lambda item: engine.remove(item.name))
        removed.extend(f"container {item.name}" for item in found)
        for network in engine.networks(label):
            engine.remove_network(network)
            removed.append(f"network sifline-{name}")
        for volume in engine.volumes(label):
            engine.remove_volume(volume)
            removed.append(f"volume {volume}")

    # Without its file a cluster does not stand: first the file, in case this is interrupted.
    (folder / STATE_FILE).unlink(missing_ok=True)
    _despite_a_killed_run(remove)
    if folder.is_dir() and not keep_folder:
        shutil.rmtree(folder)
        removed.append(f"folder {folder}")
    return removed


# Helpers


def _each(items: Iterable[T], work: Callable[[T], R]) -> list[R]:
    """Do ``work`` for all ``items`` side by side."""
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        try:
            return [future.result() for future in submit(pool, work, items)]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _despite_a_killed_run(work: Callable[[], None]) -> None:
    """Do ``work``, again where the engine still does what a run that was killed had asked for.

    Then a name is taken, or a network in use, of which nothing was seen a moment before.
    """
    last = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return work()
        except Busy:
            if time.monotonic() > last:
                raise
            time.sleep(POLL_SECONDS)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str) -> None:
    """Write ``path`` at once or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
