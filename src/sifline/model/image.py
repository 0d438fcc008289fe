"""Images: folders with a Dockerfile, what they are built on, and how their containers open."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    from sifline.fields.keys import Key
    from sifline.fields.kinds import Choice, Several, Text, Whole

# The name of a prepared root file system in the image's folder.
PREPARED = "rootfs.tar"
# Settings of apt in every prepared root file system: packages and caches stay in no image that is
# built on it. The file has the name that it has in the distributions' own images, so that recipes
# for cache mounts find it.
DOCKER_CLEAN = """\
APT::Keep-Downloaded-Packages "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/ldconfig/aux-cache"; };
"""
# What a SIF is made with where nobody says anything: quick, and small enough.
COMPRESSION, LEVEL = "zstd", 3
# The settings in the image's folder; the engine does not get to see them.
SETTINGS = "image.toml"


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """A root file system made before the build, as ``PREPARED`` in the image's folder.

    ``sources`` are lines of sources.list; without them Debian's own archive.
    """

    suite: Annotated[
        str,
        Key(
            kind=Text(what='a Debian suite such as "trixie"', pattern="[a-z][a-z0-9.-]*"),
            help="Debian suite; mmdebstrap makes `rootfs.tar` of it before the build.",
            example="trixie",
        ),
    ]
    packages: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(item=Text(what="the name of a package", pattern=r"[^\s,-][^\s,]*")),
            help="Packages in it beyond the essential ones.",
            example=["ca-certificates"],
        ),
    ] = ()
    sources: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """All that decides what is in it; the settings of apt by their digest."""
        settings = hashlib.sha256(DOCKER_CLEAN.encode()).hexdigest()[:8]
        return [self.suite, *self.packages, *self.sources, f"docker-clean={settings}"]


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
class SifCompression:
    """How the squashfs of a SIF is compressed; None where nobody said it."""

    compression: Annotated[
        str | None,
        Key(
            kind=Choice(words=("zstd", "gzip")),
            help="How the squashfs of the SIF is compressed; very old hosts mount gzip alone.",
            example="gzip",
        ),
    ] = None
    level: Annotated[
        int | None,
        Key(
            kind=Whole(least=1, most=22),
            help="Level of that compression: 1 is quick, the highest (zstd 22, gzip 9) small.",
            example=6,
        ),
    ] = None

    @property
    def packing(self) -> tuple[str, int | None]:
        """Compression and level of the squashfs; None for the level that the tool has itself."""
        compression = self.compression or COMPRESSION
        usual = LEVEL if compression == COMPRESSION else None
        return compression, usual if self.level is None else self.level


@dataclass(frozen=True, kw_only=True)
class SifOptions(SifCompression):
    """How SIFs are made, as a file, the flags, or all of them together say it; None: not said.

    Without ``processors`` all compress. ``definition`` is a definition file, or the template of
    one, that Apptainer shall go by. ``budget`` is in bytes. ``method`` is ``stream`` or
    ``apptainer``; without it the first that can be.
    """

    processors: Annotated[
        int | None,
        Key(
            kind=Whole(least=1, most=1024),
            help="Processors that compress; without it all of them.",
            example=4,
        ),
    ] = None
    definition: Annotated[
        Path | None,
        Key(
            kind=Text(
                what='the name of a file in the image\'s folder such as "site.def.j2"',
                pattern=r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.def(?:\.j2)?",
                to=Path,
            ),
            help="Definition file, or its Jinja2 template, that Apptainer makes the SIF by.",
            example="site.def.j2",
        ),
    ] = None
    over_budget: Annotated[
        str,
        Key(
            name="over-budget",
            kind=Choice(words=("error", "warning")),
            help="What it is where the SIF is larger than `size-budget`: no SIF, or a warning.",
            example="warning",
        ),
    ] = "error"
    budget: int | None = None
    method: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a container of an image is given by default, as image.toml writes it."""

    gpus: Annotated[
        str,
        Key(
            kind=Text(what='"all" or a number such as "2"', pattern="all|[1-9][0-9]*"),
            help="GPUs that the container is given.",
            example="all",
        ),
    ] = ""
    shared_memory: Annotated[
        str,
        Key(
            name="shared-memory",
            kind=Text(
                what='a size in bytes, or with b, k, m or g such as "8g"',
                pattern="[1-9][0-9]*[bkmg]?",
            ),
            help="Size of `/dev/shm`, which PyTorch's data loaders share.",
            example="8g",
        ),
    ] = ""
    binds: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(
                item=Text(
                    what='"/HOST:/CONTAINER", or that with :ro at its end',
                    pattern=r"(?:/|~/)[^:\r\n]*:/[^:\r\n]*(?::(?:ro|rw))?",
                )
            ),
            help="Folders of the host that the container sees.",
            example=["/scratch:/scratch", "~/data:/data:ro"],
        ),
    ] = ()


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
