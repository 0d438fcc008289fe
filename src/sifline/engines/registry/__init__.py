"""Runs the scripts ``nodeside/registry.py`` and ``removal.py`` on a node; reads their answers."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from sifline.errors import StepFailed
from sifline.machine.process import Result
from sifline.machine.remote import Remote, Sender
from sifline.machine.streams import OnLine
from sifline.model import Cluster, Node
from sifline.nodeside.registry import PROTOCOL, TOOLS

# Reading a file of ten gigabytes from a slow disk takes some minutes.
READ_SECONDS = 1800
# What the group of deployers may run as root.
TOOL, RECEIVER = f"{TOOLS}/registry", f"{TOOLS}/receive"
_AS_ROOT = ("sudo", "-n", "--")


def token_of(checkout: Path) -> str:
    """Return what tells uploads and leases of one checkout from those of others.

    Two senders never write to one upload, and the next run goes on where a killed one stopped.
    """
    sender = f"{socket.gethostname()}:{os.getuid()}:{checkout}"
    return hashlib.sha256(sender.encode()).hexdigest()[:12]


class RegistryRefused(StepFailed):
    """The registry script of a node failed; ``kind`` is its name of the error."""

    def __init__(self, message: str, *, kind: str, details: str = "") -> None:
        super().__init__(message, details=details)
        self.kind = kind


class Registries:
    """The registries of a cluster's nodes, as the user of ``ssh`` may use them.

    With a group of deployers that is first the tool which the node has installed, and which sudo
    lets the group run; a user who is no member has to become root.
    """

    def __init__(self, remote: Sender) -> None:
        access = remote.cluster.ssh
        self._remote = remote
        self._group = "" if access.user == "root" else remote.cluster.registry.deployers
        # Nodes that did not let the user run the tool.
        self._closed: set[str] = set()

    def ask(self, node: Node, verb: str, **options: str | int) -> dict[str, Any]:
        """Run one verb of the registry script on ``node`` and return its answer.

        :raises RegistryRefused: if the registry refuses, or gives no answer.
        :raises SshFailed: if the user may neither run the tool nor become root.
        """
        if not self._by_tool(node):
            return ask(self._remote, node, verb, **options)
        cluster = self._remote.cluster
        argv = [*_AS_ROOT, TOOL, *_words(cluster, verb, options)]
        result = self._remote.run(node, argv, timeout=READ_SECONDS, check=False)
        if result.stdout or "sudo:" not in result.stderr:
            return _answer(cluster, node, result)
        self._closed.add(node.name)
        try:
            return ask(self._remote, node, verb, **options)
        except StepFailed as error:
            if not isinstance(error, RegistryRefused):
                user = cluster.ssh.user
                error.add(f"or make {user} a member of the group {self._group} there")
            raise

    def send(self, node: Node, path: Path, upload: PurePosixPath, *, on_line: OnLine) -> None:
        """Copy a SIF to the upload that the registry of ``node`` named."""
        if self._by_tool(node):
            # The receiver knows the folder.
            name, receiver = PurePosixPath(upload.name), [*_AS_ROOT, RECEIVER]
            self._remote.send(node, path, name, receiver=receiver, on_line=on_line)
        else:
            self._remote.send(node, path, upload, sudo=True, on_line=on_line)

    def _by_tool(self, node: Node) -> bool:
        return bool(self._group) and node.name not in self._closed


def ask(remote: Remote, node: Node, verb: str, **options: str | int) -> dict[str, Any]:
    """Run one verb of the registry script on ``node`` as root and return its answer.

    :raises RegistryRefused: if the registry refuses, or gives no answer.
    """
    return _run(remote, node, source(), verb, options)


def _run(
    remote: Remote, node: Node, program: str, verb: str, options: Mapping[str, str | int]
) -> dict[str, Any]:
    """Run a program of Python on a node as root, and return its answer."""
    result = remote.run(
        node,
        ["python3", "-", *_words(remote.cluster, verb, options)],
        sudo=True,
        input=program,
        timeout=READ_SECONDS,
        check=False,
    )
    return _answer(remote.cluster, node, result)


def _answer(cluster: Cluster, node: Node, result: Result) -> dict[str, Any]:
    try:
        answer = json.loads(result.stdout)
    except ValueError:
        raise RegistryRefused(
            f"{node.name}: the registry script ended with status {result.returncode}: "
            f"{result.tail(1).strip() or 'no reason given'}; it needs Python 3.9 or newer there",
            kind="no-answer",
            details=result.tail(),
        ) from None
    if "error" in answer:
        raise _refusal(cluster, node, answer)
    return dict(answer)


def _words(cluster: Cluster, verb: str, options: Mapping[str, str | int]) -> list[str]:
    given = {"root": str(cluster.registry_root), "protocol": PROTOCOL, **options}
    return [verb, *(f"--{name}={value}" for name, value in given.items())]


@cache
def source(name: str = "registry.py") -> str:
    """Return the source text of the script."""
    return files("sifline.nodeside").joinpath(name).read_text(encoding="utf-8")


# Python reads one program from its input: the module that the other imports comes along.
_BOTH = """\
import sys, types
known = sys.modules["sifline_registry"] = types.ModuleType("sifline_registry")
exec(compile({registry!r}, "registry.py", "exec"), known.__dict__)
exec(compile({removal!r}, "removal.py", "exec"), {{"__name__": "__main__"}})
"""


@cache
def removal_source() -> str:
    """Return the source text of the script that removes."""
    return _BOTH.format(registry=source(), removal=source("removal.py"))


def ask_removal(remote: Remote, node: Node, verb: str, **options: str | int) -> dict[str, Any]:
    """Run one verb of the script ``nodeside/removal.py`` on ``node`` as root; return its answer.

    :raises RegistryRefused: if it refuses, or gives no answer.
    """
    return _run(remote, node, removal_source(), verb, options)


def _refusal(cluster: Cluster, node: Node, answer: dict[str, str]) -> RegistryRefused:
    hint = {
        "no-registry": f"; run: invoke provision {cluster.flag} --stage registry",
        "busy": "; try again when it is done",
        "other-release": f"; run: invoke provision {cluster.flag} --stage registry",
        "bad-catalog": "; the next deployment there keeps it aside and makes one of the files",
        "leased": "; try again then",
        "lease-lost": "; see what is deployed by now, then deploy again",
        "changed": "; somebody else deploys it, too: deploy again",
        "digest-mismatch": "; it changed on its way, or since it was converted: convert it again",
    }.get(answer["error"], "")
    return RegistryRefused(f"{node.name}: {answer['message']}{hint}", kind=answer["error"])
