"""What is wrong with configuration files of Slurm, for people and as values."""

from __future__ import annotations

from typing import Any

from sifline.report.tables import fitting
from sifline.stages.lint_slurm import Linted


def text(found: Linted) -> str:
    """Return a line for each finding, and a count."""
    return fitting([*(item.message for item in found.findings), count(found)])


def values(found: Linted) -> dict[str, Any]:
    """Return the same for JSON."""
    return {
        "release": found.release,
        "files": list(found.files),
        "findings": [
            {
                "file": item.file,
                "line": item.line,
                "effect": item.effect.value,
                "what": item.what,
                "does": item.does,
                "write": item.write,
            }
            for item in found.findings
        ],
    }


def count(found: Linted) -> str:
    """Return how many findings there are, in words."""
    many, files = len(found.findings), len(found.files)
    named = "1 file" if files == 1 else f"{files} files"
    said = "nothing" if not many else "1 finding" if many == 1 else f"{many} findings"
    return f"{said} in {named}, for Slurm {found.release}"
