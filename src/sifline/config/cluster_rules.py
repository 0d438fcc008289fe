"""The rules over several keys of a cluster file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sifline.config import account_rules, partition_rules, system_folders
from sifline.config.repeated import twice
from sifline.errors import UsageError
from sifline.fields.table import Table
from sifline.model import Cluster, Node, Role

# Words that Slurm reads as something else than a name.
_WORDS = frozenset({"all", "default"})


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a cluster file has what, as errors begin: file, line and key.

    ``top`` is the table with the keys of the cluster; ``nodes`` has the place of each node
    of the cluster, ``partitions`` the table of each partition, in its order.
    """

    top: Table
    nodes: Sequence[str]
    partitions: Sequence[Table]


def check(cluster: Cluster, places: Places) -> list[str]:
    """Check the names, which go into command lines and slurm.conf, partitions and accounts.

    :returns: notes on what is allowed, and may be a mistake.
    :raises UsageError: naming file, line, key and cause.
    """
    _check_nodes(cluster, places)
    _check_partitions(cluster, places)
    system_folders.refuse(places.top, "registry_root", cluster.registry_root)
    if cluster.registry.shared and cluster.registry.catch_up:
        raise UsageError(
            f"{places.top.where('registry')}: shared and catch_up: a node has nothing to fetch"
            " where all share one folder; remove catch_up"
        )
    if cluster.accounting:
        account_rules.check(places.top, cluster.accounting, cluster.job_user)
    return partition_rules.check(places.partitions, cluster)


def _check_partitions(cluster: Cluster, places: Places) -> None:
    names, defaults = set[str](), list[str]()
    for part, row in zip(cluster.partitions, places.partitions, strict=True):
        place = row.where("name")
        if part.name.lower() in _WORDS:
            raise UsageError(
                f"{place}: Slurm does not take {part.name} for the name of a partition; choose"
                " another"
            )
        if part.name in names:
            raise UsageError(f"{place}: two partitions are named {part.name}; name each once")
        names.add(part.name)
        defaults += [part.name] if part.default else []
        if len(defaults) > 1:
            raise UsageError(f"{place}: only one can be the default, and {defaults[0]} is")


def _check_nodes(cluster: Cluster, places: Places) -> None:
    where = places.top.where("nodes")
    roles = Counter(node.role for node in cluster.nodes)
    if roles[Role.CONTROLLER] != 1:
        found = ", ".join(node.name for node in cluster.nodes if node.role is Role.CONTROLLER)
        raise UsageError(
            f"{where}: one node must have the role controller, found {found or 'none'};"
            " set the role of the node that runs slurmctld"
        )
    if not roles[Role.COMPUTE]:
        raise UsageError(f"{where}: no node has the role compute; add one, for jobs to run on")
    for node, place in zip(cluster.nodes, places.nodes, strict=True):
        if node.name.lower() in _WORDS:
            raise UsageError(
                f"{place}: Slurm does not take {node.name} for the name of a node; choose another"
            )
    if again := twice(node.name for node in cluster.nodes):
        first, second, *_ = _with(cluster.nodes, "name", again)
        raise UsageError(
            f"{places.nodes[second]}: two nodes are named {again}; name each host once, it is also"
            f" in {places.nodes[first].rpartition(': ')[2]}"
        )
    if again := twice(node.address for node in cluster.nodes if node.address):
        first, second, *_ = _with(cluster.nodes, "address", again)
        names = f"{cluster.nodes[first].name} and {cluster.nodes[second].name}"
        raise UsageError(
            f"{places.nodes[second]}: {names} have the same address {again}; give each its own"
        )


def _with(items: Sequence[object], field: str, value: object) -> list[int]:
    """Return the numbers of the items with that value in ``field``."""
    return [number for number, item in enumerate(items) if getattr(item, field) == value]


def counted(place: str, node: Node) -> Node:
    """Return ``node`` with the number of its GPUs; check what it says of them.

    :param place: where the file has it, as errors begin.
    :raises UsageError: naming the place, the node and the cause.
    """
    where, devices = f"{place}: {node.name}", node.gpu_devices
    for item in devices:
        if bool(item.file) == bool(item.multiple_files):
            raise UsageError(f"{where}: gpu_devices: each needs file or multiple_files, not both")
    if again := twice(file for item in devices if item.file for file in item.files):
        raise UsageError(f"{where}: gpu_devices: {again} is there twice; name each file once")
    count = sum(item.count for item in devices) or node.gpus
    if node.gpus not in (0, count) or (devices and node.gpu_type):
        raise UsageError(
            f"{where}: gpu_devices has {count} GPUs and their types; remove gpus and gpu_type"
        )
    _check_use(where, node, count)
    return replace(node, gpus=count)


def _check_use(where: str, node: Node, count: int) -> None:
    """Check what is said of the ``count`` GPUs of a node beside their number and type."""
    for key, shares in (("gpu_shards", node.gpu_shards), ("gpu_mps", node.gpu_mps)):
        if shares and (not count or shares % count):
            raise UsageError(f"{where}: {key} {shares} is no multiple of its {count} GPUs; fix it")
    if node.gpu_detect != "off" and not count:
        raise UsageError(f"{where}: gpu_detect finds nothing without gpus; say how many it has")
    if node.gpu_shards and node.gpu_mps:
        raise UsageError(f"{where}: Slurm shares a GPU by gpu_shards or gpu_mps; remove one")
