"""Records of deployments: which SIF this checkout put on the nodes of which cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sifline.formats import times
from sifline.machine import records
from sifline.model import Cluster, Deployed, Deployment, Workspace
from sifline.model.catalog import RolledBack

_KIND = "deploy-"


def remember(done: Deployment, workspace: Workspace) -> None:
    """Write down which nodes have a SIF: those of this deployment, and of earlier ones of it."""
    place = _record(done.sif.name, done.cluster, workspace)
    old = records.read(place) or {}
    same = old.get("sha256") == done.sif.sha256
    have = {node.node for node in done.placements} | set(old.get("nodes", ()) if same else ())
    whole = [node.name for node in done.cluster.whole]
    records.write(
        place,
        {
            "cluster": done.cluster.name,
            "sha256": done.sif.sha256,
            "path": str(done.path),
            "nodes": [name for name in whole if name in have],
            "missing": [name for name in whole if name not in have],
            "when": times.iso(time.time()),
            "seconds": round(done.seconds, 1),
        },
    )


def remember_switch(done: RolledBack, workspace: Workspace) -> None:
    """Write down which nodes a rollback switched, if this checkout ever deployed that image."""
    place = _record(done.image.name, done.cluster, workspace)
    old = records.read(place)
    if old is None:
        return
    have = {node for node, _ in done.actions}
    whole = [node.name for node in done.cluster.whole]
    old = {key: value for key, value in old.items() if key not in ("version", "error")}
    new = {
        "sha256": done.version.sha256,
        "nodes": [name for name in whole if name in have],
        "missing": [name for name in whole if name not in have],
        "when": times.iso(time.time()),
    }
    records.write(place, {**old, **new})


def forget_image(name: str, cluster: Cluster, workspace: Workspace) -> None:
    """Remove the record of an image that was taken from the whole cluster."""
    _record(name, cluster, workspace).unlink(missing_ok=True)


def remember_failure(name: str, cluster: Cluster, why: str, workspace: Workspace) -> None:
    """Write down that the last deployment failed; nodes keep what earlier ones gave them."""
    place = _record(name, cluster, workspace)
    old = records.read(place) or {}
    old.pop("version", None)
    new = {"cluster": cluster.name, "when": times.iso(time.time()), "error": why}
    records.write(place, {**old, **new})


def known(name: str, workspace: Workspace, *, sha256: str = "") -> tuple[Deployed, ...]:
    """Return where this checkout deployed the image ``name``, by the names of clusters.

    :param sha256: the digest of the SIF that is there now.
    """
    paths = sorted((workspace.records / name).glob(f"{_KIND}*.json"))
    found = (records.read(path) for path in paths)
    return tuple(_deployed(record, sha256) for record in found if record and "cluster" in record)


def seconds(name: str, cluster: Cluster, workspace: Workspace) -> float | None:
    """Return how long the last deployment to that cluster took; None where nobody knows."""
    return records.seconds(records.read(_record(name, cluster, workspace)))


def forget(cluster: str, workspace: Workspace) -> None:
    """Remove all records of deployments to a cluster, which is gone."""
    for path in workspace.records.glob(f"*/{_KIND}{cluster}.json"):
        path.unlink(missing_ok=True)


def _record(name: str, cluster: Cluster, workspace: Workspace) -> Path:
    return workspace.record(name, f"{_KIND}{cluster.name}")


def _deployed(record: Mapping[str, Any], sha256: str) -> Deployed:
    held = str(record.get("sha256", ""))
    return Deployed(
        cluster=str(record["cluster"]),
        sha256=held,
        nodes=tuple(map(str, record.get("nodes", ()))),
        missing=tuple(map(str, record.get("missing", ()))),
        when=str(record.get("when", "")),
        current=bool(held) and held == sha256,
        error=str(record.get("error", "")),
    )
