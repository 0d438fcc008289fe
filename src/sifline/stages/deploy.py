"""Deploy: copies a verified SIF to every node of a cluster and puts it in place.

Every run asks every node first: nothing is sent to a node that already has the digest. A node
trusts its recorded digest while the file's size, inode and times are those of the record;
otherwise it reads the file again, so a damaged copy is replaced.

One module, because the dry run and the deployment decide from the same survey of the nodes.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

from sifline.engines.registry import Registries, RegistryRefused
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import SiflineError, StepFailed, UsageError
from sifline.formats.sif import read as read_sif
from sifline.machine import records
from sifline.machine.context import Context
from sifline.machine.streams import OnLine
from sifline.model import (
    Cluster,
    Deployment,
    Node,
    Placement,
    ProvisionedCluster,
    Run,
    SifFile,
    TestedSif,
)
from sifline.model.units import size_text
from sifline.nodeside.registry import CATEGORIES, KEPT, NAME, RESERVE


class Action(str, Enum):
    """What must be done on a node so that the SIF is in place."""

    KEEP = "keep"
    SWITCH = "switch"
    SEND = "send"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A node's answer about one image. Sizes in bytes."""

    node: str
    current: str | None
    settled: bool
    held: bool
    upload: PurePosixPath
    uploaded: int
    free: int
    told: Mapping[str, str] = field(default_factory=dict)
    offered: bool = True


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


def deploy(
    tested: TestedSif, provisioned: ProvisionedCluster, context: Context, *, keep: int = KEPT
) -> Deployment:
    """Put a SIF on the chosen nodes of a cluster; keep ``keep`` earlier versions there.

    Nodes that do not answer do not stop the others. Nodes that are left out are not asked, and
    keep what they hold.

    :raises UsageError: if the file is not a complete SIF, or its name is invalid.
    :raises StepFailed: before anything is sent, if a registry is missing or a disk is too full; at
        the end, if some nodes could not be reached or did not get the file.
    """
    started = time.monotonic()
    sif, cluster = tested.sif, provisioned.cluster
    check(sif)
    lock = context.workspace.build / "locks" / f"deploy-{cluster.name}-{sif.category}-{sif.name}"
    what = f"the deployment of {sif.name} to {cluster.name}"
    with records.locked(lock, context, what=what), Ssh(cluster, context.runner) as ssh:
        work = _Work(tested, cluster, context, ssh, keep)
        surveys, failed = ssh.each(cluster.nodes, work.survey)
        refuse(sif, cluster, surveys, failed)
        reached = [node for node in cluster.nodes if node.name in surveys]
        placements, broken = ssh.each(reached, lambda node: work.place(node, surveys[node.name]))
    if failed or broken:
        raise incomplete(sif, cluster, {**failed, **broken})
    return Deployment(
        sif=sif,
        cluster=cluster,
        path=path_of(sif, cluster),
        placements=tuple(placements[node.name] for node in cluster.nodes),
        seconds=time.monotonic() - started,
    )


def survey(
    tested: TestedSif, provisioned: ProvisionedCluster, context: Context
) -> Mapping[str, Action]:
    """Return by node what a deployment of the SIF would do there; nothing is sent.

    :raises StepFailed: if a deployment would fail before it sends anything, or if a node does not
        answer.
    """
    sif, cluster = tested.sif, provisioned.cluster
    check(sif)
    with Ssh(cluster, context.runner) as ssh:
        work = _Work(tested, cluster, context, ssh, KEPT)
        surveys, failed = ssh.each(cluster.nodes, work.look)
    refuse(sif, cluster, surveys, failed)
    for error in failed.values():
        raise error
    return {node.name: decide(sif.sha256, surveys[node.name]) for node in cluster.nodes}


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


def path_of(sif: SifFile, cluster: Cluster) -> PurePosixPath:
    """Return the path at which jobs find the image on every node."""
    return cluster.registry_root / sif.category / f"{sif.name}.sif"


def decide(sha256: str, survey: Survey) -> Action:
    """Return what must be done on the node."""
    if survey.current == sha256 and survey.settled:
        return Action.KEEP
    return Action.SWITCH if survey.held else Action.SEND


def shortage(sif: SifFile, survey: Survey) -> int:
    """Return how many bytes of space the node lacks for the file; 0 or less if it fits."""
    if decide(sif.sha256, survey) is not Action.SEND:
        return 0
    return sif.size - survey.uploaded + RESERVE - survey.free


