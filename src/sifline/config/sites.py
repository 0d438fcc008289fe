"""``sites/<name>.toml``: settings that differ between sites.

One module, because all of it is the declaration of one file's keys and their rules.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

from sifline.config import docker_client
from sifline.config.image_names import MAX_NAME, NAME
from sifline.config.images import BUILD_ARGS, LEVELS, LINE
from sifline.errors import MissingError, UsageError, did_you_mean
from sifline.fields.keys import Key, Keys, Named
from sifline.fields.kinds import File, Flag, Several, Text
from sifline.fields.table import Table, read_toml
from sifline.formats.reference import normalise
from sifline.model import SifCompression, Workspace

VARIABLE = "SIFLINE_SITE"
DEFAULT = "default"
# The secret with the CA bundle that build steps need behind some mirrors and proxies.
CERTIFICATES = "ca-certificates"
LEAST_HIDDEN = 4

REGISTRY = "[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?"
PART = "[a-z0-9]+(?:(?:[.]|__?|-+)[a-z0-9]+)*"
_TAG = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_REFERENCE = Text(
    what='a reference such as "docker.io/library/ubuntu:22.04"',
    pattern=rf"(?:{REGISTRY}/)?{PART}(?:/{PART})*(?::{_TAG})?(?:@sha256:[0-9a-f]{{64}})?",
)
_PREFIX = Text(
    what='a beginning of references that ends in "/" such as "docker.io/"',
    pattern=rf"(?:{REGISTRY}|{PART})/(?:{PART}/)*",
)
_PROXY = Text(
    what='a URL such as "http://proxy.example.org:3128"',
    pattern=r"(?:https?|socks5h?)://[^\s/]+/?",
)


@dataclass(frozen=True, kw_only=True)
class Secret:
    """The source of a secret, a file or an environment variable; never its content."""

    id: str = ""
    file: Annotated[
        Path | None,
        Key(kind=File(), help="File that holds it.", example="~/.config/site/token"),
    ] = None
    env: Annotated[
        str,
        Key(
            kind=Text(
                what="the name of an environment variable", pattern="[A-Za-z_][A-Za-z0-9_]*"
            ),
            help="Environment variable that holds it.",
            example="SITE_TOKEN",
        ),
    ] = ""

    def content(self) -> str:
        """Return the secret's content; empty if it is missing or not text."""
        try:
            path = self.file
            return path.read_text(encoding="utf-8") if path else os.environ.get(self.env, "")
        except (OSError, UnicodeDecodeError):
            return ""

    def argument(self) -> str:
        """Return the secret in the format of docker's ``--secret``.

        :raises MissingError: if there is no such file or variable.
        """
        if self.file is None:
            if self.env not in os.environ:
                raise MissingError(
                    f"the secret {self.id} is the environment variable {self.env}, which is not"
                    " set; set it, or name another in the site profile"
                )
            return f"id={self.id},env={self.env}"
        if not (self.file.is_file() and os.access(self.file, os.R_OK)):
            raise MissingError(
                f"the secret {self.id} is the file {self.file}, which is not there or cannot be"
                " read; make it, or name another in the site profile"
            )
        return f"id={self.id},{_field(f'src={self.file}')}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Versions on the cluster's nodes; "" for unset ones."""

    mpi: Annotated[str, Key(kind=LINE, help="Open MPI of the cluster.", example="4.1.4")] = ""
    pmix: Annotated[str, Key(kind=LINE, help="PMIx of its Slurm.", example="4.2.2")] = ""
    driver: Annotated[
        str, Key(kind=LINE, help="NVIDIA driver of its nodes.", example="535.161.08")
    ] = ""


