"""A real registry, and images in it."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from .engine import CA_BUNDLE, docker

DOCKERFILE = r"""
FROM docker.io/sifline/debian-bookworm
RUN --mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt,mode=0444 \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    apt-get update \
    && apt-get install --yes --no-install-recommends docker-registry
COPY config.yml /
CMD ["docker-registry", "serve", "/config.yml"]
"""
CONFIG = """
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}}
# The environment says where it listens.
http: {addr: "127.0.0.1:5000"}
"""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Debian's docker-registry in a container; localhost needs no TLS."""
    name = f"t{uuid4().hex[:8]}-registry"
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "config.yml").write_text(CONFIG)
    secret = f"id=ca-certificates,src={CA_BUNDLE}"
    docker("buildx", "build", "--secret", secret, "--tag", name, str(folder))
    # On the host's network: the engine's proxy for published ports was seen to lose an answer, and
    # then a pull waits for ever.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    listening = ("--network", "host", "--env", f"REGISTRY_HTTP_ADDR=127.0.0.1:{port}")
    docker("run", "--detach", "--name", name, *listening, name)
    address = f"localhost:{port}"
    try:
        wait_for(address)
        yield address
    finally:
        docker("rm", "--force", "--volumes", name)
        docker("image", "rm", name)
        # By digest they stay, whatever became of their tags.
        held = docker("image", "ls", "--quiet", "--filter", f"reference={address}/*/*").stdout
        if held.split():
            docker("image", "rm", "--force", *set(held.split()))


def wait_for(address: str) -> None:
    """Return when the registry answers; fail where it never does."""
    last = time.monotonic() + 300  # seconds, on a very busy machine
    while time.monotonic() < last:
        try:
            urllib.request.urlopen(f"http://{address}/v2/", timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no registry answers at {address}")


class Base:
    """A foreign image in the registry, whose tag can be moved.

    ``ids`` are those of all images that it was.
    """

    def __init__(self, registry: str, folder: Path) -> None:
        self.repository = f"{registry}/acme/base-{uuid4().hex[:8]}"
        self.name = f"{self.repository}:1"
        self.ids = list[str]()
        self._folder = folder / "base"
        self._folder.mkdir()

    def push(self, content: str) -> None:
        """Put an image with that content there; the engine forgets it."""
        (self._folder / "Dockerfile").write_text("FROM scratch\nCOPY content /\n")
        (self._folder / "content").write_text(content)
        made = self._folder.with_name("id")
        options = ("--iidfile", str(made), "--tag", self.name)
        docker("buildx", "build", *options, str(self._folder))
        self.ids.append(made.read_text())
        docker("push", self.name)
        docker("image", "rm", self.name)
