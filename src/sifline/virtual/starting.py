"""Brings up a virtual cluster: recreates what does not match, then waits until it can be used."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from sifline.config.clusters import STATE_FILE, dump_cluster
from sifline.engines.docker.containers import Container, Containers, despite_a_killed_run
from sifline.errors import SiflineError
from sifline.machine.context import Context
from sifline.machine.interrupts import each
from sifline.machine.routes import routed
from sifline.model import Cluster, Node
from sifline.virtual.addresses import assigned, dynamic, subnet
from sifline.virtual.booting import host_key, log_in, not_up, wait
from sifline.virtual.found import (
    WORKSPACE,
    checkout_name,
    cluster_label,
    cluster_lock,
    containers_of,
    refuse_other_checkout,
    state_folder,
)
from sifline.virtual.registering import wait_for_slurm
from sifline.virtual.removing import remove_all
from sifline.virtual.wanted import (
    KNOWN_HOSTS,
    Description,
    Wanted,
    container_name,
    fit,
    fits,
    has_key,
    home_volume,
    image_in_engine,
    network_name,
    public_key,
    stands,
    want,
)

# States of containers that run, or can be started.
STARTABLE = frozenset({"created", "exited", "running"})


def up(
    description: Description, context: Context, *, removed: Callable[[], None] = lambda: None
) -> Cluster:
    """Bring up a virtual cluster that matches its description, and return it.

    A matching cluster is kept: its nodes that stopped are started again, with the addresses that
    they had. Anything else of that name is recreated.

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


def would(
    description: Description, image_id: str | None, context: Context
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the nodes that ``up`` would remove, and those that it would start.

    :param image_id: the id of the image for its nodes; None if it would be built.
    """
    name = description.name
    found, folder = containers_of(name, context), state_folder(name, context.workspace)
    there = [item.labels["sifline.node"] for item in found]
    machine = Containers(context.runner).machine()
    fitted = fit(description, folder, machine, context)
    every = [node.name for node in fitted.nodes]
    # A missing key would be created, and the nodes with it.
    if not (found and image_id and has_key(folder)):
        return tuple(there), tuple(every)
    wanted = want(fitted, image_id, public_key(folder, context), context.workspace)
    if not _kept(wanted, found, context):
        return tuple(there), tuple(every)
    running = [item.labels["sifline.node"] for item in found if item.running]
    return (), tuple(node for node in every if node not in running)


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
    """Start nodes that stopped, create missing ones; recreate all if one does not match."""
    name = description.name
    folder = state_folder(name, context.workspace)
    machine = Containers(context.runner).machine()
    fitted = fit(description, folder, machine, context)
    wanted = want(fitted, image_id, public_key(folder, context), context.workspace)
    if stands(wanted, found):
        return settle(wanted, found, context)
    before = {item.name: item for item in found}
    if not _kept(wanted, found, context):
        remove_all(name, context, keep_folder=True)
        before = {}
    if len(before) < len(wanted.options):
        removed()
    asleep = [item.labels["sifline.node"] for item in before.values() if not item.running]
    since = time.time()
    found = _up(wanted, before, context)
    cluster = settle(wanted, found, context, started=True)
    wait_for_slurm(found, asleep, since, context)
    return cluster


def _kept(wanted: Wanted, found: Iterable[Container], context: Context) -> bool:
    """Return whether the nodes that exist can be used again, with their network."""
    if not found or not fits(wanted, found):
        return False
    if not all(item.state in STARTABLE for item in found):
        return False
    return bool(Containers(context.runner).subnets().get(network_name(wanted.cluster.name)))


def _up(
    wanted: Wanted, before: Mapping[str, Container], context: Context
) -> tuple[Container, ...]:
    """Start the nodes that do not run; ``before`` are those that exist, by containers' names."""
    engine, cluster = Containers(context.runner), wanted.cluster
    context.progress(f"starting {', '.join(node.name for node in cluster.nodes)}")
    # In a thread, like the nodes: an interruption then waits until the engine has created it.
    (addresses_of,) = each([cluster.name], lambda name: prepared(name, context))
    held = {item.labels["sifline.node"]: item.fixed for item in before.values()}
    addresses = assigned([node.name for node in cluster.nodes], held, addresses_of)

    def start(node: Node) -> None:
        there = before.get(container_name(cluster.name, node.name))
        if there is None:
            create(wanted, node.name, addresses[node.name], context)
        elif not there.running:
            engine.start_again(there.name)

    each(cluster.nodes, lambda node: despite_a_killed_run(lambda: start(node)))
    found = engine.find(cluster_label(cluster.name))
    ended = [item for item in found if not (item.running and item.address)]
    if ended:
        raise not_up(ended[0], "ended while it started", engine)
    return found


def create(wanted: Wanted, node: str, address: str, context: Context) -> None:
    """Create the container of a node with a fixed address, and start it."""
    engine, label = Containers(context.runner), cluster_label(wanted.cluster.name)
    for left in engine.find(label):
        if left.labels["sifline.node"] == node:
            engine.remove(left.name)
    own = (f"--label=sifline.spec={wanted.spec(node)}", f"--ip={address}")
    engine.start([*wanted.options[node], *own], wanted.image)


def prepared(name: str, context: Context) -> IPv4Network:
    """Return the subnet of a cluster; create its network and its volume if they are missing."""
    engine = Containers(context.runner)
    labels = [cluster_label(name), f"{WORKSPACE}={checkout_name(context.workspace)}"]
    engine.create_volume(home_volume(name), labels)
    chosen = list[IPv4Network]()

    def network() -> None:
        every = engine.subnets()
        chosen[:] = every.get(network_name(name), ())
        if not chosen:
            taken = [*routed(), *(item for found in every.values() for item in found)]
            chosen[:] = [subnet(name, taken)]
            free = dynamic(chosen[0])
            engine.create_network(network_name(name), labels, subnet=chosen[0], dynamic=free)

    # Another run may take the same addresses at the same time.
    despite_a_killed_run(network)
    return chosen[0]


def settle(
    wanted: Wanted, found: Iterable[Container], context: Context, *, started: bool = False
) -> Cluster:
    """Wait until the nodes can be used, then write known hosts and the cluster's file.

    :param started: some were started just now.
    """
    containers = {item.labels["sifline.node"]: item for item in found}
    cluster = replace(
        wanted.cluster,
        nodes=tuple(
            replace(node, address=containers[node.name].address) for node in wanted.cluster.nodes
        ),
    )
    path, hosts = cluster.source, cluster.source.with_name(KNOWN_HOSTS)
    text = dump_cluster(cluster, path.parent)
    same = hosts.is_file() and _read(path) == text
    # Somebody else may have started them a moment ago.
    each(containers.values(), lambda item: wait(item, Containers(context.runner)))
    if started or not same:
        if not same:
            path.unlink(missing_ok=True)
        keys = each(cluster.nodes, lambda node: host_key(containers[node.name], context))
        write(hosts, "".join(keys))
        context.progress("logging in to each node")
        log_in(cluster, context)
        write(path, text)
    return cluster


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def write(path: Path, text: str) -> None:
    """Write ``path`` completely or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
