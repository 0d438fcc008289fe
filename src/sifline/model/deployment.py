"""Clusters in use: what provision, deploy and the lists of clusters return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path, PurePosixPath

    from sifline.model.cluster import Cluster
    from sifline.model.sif import SifFile


@dataclass(frozen=True, kw_only=True)
class AffectedJob:
    """A job that feels a change of its cluster.

    ``where`` is the node or the partition that changes, ``why`` how; ``becomes`` is "fails",
    "queued again" or "stays queued". ``state`` is Slurm's word.
    """

    id: str
    user: str
    state: str
    where: str
    why: str
    becomes: str


@dataclass(frozen=True, kw_only=True)
class ProvisionedCluster:
    """A cluster whose nodes have registries: it was provisioned, or checked by ``inspect``.

    ``changed`` counts the Ansible tasks that changed something; ``changes`` are their words, each
    with the hosts. ``kept`` names the backups of files that were replaced, as ``host:path``.
    ``diffs`` are changes of files, each with the hosts that have it. ``jobs`` felt the changes, or
    would. ``notes`` are what a person must know or do.
    """

    cluster: Cluster
    changed: int = 0
    changes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    ok: int = 0
    seconds: float = 0.0
    kept: tuple[str, ...] = ()
    diffs: tuple[tuple[tuple[str, ...], str], ...] = ()
    jobs: tuple[AffectedJob, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A verified SIF on one node. ``sent`` is False if the node had it already.

    ``note`` says why the node has no module of it; "" if it has, or if the SIF asks for none.
    ``surplus`` says whether the node has more versions than are to be kept.
    """

    node: str
    path: PurePosixPath
    sha256: str
    sent: bool
    note: str = ""
    surplus: bool = False


@dataclass(frozen=True, kw_only=True)
class Unreached:
    """A node that did not answer, and so did not get a SIF; ``why`` is the error."""

    node: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A SIF on every node of a cluster, except those left out, and those that are ``behind``."""

    sif: SifFile
    cluster: Cluster
    path: PurePosixPath
    placements: tuple[Placement, ...]
    seconds: float
    behind: tuple[Unreached, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """One container of a virtual cluster, its faults, and the checkout that created it."""

    node: str
    role: str
    address: str
    state: str
    checkout: str = ""
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FaultChange:
    """What was done, or would be, with a fault of a node, and how the node behaves then.

    ``action`` is "set", "set already", "undone" or "not set".
    """

    node: str
    fault: str
    action: str
    details: str = ""


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """How many compute nodes a virtual cluster has, and which were added and removed for that.

    ``jobs`` are those that were running on removed nodes, in words.
    """

    name: str
    compute: int
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StandingCluster:
    """A virtual cluster of the engine: its nodes, how many run, and its checkout."""

    name: str
    nodes: int
    running: int
    checkout: str


@dataclass(frozen=True, kw_only=True)
class ListedCluster:
    """A cluster by name: the file that describes it, and its running containers, if any."""

    name: str
    file: Path | None
    standing: StandingCluster | None
