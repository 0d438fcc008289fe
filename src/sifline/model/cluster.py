"""Clusters: their nodes and SSH access, as cluster files declare them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

from sifline.model.accounting import Accounting
from sifline.model.gpus import DETECTED, TYPED, GpuDevices
from sifline.model.partition import Partition
from sifline.model.patterns import ADDRESS, GRES_TYPE, HOST_NAME, USER
from sifline.model.registry import Registry

if TYPE_CHECKING:
    from sifline.fields.keys import Key, Keys, Named, Rows
    from sifline.fields.kinds import Anything, Choice, File, Several, Text, Whole

_VARIABLE = "[A-Za-z_][A-Za-z0-9_]*"
_REGISTRY = Registry()
_FEATURE = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"


def _folder(text: str) -> PurePosixPath:
    """Return an absolute folder; POSIX leaves open what two slashes at the beginning mean."""
    return PurePosixPath(f"/{text.lstrip('/')}")


class Role(str, Enum):
    """What a node does in its cluster."""

    CONTROLLER = "controller"
    COMPUTE = "compute"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One host of a cluster. ``memory_mb`` is the memory that Slurm may use, in MiB."""

    name: Annotated[
        str,
        Key(
            kind=Text(what="a host name", pattern=HOST_NAME, called="node name"),
            help="The host name that the host itself reports; also its NodeName in Slurm.",
            example="compute-01",
        ),
    ]
    role: Annotated[
        Role,
        Key(
            kind=Choice(words=tuple(Role), to=Role),
            help="What it runs: slurmctld on the `controller`, jobs on `compute`.",
            example="compute",
        ),
    ]
    address: Annotated[
        str,
        Key(
            kind=Text(
                what="a host name or IP address",
                pattern=f"(?:{ADDRESS})?",
                called="address",
            ),
            help="Address to connect to; default: its name.",
            example="192.0.2.11",
        ),
    ] = ""
    cpus: Annotated[
        int,
        Key(kind=Whole(least=1, most=65533), help="Number of CPUs for Slurm.", example=8),
    ] = 1
    memory_mb: Annotated[
        int,
        Key(
            kind=Whole(least=1, most=2**40),
            help="Memory for Slurm, in MiB.",
            example=15000,
        ),
    ] = 1024
    gpus: Annotated[int, Key(kind=Whole(least=0, most=64), help="Its GPUs.", example=2)] = 0
    gpu_type: Annotated[
        str,
        Key(
            kind=Text(what=TYPED, pattern=f"(?:{GRES_TYPE})?", called="gpu_type"),
            help="GRES type of these GPUs, by which jobs can ask for them.",
            example="a100",
        ),
    ] = ""
    gpu_devices: Annotated[
        tuple[GpuDevices, ...],
        Key(
            kind=Rows(of=GpuDevices),
            help="Instead of `gpus` and `gpu_type`: its GPUs by type. Default: /dev/nvidia0"
            " and on.",
            default=(),
        ),
    ] = ()
    gpu_detect: Annotated[
        str,
        Key(
            kind=Choice(words=DETECTED),
            help="How slurmd finds their device files (AutoDetect of gres.conf); `off`: as"
            " described here.",
            example="nvml",
        ),
    ] = "off"
    gpu_shards: Annotated[
        int,
        Key(
            kind=Whole(least=0, most=4096),
            help="Shares of its GPUs that jobs can ask for (`--gres=shard:1`), a multiple of the"
            " number of GPUs; 0: each GPU has one job.",
            example=8,
        ),
    ] = 0
    features: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(
                item=Text(what="letters, digits, -, _ and .", pattern=_FEATURE, called="feature")
            ),
            help="What jobs can ask for (`sbatch --constraint=ib`; Feature of slurm.conf).",
            example=["a100", "ib"],
        ),
    ] = ()
    gpu_mps: Annotated[
        int,
        Key(
            kind=Whole(least=0, most=6400),
            help="The same for CUDA's multi-process service (`--gres=mps:50`), usually 100 for"
            " each GPU.",
            example=200,
        ),
    ] = 0


