"""Stanzas of fields, as deb-control(5) describes them; the metadata of Python begins with one.

No content is an error: images may hold damaged files. python-debian is less tolerant, and slower;
docs/explanation/architecture.md has the comparison.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Fields = Mapping[str, list[str]]


def stanzas(content: bytes) -> list[str]:
    """Return the stanzas of a file, which empty lines part; a line of spaces is not empty.

    An empty file has one stanza, which is empty.
    """
    text = content.decode("utf-8", "replace").replace("\r\n", "\n").strip("\n")
    return re.split(r"\n\n+", text)


def fields(stanza: str) -> dict[str, list[str]]:
    """Return the fields of a stanza by name in lower case; a line that is none does not count."""
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
    """Return the first value of a field; "" where there is none."""
    return of[key][0] if key in of else ""
