"""The frozen values that travel from stage to stage.

Sizes are in bytes, memory of nodes in MiB, durations in seconds. Digests are lower-case
hexadecimal SHA-256 without a prefix, except an engine's image id, which keeps its
``sha256:`` as the engine prints it.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where one checkout keeps what sifline reads and what it makes."""

    root: Path

    @property
    def images(self) -> Path:
        """The folder whose sub-folders are the images."""
        return self.root / "images"

    @property
    def build(self) -> Path:
        """Everything sifline writes; deleting it loses work, never sources."""
        return self.root / "build"

    @property
    def sifs(self) -> Path:
        """The converted images, ``<name>.sif``."""
        return self.build / "sif"

    @property
    def records(self) -> Path:
        """What was made of what: a folder per image, a JSON file per verb."""
        return self.build / "records"

    @property
    def logs(self) -> Path:
        """Full output of the tools, one file per step."""
        return self.build / "logs"

    @property
    def caches(self) -> Path:
        """What was read before; deleting it costs time alone."""
        return self.build / "cache"

    def needs(self, image_id: str) -> Path:
        """Path of what is remembered of the needs of an image of the engine."""
        return self.caches / "compatibility" / f"{image_id.rpartition(':')[2]}.json"

    @property
    def resolved(self) -> Path:
        """Dockerfiles as they are built, every image they stand on named for certain."""
        return self.build / "resolved"

    def record(self, name: str, kind: str) -> Path:
        """Path of the record of that kind (``convert``, ``test-docker``, …) of an image."""
        return self.records / name / f"{kind}.json"

    @property
    def clusters(self) -> Path:
        """State of virtual clusters, one folder each."""
        return self.build / "clusters"

    def sif(self, name: str) -> Path:
        """Path of the SIF of the image ``name``."""
        return self.sifs / f"{name}.sif"


class Progress(Protocol):
    """How a stage tells a person what it is doing."""

    def __call__(self, text: str) -> None:
        """Say what is being done now; one short line."""


# The name of a prepared root file system in the image's folder.
PREPARED = "rootfs.tar"
# The settings in the image's folder; the engine does not get to see them.
SETTINGS = "image.toml"


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """A root file system made before the build, as ``PREPARED`` in the image's folder.

    ``sources`` are lines of sources.list; without them Debian's own archive.
    """

    suite: str
    packages: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """All that decides what is in it."""
        return [self.suite, *self.packages, *self.sources]


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image that a build takes files from: another of ours, or a foreign one.

    ``written`` is what the Dockerfile says, arguments expanded. ``image`` names one of ours;
    ``reference`` is the foreign image that is used, ``written`` or what the site has for it.
    """

    written: str
    image: str = ""
    reference: str = ""
    platform: str = ""


@dataclass(frozen=True, kw_only=True)
class SifOptions:
    """How a SIF is made of an image.

    ``level`` None is the tool's own, ``processors`` 0 all that there are, ``budget`` in bytes.
    ``method`` is ``stream``, ``apptainer``, or "" for the first that can be. ``definition`` is a
    definition file, or the template of one, that Apptainer shall go by.
    """

    compression: str = "zstd"
    level: int | None = 3
    processors: int = 0
    budget: int | None = None
    over_budget: str = "error"
    method: str = ""
    definition: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a container of an image is given by default, as image.toml writes it."""

    gpus: str = ""
    shared_memory: str = ""
    binds: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A path of this machine that is seen at ``target`` in a container; read-only unless said."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a container that a person opens is given, the same in either runtime.

    ``home`` is the caller's home folder, where it is one of ``binds``: HOME inside, and what is
    done there is done as ``user`` (uid and gid). A variable of ``env`` without a value has the
    caller's own. ``gpus`` is ``all``, how many, or ``device=…``; "" none. ``notes`` is what
    people should know of it.
    """

    binds: tuple[Bind, ...] = ()
    home: str = ""
    user: tuple[int, int] | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    workdir: str = ""
    gpus: str = ""
    shared_memory: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a line of a Dockerfile uses that BuildKit has since its version 0.``buildkit``."""

    what: str
    line: int
    buildkit: int


