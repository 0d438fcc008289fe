"""Checks the caller's environment and docker's settings, which could change a build.

Each variable that docker and buildx read is in the table of docs/reference/environment.md: it is
removed, refused, or kept because it does not affect the result.
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

# Removed from the environment of all processes: flags replace them, or they would change what is
# built without changing the fingerprint.
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
    """Return docker's settings (config.json); {} if there are none, or they cannot be read."""
    try:
        folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    except (OSError, RuntimeError, ValueError):
        return {}  # no file or no home; docker itself warns about an unreadable file


def proxies() -> tuple[str, ...]:
    """Return the proxies in docker's settings, of all engines: docker passes them to each step."""
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
    """Return the passwords of proxies in all spellings, to mask them in logs."""
    found = set[str]()
    for url in urls:
        login = url.rpartition("@")[0].rpartition("//")[2]
        plain = unquote(login)
        _, colon, password = plain.partition(":")
        # A short word would mask half of the output.
        alone = {password if colon else plain}
        found |= {login, plain, b64encode(plain.encode()).decode()} if colon else set()
        found |= {word for word in alone if len(word) >= _LEAST_ALONE}
    return tuple(sorted(found))


def hidden(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return what logs must mask: credentials of proxies in docker's settings or variables."""
    variables = [f"{kind}_proxy" for kind in PROXIES]
    named = [environment.get(name, "") for one in variables for name in (one, one.upper())]
    return credentials([*proxies(), *named])


def need_no_other(
    environment: Mapping[str, str], *, local: bool, engine: Callable[[], str], machine: str
) -> None:
    """Raise an error for settings that would build other images from the same Dockerfiles.

    :param local: whether the engine is on this machine.
    :param engine: returns the engine's platform: ``linux/amd64``.
    :param machine: this machine's name in uname.
    :raises UsageError: naming the variable and what to do.
    """
    if environment.get(POLICY):
        raise UsageError(
            f"{POLICY} is set: it replaces sources that Dockerfiles name, which the fingerprint"
            " does not show; unset it, and name other images under [bases] of a site"
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
    """Return a platform in docker's notation, with other names of a machine replaced."""
    system, _, machine = text.strip().lower().partition("/")
    machine = machine.removesuffix("/v1") if machine == "amd64/v1" else machine.removesuffix("/v8")
    return f"{system}/{MACHINES.get(machine, machine)}"


def _without_variant(platform: str) -> str:
    """Return a platform without its variant: ``linux/arm``, as the engine reports its own."""
    return "/".join(platform.split("/")[:2])
