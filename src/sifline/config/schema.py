"""Writes the JSON Schemas of settings files, and the tables of keys in the reference.

``python -m sifline.config.schema FOLDER`` writes the JSON Schemas into ``FOLDER``, and the tables
into the pages there that have a place for them.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sifline.config.clusters import CLUSTER
from sifline.config.images import IMAGE
from sifline.config.sites import SITE
from sifline.fields.keys import Key, Keys, Named, Rows
from sifline.fields.kinds import Schema

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILES: dict[str, tuple[str, Keys[Any]]] = {
    "cluster": ("clusters/<name>.yaml, short format", CLUSTER),
    "image": ("images/<name>/image.toml", IMAGE),
    "site": ("sites/<name>.toml", SITE),
}
PAGES = {"cluster": "cluster-file.md", "image": "image-toml.md", "site": "site-profile.md"}

_BEGIN, _END = "<!-- keys -->", "<!-- end of keys -->"
_PLACE = re.compile(f"{_BEGIN}.*?{_END}", re.DOTALL)


def schema(file: str) -> Schema:
    """Return the JSON Schema (draft 2020-12) of a file: "cluster", "image" or "site"."""
    title, keys = FILES[file]
    return {"$schema": DIALECT, "title": title, **keys.schema()}


def schema_text(file: str) -> str:
    """Return the schema as the text of its file."""
    return json.dumps(schema(file), indent=2, ensure_ascii=False) + "\n"


def table(file: str) -> str:
    """Return the keys of a file as a Markdown table."""
    rows = [
        "| key | takes | default | meaning |",
        "|---|---|---|---|",
        *_rows(FILES[file][1], ""),
    ]
    return "".join(f"{row}\n" for row in rows)


def page(text: str, file: str) -> str:
    """Return the page ``text`` with the table of keys inserted, if it has a place for it."""
    return _PLACE.sub(lambda _: f"{_BEGIN}\n\n{table(file)}\n{_END}", text)


def write(folder: Path) -> None:
    """Write the schemas, and the tables into the existing pages."""
    for file, name in PAGES.items():
        (folder / f"{file}.schema.json").write_text(schema_text(file), encoding="utf-8")
        found = folder / name
        if found.is_file():
            found.write_text(page(found.read_text(encoding="utf-8"), file), encoding="utf-8")


def _rows(keys: Keys[Any], prefix: str) -> Iterator[str]:
    for key in keys.keys:
        name, inner = f"{prefix}{key.name}", key.kind
        yield _row(key, name)
        if isinstance(inner, Named):
            name, inner = f"{name}.{inner.placeholder}", inner.entries[0][1]
        elif isinstance(inner, Rows):
            name, inner = f"{name}[]", inner.item
        if isinstance(inner, Keys):
            yield from _rows(inner, f"{name}.")


def _row(key: Key, name: str) -> str:
    default = "required" if key.required else _default(key)
    cells = (f"`{name}`", key.kind.what, default, key.help)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _default(key: Key) -> str:
    default = key.schema().get("default")
    return "" if default in (None, [], {}) else f"`{json.dumps(default)}`"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
