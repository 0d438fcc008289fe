"""The context of a run, which every stage gets."""

from __future__ import annotations

from dataclasses import dataclass

from sifline.machine.process import Runner
from sifline.model import Progress, Workspace


@dataclass(frozen=True, kw_only=True)
class Context:
    """The folders, a runner for processes, and callbacks for progress.

    ``waiting`` is for what another run does meanwhile; without it, ``progress`` is.
    """

    workspace: Workspace
    runner: Runner
    progress: Progress
    waiting: Progress | None = None

    def wait(self, text: str) -> None:
        """Report that another run has to end first."""
        (self.waiting or self.progress)(text)
