"""Nodes of cluster files in the long format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sifline.config.cluster_rules import counted
from sifline.config.hpc_keys import ignored_in_rows, value_of
from sifline.config.node_rows import NodeRow, each
from sifline.errors import UsageError
from sifline.fields.keys import NEEDED, keys_of
from sifline.fields.table import Table
from sifline.formats.node_lists import MOST, fold_in_order
from sifline.model import Node, Role

# These files give the machine's memory; firmware and kernel reserve some of it, and Slurm drains a
# node that has less than configured.
USABLE_PERCENT = 90

# Keys that mean the same in both formats.
SHARED_KEYS = (
    *("gpus", "gpu_type", "gpu_devices", "gpu_detect", "gpu_shards", "gpu_mps", "features"),
)
NODE_KEYS = frozenset(
    {
        *("name", "hostname", "node_type", "ip", "ip_address", "cpu_cores", "memory_gb", "count"),
        *("disk_gb", "pcie_passthrough", "virtio_fs_mounts", *SHARED_KEYS),
    }
)
# An address that only the network knows.
DHCP = "dhcp"


@dataclass(kw_only=True)
class Found:
    """The nodes of a cluster, the place of each in the file, and notes about them."""

    nodes: tuple[Node, ...] = ()
    places: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, row: Table, nodes: Sequence[Node]) -> None:
        """Add the nodes of a row."""
        self.nodes += tuple(nodes)
        self.places += [row.where(_name_key(row))] * len(nodes)
        address = _address_key(row)
        if str(row.values.get(address, "")).lower() == DHCP:
            names = fold_in_order(node.name for node in nodes)
            self.notes.append(f"{row.full(address)} is DHCP: reached by name, {names}")


def read(table: Table) -> Found:
    """Return the nodes of a cluster.

    :raises UsageError: naming file, line and key.
    """
    found = Found()
    controller = [table.sub("controller")] if "controller" in table.values else []
    for row in controller:
        found.add(row, _nodes(row, Role.CONTROLLER, ["controller"]))
    compute = _rows(table, "compute_nodes")
    number = 1
    for row in compute:
        count = row.number("count", 1, least=1, most=MOST)
        names = [f"compute-{number + more:02}" for more in range(count)]
        nodes = _nodes(row, Role.COMPUTE, names)
        if "count" in row.values and len(nodes) != count:
            raise UsageError(
                f"{row.where('count')} is {count}, and its name stands for {len(nodes)}; write"
                f" as many, such as compute-[01-{count:02}], or leave one of them out"
            )
        found.add(row, nodes)
        number += len(nodes)
    found.notes += ignored_in_rows([*controller, *compute], NODE_KEYS)
    if any("memory_gb" in row.values for row in (*controller, *compute)):
        found.notes.append(f"memory_gb is the machine's: Slurm may use {USABLE_PERCENT} % of it")
    return found


def _rows(table: Table, key: str) -> Sequence[Table]:
    """Return a list of tables; one table is a list of it."""
    return [table.sub(key)] if isinstance(table.values.get(key), dict) else table.subs(key)


def _name_key(node: Table) -> str:
    # slurmd registers under the host name of its machine.
    return "hostname" if "hostname" in node.values else "name"


def _address_key(node: Table) -> str:
    return "ip_address" if "ip_address" in node.values else "ip"


def _nodes(row: Table, role: Role, names: Sequence[str]) -> list[Node]:
    """Return the nodes of a row; ``names`` are theirs if it has none."""
    key, memory_gb = _address_key(row), row.number("memory_gb", 1, least=1, most=2**20)
    address = value_of(NodeRow, "address", row, key, NEEDED)
    shared = {
        name: value_of(Node, name, row, name, declared.default)
        for name, declared in keys_of(Node).items()
        if name in SHARED_KEYS
    }
    passed = _gpus(row.sub("pcie_passthrough"))
    node = Node(
        name=value_of(NodeRow, "name", row, _name_key(row), fold_in_order(names)),
        role=role,
        address="" if address.lower() == DHCP else address,
        cpus=value_of(Node, "cpus", row, "cpu_cores", 1),
        memory_mb=memory_gb * 1024 * USABLE_PERCENT // 100,
        **{**shared, "gpus": shared["gpus"] or passed},
    )
    return each(row, counted(row.where(_name_key(row)), node), name=_name_key(row), address=key)


def _gpus(table: Table) -> int:
    if not table.flag("enabled"):
        return 0
    return sum(item.text("device_type", "") == "gpu" for item in table.subs("devices"))
