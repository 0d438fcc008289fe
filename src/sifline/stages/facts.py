"""Facts: reads what the nodes of a cluster offer to images, and keeps it.

Each node is asked every time: one that was not booted since answers with its boot alone, and its
facts are taken from the checkout's build folder while they are younger than a day.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine import records
from sifline.machine.context import Context
from sifline.model import Cluster, ClusterFacts, Node, NodeFacts
from sifline.nodeside.facts import FORMAT

# Seconds after which facts are read again: a driver can change without a reboot.
LASTING = 24 * 3600
# Commands of Slurm wait up to ten seconds each for a controller that is down.
READ_SECONDS = 60


def facts(
    cluster: Cluster, context: Context, *, refresh: bool = False, now: float | None = None
) -> ClusterFacts:
    """Return the facts of the chosen nodes of ``cluster``, and the errors of those without.

    :param refresh: read all facts again.
    :param now: seconds since 1970.
    """
    when = time.time() if now is None else now
    place = path_of(cluster, context)
    record = records.read(place) or {}
    kept = record.get("nodes") if record.get("format") == FORMAT else None
    known = {} if refresh or not isinstance(kept, dict) else kept
    with Ssh(cluster, context.runner) as ssh:
        found, failed = ssh.each(
            cluster.nodes, lambda node: _of_node(ssh, node, known.get(node.name), when)
        )
    nodes = tuple(found[node.name] for node in cluster.nodes if node.name in found)
    names = {node.name for node in cluster.whole}
    others = {name: item for name, item in known.items() if name in names}
    _keep(place, {**others, **{item.node: asdict(item) for item in nodes}})
    return ClusterFacts(
        nodes=nodes, silent={name: error.message for name, error in failed.items()}
    )


def path_of(cluster: Cluster, context: Context) -> Path:
    """Return the file that keeps the facts of a cluster."""
    return context.workspace.build / "facts" / f"{cluster.name}.json"


def _keep(place: Path, nodes: Mapping[str, Any]) -> None:
    try:
        records.write(place, {"format": FORMAT, "nodes": nodes})
    except OSError as error:
        raise StepFailed(records.unwritable(place, error)) from None


def _of_node(ssh: Ssh, node: Node, kept: object, now: float) -> NodeFacts:
    """Return the facts of a node: the kept ones if they still hold.

    :raises StepFailed: if it does not answer, or gives no facts.
    """
    old = _restored(node.name, kept, now)
    root = str(ssh.cluster.registry_root)
    result = ssh.run(
        node,
        ["python3", "-", root, old.boot if old else ""],
        input=_source(),
        timeout=READ_SECONDS,
        check=False,
    )
    try:
        answer = json.loads(result.stdout)
        if answer["format"] != FORMAT:
            raise ValueError(FORMAT)
    except (ValueError, KeyError, TypeError):
        raise StepFailed(
            f"{node.name}: its facts cannot be read: {result.tail(1).strip() or 'no answer'};"
            " it needs Python 3.9 or newer there",
            details=result.tail(),
        ) from None
    if old and "kernel" not in answer and answer.get("boot") == old.boot:
        return old
    return NodeFacts.of(node.name, answer, read=now)


def _restored(name: str, kept: object, now: float) -> NodeFacts | None:
    """Return the kept facts of a node; None if they are too old, or from the future."""
    if not isinstance(kept, dict):
        return None
    when = kept.get("read")
    if not isinstance(when, (int, float)) or not 0 <= now - when < LASTING:
        return None
    found = NodeFacts.of(name, kept, read=float(when))
    return found if found.boot else None


@cache
def _source() -> str:
    return files("sifline.nodeside").joinpath("facts.py").read_text(encoding="utf-8")
