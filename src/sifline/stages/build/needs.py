"""What a build needs besides its recipe: secrets, SSH agents, base images, a recent engine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sifline.config.images import AGENT, origin
from sifline.engines.docker.builds import CA_SECRET
from sifline.engines.docker.images import EngineImage
from sifline.engines.docker.versions import base_ids
from sifline.errors import MissingError
from sifline.formats.dockerfile import features
from sifline.formats.reference import normalise
from sifline.machine import certificates
from sifline.model import Image


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the site gives a build besides its recipe; it does not count as a change.

    ``proxies`` are build arguments that BuildKit predefines; ``secrets`` are docker's options, by
    id; ``hide`` are the secrets' contents; ``commit`` is the commit of the checkout. ``buildkit``
    is the engine's version, 8 for 0.8; None if it is unknown or not needed.
    """

    proxies: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    hide: tuple[str, ...] = ()
    offline: bool = False
    commit: str = ""
    buildkit: int | None = None


def need(image: Image, around: Surroundings, listed: Sequence[EngineImage]) -> None:
    """Check that everything the build needs is available before it starts.

    :raises MissingError: naming the secret, the agent, the base image at an offline site, or the
        line that the engine is too old for.
    """
    known = known_secrets(around)
    for name, required in image.secrets:
        if required and name not in known:
            raise MissingError(
                f"{image.name} needs the secret {name}; name it under [secrets] of a site profile"
                " and use that with --site"
            )
    agents = agents_of(image, os.environ)
    for name, required in image.ssh:
        if required and name not in agents:
            raise MissingError(
                f"{image.name} needs an agent of ssh for the id {name}; start one (ssh-agent), or"
                f" name a key under [ssh] of {origin(image.name)}"
            )
    names = {normalise(name) for entry in listed for name in entry.tags + entry.digests}
    if around.offline and image.frontend and normalise(image.frontend) not in names:
        raise MissingError(
            f"{image.name}: its line # syntax={image.frontend} needs network access"
            " at every build, and the site is offline; load that image, or remove that line"
        )
    _need_features(image, around)
    held = base_ids([image], listed)
    for base in image.bases:
        if around.offline and base not in held:
            raise MissingError(
                f"{image.name} is built on {base}, which is not in the engine, and the site is"
                " offline; load that image, or name another for it under [bases] of the site"
            )


def _need_features(image: Image, around: Surroundings) -> None:
    """Raise an error for a line that the engine's BuildKit does not know, or ignores.

    A Dockerfile frontend (``# syntax=``) supports the same lines on any engine.
    """
    if around.buildkit is None or image.frontend:
        return
    for feature in image.features:
        if feature.buildkit > around.buildkit:
            reader = "" if around.offline else ", begin it with # syntax=docker/dockerfile:1"
            raise MissingError(
                f"{image.name}: {feature.what} in line {feature.line} of its Dockerfile needs"
                f" {features.release(feature.buildkit)}, and this engine has"
                f" 0.{around.buildkit}; write it without{reader}, or install a newer Docker engine"
                " and see invoke doctor"
            )


def known_secrets(around: Surroundings) -> dict[str, str]:
    """Return the available secrets as options for docker, by id."""
    return {**_ca_secret(os.environ), **around.secrets}


def _ca_secret(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the host's CA bundle, which build steps need behind some mirrors and proxies."""
    path = certificates.bundle(environment)
    return {CA_SECRET: f"id={CA_SECRET},src={path}"} if path else {}


def agents_of(image: Image, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the socket or key of each SSH id that the image's steps ask for and that exists.

    :raises MissingError: if a file named in image.toml does not exist.
    """
    said, found = dict(image.agents), dict[str, str]()
    for name, _ in image.ssh:
        path = said.get(name, AGENT)
        if path == AGENT:
            path = environment.get("SSH_AUTH_SOCK", "")
        elif not Path(path).expanduser().exists():
            raise MissingError(
                f"{origin(image.name)}: ssh.{name}: there is no {path}; name another"
            )
        if path:
            found[name] = str(Path(path).expanduser())
    return found
