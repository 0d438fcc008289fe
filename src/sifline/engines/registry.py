"""Runs the script ``nodeside/registry.py`` on a node and reads its answer."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from sifline.errors import StepFailed
from sifline.machine.remote import Remote
from sifline.model import Cluster, Node

# Reading a file of ten gigabytes from a slow disk takes some minutes.
READ_SECONDS = 1800


class RegistryRefused(StepFailed):
    """The registry script of a node failed; ``kind`` is its name of the error."""

    def __init__(self, message: str, *, kind: str, details: str = "") -> None:
        super().__init__(message, details=details)
        self.kind = kind


def ask(remote: Remote, node: Node, verb: str, **options: str | int) -> dict[str, Any]:
    """Run one verb of the registry script on ``node`` and return its answer.

    :raises RegistryRefused: if the registry refuses, or gives no answer.
    """
    words = [f"--{name}={value}" for name, value in options.items()]
    root = f"--root={remote.cluster.registry_root}"
    result = remote.run(
        node,
        ["python3", "-", verb, root, *words],
        sudo=True,
        input=source(),
        timeout=READ_SECONDS,
        check=False,
    )
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
        raise _refusal(remote.cluster, node, answer)
    return dict(answer)


@cache
def source() -> str:
    """Return the source text of the script."""
    return files("sifline.nodeside").joinpath("registry.py").read_text(encoding="utf-8")


def _refusal(cluster: Cluster, node: Node, answer: dict[str, str]) -> RegistryRefused:
    hint = {
        "no-registry": f"; run: invoke provision {cluster.flag} --stage registry",
        "busy": "; try again when it is done",
        "changed": "; somebody else deploys it, too: deploy again",
        "digest-mismatch": "; it changed on its way, or since it was converted: convert it again",
    }.get(answer["error"], "")
    return RegistryRefused(f"{node.name}: {answer['message']}{hint}", kind=answer["error"])
