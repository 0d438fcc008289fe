"""Undeploy and prune: remove names and versions from the registries of a cluster.

All nodes are asked before any removes: which versions processes have open, and on the controller
which files jobs name. Both need root on the nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from sifline.engines.registry import RegistryRefused, ask_removal
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import SiflineError, StepFailed
from sifline.machine import records
from sifline.machine.context import Context
from sifline.model import Cluster, Node
from sifline.model.catalog import CatalogImage, Removal, Removed
from sifline.nodeside.registry import KEPT, KEPT_MOST
from sifline.stages.deployed import catalog
from sifline.stages.deployed.rollback import by_whom, lock_of

Looks = Mapping[str, Mapping[str, Any]]
# For so long after a version was replaced a deployment leaves it, whatever jobs name.
GRACE_SECONDS = 3600


def prune(cluster: Cluster, context: Context, *, keep: int = KEPT, dry: bool = False) -> Removed:
    """Remove versions that no name, process or job needs, and uploads that were abandoned.

    :param keep: how many earlier versions of each image stay, for a rollback.
    :param dry: remove nothing, and return what would be.
    :raises StepFailed: if no node answers, or Slurm does not: then nobody knows what jobs need;
        if a node fails.
    """
    with Ssh(cluster, context.runner) as ssh:
        looks, failed = _look(ssh)
        jobs = _jobs(ssh)
        planned = [*plan(looks, jobs, keep=keep, shared=cluster.registry.shared)]
        if not dry:
            planned = _removed(ssh, planned)
    return _result(cluster, planned, silent=_reasons(failed))


def tidy(cluster: Cluster, key: str, context: Context) -> Removed:
    """Remove the versions of one image beyond those that its catalog keeps; see ``prune``.

    What was in place during the last hour stays: jobs may be about to open it.

    :param key: the image as category/name.
    """
    with Ssh(cluster, context.runner) as ssh:
        looks, failed = _look(ssh)
        one = _only(key, looks)
        shared = cluster.registry.shared
        planned = [*plan(one, _jobs(ssh), keep=KEPT_MOST, shared=shared, grace=GRACE_SECONDS)]
        planned = _removed(ssh, planned)
    return _result(cluster, planned, silent=_reasons(failed))


def undeploy(cluster: Cluster, name: str, context: Context, *, dry: bool = False) -> Removed:
    """Remove the name of an image on the chosen nodes, and the versions that nothing needs.

    Files that processes have open or jobs name stay until ``prune``. See ``prune`` for errors.

    :raises UsageError: if there is no such image.
    """
    with Ssh(cluster, context.runner) as ssh:
        found = catalog.asked(ssh)
        catalog.refuse_silent_controller(found)
        image = catalog.find(found, name)
        with records.locked(
            lock_of(cluster, image, context), context, what=f"undeploying {image.name}"
        ):
            looks, failed = _look(ssh)
            jobs = _jobs(ssh)
            shared = cluster.registry.shared
            one = _only(image.key, looks)
            planned = [*_names(image, one, shared=shared)]
            named = [job for job in jobs if naming(job, image.name, ())]
            planned += plan(one, jobs, keep=0, images=[image.key], shared=shared)
            if not dry:
                _remove_names(ssh, image, [item.node for item in planned if item.kind == "name"])
                planned = _removed(ssh, planned)
    return _result(cluster, planned, jobs=named, silent=_reasons(failed))


def plan(
    looks: Looks,
    jobs: Iterable[Mapping[str, Any]],
    *,
    keep: int,
    images: Iterable[str] = (),
    shared: bool = False,
    grace: float = 0,
) -> Iterator[Removal]:
    """Yield what is to be removed from which node; with ``why``, what stays although surplus.

    A version that a process of any node has open stays on all: nodes may share the folder.

    :param images: those whose name goes as well, so that the version in place is surplus.
    :param shared: whether all nodes have one folder, from which one of them removes.
    :param grace: for how many seconds a version stays that another one replaced.
    """
    jobs, gone = [*jobs], {*images}
    users = _users(looks)
    for node, look in [*looks.items()][: 1 if shared else None]:
        for key, held in look["images"].items():
            undeployed = key in gone or not held["name"]
            order = [sha256 for sha256 in held["previous"] if sha256 != held["current"]]
            kept = {*order[: 0 if undeployed else keep]}
            if key not in gone:
                kept.add(held["current"])
            for version in held["versions"]:
                sha256 = version["sha256"]
                if sha256 not in kept:
                    by = [item for item in jobs if naming(item, _name(key), [sha256], undeployed)]
                    why = users.get(sha256, "") or (f"{told(by[0])} names it" if by else "")
                    idle = version.get("idle")
                    if not why and idle is not None and idle < grace:
                        why = f"it was replaced {idle / 60:.0f} minutes ago"
                    yield Removal(
                        node=node,
                        kind="version",
                        image=key,
                        what=sha256,
                        size=version["size"],
                        why=why,
                    )
        for upload in look["uploads"]:
            yield Removal(
                node=node, kind="upload", image="", what=upload["name"], size=upload["size"]
            )


def naming(
    job: Mapping[str, Any], name: str, digests: Iterable[str], by_name: bool = True
) -> bool:
    """Return whether a job names the image by its file, or one of its versions.

    :param by_name: whether the image's name counts: while it leads to a version, that one alone
        is needed for it.
    """
    files = {f"{sha256}.sif" for sha256 in digests} | ({f"{name}.sif"} if by_name else set())
    return any(PurePosixPath(path).name in files for path in job["names"])


def told(job: Mapping[str, Any]) -> str:
    """Return a job in words."""
    return f"job {job['job']} of {job['user']} ({str(job['state']).lower()})"


def _name(key: str) -> str:
    return key.partition("/")[2]


def _users(looks: Looks) -> dict[str, str]:
    """Return by digest which process of which node has a version open."""
    return {
        version["sha256"]: f"{version['users'][0]} on {node} has it open"
        for node, look in looks.items()
        for held in look["images"].values()
        for version in held["versions"]
        if version["users"]
    }


def _look(ssh: Ssh) -> tuple[dict[str, dict[str, Any]], dict[str, SiflineError]]:
    """Return what each chosen node has, and the errors of those that gave no answer.

    :raises StepFailed: if none does; if a node refuses; if the folder may be one that nodes share,
        of which not all have said what they use.
    """
    nodes = ssh.cluster.nodes
    looks, failed = ssh.each(nodes, lambda node: ask_removal(ssh, node, "look"))
    for error in failed.values():
        if isinstance(error, RegistryRefused) or not looks:
            raise error
    asked = {*looks}
    missing = [node.name for node in ssh.cluster.whole if node.name not in asked]
    if ssh.cluster.registry.shared and missing:
        raise StepFailed(
            f"nothing was removed: the nodes share the registry, and {', '.join(missing)} did not"
            " say which files are open there; run it again when all nodes answer"
        )
    return looks, failed


def _jobs(ssh: Ssh) -> list[dict[str, Any]]:
    """Return the jobs that name SIF files.

    :raises StepFailed: if Slurm does not say.
    """
    try:
        return [*ask_removal(ssh, ssh.cluster.controller, "jobs")["jobs"]]
    except SiflineError as error:
        raise StepFailed(
            f"nothing was removed: which files jobs need is unknown: {error.message}",
            details=error.details,
        ) from None


def _only(image: str, looks: Looks) -> dict[str, dict[str, Any]]:
    """Return of each node what it has of one image."""
    return {
        node: {
            "images": {key: held for key, held in look["images"].items() if key == image},
            "uploads": [],
        }
        for node, look in looks.items()
    }


def _names(image: CatalogImage, looks: Looks, *, shared: bool) -> Iterator[Removal]:
    """Yield the names to remove: of nodes that have the link, or an entry without one.

    :raises StepFailed: if a node has a foreign file in the place.
    """
    held = {node: look["images"][image.key] for node, look in looks.items() if look["images"]}
    foreign = [node for node, item in held.items() if item["name"] and not item["current"]]
    if foreign:
        raise StepFailed(
            f"nothing was removed: {image.path} on {', '.join(foreign)} is not a link that a"
            f" deployment made; leave them out with --without {','.join(foreign)}"
        )
    there = [node for node, item in held.items() if item["current"] or item["recorded"]]
    for node in there[: 1 if shared else None]:
        yield Removal(node=node, kind="name", image=image.key, what=str(image.path))


def _remove_names(ssh: Ssh, image: CatalogImage, names: Sequence[str]) -> None:
    meta = json.dumps(by_whom())

    def remove(node: Node) -> dict[str, Any]:
        return ask_removal(
            ssh, node, "undeploy", category=image.category, name=image.name, meta=meta
        )

    _, failed = ssh.each([node for node in ssh.cluster.nodes if node.name in names], remove)
    for error in failed.values():
        error.add("run the same command again for the others")
        raise error


def _removed(ssh: Ssh, planned: Iterable[Removal]) -> list[Removal]:
    """Remove what is planned, and return what each node did; it looks again itself."""
    planned = [*planned]
    wanted = [item for item in planned if item.kind != "name" and not item.why]
    rest = [item for item in planned if item not in wanted]
    nodes = {item.node for item in wanted}

    def remove(node: Node) -> list[Removal]:
        mine = [item for item in wanted if item.node == node.name]
        which = {
            "versions": [[item.image, item.what] for item in mine if item.kind == "version"],
            "uploads": [item.what for item in mine if item.kind == "upload"],
        }
        return [*_done(node.name, ask_removal(ssh, node, "prune", which=json.dumps(which)))]

    done, failed = ssh.each([node for node in ssh.cluster.nodes if node.name in nodes], remove)
    for error in failed.values():
        error.add("run the same command again for the others")
        raise error
    return [*rest, *(item for items in done.values() for item in items)]


def _done(node: str, answer: Mapping[str, Any]) -> Iterator[Removal]:
    for item in (*answer["removed"], *answer["kept"]):
        yield Removal(
            node=node,
            kind="version",
            image=item["image"],
            what=item["sha256"],
            size=item["size"],
            why=item.get("why", ""),
        )
    for item in answer["uploads"]:
        why = "" if item["removed"] else "it is being sent"
        yield Removal(
            node=node, kind="upload", image="", what=item["name"], size=item["size"], why=why
        )


def _reasons(failed: Mapping[str, SiflineError]) -> tuple[tuple[str, str], ...]:
    return tuple((name, error.message) for name, error in failed.items())


def _result(
    cluster: Cluster,
    items: Iterable[Removal],
    *,
    silent: tuple[tuple[str, str], ...],
    jobs: Iterable[Mapping[str, Any]] = (),
) -> Removed:
    items = [*items]
    return Removed(
        cluster=cluster,
        removed=tuple(item for item in items if not item.why),
        kept=tuple(item for item in items if item.why),
        jobs=tuple(map(told, jobs)),
        silent=silent,
    )
