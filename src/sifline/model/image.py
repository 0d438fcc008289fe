"""Images: folders with a Dockerfile, their parents and bases, and their containers' options."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING:
    from sifline.fields.keys import Key, Named
    from sifline.fields.kinds import Choice, Several, Text, Whole

# File name of a prepared root file system in the image's folder.
PREPARED = "rootfs.tar"
# apt settings in every prepared root file system: images built on it keep no packages and
# caches. The file has the name that the distributions' own images use, so that recipes for
# cache mounts find it.
DOCKER_CLEAN = """\
APT::Keep-Downloaded-Packages "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/ldconfig/aux-cache"; };
"""
# Default compression of a SIF: fast, and small enough.
COMPRESSION, LEVEL = "zstd", 3
# Settings file in the image's folder; it is not part of the build context.
SETTINGS = "image.toml"


@dataclass(frozen=True, kw_only=True)
class Prepare:
    """A root file system made before the build, as ``PREPARED`` in the image's folder.

    ``sources`` are lines of sources.list; default: Debian's own archive.
    """

    suite: Annotated[
        str,
        Key(
            kind=Text(what='a Debian suite such as "trixie"', pattern="[a-z][a-z0-9.-]*"),
            help="Debian suite from which mmdebstrap makes `rootfs.tar` before the build.",
            example="trixie",
        ),
    ]
    packages: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(item=Text(what="the name of a package", pattern=r"[^\s,-][^\s,]*")),
            help="Packages to install in addition to the essential ones.",
            example=["ca-certificates"],
        ),
    ] = ()
    sources: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """Return everything that decides its content; the apt settings as a digest."""
        settings = hashlib.sha256(DOCKER_CLEAN.encode()).hexdigest()[:8]
        return [self.suite, *self.packages, *self.sources, f"docker-clean={settings}"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image that a build takes files from: one of ours, or a foreign one.

    ``written`` is the reference in the Dockerfile, with arguments expanded. ``image`` names one
    of ours; ``reference`` is the foreign image that is used: ``written``, or the site's entry.
    """

    written: str
    image: str = ""
    reference: str = ""
    platform: str = ""


@dataclass(frozen=True, kw_only=True)
class SifCompression:
    """Compression of a SIF's squashfs; None for unset values."""

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
            help="Compression level: 1 is fast, the highest (zstd 22, gzip 9) small.",
            example=6,
        ),
    ] = None

    @property
    def packing(self) -> tuple[str, int | None]:
        """Return compression and level of the squashfs; level None is the tool's own default."""
        compression = self.compression or COMPRESSION
        usual = LEVEL if compression == COMPRESSION else None
        return compression, usual if self.level is None else self.level


@dataclass(frozen=True, kw_only=True)
class SifOptions(SifCompression):
    """How SIFs are made, as set by a file, by flags, or both; None for unset values.

    Without ``processors`` all of them compress. ``definition`` is a definition file, or its
    template, that Apptainer builds from. ``budget`` is in bytes. ``method`` is ``stream`` or
    ``apptainer``; default: the first one that works.
    """

    processors: Annotated[
        int | None,
        Key(
            kind=Whole(least=1, most=1024),
            help="Processors that compress; default: all of them.",
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
            help="Definition file, or its Jinja2 template, from which Apptainer builds the SIF.",
            example="site.def.j2",
        ),
    ] = None
    over_budget: Annotated[
        str,
        Key(
            name="over-budget",
            kind=Choice(words=("error", "warning")),
            help="What happens if the SIF is larger than `size-budget`: an error, or a warning.",
            example="warning",
        ),
    ] = "error"
    budget: int | None = None
    method: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """Default options of a container of an image, as image.toml has them."""

    gpus: Annotated[
        str,
        Key(
            kind=Text(what='"all" or a number such as "2"', pattern="all|[1-9][0-9]*"),
            help="GPUs of the container.",
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
            help="Folders of the host to bind into the container.",
            example=["/scratch:/scratch", "~/data:/data:ro"],
        ),
    ] = ()


_MODULE = "[A-Za-z0-9][A-Za-z0-9._+-]{0,127}"


@dataclass(frozen=True, kw_only=True)
class Module:
    """The module of an image on the nodes of a cluster, as image.toml has it."""

    name: Annotated[
        str,
        Key(
            kind=Text(what="letters, digits and . _ + -", pattern=_MODULE),
            help="Name of the module, and of its command; default: the image's name.",
            example="pytorch",
        ),
    ] = ""
    version: Annotated[
        str,
        Key(
            kind=Text(what="letters, digits and . _ + -", pattern=_MODULE),
            help="Version of the module; default: the beginning of the image's fingerprint.",
            example="2.4.0",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class Tests:
    """What an image says of the tests that it has to pass, as image.toml writes it."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    skip: Annotated[
        tuple[tuple[str, str], ...],
        Key(
            kind=Named(
                entries=(
                    (
                        Text(
                            what="the name of a test such as test_apt_left_no_cache",
                            pattern="test[A-Za-z0-9_]*",
                        ),
                        Text(what="a reason, in one line of text", pattern=r"\S[^\r\n]*"),
                    ),
                ),
            ),
            help="Tests that are not run for this image and those built on it, each with its"
            " reason: its own, inherited ones, and sifline's.",
            example={"test_apt_left_no_cache": "users install packages without a network"},
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A path of this machine that appears at ``target`` in a container; read-only by default."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Opening:
    """Options of a container that a user opens, the same in Docker and Apptainer.

    ``home`` is the caller's home folder if it is one of ``binds``: it is HOME inside, and the
    container runs as ``user`` (uid and gid). A variable of ``env`` without a value gets the
    caller's value. ``gpus`` is ``all``, a number, or ``device=…``; "" none. ``notes`` are
    messages for the user.
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
    """A feature that a line of a Dockerfile uses, and its first BuildKit, 0.``buildkit``."""

    what: str
    line: int
    buildkit: int


@dataclass(frozen=True, kw_only=True)
class Image:
    """A folder with a Dockerfile, and what is known of it without a build.

    ``base`` is the image of ours in its final ``FROM``; only files are copied from its other
    ``parents``. ``skip`` are tests that it need not pass, with reasons. ``ssh`` are the ids of SSH
    agents that RUN mounts, and whether each is required; ``agents`` says where they come from
    (image.toml). ``contexts`` are its named build contexts: folders by the names that its
    Dockerfile uses.
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
    module: Module = Module()
    smoke: tuple[tuple[str, ...], ...] = ()
    skip: tuple[tuple[str, str], ...] = ()

    @property
    def parents(self) -> tuple[str, ...]:
        """Return the images of ours that it is built on, each once."""
        return tuple(dict.fromkeys(source.image for source in self.sources if source.image))

    @property
    def words(self) -> tuple[tuple[str, str], ...]:
        """Return the images of ours that it is built on, with the references in the Dockerfile."""
        pairs = ((source.image, source.written) for source in self.sources if source.image)
        return tuple(dict.fromkeys(pairs))

    @property
    def bases(self) -> tuple[str, ...]:
        """Return the foreign images that it is built on, each once."""
        return tuple(dict.fromkeys(item.reference for item in self.sources if item.reference))
