"""The context of a stage for tests."""

from __future__ import annotations

from pathlib import Path

from sifline.machine.context import Context
from sifline.machine.process import ProcessRunner, Runner
from sifline.model import Progress, Workspace


def context_of(
    root: Path, runner: Runner | None = None, progress: Progress = lambda _: None
) -> Context:
    """Return the context of a checkout; processes are real unless ``runner`` is another."""
    return Context(
        workspace=Workspace(root=root), runner=runner or ProcessRunner(), progress=progress
    )
