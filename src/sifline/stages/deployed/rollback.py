"""Rollback: puts an earlier version of an image in place on all nodes that hold its file.

All nodes are asked first, and each reads the file in full; then all switch. Nothing is sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sifline.engines.registry import Registries, token_of
from sifline.engines.registry.lease import Lease
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import SiflineError, StepFailed
from sifline.formats import times
from sifline.machine import records
from sifline.machine.caller import caller
from sifline.machine.context import Context
from sifline.model import Cluster, Node
from sifline.model.catalog import Catalog, CatalogImage, RolledBack, Version
from sifline.nodeside.registry import KEPT_MOST
from sifline.stages.deployed import catalog, versions

KEEP, SWITCH = "keep", "switch"


def rollback(
    cluster: Cluster, name: str, context: Context, *, to: str = "", dry: bool = False
) -> RolledBack:
    """Put a version of the image ``name`` in place on the chosen nodes of ``cluster``.

    Nodes that do not answer are named, and stay behind. Jobs that run keep the file they opened.

    :param to: the beginning of a digest, a fingerprint or a commit; "" for the version before.
    :param dry: ask the nodes and have them read the file, but switch none.
    :raises UsageError: if there is no such image or version.
    :raises StepFailed: before any node switched, if one lacks the version or its copy is damaged;
        at the end, if a node failed to switch.
    """
    with Ssh(cluster, context.runner) as ssh:
        found = catalog.asked(ssh)
        catalog.refuse_silent_controller(found)
        image = catalog.find(found, name)
        with records.locked(
            lock_of(cluster, image, context), context, what=f"the rollback of {image.name}"
        ):
            version = versions.chosen(image, to, cluster)
            work = _Work(ssh, image, version, context)
            return work.carried_out(found, dry=dry)


def lock_of(cluster: Cluster, image: CatalogImage, context: Context) -> Any:
    """Return the lock file that deployments of this checkout to that name take as well."""
    name = f"deploy-{cluster.name}-{image.category}-{image.name}"
    return context.workspace.build / "locks" / name


def by_whom() -> dict[str, str]:
    """Return who does something now, and when, for the catalogs of nodes."""
    return {
        "when": times.iso(time.time()),
        "who": caller(),
    }


class _Work:
    """Puts one version of one image in place."""

    def __init__(self, ssh: Ssh, image: CatalogImage, version: Version, context: Context) -> None:
        self._ssh, self._image, self._version = ssh, image, version
        self._registries = Registries(ssh)
        self._progress = context.progress
        self._token = token_of(context.workspace.root)

    def carried_out(self, found: Catalog, *, dry: bool) -> RolledBack:
        silent = dict(found.silent)
        nodes = [node for node in self._ssh.cluster.nodes if node.name not in silent]
        current = self._image.current
        behind = {item.node for item in self._image.behind}
        same = current is not None and current.sha256 == self._version.sha256
        actions = {
            node.name: KEEP if same and node.name not in behind else SWITCH for node in nodes
        }
        switching = [node for node in nodes if actions[node.name] == SWITCH]
        read, failed = self._ssh.each(switching, self._verify)
        self._refuse(read, failed)
        if not dry:
            fences = [answer["fence"] for answer in read.values()]
            self._switch_all(switching, above=max(fences, default=0))
        return RolledBack(
            image=self._image,
            cluster=self._ssh.cluster,
            version=self._version,
            actions=tuple(actions.items()),
            silent=found.silent,
        )

    def _verify(self, node: Node) -> dict[str, Any]:
        self._progress(f"{node.name}: reading {versions.short(self._version.sha256)}")
        return self._ask(node, "verify")

    def _refuse(
        self, answers: Mapping[str, Mapping[str, Any]], failed: Mapping[str, SiflineError]
    ) -> None:
        """Raise an error if a node cannot switch."""
        lacking = [name for name, answer in answers.items() if not answer["there"]]
        damaged = [
            name for name, answer in answers.items() if answer["there"] and not answer["held"]
        ]
        digest = f"{self._image.name} {versions.short(self._version.sha256)}"
        told = [f"{versions.names(lacking)}: no file of {digest}"] if lacking else []
        told += [f"{versions.names(damaged)}: the file of {digest} is damaged"] if damaged else []
        told += [error.message for error in failed.values()]
        if told:
            nodes = ",".join((*lacking, *damaged, *failed))
            raise StepFailed(
                f"no node was switched: {'; '.join(told)}; leave them out with --without {nodes},"
                " or deploy that version again"
            )

    def _switch_all(self, nodes: list[Node], *, above: int) -> None:
        known = asdict(self._version)
        kept = ("image_digest", "fingerprint", "commit", "tests")
        who = by_whom()
        meta = {**{name: known[name] for name in kept}, **who, "event": "rolled back"}
        if self._version.signed is not None:
            meta["signed"] = "yes" if self._version.signed else "no"
        image, controller = self._image, self._ssh.cluster.controller
        with Lease(
            self._registries,
            controller,
            category=image.category,
            name=image.name,
            token=self._token,
            who=who["who"],
            above=above,
            progress=self._progress,
        ) as lease:
            staged, failed = self._ssh.each(
                nodes, lambda node: self._ask(node, "stage", number=lease.number)
            )
            self._refuse({}, failed)
            text = json.dumps({**meta, "when": lease.renewed()})

            def switch(node: Node) -> None:
                # What is surplus is for a deployment to remove, or for prune.
                self._ask(
                    node,
                    "switch",
                    staged=staged[node.name]["staged"],
                    number=lease.number,
                    meta=text,
                    keep=KEPT_MOST,
                )
                self._progress(f"{node.name}: switched to {versions.short(self._version.sha256)}")

            _, failed = self._ssh.each(nodes, switch)
        if failed:
            raise StepFailed(
                f"{self._image.name}: {versions.names(failed)} did not switch:"
                f" {next(iter(failed.values())).message}; run the same command again",
                details="\n".join(error.message for error in failed.values()),
            )

    def _ask(self, node: Node, verb: str, **options: str | int) -> dict[str, Any]:
        return self._registries.ask(
            node,
            verb,
            category=self._image.category,
            name=self._image.name,
            sha256=self._version.sha256,
            token=self._token,
            **options,
        )
