"""``images/<name>/image.toml``: settings of an image that a Dockerfile cannot express."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from sifline.fields.keys import Key, Keys, Most, Named
from sifline.fields.kinds import Choice, Several, Text
from sifline.fields.table import read_toml
from sifline.model import Module, Prepare, Run, SifOptions, Tests
from sifline.nodeside.registry import CATEGORIES

CATEGORY = "custom-images"

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
# https://docs.docker.com/reference/dockerfile/#predefined-args: they belong under [proxies], since
# the engine then keeps them out of its history and of the cache's keys.
PROXY_ARGUMENTS = tuple(
    spelling
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for spelling in (name, name.lower())
)

LINE = Text(what="one line of text", pattern=r"[^\r\n]*")

BUILD_ARGS = Named(
    entries=((Text(what="letters, digits and _", pattern="[A-Za-z_][A-Za-z0-9_]*"), Text()),),
    refused="|".join(PROXY_ARGUMENTS),
    because="BuildKit predefines it; write it under [proxies] of a site profile",
)
LEVELS = Most(key="level", by="compression", most={"zstd": 22, "gzip": 9})

_LABELS = Named(
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
    because="sifline itself writes labels with this prefix",
)
_CONTEXTS = Named(
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
_COMMAND = Several(
    item=Text(what="a word", pattern=r"[\s\S]+"),
    what='a list of words such as ["python3", "--version"]',
    least=1,
)


def size_in_bytes(size: str) -> int:
    """Return the number of bytes of ``size`` ("4.5 GiB", as in the key size-budget)."""
    unit = size.lstrip("0123456789. ")
    return round(float(size.removesuffix(unit)) * UNITS[unit])


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """The content of one image.toml; the defaults are those of a missing file.

    ``size_budget`` is in bytes. The definition file of ``convert`` is in the image's folder.
    """

    description: Annotated[
        str,
        Key(
            kind=LINE,
            help="One line, printed by `info.<name>`.",
            example="PyTorch 2.4.0 for CUDA 12.1",
        ),
    ] = ""
    category: Annotated[
        str,
        Key(
            kind=Choice(words=CATEGORIES),
            help="Folder in the registry of the nodes.",
            example="ml-frameworks",
        ),
    ] = CATEGORY
    target: Annotated[
        str,
        Key(
            kind=Text(what="the name of a stage", pattern="[A-Za-z0-9][A-Za-z0-9_.-]*"),
            help="Stage of the Dockerfile to build; default: the last.",
            example="runtime",
        ),
    ] = ""
    build_args: Annotated[
        tuple[tuple[str, str], ...],
        Key(
            name="build-args",
            kind=BUILD_ARGS,
            help="Build arguments; they can also change the images of `FROM` lines.",
            example={"PYTHON_VERSION": "3.11"},
        ),
    ] = ()
    labels: Annotated[
        tuple[tuple[str, str], ...],
        Key(
            kind=_LABELS,
            help="Labels of the image and of its SIF.",
            example={"org.opencontainers.image.licenses": "BSD-3-Clause"},
        ),
    ] = ()
    foreign_bases: Annotated[
        tuple[str, ...],
        Key(
            name="foreign-bases",
            kind=Several(item=Text(what="a word without spaces", pattern=r"[^\s]+")),
            help="Patterns (`*`, `?`) of references in the Dockerfile that name foreign images"
            " although they match an image of this repository, or a reference that the"
            " repository declares as its own.",
            example=["ghcr.io/acme/*"],
        ),
    ] = ()
    contexts: Annotated[
        tuple[tuple[str, str], ...],
        Key(
            kind=_CONTEXTS,
            help="Named build contexts (docker's `--build-context`): folders, relative to the"
            " image's own, by the names that `FROM`, `COPY --from=` and `RUN --mount=…,from=`"
            " use. Their files count in the fingerprint, except those that their"
            " `.dockerignore` excludes.",
            example={"src": "../../src"},
        ),
    ] = ()
    ssh: Annotated[
        tuple[tuple[str, str], ...],
        Key(
            kind=_SSH,
            help="Source of the keys for `RUN --mount=type=ssh,id=…`: `agent` (the default) is"
            " your own agent (SSH_AUTH_SOCK); otherwise the path of a private key, or of an"
            " agent's socket. They do not count in the fingerprint.",
            example={"default": "agent", "deploy": "~/.ssh/deploy"},
        ),
    ] = ()
    prepare: Annotated[
        Prepare | None,
        Key(
            kind=Keys(of=Prepare),
            help="Root file system to make before the build, for the Dockerfile to add.",
        ),
    ] = None
    run: Annotated[
        Run,
        Key(kind=Keys(of=Run), help="Default options of a container of the image."),
    ] = field(default_factory=Run)
    module: Annotated[
        Module,
        Key(
            kind=Keys(of=Module),
            help="Module by which users of a cluster run the image: `module load NAME/VERSION`.",
        ),
    ] = field(default_factory=Module)
    size_budget: Annotated[
        int | None,
        Key(
            name="size-budget",
            kind=Text(
                what='a number and a unit such as "5GB" or "4.5GiB"',
                pattern=rf"[0-9]+(?:\.[0-9]+)? ?(?:{'|'.join(UNITS)})",
                to=size_in_bytes,
            ),
            help="Largest allowed size of the SIF.",
            example="5GB",
        ),
    ] = None
    smoke: Annotated[
        tuple[tuple[str, ...], ...],
        Key(
            kind=Several(item=_COMMAND, what="a list of commands, each a list of words"),
            help="Commands that must succeed in the container.",
            example=[["python3", "-c", "import torch"]],
        ),
    ] = ()
    tests: Annotated[
        Tests,
        Key(kind=Keys(of=Tests), help="Which tests the image does not have to pass, and why."),
    ] = field(default_factory=Tests)
    convert: Annotated[
        SifOptions,
        Key(kind=Keys(of=SifOptions, most=LEVELS), help="How the SIF is made."),
    ] = field(default_factory=SifOptions)


IMAGE = Keys(of=ImageSettings)


def load_image_settings(path: Path) -> ImageSettings:
    """Read ``path``; a missing file gives the defaults.

    :raises UsageError: naming file, key and the allowed values.
    """
    table = read_toml(path)
    return ImageSettings() if table is None else IMAGE.value(table)


def origin(name: str) -> str:
    """Return the path of the settings file of the image ``name``, for messages."""
    return f"images/{name}/image.toml"
