"""docs/explanation/architecture.md leads to files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import tomli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/explanation/architecture.md").read_text("utf-8")
PACKAGE = ROOT / "src/sifline"


def rooms() -> set[str]:
    return {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def test_each_room_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)/` \|", TEXT, re.MULTILINE)
    assert sorted(rows) == sorted(rooms())


def test_each_room_has_a_place_among_the_layers() -> None:
    settings = tomli.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = (one for one in contracts if one["type"] == "layers")
    placed = {name for layer in layers["layers"] for name in layer.split(" | ")}
    assert placed == rooms() | {"errors"}
    assert layers["exhaustive"] is True


def test_the_files_that_it_says_to_open_define_the_names_beside_them() -> None:
    beside = re.findall(r"`(src/[\w./]+\.py)` \(([^|]*?`)[^`]*?\)", TEXT)
    names = [(path, name) for path, words in beside for name in re.findall(r"`(\w+)`", words)]
    assert len(names) >= 10
    found = {path: (ROOT / path).read_text("utf-8") for path, _ in names}
    missing = [
        (path, name)
        for path, name in names
        if not re.search(rf"(?m)^ *(?:def|class) {name}\b|^{name} = ", found[path])
    ]
    assert missing == []


def test_the_files_that_it_names_are_there() -> None:
    named = set(re.findall(r"`((?:src|tests|docs)/[\w./]+|\w+/[\w/]*\w+\.py|\w+/\w+/)`", TEXT))
    assert len(named) > 20
    missing = [name for name in named if not ((ROOT / name).exists() or (PACKAGE / name).exists())]
    assert missing == []