@dataclass(frozen=True, kw_only=True)
class Proxies:
    """The proxies of build steps; "" for unset ones."""

    http: Annotated[
        str,
        Key(
            kind=_PROXY,
            help="Proxy for http.",
            example="http://proxy.example.org:3128",
            hidden=True,
        ),
    ] = ""
    https: Annotated[
        str,
        Key(
            kind=_PROXY,
            help="Proxy for https.",
            example="http://proxy.example.org:3128",
            hidden=True,
        ),
    ] = ""
    no: Annotated[
        str,
        Key(
            kind=Text(what="host names with commas between them", pattern=r"[^\s]+"),
            help="Hosts that are reached without a proxy.",
            example="localhost,.example.org",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class _Image:
    """Settings for one image."""

    build_args: Annotated[
        tuple[tuple[str, str], ...],
        Key(
            name="build-args",
            kind=BUILD_ARGS,
            help="Build arguments for this image only.",
            example={"MAKE_JOBS": "16"},
        ),
    ] = ()


_IMAGES = Named(
    what="a table of images",
    entries=((Text(what="the name of an image", pattern=NAME), Keys(of=_Image)),),
    placeholder="IMAGE",
    to=lambda name, image: (name, image.build_args),
)
_SECRETS = Named(
    what='a table such as {token = {env = "SITE_TOKEN"}}',
    entries=(
        (
            Text(what="letters, digits, dots, dashes and _", pattern="[A-Za-z0-9][A-Za-z0-9._-]*"),
            Keys(of=Secret, one=True),
        ),
    ),
    placeholder="ID",
    to=lambda name, secret: replace(secret, id=name),
)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A site profile; the defaults are those without one. ``chosen`` says who selected it."""

    name: str = ""
    path: Path | None = None
    chosen: str = "default"
    description: Annotated[
        str,
        Key(
            kind=LINE,
            help="One line that says which site this is.",
            example="Machine room without internet",
        ),
    ] = ""
    offline: Annotated[
        bool,
        Key(
            kind=Flag(),
            help="Pull nothing: base images must be in the engine already, or be built here.",
            example=True,
        ),
    ] = False
    bases: Annotated[
        tuple[tuple[str, str], ...],
        Key(
            kind=Named(
                what="a table of references",
                entries=((_PREFIX, _PREFIX), (_REFERENCE, _REFERENCE)),
                placeholder="REFERENCE",
            ),
            help="Replacements for images that Dockerfiles name: for one reference, or for all"
            " with a prefix, where both sides end in `/`. The longest match is used. A"
            " replacement that is an image of this repository (`sifline/<name>`) applies to all"
            " images except that one.",
            example={
                "docker.io/library/ubuntu:22.04": "registry.example.org/base/ubuntu:22.04",
                "docker.io/": "registry.example.org/hub/",
            },
        ),
    ] = ()
    build_args: Annotated[
        tuple[tuple[str, str], ...],
        Key(
            name="build-args",
            kind=BUILD_ARGS,
            help="Build arguments for all images that declare them.",
            example={"PYTHON_VERSION": "3.11"},
        ),
    ] = ()
    images: Annotated[
        tuple[tuple[str, tuple[tuple[str, str], ...]], ...],
        Key(kind=_IMAGES, help="Settings for single images."),
    ] = ()
    proxies: Annotated[
        Proxies,
        Key(
            kind=Keys(of=Proxies),
            help="Proxies of build steps; they are not in the image or its fingerprint.",
            hidden=True,
        ),
    ] = Proxies()
    certificates: Annotated[
        Path | None,
        Key(
            kind=File(),
            help=f"CA bundle for build steps, as the secret `{CERTIFICATES}`; default: the host's"
            " own.",
            example="certificates/site.pem",
        ),
    ] = None
    secrets: Annotated[
        tuple[Secret, ...],
        Key(
            kind=_SECRETS,
            help="Sources of the secrets for `RUN --mount=type=secret,id=…`.",
            hidden=True,
        ),
    ] = ()
    apptainer: Annotated[
        SifCompression,
        Key(
            kind=Keys(of=SifCompression, most=LEVELS),
            help="Compression of SIFs, unless image.toml sets it.",
        ),
    ] = field(default_factory=SifCompression)
    apt_sources: Annotated[
        tuple[str, ...],
        Key(
            name="apt-sources",
            kind=Several(
                item=Text(
                    what='a line such as "deb https://mirror.example.org/debian {suite} main"',
                    pattern=r"deb (?:\[[^\]\r\n]*\] )?[^\s\[]\S*(?: \S+)+",
                )
            ),
            help="Package sources of the root file systems of `[prepare]`; `{suite}` is replaced."
            " The lines remain in the image as its sources.",
            example=["deb https://mirror.example.org/debian {suite} main"],
        ),
    ] = ()
    cluster: Annotated[
        Facts, Key(kind=Keys(of=Facts), help="Versions on the cluster that runs the images.")
    ] = Facts()

    @property
    def origin(self) -> str:
        """Return the name of its file for messages and tables."""
        return f"sites/{self.name}.toml" if self.name else "default"

    def image_args(self, name: str) -> dict[str, str]:
        """Return the build arguments for the image ``name`` only."""
        return dict(dict(self.images).get(name, ()))

    def replacement(self, reference: str) -> str:
        """Return the replacement for a foreign reference, or the reference itself."""
        full = normalise(reference)
        for key, value in self._replacements:
            if full == key:
                return value
            if key.endswith("/") and full.startswith(key):
                return value + full.removeprefix(key)
        return reference

    @cached_property
    def _replacements(self) -> tuple[tuple[str, str], ...]:
        """Return the keys of ``bases`` in full, the longest first."""
        full = ((_in_full(key), value) for key, value in self.bases)
        return tuple(sorted(full, key=lambda item: len(item[0]), reverse=True))

    def sources(self, suite: str) -> tuple[str, ...]:
        """Return the sources.list lines of a root file system of ``suite``."""
        return tuple(line.replace("{suite}", suite) for line in self.apt_sources)

    def proxy_arguments(self) -> dict[str, str]:
        """Return the proxies as build arguments that BuildKit predefines, in both spellings."""
        named = {f"{name}_proxy": url for name, url in vars(self.proxies).items() if url}
        return {**{name.upper(): value for name, value in named.items()}, **named}

    def hidden(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Return what logs must mask: lines of these secrets, and credentials of proxies.

        Very short ones would mask half of the output.
        """
        held = [secret.content() for secret in self.secrets if secret.id in set(ids)]
        held += docker_client.credentials(vars(self.proxies).values())
        lines = {line.strip() for text in held for line in text.splitlines()}
        return tuple(sorted(line for line in lines if len(line) >= LEAST_HIDDEN))

    def secret_arguments(self, ids: Iterable[str]) -> dict[str, str]:
        """Return those of the secrets ``ids`` that the site has, in the format of ``--secret``.

        :raises MissingError: if one of them does not exist at its source.
        """
        known = {secret.id: secret for secret in self.secrets}
        if self.certificates:
            known.setdefault(CERTIFICATES, Secret(id=CERTIFICATES, file=self.certificates))
        return {name: known[name].argument() for name in ids if name in known}


SITE = Keys(of=Site)


def load_site(workspace: Workspace, name: str = "") -> Site:
    """Return the site profile ``name``, or that of SIFLINE_SITE, or ``default``, or none.

    :raises UsageError: for an unknown name, with the nearest ones; for an invalid profile, naming
        file, key and the allowed values.
    """
    named = os.environ.get(VARIABLE, "")
    wanted, chosen = (name, "--site") if name else (named, VARIABLE)
    if not wanted:
        wanted, chosen = DEFAULT, f"sites/{DEFAULT}.toml"
    path = workspace.root / "sites" / f"{wanted}.toml"
    table = read_toml(path) if is_name(wanted) else None
    if table is not None:
        return _site(table, chosen)
    if not name and not named:
        return Site()
    raise _unknown(wanted, chosen, path.parent)


def is_name(name: str) -> bool:
    """Return whether ``name`` is valid for a site profile, by the rule for images."""
    return len(name) <= MAX_NAME and bool(re.fullmatch(NAME, name))


def _unknown(name: str, chosen: str, folder: Path) -> UsageError:
    known = sorted(path.stem for path in folder.glob("*.toml") if is_name(path.stem))
    hint = did_you_mean(name, known) or (f" Known are {', '.join(known)}." if known else "")
    return UsageError(
        f"{chosen}: no site profile {name[:MAX_NAME]!r}; it would be the file sites/NAME.toml,"
        f" NAME of lower-case letters, digits, dots and dashes.{hint}"
    )


def _site(table: Table, chosen: str) -> Site:
    site = SITE.value(table, name=table.path.stem, path=table.path, chosen=chosen)
    _refuse_doubles(table, (key for key, _ in site.bases))
    return site


def _refuse_doubles(table: Table, bases: Iterable[str]) -> None:
    """Raise an error for two spellings of one reference."""
    seen: dict[str, str] = {}
    for key in bases:
        other = seen.setdefault(_in_full(key), key)
        if other != key:
            raise UsageError(
                f"{table.path}: bases: {other} and {key} are the same reference; keep one of them"
            )


def _in_full(key: str) -> str:
    """Return a key of ``bases`` in the form of full references."""
    if key.endswith("/"):
        # Docker's rules for a registry's name need something after it.
        return normalise(f"{key}x/x").removesuffix("x/x:latest")
    return normalise(key)


def _field(text: str) -> str:
    """Return a field for docker's CSV, quoted if it contains a comma (RFC 4180)."""
    return '"{}"'.format(text.replace('"', '""')) if set(text) & set(',"') else text