def refuse(
    sif: SifFile,
    cluster: Cluster,
    surveys: Mapping[str, Survey],
    failed: Mapping[str, SiflineError],
) -> None:
    """Raise an error before sending if a registry is missing, a disk full, or no node answers."""
    for error in failed.values():
        if isinstance(error, RegistryRefused):
            raise error
    full = [survey for survey in surveys.values() if shortage(sif, survey) > 0]
    if full:
        figures = ", ".join(f"{survey.node} has {size_text(survey.free)}" for survey in full)
        raise StepFailed(
            f"{sif.name} needs {size_text(sif.size + RESERVE)} free below "
            f"{cluster.registry_root}: {figures}; make room there and deploy again"
        )
    if not surveys:
        raise incomplete(sif, cluster, failed)


def incomplete(sif: SifFile, cluster: Cluster, errors: Mapping[str, SiflineError]) -> StepFailed:
    """Return the error that names the nodes without the file."""
    done = len(cluster.nodes) - len(errors)
    chosen = "chosen " if cluster.left_out else ""
    first = next(iter(errors.values()))
    others = f" (and {', '.join(list(errors)[1:])})" if len(errors) > 1 else ""
    lines = [line for error in errors.values() for line in (error.message, error.details) if line]
    return StepFailed(
        f"{sif.name} is on {done} of {len(cluster.nodes)} {chosen}nodes of {cluster.name}: "
        f"{first.message}{others}; then deploy again",
        details="\n".join(lines),
    )


class _Work:
    """Deploys one SIF to one node at a time."""

    def __init__(
        self, tested: TestedSif, cluster: Cluster, context: Context, ssh: Ssh, keep: int
    ) -> None:
        self._sif = sif = tested.sif
        self._path = path_of(sif, cluster)
        self._registries = Registries(ssh)
        self._progress = context.progress
        self._keep = keep
        # An interrupted upload is continued by the same checkout only: two senders never write to
        # one file.
        sender = f"{socket.gethostname()}:{os.getuid()}:{context.workspace.root}"
        self._token = hashlib.sha256(sender.encode()).hexdigest()[:12]
        # What may be new of a file that is in place already.
        self._told = {"tests": tested.tests, "module": sif.module, "run": run_text(sif.run)}
        self._meta = json.dumps(
            {
                "when": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                "who": f"{getpass.getuser()}@{socket.gethostname()}",
                "image_digest": sif.image_digest,
                "fingerprint": sif.fingerprint,
                "commit": sif.commit,
                **self._told,
            }
        )

    def look(self, node: Node) -> Survey:
        """Return the node's answer, without making room on the node for an upload."""
        return self.survey(node, look="yes")

    def survey(self, node: Node, *, look: str = "no") -> Survey:
        answer = self._ask(node, "status", look=look)
        return Survey(
            node=node.name,
            current=answer["current"],
            settled=answer["settled"],
            held=answer["held"],
            upload=PurePosixPath(answer["upload"]),
            uploaded=answer["uploaded"],
            free=answer["free"],
            told=answer["told"],
            offered=answer["offered"],
        )

    def place(self, node: Node, survey: Survey) -> Placement:
        action = decide(self._sif.sha256, survey)
        if action is Action.SEND:
            self._progress(f"{node.name}: sending {size_text(self._sif.size)}")
            self._registries.send(
                node,
                self._sif.path,
                survey.upload,
                on_line=percents(node.name, self._progress),
            )
        answer: Mapping[str, Any] = {}
        if action is Action.KEEP:
            if survey.told != self._told or not survey.offered:
                answer = self._ask(node, "note", meta=self._meta)
            self._progress(f"{node.name}: {self._sif.name} is in place")
        else:
            answer = self._ask(node, "install", meta=self._meta, keep=self._keep)
            self._progress(f"{node.name}: {self._sif.name} verified and in place")
        return Placement(
            node=node.name,
            path=self._path,
            sha256=self._sif.sha256,
            sent=action is Action.SEND,
            note=answer.get("module", ""),
        )

    def _ask(self, node: Node, verb: str, **options: str | int) -> dict[str, Any]:
        return self._registries.ask(
            node,
            verb,
            category=self._sif.category,
            name=self._sif.name,
            sha256=self._sif.sha256,
            token=self._token,
            **options,
        )


def run_text(run: Run) -> str:
    """Return default options of a container as JSON, for the catalog; "" if there are none."""
    given = {key: value for key, value in asdict(run).items() if value}
    return json.dumps(given, sort_keys=True) if given else ""


def percents(node: str, progress: OnLine) -> OnLine:
    """Return a reader of rsync's progress lines that reports every tenth percent."""
    told = 0

    def read(line: str) -> None:
        nonlocal told
        found = re.search(r"(\d+)%", line)
        if found and told + 10 <= int(found[1]) < 100:  # noqa: PLR2004
            told = int(found[1])
            progress(f"{node}: {told} % sent")

    return read


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
