"""The commands that messages and documents name are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sifline
from sifline.tasks import flags

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"\binvoke ((?:--[a-z]+ )*)([a-z][a-z-]*(?:\.[\w<>*-]+(?:\.[\w-]+)*)?)")
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
# What stands for a word that is known only then.
ANY = "x"
INTERNAL = {flag.name for flag in flags.CORE.values()}


def texts(path: Path) -> Iterator[str]:
    """Yield what a module may print: its strings, ANY for what is put into them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else ANY for part in node.values
            )
        # What completion calls Invoke's own flags is no command.
        elif isinstance(node, ast.Constant) and node.value not in INTERNAL:
            yield str(node.value)


def unknown(text: str) -> list[str]:
    """Return the tasks that a text names and that are not there."""
    named = [match[2] for match in COMMAND.finditer(text)]
    return [name for name in named if name != ANY and flags.of_task(name) is None]


def test_messages_name_tasks_that_are_there() -> None:
    modules = sorted(Path(sifline.__file__).parent.rglob("*.py"))
    found = {
        path.name: names
        for path in modules
        if (names := [name for text in texts(path) for name in unknown(text)])
    }

    assert found == {}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_tasks_that_are_there(path: Path) -> None:
    blocks = re.findall(r"(?m)^(?:\$ |    )(invoke .*)$|`(invoke [^`]*)`", path.read_text())

    assert [name for pair in blocks for text in pair for name in unknown(text)] == []


def test_a_task_that_is_not_there_is_seen() -> None:
    assert unknown("run invoke key -- newpair, or invoke --dry build.x") == ["key"]
