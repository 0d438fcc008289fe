"""What every stage is handed."""

from __future__ import annotations

from dataclasses import dataclass

from sifline.machine.process import Runner
from sifline.model import Progress, Workspace


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every stage is handed: where to work, how to run things, whom to tell."""

    workspace: Workspace
    runner: Runner
    progress: Progress
