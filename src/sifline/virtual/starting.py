"""Brings up a virtual cluster: recreates what does not match, then waits until it can be used."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sifline.config.clusters import STATE_FILE, dump_cluster
from sifline.engines.docker.containers import Container, Containers, despite_a_killed_run
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import SiflineError, StepFailed
from sifline.machine.context import Context
from sifline.machine.interrupts import each
from sifline.model import Cluster, Node
from sifline.virtual.found import (
    WORKSPACE,
    checkout_name,
    cluster_label,
    cluster_lock,
    containers_of,
    refuse_other_checkout,
    state_folder,
)
from sifline.virtual.removing import remove_all
from sifline.virtual.wanted import (
    DEFAULT_IMAGE,
    KNOWN_HOSTS,
    SSH_PORT,
    Description,
    Wanted,
    fit,
    has_key,
    image_in_engine,
    public_key,
    stands,
    want,
)

READY_SECONDS = 30
POLL_SECONDS = 0.05
LOOK_SECONDS = 1.0
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


def up(
    description: Description, context: Context, *, removed: Callable[[], None] = lambda: None
) -> Cluster:
    """Bring up a virtual cluster that matches its description, and return it.

    A matching cluster is kept; anything else of that name is recreated.

    :param removed: is called when what stood is gone.
    :raises UsageError: if it belongs to another checkout.
    :raises MissingError: if the image or the engine is missing.
    :raises StepFailed: if a node does not come up; then the whole cluster is removed.
    """
    engine, name = Containers(context.runner), description.name
    image_id = image_in_engine(description.image, engine)
    with cluster_lock(name, context):
        found = engine.find(cluster_label(name))
        refuse_other_checkout(name, found, context, _another(name))
        try:
            return _bring(description, image_id, found, context, removed)
        except BaseException:
            # What cannot be removed now is removed by the next run.
            if not (state_folder(name, context.workspace) / STATE_FILE).exists():
                with suppress(SiflineError):
                    remove_all(name, context)
            raise


def stands_so(description: Description, image_id: str, context: Context) -> bool:
    """Return whether the cluster matches its description, so that ``up`` has nothing to start.

    :param image_id: the id of the image for its nodes.
    """
    engine, name = Containers(context.runner), description.name
    found, folder = containers_of(name, context), state_folder(name, context.workspace)
    # A missing key would be created, and the nodes with it.
    if not found or not has_key(folder):
        return False
    fitted = fit(description, folder, engine.machine(), context)
    return stands(want(fitted, image_id, public_key(folder, context), context.workspace), found)


def refuse_foreign(name: str, context: Context) -> None:
    """Raise an error for a name that cannot be brought up, before any slow work.

    :raises UsageError: for an invalid name, and for the cluster of another checkout.
    """
    refuse_other_checkout(name, containers_of(name, context), context, _another(name))


def _another(name: str) -> str:
    return (
        "bring one of your own up under another name: invoke cluster.up --cluster NAME; or take"
        f" that one down: invoke cluster.down --cluster {name} --foreign"
    )


def _bring(
    description: Description,
    image_id: str,
    found: Iterable[Container],
    context: Context,
    removed: Callable[[], None],
) -> Cluster:
    """Recreate the containers unless they match the description."""
    name = description.name
    folder = state_folder(name, context.workspace)
    machine = Containers(context.runner).machine()
    fitted = fit(description, folder, machine, context)
    wanted = want(fitted, image_id, public_key(folder, context), context.workspace)
    if not stands(wanted, found):
        remove_all(name, context, keep_folder=True)
        removed()
        found = _up(wanted, context)
    return _settle(wanted, found, context)


def _up(wanted: Wanted, context: Context) -> tuple[Container, ...]:
    engine, cluster = Containers(context.runner), wanted.cluster
    context.progress(f"starting {', '.join(node.name for node in cluster.nodes)}")

    def start(node: Node) -> None:
        label = f"--label=sifline.spec={wanted.spec(node.name)}"
        for left in engine.find(cluster_label(cluster.name)):
            if left.labels["sifline.node"] == node.name:
                engine.remove(left.name)
        engine.start([*wanted.options[node.name], label], wanted.image)

    network = f"sifline-{cluster.name}"
    # In a thread, like the nodes: an interruption then waits until the engine has created it.
    labels = [cluster_label(cluster.name), f"{WORKSPACE}={checkout_name(context.workspace)}"]
    each([network], lambda name: engine.create_network(name, labels))
    each(cluster.nodes, lambda node: despite_a_killed_run(lambda: start(node)))
    found = engine.find(cluster_label(cluster.name))
    ended = [item for item in found if not (item.running and item.address)]
    if ended:
        raise _not_up(ended[0], "ended while it started", engine)
    return found


def _settle(wanted: Wanted, found: Iterable[Container], context: Context) -> Cluster:
    """Wait until the nodes can be used, then write known hosts and the cluster's file."""
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
        keys = each(cluster.nodes, lambda node: _host_key(containers[node.name], context))
        _write(hosts, "".join(keys))
        context.progress("logging in to each node")
        _log_in(cluster, context)
        _write(path, text)
    return cluster


def _host_key(container: Container, context: Context) -> str:
    """Return the known_hosts line of a node; read through the engine, not the network."""
    engine = Containers(context.runner)
    _wait(container, engine)
    kind, key, *_ = engine.execute(container.name, "cat", HOST_KEY).stdout.split()
    names = f"{container.address},{container.labels['sifline.node']}"
    return f"{names} {kind} {key}\n"


def _wait(container: Container, engine: Containers) -> None:
    """Return when sshd answers.

    :raises StepFailed: if the node ended, or after the time limit, with the node's output.
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


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _write(path: Path, text: str) -> None:
    """Write ``path`` completely or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
