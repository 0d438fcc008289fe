"""What the modules of the package may print."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from sifline.tasks import flags

# What stands for a word that is known only then.
ANY = "x"


def texts(path: Path) -> Iterator[str]:
    """Yield what a module may print: its strings, ANY for what is put into them."""
    internal = {flag.name for flag in flags.CORE.values()}
    tree = ast.parse(path.read_text())
    parts = {
        part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else ANY for part in node.values
            )
        # What completion calls Invoke's own flags is no command.
        elif isinstance(node, ast.Constant) and node not in parts and node.value not in internal:
            yield str(node.value)
