"""What the nodes of a cluster hold, by their catalogs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sifline.engines.registry import Registries
from sifline.engines.ssh.nodes import Ssh
from sifline.machine.context import Context
from sifline.model import Cluster


@dataclass(frozen=True, kw_only=True)
class Holding:
    """An image in a node's registry: its catalog entry, and what was ``found`` on the disk."""

    node: str
    name: str
    category: str
    sha256: str
    found: str | None
    size: int
    path: PurePosixPath
    when: str
    who: str
    image_digest: str
    fingerprint: str
    commit: str
    tests: str
    previous: tuple[str, ...]


def catalog(cluster: Cluster, context: Context) -> tuple[Holding, ...]:
    """Return the images in the registry of every node of ``cluster``, in the order of its nodes.

    :raises StepFailed: if a node does not answer.
    """
    with Ssh(cluster, context.runner) as ssh:
        registries = Registries(ssh)
        answers, failed = ssh.each(cluster.nodes, lambda node: registries.ask(node, "list"))
    for error in failed.values():
        raise error
    return tuple(
        holding(node.name, entry)
        for node in cluster.nodes
        for entry in answers[node.name]["images"].values()
    )


def holding(node: str, entry: Mapping[str, Any]) -> Holding:
    """Read one entry of a node's catalog."""
    return Holding(
        node=node,
        name=str(entry["name"]),
        category=str(entry["category"]),
        sha256=str(entry["sha256"]),
        found=str(entry["found"]) if entry["found"] else None,
        size=int(entry["size"]),
        path=PurePosixPath(str(entry["path"])),
        when=str(entry.get("when", "")),
        who=str(entry.get("who", "")),
        image_digest=str(entry.get("image_digest", "")),
        fingerprint=str(entry.get("fingerprint", "")),
        commit=str(entry.get("commit", "")),
        tests=str(entry.get("tests", "")),
        previous=tuple(known["sha256"] for known in entry.get("previous", ())),
    )
