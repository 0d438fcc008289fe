"""``images/<name>/image.toml``: what a Dockerfile cannot say about its image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sifline.config.keys import Choice, Key, Keys, Most, Named, Several, Text, Whole
from sifline.config.table import Table, read_toml
from sifline.model import Prepare, Run, SifOptions
from sifline.nodeside.registry import CATEGORIES

CATEGORY = "custom-images"

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
# https://docs.docker.com/reference/dockerfile/#predefined-args: set them as proxies, for the
# engine keeps those out of its history and of the cache's keys.
PROXY_ARGUMENTS = tuple(
    spelling
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for spelling in (name, name.lower())
)

LINE = Text(what="one line of text", pattern=r"[^\r\n]*")
WORD = Text(what="a word without spaces", pattern=r"[^\s]+")

BUILD_ARGS = Named(
    what="a table of strings",
    entries=((Text(what="letters, digits and _", pattern="[A-Za-z_][A-Za-z0-9_]*"), Text()),),
    refused="|".join(PROXY_ARGUMENTS),
    because="the engine knows it by itself; write it under [proxies] of a site profile",
)
COMPRESSION = (
    Key(
        name="compression",
        kind=Choice(words=("zstd", "gzip")),
        help="How the squashfs of the SIF is compressed; very old hosts mount gzip alone.",
        example="gzip",
    ),
    Key(
        name="level",
        kind=Whole(least=1, most=22),
        help="Level of that compression: 1 is quick, the highest (zstd 22, gzip 9) small.",
        example=6,
    ),
)
LEVELS = Most(key="level", by="compression", most={"zstd": 22, "gzip": 9})

_LABELS = Named(
    what="a table of strings",
    entries=(
        (
            Text(
                what="letters, digits, dots, dashes, _ and /",
                pattern="[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?",
            ),
            Text(),
        ),
    ),
    refused=r"sifline\..*",
    because="sifline writes the labels that begin so itself",
)
_CONTEXTS = Named(
    what="a table of strings",
    entries=(
        (
            Text(
                what="lower case letters, digits, dots, dashes, _", pattern="[a-z0-9][a-z0-9._-]*"
            ),
            Text(
                what='the path of a folder such as "../../src"',
                pattern=r"(?!https?:|git@)[^\x00-\x1f:]+",
            ),
        ),
    ),
)
AGENT = "agent"
_SSH = Named(
    what="a table of strings",
    entries=(
        (
            Text(what="letters, digits, dots, dashes and _", pattern="[A-Za-z0-9][A-Za-z0-9._-]*"),
            Text(
                what='"agent", or the path of a key or socket such as "~/.ssh/deploy"',
                pattern=rf"{AGENT}|(?:/|~/)[^,\x00-\x1f]+",
            ),
        ),
    ),
)
_PREPARE = Keys(
    keys=(
        Key(
            name="suite",
            kind=Text(what='a Debian suite such as "trixie"', pattern="[a-z][a-z0-9.-]*"),
            help="Debian suite; mmdebstrap makes `rootfs.tar` of it before the build.",
            example="trixie",
            required=True,
        ),
        Key(
            name="packages",
            kind=Several(
                item=Text(what="the name of a package", pattern=r"[^\s,-][^\s,]*"),
                what="a list of strings",
            ),
            help="Packages in it beyond the essential ones.",
            example=["ca-certificates"],
        ),
    )
)
_RUN = Keys(
    keys=(
        Key(
            name="gpus",
            kind=Text(what='"all" or a number such as "2"', pattern="all|[1-9][0-9]*"),
            help="GPUs that the container is given.",
            example="all",
        ),
        Key(
            name="shared-memory",
            kind=Text(
                what='a size in bytes, or with b, k, m or g such as "8g"',
                pattern="[1-9][0-9]*[bkmg]?",
            ),
            help="Size of `/dev/shm`, which PyTorch's data loaders share.",
            example="8g",
        ),
        Key(
            name="binds",
            kind=Several(
                item=Text(
                    what='"/HOST:/CONTAINER", or that with :ro at its end',
                    pattern=r"(?:/|~/)[^:\r\n]*:/[^:\r\n]*(?::(?:ro|rw))?",
                ),
                what="a list of strings",
            ),
            help="Folders of the host that the container sees.",
            example=["/scratch:/scratch", "~/data:/data:ro"],
        ),
    )
)
_CONVERT = Keys(
    keys=(
        *COMPRESSION,
        Key(
            name="processors",
            kind=Whole(least=1, most=1024),
            help="Processors that compress; without it all of them.",
            example=4,
        ),
        Key(
            name="definition",
            kind=Text(
                what='the name of a file in the image\'s folder such as "site.def.j2"',
                pattern=r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.def(?:\.j2)?",
            ),
            help="Definition file, or its Jinja2 template, that Apptainer makes the SIF by.",
            example="site.def.j2",
        ),
        Key(
            name="over-budget",
            kind=Choice(words=("error", "warning"), missing="error"),
            help="What it is where the SIF is larger than `size-budget`: no SIF, or a warning.",
            example="warning",
        ),
    ),
    most=LEVELS,
)

IMAGE = Keys(
    keys=(
        Key(
            name="description",
            kind=LINE,
            help="One line, shown by `info.<name>`.",
            example="PyTorch 2.4.0 for CUDA 12.1",
        ),
        Key(
            name="category",
            kind=Choice(words=CATEGORIES, missing=CATEGORY),
            help="Folder of the registry on the nodes.",
            example="ml-frameworks",
        ),
        Key(
            name="target",
            kind=Text(what="the name of a stage", pattern="[A-Za-z0-9][A-Za-z0-9_.-]*"),
            help="Stage of the Dockerfile that is built; without it the last.",
            example="runtime",
        ),
        Key(
            name="build-args",
            kind=BUILD_ARGS,
            help="Build arguments; they also decide which images `FROM` lines name.",
            example={"PYTHON_VERSION": "3.11"},
        ),
        Key(
            name="labels",
            kind=_LABELS,
            help="Labels of the image, and of the SIF made of it.",
            example={"org.opencontainers.image.licenses": "BSD-3-Clause"},
        ),
        Key(
            name="foreign-bases",
            kind=Several(item=WORD, what="a list of strings"),
            help="Patterns (`*`, `?`) of references, as the Dockerfile has them, that mean no"
            " image of this repository although they have the plain name of one, or a reference"
            " that the repository declares as its own.",
            example=["ghcr.io/acme/*"],
        ),
        Key(
            name="contexts",
            kind=_CONTEXTS,
            help="Folders, relative to the image's own, that `FROM`, `COPY --from=` and"
            " `RUN --mount=…,from=` take files from by these names (docker's `--build-context`)."
            " What they hold counts in the fingerprint, but for what their `.dockerignore` leaves"
            " out.",
            example={"src": "../../src"},
        ),
        Key(
            name="ssh",
            kind=_SSH,
            help="Where the keys of `RUN --mount=type=ssh,id=…` come from: `agent`, the default,"
            " is yours (SSH_AUTH_SOCK); else the path of a private key, or of an agent's socket."
            " They do not count in the fingerprint.",
            example={"default": "agent", "deploy": "~/.ssh/deploy"},
        ),
        Key(
            name="prepare",
            kind=_PREPARE,
            help="A root file system that is made before the build, for the Dockerfile to add.",
        ),
        Key(name="run", kind=_RUN, help="What a container of the image is given by default."),
        Key(
            name="size-budget",
            kind=Text(
                what='a number and a unit such as "5GB" or "4.5GiB"',
                pattern=rf"[0-9]+(?:\.[0-9]+)? ?(?:{'|'.join(UNITS)})",
                missing=None,
            ),
            help="Size that the SIF must not exceed.",
            example="5GB",
        ),
        Key(
            name="smoke",
            kind=Several(
                item=Several(
                    item=Text(what="a word", pattern=r"[\s\S]+"),
                    what='a list of words such as ["python3", "--version"]',
                    least=1,
                ),
                what="a list of commands, each a list of words",
            ),
            help="Commands that must work in the container.",
            example=[["python3", "-c", "import torch"]],
        ),
        Key(name="convert", kind=_CONVERT, help="How the SIF is made."),
    )
)


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """The content of one image.toml; the defaults are those of a folder without one.

    ``size_budget`` is in bytes. What ``convert`` names as its definition file is in the image's
    folder.
    """

    description: str = ""
    category: str = CATEGORY
    target: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    foreign_bases: tuple[str, ...] = ()
    contexts: tuple[tuple[str, str], ...] = ()
    ssh: tuple[tuple[str, str], ...] = ()
    prepare: Prepare | None = None
    run: Run = field(default_factory=Run)
    size_budget: int | None = None
    smoke: tuple[tuple[str, ...], ...] = ()
    convert: SifOptions = field(default_factory=SifOptions)


def load_image_settings(path: Path) -> ImageSettings:
    """Read ``path``; a missing file means defaults.

    :raises UsageError: naming file, key and what is allowed.
    """
    table = read_toml(path)
    return ImageSettings() if table is None else _settings(table)


def origin(name: str) -> str:
    """Return what the settings file of the image ``name`` is called."""
    return f"images/{name}/image.toml"


def size_in_bytes(size: str) -> int:
    """Return how many bytes ``size`` ("4.5 GiB", as the key size-budget takes it) are."""
    unit = size.lstrip("0123456789. ")
    return round(float(size.removesuffix(unit)) * UNITS[unit])


def _settings(table: Table) -> ImageSettings:
    values = IMAGE.values(table)
    prepare, run, convert = values["prepare"], values["run"], values["convert"]
    budget = values["size-budget"]
    return ImageSettings(
        description=values["description"],
        category=values["category"],
        target=values["target"],
        build_args=tuple(values["build-args"].items()),
        labels=tuple(values["labels"].items()),
        foreign_bases=values["foreign-bases"],
        contexts=tuple(sorted(values["contexts"].items())),
        ssh=tuple(values["ssh"].items()),
        prepare=Prepare(**prepare) if prepare else None,
        run=_run(run) if run else Run(),
        size_budget=None if budget is None else size_in_bytes(budget),
        smoke=values["smoke"],
        convert=_conversion(convert) if convert else SifOptions(),
    )


def _conversion(values: Mapping[str, Any]) -> SifOptions:
    return SifOptions(
        compression=values["compression"] or None,
        level=values["level"],
        processors=values["processors"],
        over_budget=values["over-budget"],
        definition=Path(values["definition"]) if values["definition"] else None,
    )


def _run(values: Mapping[str, Any]) -> Run:
    return Run(gpus=values["gpus"], shared_memory=values["shared-memory"], binds=values["binds"])
