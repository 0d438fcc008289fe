"""The context of a run, which every stage gets."""

from __future__ import annotations

from dataclasses import dataclass

from sifline.machine.process import Runner
from sifline.model import Progress, Workspace


@dataclass(frozen=True, kw_only=True)
class Context:
    """The folders, a runner for processes, and a callback for progress."""

    workspace: Workspace
    runner: Runner
    progress: Progress
