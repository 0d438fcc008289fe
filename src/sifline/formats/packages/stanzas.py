"""Parses stanzas of fields, the format of deb-control(5) and of Python's core metadata.

No content raises an error: images may contain damaged files. python-debian is less tolerant, and
slower; docs/explanation/architecture.md has the comparison.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Fields = Mapping[str, list[str]]


def stanzas(content: bytes) -> list[str]:
    """Return the stanzas of a file, separated by empty lines; a line of spaces is not empty.

    An empty file gives one empty stanza.
    """
    text = content.decode("utf-8", "replace").replace("\r\n", "\n").strip("\n")
    return re.split(r"\n\n+", text)


def fields(stanza: str) -> dict[str, list[str]]:
    """Return the fields of a stanza by lower-case name; other lines are ignored."""
    found: dict[str, list[str]] = {}
    last: list[str] = []
    for line in stanza.split("\n"):
        if line[:1] in (" ", "\t"):
            if last:
                last[-1] += f"\n{line.strip()}"
            continue
        key, colon, value = line.partition(":")
        if colon:
            last = found.setdefault(key.strip().lower(), [])
            last.append(value.strip())
    return found


def first(of: Fields, key: str) -> str:
    """Return the first value of a field; "" if there is none."""
    return of[key][0] if key in of else ""
