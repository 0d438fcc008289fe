"""Facts of nodes, as tables and as values for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sifline.formats import times
from sifline.model import ClusterFacts, NodeFacts
from sifline.model.units import size_text
from sifline.report.tables import fitting, table

UNKNOWN, NONE = "unknown", "none"
# By the name of the field: its name for people.
_NAMES = {
    "architecture": "architecture",
    "kernel": "kernel",
    "glibc": "glibc",
    "driver": "NVIDIA driver",
    "driver_cuda": "CUDA of the driver",
    "driver_glibc": "glibc for the driver",
    "gpus": "GPU devices",
    "slurm": "Slurm",
    "mpi_types": "srun --mpi",
    "mpi_default": "MpiDefault",
    "pmix": "PMIx",
    "apptainer": "Apptainer",
    "setuid": "set-uid mounts",
    "user_namespaces": "user namespaces",
    "kernel_mount": "kernel mounts SIFs",
    "squashfs_kernel": "squashfs, kernel",
    "squashfs_fuse": "squashfs, FUSE",
    "free": "free for images",
}


def text(found: ClusterFacts) -> str:
    """Return a table: a row for each fact, nodes with the same value together."""
    rows = []
    for field, name in _NAMES.items():
        by_value = dict[str, list[str]]()
        for item in found.nodes:
            by_value.setdefault(_word(field, getattr(item, field)), []).append(item.node)
        rows += [(name, value, ", ".join(nodes)) for value, nodes in by_value.items()]
    lines = [table(("fact", "value", "nodes"), rows)] if found.nodes else []
    lines += [f"{item.node}: read {times.iso(item.read)}" for item in found.nodes]
    lines += [f"{node}: no facts: {why}" for node, why in found.silent.items()]
    return fitting(lines)


def values(found: ClusterFacts) -> dict[str, Any]:
    """Return the same for JSON; null is unknown."""
    return {
        "nodes": [_values(item) for item in found.nodes],
        "silent": [{"node": node, "error": why} for node, why in found.silent.items()],
    }


def _values(item: NodeFacts) -> dict[str, Any]:
    return {**asdict(item), "read": times.iso(item.read)}


def _word(field: str, value: str | float | bool | Iterable[str] | None) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return size_text(int(value)) if field == "free" else str(value)
    return (value if isinstance(value, str) else " ".join(value)) or NONE
