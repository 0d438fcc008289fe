"""Results about clusters: deployments, nodes, what Ansible changed, the quickstart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from sifline.model.units import megabytes
from sifline.report import screen
from sifline.report.tables import fitting, short, table

if TYPE_CHECKING:
    from sifline.model import (
        AffectedJob,
        Cluster,
        Deployment,
        ListedCluster,
        NodeState,
        ProvisionedCluster,
        Quickstart,
        StandingCluster,
    )


def deployed(deployments: Sequence[Deployment]) -> str:
    """Return where each SIF was placed."""
    rows = [
        (
            item.sif.name,
            place.node,
            "sent" if place.sent else "held already",
            short(place.sha256),
        )
        for item in deployments
        for place in item.placements
    ]
    lines = [table(("image", "node", "state", "sha256"), rows)]
    for item in deployments:
        lines.append(f"{item.sif.name}: file on each node: {item.path}")
        if item.cluster.left_out:
            names = ", ".join(node.name for node in item.cluster.left_out)
            count = f"{len(item.placements)} of {len(item.cluster.whole)} nodes"
            lines.append(f"{item.sif.name}: deployed to {count}; left out, unchanged: {names}")
        lines += [*_behind(item), *_module(item)]
    return fitting(lines)


def _behind(item: Deployment) -> list[str]:
    """Return which nodes did not answer, and how they get the SIF."""
    if not item.behind:
        return []
    lines = [f"{item.sif.name}: behind: {each.why}" for each in item.behind]
    again = f"invoke deploy.{item.sif.name} {item.cluster.flag}"
    return [*lines, f"{item.sif.name}: when they answer again: {again}"]


def _module(item: Deployment) -> list[str]:
    """Return how users load the module of a SIF, and which nodes do not have it."""
    module, name = item.sif.module, item.sif.name
    if not module:
        return []
    without = [f"{place.node}: {place.note}" for place in item.placements if place.note]
    lines = [f"{name}: no module {module} on {text}" for text in without]
    if without:
        again = f"invoke provision {item.cluster.flag} --stage registry"
        lines.append(f"{name}: to have the module there: {again}, then deploy again")
    if len(without) < len(item.placements):
        lines.append(f"{name}: module: {module}, below {item.cluster.registry_root / 'modules'}")
    return lines


def deployed_values(deployments: Sequence[Deployment]) -> list[dict[str, object]]:
    """Return the same for JSON."""
    return [
        {
            "image": item.sif.name,
            "cluster": item.cluster.name,
            "path": item.path,
            "module": item.sif.module,
            "seconds": item.seconds,
            "nodes": [
                {
                    "node": place.node,
                    "sha256": place.sha256,
                    "sent": place.sent,
                    "note": place.note,
                }
                for place in item.placements
            ],
            "left_out": [node.name for node in item.cluster.left_out],
            "behind": [{"node": each.node, "why": each.why} for each in item.behind],
        }
        for item in deployments
    ]


def nodes(cluster: Cluster) -> str:
    """Return the nodes of a cluster and how to reach them."""
    rows = [(node.name, node.role.value, node.address, str(node.gpus)) for node in cluster.nodes]
    return table(("node", "role", "address", "gpus"), rows)


def node_states(items: Sequence[NodeState]) -> str:
    """Return the nodes of a virtual cluster."""
    rows = [
        (
            *(item.node, item.role, item.address or "-", item.state),
            *(", ".join(item.faults) or "-", item.checkout),
        )
        for item in items
    ]
    return table(("node", "role", "address", "state", "faults", "brought up by"), rows)


def clusters(items: Sequence[ListedCluster]) -> str:
    """Return the clusters that are described or running."""
    rows = [
        (item.name, str(item.file or "-"), _state(item.standing), _checkout(item.standing))
        for item in items
    ]
    return table(("cluster", "described in", "virtual nodes", "brought up by"), rows)


def _state(item: StandingCluster | None) -> str:
    return f"{item.running} of {item.nodes} run" if item else "-"


def _checkout(item: StandingCluster | None) -> str:
    return item.checkout if item else "-"


def cluster_values(items: Sequence[ListedCluster]) -> list[dict[str, object]]:
    """Return the same for JSON."""
    return [
        {
            "name": item.name,
            "file": str(item.file) if item.file else None,
            "standing": item.standing and asdict(item.standing),
        }
        for item in items
    ]


def provisioned(item: ProvisionedCluster, *, dry: bool) -> str:
    """Return what Ansible changed, or would change: files line by line, and tasks with hosts."""
    verb = "would change" if dry else "changed"
    return fitting(
        [
            *(f"{', '.join(hosts)}:\n{text}\n" for hosts, text in item.diffs),
            *(f"kept {place}" for place in item.kept),
            *(f"{verb} {', '.join(hosts)}: {task}" for task, hosts in item.changes),
            *(_affected(job, dry=dry) for job in item.jobs),
            *(f"note: {note}" for note in item.notes),
            f"{item.cluster.name}: {item.ok} tasks, {verb} {item.changed}, {item.seconds:.1f} s",
        ]
    )


def _affected(job: AffectedJob, *, dry: bool) -> str:
    """Return what a change does, or did, to a job."""
    fates = {
        "fails": ("would fail", "failed"),
        "queued again": ("would be queued again", "was queued again"),
        "stays queued": ("would stay queued", "stays queued"),
    }
    fate = fates[job.becomes][0 if dry else 1]
    return f"job {job.id} of {job.user} ({job.state.lower()}) {fate}: {job.where} {job.why}"


def provisioned_values(item: ProvisionedCluster, *, dry: bool) -> dict[str, object]:
    """Return the same for JSON."""
    return {
        "cluster": item.cluster.name,
        "dry": dry,
        "ok": item.ok,
        "changed": item.changed,
        "seconds": item.seconds,
        "changes": [{"task": task, "nodes": hosts} for task, hosts in item.changes],
        "kept": item.kept,
        "diffs": [{"nodes": hosts, "diff": text} for hosts, text in item.diffs],
        "jobs": [asdict(job) for job in item.jobs],
        "notes": item.notes,
    }


def quickstart(done: Quickstart) -> str:
    """Return the main job's short table, and what to try next."""
    places = done.deployment.placements
    sent = sum(place.sent for place in places)
    rows = [
        ("built", done.built.image.tag, short(done.built.image_id), megabytes(done.built.size, 0)),
        ("SIF", str(done.sif.path), short(done.sif.sha256), megabytes(done.sif.size, 0)),
        (
            "deployed",
            ", ".join(place.node for place in places),
            short(done.sif.sha256),
            f"{sent} sent, {len(places) - sent} held already",
        ),
    ]
    seconds = ", ".join(f"{stage} {took:.1f} s" for stage, took in done.seconds)
    total = sum(took for _, took in done.seconds)
    name, user = done.cluster.name, done.cluster.job_user or done.cluster.ssh.user
    return "\n".join(
        [
            table(("what", "where", "digest", "size"), rows),
            screen.folded(f"file on each node: {done.deployment.path}", "  "),
            "",
            screen.folded(f"MPI job {done.job.status.value}: {done.job.message}", "  "),
            "",
            screen.folded(f"times: {seconds}; {total:.1f} s in all", "  "),
            "",
            *_next(
                (f"invoke validate --cluster {name}", "run every health check"),
                (
                    f"invoke cluster.shell --cluster {name} --user {user}",
                    "open the controller",
                ),
                (f"invoke shell.{done.built.image.name}", "open the image"),
                (f"invoke cluster.down --cluster {name}", "take the cluster down"),
            ),
        ]
    )


def _next(*commands: tuple[str, str]) -> list[str]:
    """Commands to try next, and what each is for; below it where it does not fit beside it."""
    width = max(len(command) for command, _ in commands)
    lines = [f"      {command.ljust(width)}  {what}" for command, what in commands]
    columns = screen.current().columns
    if columns and max(map(len, lines)) > columns:
        lines = [
            line for command, what in commands for line in (f"      {command}", f"        {what}")
        ]
    return [f"next: {lines[0].lstrip()}", *lines[1:]]
