"""Waits until the nodes of a virtual cluster have booted, and reads their host keys."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from sifline.engines.docker.containers import Container, Containers
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Cluster
from sifline.virtual.wanted import DEFAULT_IMAGE, SSH_PORT

READY_SECONDS = 30
POLL_SECONDS = 0.05
LOOK_SECONDS = 1.0
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"


def host_key(container: Container, context: Context) -> str:
    """Return the known_hosts line of a node; read through the engine, not the network."""
    engine = Containers(context.runner)
    kind, key, *_ = engine.execute(container.name, "cat", HOST_KEY).stdout.split()
    names = f"{container.address},{container.labels['sifline.node']}"
    return f"{names} {kind} {key}\n"


def wait(container: Container, engine: Containers) -> None:
    """Return when sshd answers.

    :raises StepFailed: if the node ended, or after the time limit, with the node's output.
    """
    started = looked = time.monotonic()
    while not _answers(container.address):
        now = time.monotonic()
        if now - started > READY_SECONDS:
            raise not_up(container, f"does not answer on SSH after {READY_SECONDS} s", engine)
        if now - looked > LOOK_SECONDS:
            looked = now
            state = engine.execute(container.name, "true", check=False)
            if not state.ok:
                raise not_up(container, "ended while it started", engine)
        time.sleep(POLL_SECONDS)


def _answers(address: str) -> bool:
    with suppress(OSError), socket.create_connection((address, SSH_PORT), timeout=1) as wire:
        return wire.recv(4) == b"SSH-"
    return False


def not_up(container: Container, what: str, engine: Containers) -> StepFailed:
    """Return the error for a node that did not boot, with its output."""
    return StepFailed(
        f"{container.labels['sifline.node']} {what}; is the image current? try: invoke"
        f" build.{DEFAULT_IMAGE}",
        details=engine.log(container.name),
    )


def log_in(cluster: Cluster, context: Context) -> None:
    """Log in to each node.

    :raises SshFailed: of the first that cannot be reached.
    """
    with Ssh(cluster, context.runner) as ssh:
        _, failed = ssh.each(cluster.nodes, lambda node: ssh.run(node, ["true"]))
    for error in failed.values():
        raise error