@dataclass(frozen=True, kw_only=True)
class Image:
    """A folder with a Dockerfile, and what is known of it without building it.

    ``base`` is the image of ours that it begins with: the others of its ``parents`` only give
    files to it, or to a stage that does. ``ssh`` are the ids of agents that RUN mounts and
    whether it fails without, ``agents`` where image.toml says that they come from; ``contexts``
    are folders beside its own, by the names that its Dockerfile has for them.
    """

    name: str
    folder: Path
    tag: str
    sources: tuple[Source, ...] = ()
    base: str = ""
    description: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    target: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, bool], ...] = ()
    ssh: tuple[tuple[str, bool], ...] = ()
    agents: tuple[tuple[str, str], ...] = ()
    contexts: tuple[tuple[str, Path], ...] = ()
    frontend: str = ""
    features: tuple[Feature, ...] = ()
    prepare: Prepare | None = None
    category: str = "custom-images"
    sif: SifOptions = SifOptions()
    run: Run = Run()
    smoke: tuple[tuple[str, ...], ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        """The images of ours that it is built on, each once."""
        return tuple(dict.fromkeys(source.image for source in self.sources if source.image))

    @property
    def words(self) -> tuple[tuple[str, str], ...]:
        """The images of ours that it is built on, each with the words of the Dockerfile for it."""
        pairs = ((source.image, source.written) for source in self.sources if source.image)
        return tuple(dict.fromkeys(pairs))

    @property
    def bases(self) -> tuple[str, ...]:
        """The foreign images that it is built on, each once."""
        return tuple(dict.fromkeys(item.reference for item in self.sources if item.reference))


class Verb(str, Enum):
    """What a step of a plan does with an image, in the order of the way."""

    BUILD = "build"
    TEST = "test"
    CONVERT = "convert"
    TEST_SIF = "test the SIF"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One entry of a plan: what would be done with an image, and why.

    ``pull`` names the foreign images that have moved in their registry. ``retag`` means that the
    image is there and has only lost its common tag. ``anew`` means without the builder's cache.
    ``recipe`` is what a build would be made of, as far as is known before its parents are
    built; without a ``fingerprint`` that is not all. ``held`` is the image that is kept, or that
    would be replaced.
    """

    verb: Verb = Verb.BUILD
    image: Image
    reason: str
    needed: bool
    needs: tuple[str, ...] = ()
    pull: tuple[str, ...] = ()
    retag: bool = False
    anew: bool = False
    recipe: Mapping[str, Any] | None = None
    fingerprint: str = ""
    held: BuiltImage | None = None

    @property
    def changes(self) -> bool:
        """Whether what depends on it has to be done as well."""
        return self.needed and not self.retag

    @property
    def key(self) -> str:
        """What other steps call it, and people."""
        return f"{self.verb.value} {self.image.name}"


@dataclass(frozen=True, kw_only=True)
class BuiltImage:
    """An image that exists in the engine; ``recipe`` is what it was made of.

    One that is not ours has a ``source`` instead: the registry or archive it came from. Without
    an ``image_id`` there is none: a definition file says where its files come from.
    """

    image: Image
    image_id: str
    fingerprint: str
    size: int
    fresh: bool
    created: int = 0
    tags: tuple[str, ...] = ()
    commit: str = ""
    source: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why an image would be built or not, against the build at hand (``built`` in seconds).

    ``notes`` tell what differs and is no reason by itself. ``words`` is what the Dockerfile calls
    each image of ours that it is built on. ``error`` is why its files, or those of an image that
    it is built on, cannot be used; nothing else is known then.
    """

    name: str
    needed: bool
    reason: str
    image_id: str
    built: int
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    words: tuple[tuple[str, str], ...] = ()
    later: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Sif:
    """A finished, verified SIF file; ``notes`` is what people should know of its making.

    ``image_digest`` is that of its image's layers and configuration, which no engine calls it by.
    """

    name: str
    path: Path
    sha256: str
    size: int
    image_digest: str = ""
    fingerprint: str = ""
    commit: str = ""
    category: str = "custom-images"
    fresh: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TestReport:
    """What the tests of one image said."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    name: str
    runtime: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    skip_reasons: tuple[str, ...] = ()


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
class Provisioned:
    """A cluster that went through the Ansible stage; ``changed`` counts changed tasks.

    ``kept`` is where files of others are that were replaced, as ``host:path``.
    """

    cluster: Cluster
    changed: int
    ok: int
    seconds: float
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

    sif: Sif
    cluster: Cluster
    path: PurePosixPath
    placements: tuple[Placement, ...]
    seconds: float


class Status(str, Enum):
    """How a check ended. A check that could not run is skipped, never passed."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One check on a cluster: what was found, or why it could not be looked at."""

    suite: str
    name: str
    status: Status
    message: str
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
class ImageState:
    """What ``status`` says of one image. ``stale`` is why it would be built; "" if not.

    ``error`` is as in ``Explanation``.
    """

    name: str
    image_id: str
    size: int
    stale: str
    sif: str
    sif_size: int
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """One image of the graph, what it is built on, and its state.

    ``words`` is what its Dockerfile calls each of its parents.
    """

    name: str
    parents: tuple[str, ...]
    bases: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    state: str = "up to date"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What was removed, each with its size, what was kept and why, and the bytes that it freed.

    Images share layers: what is freed may be less than the sum of their sizes.
    """

    removed: tuple[tuple[str, int], ...]
    kept: tuple[str, ...]
    freed: int


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """What the main job came to: each link's result, and how long each stage took."""

    built: BuiltImage
    sif: Sif
    cluster: Cluster
    deployment: Deployment
    job: CheckResult
    seconds: tuple[tuple[str, float], ...]
