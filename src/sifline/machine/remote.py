"""The interface for running commands on cluster nodes, over SSH or otherwise."""

from __future__ import annotations

from typing import Protocol

from sifline.machine.process import Result
from sifline.machine.streams import Argv
from sifline.model import Cluster, Node


class Remote(Protocol):
    """Runs commands on the nodes of ``cluster``."""

    @property
    def cluster(self) -> Cluster:
        """Return the cluster of the nodes."""

    def run(
        self,
        node: Node,
        argv: Argv,
        *,
        sudo: bool = False,
        user: str | None = None,
        input: str | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> Result:
        """Run ``argv`` on ``node``: as root with ``sudo``, or as ``user`` in that user's home.

        :raises StepFailed: if the node cannot be reached; after ``timeout`` seconds; with
            ``check``, for any status but 0.
        """
