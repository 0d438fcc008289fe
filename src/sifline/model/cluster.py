"""Clusters: their nodes and partitions, and what provision and deploy return."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

from sifline.model.sif import SifFile


class Role(str, Enum):
    """What a node does in its cluster."""

    CONTROLLER = "controller"
    COMPUTE = "compute"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One host of a cluster. ``memory_mb`` is what Slurm may hand out, in MiB."""

    name: str
    role: Role
    address: str = ""
    cpus: int = 1
    memory_mb: int = 1024
    gpus: int = 0
    gpu_type: str = ""


@dataclass(frozen=True, kw_only=True)
class SshAccess:
    """How the nodes of a cluster are reached. ``known_hosts`` None: the user's own file.

    ``become_password`` is what sudo is told where it asks; "" where it must not ask.
    """

    user: str = "root"
    port: int = 22
    identity_file: Path | None = None
    known_hosts: Path | None = None
    become_password: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Partition:
    """A Slurm partition; it spans all compute nodes."""

    name: str
    default: bool = False
    max_time: str = "24:00:00"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Slurm cluster: its hosts and how to reach them."""

    name: str
    nodes: tuple[Node, ...]
    ssh: SshAccess
    partitions: tuple[Partition, ...]
    source: Path
    job_user: str = ""
    registry_root: PurePosixPath = PurePosixPath("/opt/containers")
    variables: tuple[tuple[str, Any], ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    asked: str = field(default="", compare=False)

    @property
    def flag(self) -> str:
        """How the user names this cluster on a command line: the next command does the same."""
        return f"--cluster {shlex.quote(self.asked or self.name)}"

    @property
    def controller(self) -> Node:
        """The one node that runs slurmctld."""
        return next(node for node in self.nodes if node.role is Role.CONTROLLER)

    @property
    def compute(self) -> tuple[Node, ...]:
        """The nodes that run slurmd, in the order of the file."""
        return tuple(node for node in self.nodes if node.role is Role.COMPUTE)


@dataclass(frozen=True, kw_only=True)
class ProvisionedCluster:
    """A cluster whose nodes can take SIFs in: it was provisioned, or looked at by ``inspect``.

    ``changed`` counts the tasks of Ansible that changed something. ``kept`` is where files of
    others are that were replaced, as ``host:path``.
    """

    cluster: Cluster
    changed: int = 0
    ok: int = 0
    seconds: float = 0.0
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A SIF on one node, verified there. ``sent`` is False where the node held it already."""

    node: str
    path: PurePosixPath
    sha256: str
    sent: bool


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A SIF on every node of a cluster."""

    sif: SifFile
    cluster: Cluster
    path: PurePosixPath
    placements: tuple[Placement, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """One node of a virtual cluster, as the engine sees it; which checkout brought it up."""

    node: str
    role: str
    address: str
    state: str
    checkout: str = ""


@dataclass(frozen=True, kw_only=True)
class StandingCluster:
    """A virtual cluster of the engine: its nodes, how many run, and the checkout that made it."""

    name: str
    nodes: int
    running: int
    checkout: str


@dataclass(frozen=True, kw_only=True)
class ListedCluster:
    """A cluster by its name: the file that describes it, and what stands of it, if any."""

    name: str
    file: Path | None
    standing: StandingCluster | None
