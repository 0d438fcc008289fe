"""Deploy: copies a verified SIF to every node of a cluster and puts it in place.

Every run asks every node first: nothing is sent to a node that already has the digest. A node
trusts its recorded digest while the file's size, inode and times are those of the record;
otherwise it reads the file again, so a damaged copy is replaced.

A deployment is one transaction over the nodes that answer: the file is staged and verified on all
of them, and only then do all switch to it. One deployment of an image runs at a time, by a lease
on the controller.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sifline.engines.registry.lease import Lease
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import SiflineError, StepFailed, UsageError
from sifline.formats.sif import read as read_sif
from sifline.machine import records
from sifline.machine.context import Context
from sifline.model import (
    Cluster,
    Deployment,
    Node,
    Placement,
    ProvisionedCluster,
    SifFile,
    TestedSif,
    Unreached,
)
from sifline.model.units import size_text
from sifline.nodeside.registry import CATEGORIES, KEPT, NAME
from sifline.stages.deploy.nodes import Nodes, percents
from sifline.stages.deploy.surveys import (
    Action,
    Survey,
    apart,
    decide,
    none_answers,
    path_of,
    refuse,
    shortage,
    without,
)

__all__ = [
    "Action",
    "Survey",
    "check",
    "decide",
    "deploy",
    "path_of",
    "percents",
    "shortage",
    "survey",
]


def deploy(
    tested: TestedSif,
    provisioned: ProvisionedCluster,
    context: Context,
    *,
    keep: int = KEPT,
    require_all: bool = False,
    foreign: bool = False,
    override: str = "",
) -> Deployment:
    """Put a SIF on the chosen nodes of a cluster; keep ``keep`` earlier versions there.

    Nodes that do not answer are left behind, and named in the result. Nodes that are left out are
    not asked, and keep what they hold.

    :param require_all: raise an error, before anything is sent, if a node does not answer.
    :param foreign: replace a file in the image's place that is not sifline's.
    :param override: why it is deployed although it may not work there, for the catalog.
    :raises UsageError: if the file is not a complete SIF, or its name is invalid.
    :raises StepFailed: before any node switches: if a registry is missing, a disk is too full, a
        copy is wrong, or somebody else deploys the image; at the end, if a node that answers did
        not switch.
    """
    started = time.monotonic()
    sif, cluster = tested.sif, provisioned.cluster
    check(sif)
    lock = context.workspace.build / "locks" / f"deploy-{cluster.name}-{sif.category}-{sif.name}"
    what = f"the deployment of {sif.name} to {cluster.name}"
    with records.locked(lock, context, what=what), Ssh(cluster, context.runner) as ssh:
        nodes = Nodes(tested, cluster, context, ssh, keep=keep, foreign=foreign, override=override)
        surveys, failed = ssh.each(cluster.nodes, nodes.survey)
        behind = answering(sif, cluster, surveys, failed)
        refuse(sif, cluster, surveys, foreign=foreign)
        if behind and require_all:
            raise not_all(sif, cluster, behind)
        work = _Transaction(sif, cluster, ssh, nodes, surveys)
        if all(map(nodes.is_done, surveys.values())):
            placed = {name: nodes.placement(work.node(name), sent=False) for name in surveys}
        else:
            placed, lost = work.run(context)
            behind |= lost
    return Deployment(
        sif=sif,
        cluster=cluster,
        path=path_of(sif, cluster),
        placements=tuple(placed[node.name] for node in cluster.nodes if node.name in placed),
        behind=tuple(Unreached(node=name, why=behind[name].message) for name in behind),
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True)
class _Transaction:
    """Stages a SIF on all nodes that answered, and then switches all."""

    sif: SifFile
    cluster: Cluster
    ssh: Ssh
    nodes: Nodes
    surveys: Mapping[str, Survey]

    def node(self, name: str) -> Node:
        return next(node for node in self.cluster.nodes if node.name == name)

    def run(self, context: Context) -> tuple[dict[str, Placement], dict[str, SiflineError]]:
        """Return the placements, and the errors of nodes that were lost on the way."""
        asked = [self.node(name) for name in self.surveys]
        fences = [survey.fence for survey in self.surveys.values()]
        with Lease(
            self.nodes.registries,
            self.cluster.controller,
            category=self.sif.category,
            name=self.sif.name,
            token=self.nodes.token,
            who=self.nodes.who,
            above=max(fences),
            progress=context.progress,
        ) as lease:
            staged, lost = self._stage(asked, lease.number)
            when = lease.renewed()
            # Jobs choose a version by its time: all nodes say that of those which have it already.
            when = min([*self._times(), when])
            ready = [node for node in asked if node.name in staged]
            placed, failed = self.ssh.each(
                ready,
                lambda node: self.nodes.switch(
                    node,
                    self.surveys[node.name],
                    staged=staged[node.name],
                    number=lease.number,
                    when=when,
                ),
            )
        if apart(failed)[1]:
            raise partly(self.sif, self.cluster, placed, failed)
        return placed, {**lost, **failed}

    def _times(self) -> list[str]:
        """Return when the nodes that use this version got it."""
        same = [item for item in self.surveys.values() if item.current == self.sif.sha256]
        return [item.when for item in same if item.when]

    def _stage(
        self, asked: Sequence[Node], number: int
    ) -> tuple[dict[str, str], dict[str, SiflineError]]:
        """Stage on all nodes; return what each said, and errors of nodes that were lost.

        :raises StepFailed: if a node that answers could not; then no node switches.
        """
        staged, failed = self.ssh.each(
            asked, lambda node: self.nodes.stage(node, self.surveys[node.name], number)
        )
        return staged, answering(self.sif, self.cluster, staged, failed)


def survey(
    tested: TestedSif,
    provisioned: ProvisionedCluster,
    context: Context,
    *,
    foreign: bool = False,
) -> Mapping[str, Action]:
    """Return by node what a deployment of the SIF would do there; nothing is sent.

    Nodes that do not answer are left out of the answer.

    :raises StepFailed: if a deployment would fail before it sends anything.
    """
    sif, cluster = tested.sif, provisioned.cluster
    check(sif)
    with Ssh(cluster, context.runner) as ssh:
        nodes = Nodes(tested, cluster, context, ssh, keep=KEPT, foreign=foreign)
        surveys, failed = ssh.each(cluster.nodes, nodes.look)
    answering(sif, cluster, surveys, failed)
    refuse(sif, cluster, surveys, foreign=foreign)
    return {
        node.name: decide(sif.sha256, surveys[node.name])
        for node in cluster.nodes
        if node.name in surveys
    }


def answering(
    sif: SifFile,
    cluster: Cluster,
    done: Mapping[str, object],
    failed: Mapping[str, SiflineError],
) -> dict[str, SiflineError]:
    """Return the errors of nodes that do not answer: they stay behind.

    :raises StepFailed: if a node that answers failed, or if none answers; then none switches.
    """
    away, refused = apart(failed)
    if refused:
        raise unstaged(sif, cluster, refused)
    if not done:
        raise none_answers(sif, cluster, away)
    return away


def not_all(sif: SifFile, cluster: Cluster, behind: Mapping[str, SiflineError]) -> StepFailed:
    """Return the error of ``--require all`` where nodes do not answer."""
    first = next(iter(behind.values()))
    others = f" (and {', '.join(list(behind)[1:])})" if len(behind) > 1 else ""
    return StepFailed(
        f"{sif.name} was sent to no node of {cluster.name}, as --require all asks: "
        f"{first.message}{others}",
        details=_details(behind),
    )


def unstaged(sif: SifFile, cluster: Cluster, refused: Mapping[str, SiflineError]) -> StepFailed:
    """Return the error of a node that could not take the file: no node was switched."""
    first = next(iter(refused.values()))
    others = f" (and {', '.join(list(refused)[1:])})" if len(refused) > 1 else ""
    again = without(",".join(refused), cluster)
    return StepFailed(
        f"{sif.name}: no node of {cluster.name} was switched: {first.message}{others}; mend it and"
        f" deploy again, or {again}",
        details=_details(refused),
    )


def partly(
    sif: SifFile,
    cluster: Cluster,
    placed: Mapping[str, Placement],
    failed: Mapping[str, SiflineError],
) -> StepFailed:
    """Return the error of nodes that did not switch although they had the file."""
    first = next(iter(apart(failed)[1].values()))
    return StepFailed(
        f"{sif.name}: {len(placed)} of {len(cluster.nodes)} nodes of {cluster.name} were switched,"
        f" and not {', '.join(failed)}: {first.message}; then deploy again",
        details=_details(failed),
    )


def _details(errors: Mapping[str, SiflineError]) -> str:
    return "\n".join(
        line for error in errors.values() for line in (error.message, error.details) if line
    )


def check(sif: SifFile) -> None:
    """Raise an error for an invalid name, or a file that is not a complete SIF."""
    if not NAME.fullmatch(sif.name):
        raise UsageError(
            f"{sif.name!r} cannot be the name of a deployed image: it may hold letters, "
            "digits and . _ + - only"
        )
    if sif.category not in CATEGORIES:
        raise UsageError(
            f"{sif.name}: category {sif.category!r} is not one of {', '.join(CATEGORIES)}"
        )
    if read_sif(sif.path).size != sif.size:
        raise UsageError(
            f"{sif.path} is not the file of {size_text(sif.size)} that was converted; "
            f"run: invoke convert.{sif.name}"
        )
