"""Cluster files in the long format: ``clusters.hpc`` with controller and compute nodes.

Unknown keys are not errors: they are listed in ``Cluster.notes``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sifline.config.cluster_rules import Places
from sifline.errors import UsageError
from sifline.fields.keys import NEEDED, keys_of
from sifline.fields.kinds import File, Several
from sifline.fields.table import Table
from sifline.model import Cluster, Node, Partition, Role, SshAccess

KEY = "clusters"
OURS = "hpc"

# These files give the machine's memory; firmware and kernel reserve some of it, and Slurm drains a
# node that has less than configured.
USABLE_PERCENT = 90

TOP_KEYS = {"version", "metadata", KEY}
CLUSTER_KEYS = {"name", "network", "controller", "compute_nodes", "slurm_config", "ssh", "storage"}
SLURM_KEYS = {"partitions", "default_partition", "max_job_time"}
SSH_KEYS = {"user", "private_key_path", "port", "known_hosts"}
NODE_KEYS = {
    "name",
    "hostname",
    "node_type",
    "ip",
    "ip_address",
    "cpu_cores",
    "memory_gb",
    "disk_gb",
    "pcie_passthrough",
    "virtio_fs_mounts",
}


def read(top: Table) -> tuple[Cluster, Places]:
    """Return the cluster ``hpc`` of a file, and where the file has what.

    :raises UsageError: naming file, key and the allowed values.
    """
    clusters = top.sub(KEY)
    if OURS not in clusters.values:
        raise UsageError(
            f"{top.at(KEY)}: clusters has no {OURS}, found {', '.join(map(str, clusters.values))};"
            " sifline acts on that one"
        )
    table = clusters.sub(OURS)
    controller = [table.sub("controller")] if "controller" in table.values else []
    compute = table.subs("compute_nodes")
    slurm, ssh, storage = table.sub("slurm_config"), table.sub("ssh"), table.sub("storage")
    notes = [
        f"clusters.{name} is ignored: not an HPC cluster"
        for name in clusters.values
        if name != OURS
    ]
    notes += _unknown(top, TOP_KEYS) + _unknown(table, CLUSTER_KEYS)
    notes += _unknown(slurm, SLURM_KEYS) + _unknown(ssh, SSH_KEYS)
    notes += [note for node in (*controller, *compute) for note in _unknown(node, NODE_KEYS)]
    notes += [f"{storage.full(key)} is ignored" for key in storage.values]
    notes.append(f"memory_gb is the machine's: Slurm may use {USABLE_PERCENT} % of it")
    cluster = Cluster(
        name=_value(Cluster, "name", table, "name", OURS),
        nodes=(
            *(_node(node, Role.CONTROLLER, "controller") for node in controller),
            *(
                _node(node, Role.COMPUTE, f"compute-{number:02}")
                for number, node in enumerate(compute, start=1)
            ),
        ),
        ssh=_access(ssh),
        partitions=_partitions(slurm),
        source=top.path,
        notes=tuple(notes),
    )
    places = Places(
        top=table,
        nodes=[row.where(_name_key(row)) for row in (*controller, *compute)],
        partitions=[slurm.sub_of("partitions")] * len(cluster.partitions),
    )
    return cluster, places


def _name_key(node: Table) -> str:
    # slurmd registers under the host name of its machine.
    return "hostname" if "hostname" in node.values else "name"


def with_default(partitions: Sequence[Partition]) -> tuple[Partition, ...]:
    """Return ``partitions`` with the first as default if none is: srun needs one."""
    if any(part.default for part in partitions):
        return tuple(partitions)
    return (replace(partitions[0], default=True), *partitions[1:])


def _node(table: Table, role: Role, default: str) -> Node:
    address = "ip_address" if "ip_address" in table.values else "ip"
    memory_gb = table.number("memory_gb", 1, least=1, most=2**20)
    return Node(
        name=_value(Node, "name", table, _name_key(table), default),
        role=role,
        address=_value(Node, "address", table, address, NEEDED),
        cpus=_value(Node, "cpus", table, "cpu_cores", 1),
        memory_mb=memory_gb * 1024 * USABLE_PERCENT // 100,
        gpus=_gpus(table.sub("pcie_passthrough")),
    )


def _gpus(table: Table) -> int:
    if not table.flag("enabled"):
        return 0
    return sum(item.text("device_type", "") == "gpu" for item in table.subs("devices"))


def _access(table: Table) -> SshAccess:
    def file(key: str) -> Path | None:
        return File().expand(table, key) if key in table.values else None

    return SshAccess(
        user=_value(SshAccess, "user", table, "user", "root"),
        port=_value(SshAccess, "port", table, "port", 22),
        identity_file=file("private_key_path"),
        known_hosts=file("known_hosts"),
    )


def _partitions(table: Table) -> tuple[Partition, ...]:
    listed = Several(item=keys_of(Partition)["name"].kind)
    names = (listed.read(table, "partitions") if "partitions" in table.values else ()) or ("main",)
    default = table.text("default_partition", names[0])
    if default not in names:
        raise table.wrong("default_partition", f"one of {', '.join(names)}", default)
    time = _value(Partition, "max_time", table, "max_job_time", Partition.max_time)
    return tuple(Partition(name=name, default=name == default, max_time=time) for name in names)


def _value(of: type, field: str, table: Table, key: str, default: Any) -> Any:
    """Return the value of ``key``, checked like ``field`` of the short format."""
    return replace(keys_of(of)[field], name=key, default=default).read(table)


def _unknown(table: Table, known: set[str]) -> list[str]:
    values: Mapping[Any, Any] = table.values
    return [f"{table.full(key)} is ignored: unknown" for key in values if key not in known]
