"""Draws graphs with Graphviz."""

from __future__ import annotations

from sifline.errors import MissingError, StepFailed
from sifline.machine.process import CommandFailed, Runner

OTHERWISE = "invoke graph --format mermaid"


def svg(graph: str, runner: Runner) -> str:
    """Return ``graph``, written in DOT, as an SVG.

    :raises MissingError: if Graphviz is not installed.
    :raises StepFailed: if it cannot draw the graph.
    """
    if not runner.which("dot"):
        raise MissingError(
            "Graphviz, which draws SVGs, is not installed; run scripts/bootstrap, or draw without"
            f" it: {OTHERWISE}"
        )
    try:
        return runner.run(["dot", "-Tsvg"], input=graph).stdout
    except CommandFailed as error:
        raise StepFailed(
            f"Graphviz cannot draw the graph: {error.message}; draw it without: {OTHERWISE}",
            details=error.details,
        ) from None
