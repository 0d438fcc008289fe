"""Shared SSH connections: one per node, used by all commands to that node."""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from sifline.engines.ssh.faults import (
    DEFAULT_PORT,
    Fault,
    SshFailed,
    classify,
    explain,
    failure,
    key_fault,
)
from sifline.errors import StepFailed
from sifline.machine.process import CommandFailed, Runner
from sifline.machine.scratch import Scratch
from sifline.model import Cluster, Node

CONNECT_SECONDS = 10
PERSIST_SECONDS = 60
# Seconds for which a node that did not answer is not tried again: each try costs the time-out.
DOWN_SECONDS = 30
# A socket's path may have at most 108 bytes, and ssh appends 17 temporarily.
LONGEST_TEMPORARY = 50


class Connections:
    """Opens the connection to a node on first use, and closes all at the end."""

    def __init__(self, cluster: Cluster, runner: Runner) -> None:
        self._cluster, self._runner = cluster, runner
        self._scratch = _scratch()
        self._sockets = self._scratch.path
        self._locks = {node.name: threading.Lock() for node in cluster.whole}
        self._open: set[str] = set()
        self._closed = False
        self._down: dict[str, tuple[float, SshFailed]] = {}

    def open(self, node: Node) -> None:
        """Connect to ``node``, unless it is connected.

        :raises SshFailed: if that fails, or failed shortly before.
        """
        with self._locks[node.name]:
            if self._closed:
                raise StepFailed(f"{node.name}: the connections are closed")
            if node.name in self._open:
                return
            self._recall(node)
            if why := key_fault(self._cluster.ssh.identity_file):
                text = explain(self._cluster, node, Fault.NO_KEY, why)
                raise SshFailed(text, fault=Fault.NO_KEY, node=node.name)
            result = self._runner.run(
                [*self.ssh(node, master=True), self.target(node)],
                check=False,
                timeout=3 * CONNECT_SECONDS,
            )
            if not result.ok:
                fault = classify(result.stderr) or Fault.LOST
                error = failure(self._cluster, node, fault, result)
                self._down[node.name] = time.monotonic(), error
                raise error
            self._open.add(node.name)

    def lost(self, node: Node) -> None:
        """Mark the connection as lost: the next command opens a new one."""
        self._open.discard(node.name)

    def close(self) -> None:
        """Close all open connections; no new ones can be opened."""
        self._closed = True
        for node in self._cluster.whole:
            if node.name in self._open:
                # A connection that hangs closes after half a minute.
                with suppress(CommandFailed):
                    self._runner.run(
                        [*self.ssh(node), "-O", "exit", self.target(node)],
                        check=False,
                        timeout=5,
                    )
        self._open.clear()
        self._scratch.remove()

    def ssh(self, node: Node, *, master: bool = False) -> list[str]:
        """Return the ssh command line up to the target, with the shared connection."""
        access = self._cluster.ssh
        number = self._cluster.whole.index(node)
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ControlMaster": "yes" if master else "no",
            "ControlPath": str(self._sockets / str(number)),
            "LogLevel": "ERROR",
            "ServerAliveCountMax": "3",
            "ServerAliveInterval": "10",
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
        }
        if access.known_hosts is not None:
            options["UserKnownHostsFile"] = f'"{access.known_hosts}"'
            options["GlobalKnownHostsFile"] = "none"
        if access.identity_file is not None:
            options["IdentitiesOnly"] = "yes"
        if master:
            options["ControlPersist"] = str(PERSIST_SECONDS)
        return [
            "ssh",
            "-T",
            *(["-f", "-N"] if master else []),
            *(["-i", str(access.identity_file)] if access.identity_file else []),
            *(["-p", str(access.port)] if access.port != DEFAULT_PORT else []),
            *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
        ]

    def target(self, node: Node, *, brackets: bool = False) -> str:
        """Return the node in ssh's notation; ``brackets`` are put around IPv6, for rsync."""
        host = node.address or node.name
        if brackets and ":" in host:
            host = f"[{host}]"
        return f"{self._cluster.ssh.user}@{host}"

    def _recall(self, node: Node) -> None:
        when, error = self._down.get(node.name, (-DOWN_SECONDS, None))
        if error is not None and time.monotonic() - when < DOWN_SECONDS:
            raise error


def _scratch() -> Scratch:
    """Return a folder for the control sockets, whose paths must not be long."""
    usual = Path(tempfile.gettempdir())
    return Scratch(usual if len(str(usual)) <= LONGEST_TEMPORARY else Path("/tmp"))  # noqa: S108
