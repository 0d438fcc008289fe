"""The interface for running commands on cluster nodes, over SSH or otherwise."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Protocol

from sifline.machine.process import Result
from sifline.machine.streams import Argv, OnLine
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


class Sender(Remote, Protocol):
    """Also copies files to the nodes."""

    def send(
        self,
        node: Node,
        path: Path,
        remote_path: PurePosixPath,
        *,
        sudo: bool = False,
        receiver: Argv | None = None,
        on_line: OnLine | None = None,
    ) -> None:
        """Copy the file ``path`` to ``remote_path`` on ``node``; resume an interrupted copy.

        :param receiver: the command that receives it on the node instead of rsync, as whoever it
            becomes; the path must then be plain, as it passes a shell.
        :raises StepFailed: if the node cannot be reached, or the copy fails.
        """
