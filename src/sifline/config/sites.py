"""``sites/<name>.toml``: what differs from site to site, so that no Dockerfile has to."""

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
# The secret by which build steps get the certificates they need behind a mirror or a proxy.
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
    """Where a secret comes from: a file or a variable of the environment, never its content."""

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
        """Return what it holds; nothing where that is not there or no text."""
        try:
            path = self.file
            return path.read_text(encoding="utf-8") if path else os.environ.get(self.env, "")
        except (OSError, UnicodeDecodeError):
            return ""

    def argument(self) -> str:
        """Return it as docker's ``--secret`` takes it.

        :raises MissingError: where there is no such file or variable.
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
    """What images meet on the nodes of a cluster: versions, "" where nobody said."""

    mpi: Annotated[str, Key(kind=LINE, help="Open MPI of the cluster.", example="4.1.4")] = ""
    pmix: Annotated[str, Key(kind=LINE, help="PMIx that its Slurm speaks.", example="4.2.2")] = ""
    driver: Annotated[
        str, Key(kind=LINE, help="NVIDIA driver of its nodes.", example="535.161.08")
    ] = ""


@dataclass(frozen=True, kw_only=True)
class Proxies:
    """How build steps reach the network; "" where nobody said."""

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
            help="Hosts that are reached without one.",
            example="localhost,.example.org",
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class _Image:
    """What is for one image alone."""

    build_args: Annotated[
        tuple[tuple[str, str], ...],
        Key(
            name="build-args",
            kind=BUILD_ARGS,
            help="Build arguments for this image alone.",
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
    """A site profile; the defaults are those of no profile. ``chosen`` is who named it."""

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
            help="Pull nothing: an image that others stand on is in the engine already, or is"
            " built here.",
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
            help="Other images in place of those that Dockerfiles name: for one reference, or"
            " for all that begin so, where both sides end in `/`. The longest match counts. One"
            " that names an image of this repository (`sifline/<name>`) is for all images but that"
            " one.",
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
        Key(kind=_IMAGES, help="What is for one image alone."),
    ] = ()
    proxies: Annotated[
        Proxies,
        Key(
            kind=Keys(of=Proxies),
            help="Proxies of build steps; they leave no trace in the image and in fingerprints.",
            hidden=True,
        ),
    ] = Proxies()
    certificates: Annotated[
        Path | None,
        Key(
            kind=File(),
            help=f"CA bundle that build steps get as the secret `{CERTIFICATES}`; without it the"
            " host's own.",
            example="certificates/site.pem",
        ),
    ] = None
    secrets: Annotated[
        tuple[Secret, ...],
        Key(
            kind=_SECRETS,
            help="Where the secrets come from that `RUN --mount=type=secret,id=…` asks for.",
            hidden=True,
        ),
    ] = ()
    apptainer: Annotated[
        SifCompression,
        Key(
            kind=Keys(of=SifCompression, most=LEVELS),
            help="How SIFs are made, where an image.toml does not say it.",
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
            help="Where mmdebstrap gets the root file systems of `[prepare]`; `{suite}` is theirs."
            " The lines stay in the image as its sources.",
            example=["deb https://mirror.example.org/debian {suite} main"],
        ),
    ] = ()
    cluster: Annotated[
        Facts, Key(kind=Keys(of=Facts), help="Facts of the cluster that images run on.")
    ] = Facts()

    @property
    def origin(self) -> str:
        """What its file is called in messages and tables."""
        return f"sites/{self.name}.toml" if self.name else "default"

    def image_args(self, name: str) -> dict[str, str]:
        """Return the build arguments that are for the image ``name`` alone."""
        return dict(dict(self.images).get(name, ()))

    def replacement(self, reference: str) -> str:
        """Return the reference to use in place of a foreign one, itself where none is named."""
        full = normalise(reference)
        for key, value in self._replacements:
            if full == key:
                return value
            if key.endswith("/") and full.startswith(key):
                return value + full.removeprefix(key)
        return reference

    @cached_property
    def _replacements(self) -> tuple[tuple[str, str], ...]:
        """The keys of ``bases`` in full, the longest first."""
        full = ((_in_full(key), value) for key, value in self.bases)
        return tuple(sorted(full, key=lambda item: len(item[0]), reverse=True))

    def sources(self, suite: str) -> tuple[str, ...]:
        """Return the lines of sources.list that a root file system of ``suite`` comes from."""
        return tuple(line.replace("{suite}", suite) for line in self.apt_sources)

    def proxy_arguments(self) -> dict[str, str]:
        """Return the proxies as build arguments that the engine knows, in both spellings."""
        named = {f"{name}_proxy": url for name, url in vars(self.proxies).items() if url}
        return {**{name.upper(): value for name, value in named.items()}, **named}

    def hidden(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Return what no log shall show: the lines of these secrets, the credentials of proxies.

        Very short ones would blot out half of what is printed.
        """
        held = [secret.content() for secret in self.secrets if secret.id in set(ids)]
        held += docker_client.credentials(vars(self.proxies).values())
        lines = {line.strip() for text in held for line in text.splitlines()}
        return tuple(sorted(line for line in lines if len(line) >= LEAST_HIDDEN))

    def secret_arguments(self, ids: Iterable[str]) -> dict[str, str]:
        """Return those of the secrets ``ids`` that are known, as docker's ``--secret`` takes them.

        :raises MissingError: where one of them is not where the profile says.
        """
        known = {secret.id: secret for secret in self.secrets}
        if self.certificates:
            known.setdefault(CERTIFICATES, Secret(id=CERTIFICATES, file=self.certificates))
        return {name: known[name].argument() for name in ids if name in known}


SITE = Keys(of=Site)


def load_site(workspace: Workspace, name: str = "") -> Site:
    """Return the site profile ``name``, else the one of SIFLINE_SITE, else ``default``, else none.

    :raises UsageError: for a name without a profile, with the nearest ones; for a profile that
        cannot be used, naming file, key and what is allowed.
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
    """Tell whether a site profile can be called ``name``: by the rule for images."""
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
    """Refuse two spellings of one reference: which of them counts, nobody could tell."""
    seen: dict[str, str] = {}
    for key in bases:
        other = seen.setdefault(_in_full(key), key)
        if other != key:
            raise UsageError(
                f"{table.path}: bases: {other} and {key} are the same reference; keep one of them"
            )


def _in_full(key: str) -> str:
    """A key of ``bases`` as references in full have it."""
    if key.endswith("/"):
        # Docker's rules for what stands in front hang on something standing behind.
        return normalise(f"{key}x/x").removesuffix("x/x:latest")
    return normalise(key)


def _field(text: str) -> str:
    """A field of the list that docker takes, in quotes where it holds a comma (RFC 4180)."""
    return '"{}"'.format(text.replace('"', '""')) if set(text) & set(',"') else text