@dataclass(frozen=True, kw_only=True)
class SshAccess:
    """How to log in to the nodes of a cluster. ``known_hosts`` None: the user's own file.

    ``become_password`` is the password for sudo; "" if sudo must not ask for one.
    """

    user: Annotated[
        str,
        Key(
            kind=Text(what="a user name", pattern=USER, called="ssh user"),
            help="User who logs in.",
            example="admin",
        ),
    ] = "root"
    port: Annotated[
        int, Key(kind=Whole(least=1, most=65535), help="Port of sshd.", example=2222)
    ] = 22
    identity_file: Annotated[
        Path | None,
        Key(
            kind=File(),
            help="Private key; default: the keys that ssh finds. Relative paths start at this"
            " file's folder.",
            example="~/.ssh/id_ed25519",
        ),
    ] = None
    known_hosts: Annotated[
        Path | None,
        Key(
            kind=File(),
            help="Known host keys; default: your own known_hosts file. A host with an unknown"
            " key is refused.",
            example="known_hosts",
        ),
    ] = None
    become_password: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Slurm cluster: its hosts and how to reach them.

    ``nodes`` are those that a verb acts on: all of them, unless the user chose some. Then the
    others are ``left_out``, and ``order`` has the names of all as the file has them.
    """

    name: Annotated[
        str,
        Key(
            kind=Text(
                what="letters, digits and inner -", pattern=HOST_NAME, called="cluster name"
            ),
            help="Name of the cluster; default: the name of the file.",
            example="hpc",
            default="",
        ),
    ]
    nodes: Annotated[
        tuple[Node, ...],
        Key(
            kind=Rows(of=Node),
            help="Its hosts: one `controller`, and at least one `compute`.",
            default=(),
        ),
    ]
    ssh: Annotated[
        SshAccess,
        Key(kind=Keys(of=SshAccess), help="How to log in to the nodes.", default=SshAccess()),
    ]
    partitions: Annotated[
        tuple[Partition, ...],
        Key(
            kind=Rows(of=Partition),
            help="Slurm partitions. Default: one named `main`, of all compute nodes.",
            default=(),
        ),
    ]
    source: Path
    job_user: Annotated[
        str,
        Key(
            kind=Text(what="a user name", pattern=f"(?:{USER})?", called="job_user"),
            help="Ordinary user that `validate` submits jobs as; default: the user of `ssh`.",
            example="alice",
        ),
    ] = ""
    registry_root: Annotated[
        PurePosixPath,
        Key(
            kind=Text(
                what="an absolute folder, plain",
                pattern=r"(?:/+(?!\.\.(?:/|$))[A-Za-z0-9_.-]+)+/*",
                called="registry_root",
                to=_folder,
            ),
            help="Folder of the SIFs on every node.",
            example="/srv/containers",
        ),
    ] = PurePosixPath("/opt/containers")
    registry: Annotated[
        Registry,
        Key(
            kind=Keys(of=Registry),
            help="The registry of images: who deploys, folders of users, shared storage.",
        ),
    ] = _REGISTRY
    accounting: Annotated[
        Accounting | None,
        Key(
            kind=Keys(of=Accounting),
            help="Record jobs in a database: `sacct`, accounts, limits. Default: none.",
        ),
    ] = None
    variables: Annotated[
        tuple[tuple[str, Any], ...],
        Key(
            kind=Named(
                entries=((Text(what="letters, digits and _", pattern=_VARIABLE), Anything()),),
                what="a table of Ansible variables",
                variables="Ansible",
            ),
            help="Ansible variables; they override the defaults of the roles.",
            example={"slurm_common_extra": ["DebugFlags=Gres"]},
        ),
    ] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    asked: str = field(default="", compare=False)
    left_out: tuple[Node, ...] = ()
    order: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """Return the cluster as the user named it, for --cluster in suggested commands."""
        return f"--cluster {shlex.quote(self.asked or self.name)}"

    @property
    def whole(self) -> tuple[Node, ...]:
        """All of its nodes, chosen or not, in the order of the file."""
        if not self.left_out:
            return self.nodes
        every = {node.name: node for node in (*self.nodes, *self.left_out)}
        # Another order would be another slurm.conf.
        names = dict.fromkeys((*(name for name in self.order if name in every), *every))
        return tuple(every[name] for name in names)

    @property
    def controller(self) -> Node:
        """Return the one node that runs slurmctld, chosen or not."""
        return next(node for node in self.whole if node.role is Role.CONTROLLER)

    @property
    def compute(self) -> tuple[Node, ...]:
        """Return the chosen nodes that run slurmd, in the order of the file."""
        return tuple(node for node in self.nodes if node.role is Role.COMPUTE)
