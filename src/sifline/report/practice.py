"""What changes of virtual clusters did, or would do, for people and for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sifline.report.tables import table

if TYPE_CHECKING:
    from sifline.model import FaultChange, Scaled


def fault_changes(items: Sequence[FaultChange], *, dry: bool) -> str:
    """Return what was done, or would be, with the faults of nodes."""
    if not items:
        return "the nodes have no fault"
    would = "would be " if dry else ""
    rows = [
        (
            *(item.node, item.fault),
            item.action if item.action in ("set already", "not set") else would + item.action,
            item.details or "-",
        )
        for item in items
    ]
    return table(("node", "fault", "action", "effect"), rows)


def scaled(item: Scaled, *, dry: bool) -> str:
    """Return which compute nodes were added and removed, or would be."""
    add, remove = ("would add", "would remove") if dry else ("added", "removed")
    lines = [f"{add} {', '.join(item.added)}"] if item.added else []
    lines += [f"{remove} {', '.join(item.removed)}"] if item.removed else []
    lines += [f"{'would end' if dry else 'ended'} {job}" for job in item.jobs]
    return "\n".join(lines) or f"{item.name} has {item.compute} compute nodes: nothing to do"


def scaled_values(item: Scaled, *, dry: bool) -> dict[str, object]:
    """Return the same for JSON."""
    return {
        "dry": dry,
        "cluster": item.name,
        "compute": item.compute,
        "added": item.added,
        "removed": item.removed,
        "jobs": item.jobs,
    }
