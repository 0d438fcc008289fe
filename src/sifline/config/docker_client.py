"""What the caller's environment and docker's own settings would decide of a build.

Each variable that docker and buildx read is in the table of docs/reference/environment.md: it is
taken away, refused, or left because it decides nothing of what is built.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sifline.errors import UsageError
from sifline.formats.platforms import MACHINES

# No process of ours gets these: what they say is said by flags, or would change what is built
# without a trace in the fingerprint.
WITHOUT = frozenset(
    {
        "BUILDKIT_COLORS",
        "BUILDKIT_HOST",
        "BUILDKIT_PROGRESS",
        "BUILDKIT_TTY_LOG_LINES",
        "BUILDX_BUILDER",
        "BUILDX_EXPERIMENTAL",
        "BUILDX_GIT_CHECK_DIRTY",
        "BUILDX_GIT_INFO",
        "BUILDX_GIT_LABELS",
        "BUILDX_METADATA_PROVENANCE",
        "BUILDX_METADATA_WARNINGS",
        "BUILDX_NO_DEFAULT_ATTESTATIONS",
        "BUILDX_NO_DEFAULT_LOAD",
        "BUILDX_NO_DEFAULT_OCI_ARTIFACT",
        "BUILDX_SEND_GIT_QUERY_AS_INPUT",
        "DOCKER_BUILDKIT",
        "DOCKER_DEFAULT_PLATFORM",
        # A hook of git sets these for its own repository.
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_WORK_TREE",
        "TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX",
    }
)
EPOCH = "SOURCE_DATE_EPOCH"
PLATFORM, POLICY = "DOCKER_DEFAULT_PLATFORM", "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"
PROXIES = ("http", "https", "ftp", "all")
_LEAST_ALONE = 8


def settings() -> dict[str, Any]:
    """Return docker's settings (config.json); empty where there are none, or nobody can tell."""
    try:
        folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, RuntimeError, ValueError):
        return {}  # no file, no home; docker itself warns of what it cannot read, and goes on


def proxies() -> tuple[str, ...]:
    """Return the proxies of docker's settings, for whatever engine: it hands them to each step."""
    found = settings().get("proxies")
    engines = found.values() if isinstance(found, dict) else ()
    urls = (
        engine.get(f"{kind}Proxy")
        for engine in engines
        if isinstance(engine, dict)
        for kind in PROXIES
    )
    return tuple(dict.fromkeys(url for url in urls if isinstance(url, str) and url))


def credentials(urls: Iterable[str]) -> tuple[str, ...]:
    """Return what no log shall show of proxies: their passwords, however they are written."""
    found = set[str]()
    for url in urls:
        login = url.rpartition("@")[0].rpartition("//")[2]
        plain = unquote(login)
        _, colon, password = plain.partition(":")
        # A short word alone would blot out half of what is printed.
        alone = {password if colon else plain}
        found |= {login, plain, b64encode(plain.encode()).decode()} if colon else set()
        found |= {word for word in alone if len(word) >= _LEAST_ALONE}
    return tuple(sorted(found))


def hidden(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what no log shall show of the proxies of docker and of the caller's environment."""
    variables = [f"{kind}_proxy" for kind in PROXIES]
    named = [environment.get(name, "") for one in variables for name in (one, one.upper())]
    return credentials([*proxies(), *named])


def need_no_other(
    environment: Mapping[str, str], *, local: bool, engine: Callable[[], str], machine: str
) -> None:
    """Refuse what would have other images built than the same Dockerfiles give elsewhere.

    :param local: whether the engine is on this machine.
    :param engine: asks the engine for its platform: ``linux/amd64``.
    :param machine: what this machine is, as uname calls it.
    :raises UsageError: naming the variable and what to do.
    """
    if environment.get(POLICY):
        raise UsageError(
            f"{POLICY} is set: it has other sources taken than Dockerfiles name, which no"
            " fingerprint would show; unset it, and name other images under [bases] of a site"
        )
    wanted = environment.get(PLATFORM, "")
    if local and not wanted:
        return
    has, here = engine(), _platform(f"linux/{machine}")
    if wanted and _platform(wanted) != _platform(has):
        raise UsageError(
            f"{PLATFORM}={wanted}: images are built for the engine's own platform, {has}; unset"
            " it, or use an engine of that platform"
        )
    if _without_variant(_platform(has)) != _without_variant(here):
        raise UsageError(
            f"the engine runs {has}, this machine {here}; use an engine of this platform, or run"
            " this on that machine: see docker context ls and DOCKER_HOST"
        )


def _platform(text: str) -> str:
    """A platform in the words of docker: other names of a machine are the same."""
    system, _, machine = text.strip().lower().partition("/")
    machine = machine.removesuffix("/v1") if machine == "amd64/v1" else machine.removesuffix("/v8")
    return f"{system}/{MACHINES.get(machine, machine)}"


def _without_variant(platform: str) -> str:
    """A platform as the engine tells its own: ``linux/arm``, where uname knows which arm."""
    return "/".join(platform.split("/")[:2])
