"""Writes the table of variables into the README of each Ansible role.

``python -m sifline.config.role_tables FOLDER`` reads ``meta/argument_specs.yml`` of each role in
``FOLDER`` and writes the table into its ``README.md``, between two comments.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_BEGIN, _END = "<!-- variables -->", "<!-- end of variables -->"
_SHARED = re.compile(r"\{\{ (\w+) \| default\((\w+)\) \}\}")
_PLACE = re.compile(f"{_BEGIN}.*?{_END}", re.DOTALL)


def table(role: Path) -> str:
    """Return the variables of the role in the folder ``role`` as a Markdown table."""
    import yaml

    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
    rows = [
        "| variable | takes | default | meaning |",
        "|---|---|---|---|",
        *_rows(specs["argument_specs"]["main"].get("options", {}), ""),
    ]
    return "".join(f"{row}\n" for row in rows)


def page(text: str, role: Path) -> str:
    """Return the README ``text`` with the table of the role inserted, if it has a place for it."""
    return _PLACE.sub(lambda _: f"{_BEGIN}\n\n{table(role)}\n{_END}", text)


def write(folder: Path) -> None:
    """Write the table into the README of each role in ``folder``."""
    for found in sorted(folder.glob("*/README.md")):
        text = found.read_text(encoding="utf-8")
        found.write_text(page(text, found.parent), encoding="utf-8")


def _rows(options: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, option in options.items():
        yield _row(f"{prefix}{name}", option)
        several = "[]" if option.get("type") == "list" else ""
        yield from _rows(option.get("options", {}), f"{prefix}{name}{several}.")


def _row(name: str, option: Mapping[str, Any]) -> str:
    kind = f"list of {option['elements']}" if "elements" in option else option["type"]
    if choices := option.get("choices"):
        kind = f"one of {', '.join(map(str, choices))}"
    cells = (f"`{name}`", kind, _default(option), option["description"])
    return (
        f"| {' | '.join(' '.join(str(cell).split()).replace('|', '&#124;') for cell in cells)} |"
    )


def _default(option: Mapping[str, Any]) -> str:
    if option.get("required"):
        return "required"
    found = option.get("default", "")
    if isinstance(found, bool):
        return f"`{str(found).lower()}`"
    if isinstance(found, list):
        return ", ".join(f"`{item}`" for item in found)
    # Such as packer_build, which all roles share.
    shared = _SHARED.fullmatch(str(found))
    return f"`{shared[1]}`, else {shared[2]}" if shared else str(found)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
