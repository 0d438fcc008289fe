"""Writes the reference page of failure classes: ``python -m sifline.report.diagnosis FILE``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from sifline.nodeside.diagnose_training_failure import CLASSES, RULES, SOURCES, XIDS, Class

HEAD = """\
# Failure classes

The classes that `diagnose_training_failure.py` can answer: what each means, what to do, and the
evidence that decides.
[Find out why a job failed](../how-to/find-out-why-a-job-failed.md) shows how
to run it.

A message is evidence only if it is the program's own: quoted text, lines of other jobs or earlier
attempts, and errors after which the program went on do not count. A class explains those that
follow from it: a GPU's memory error explains the exception of the program that used this GPU.
"""


def page() -> str:
    """Return the page as Markdown, made of the program's own data."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    yield HEAD
    for group, found in groupby(CLASSES.items(), key=lambda item: item[1].group):
        yield f"## {group.replace('-', ' ').capitalize()}\n"
        for name, kind in found:
            yield from _section(name, kind)


def _section(name: str, kind: Class) -> Iterator[str]:
    yield f"### {name}\n"
    yield f"{kind.meaning}\n"
    yield f"- Next: {kind.next}."
    yield f"- Fault: {kind.fault}. Retry unchanged: {'yes' if kind.retry else 'no'}.\n"
    if rows := list(_evidence(name)):
        yield "| words of the message | format read in |"
        yield "|---|---|"
        yield from rows
        yield ""


def _evidence(name: str) -> Iterator[str]:
    """Rows of a table: the words of a class's messages by the source of their format."""
    numbers = [number for number, (found, _) in XIDS.items() if found == name]
    if numbers:
        yield f"| XID {', '.join(map(str, numbers))} in the kernel log | {SOURCES['xid']} |"
    for source, text in SOURCES.items():
        words = {
            word
            for rule in RULES
            if rule.name == name and rule.source == source
            for word in rule.words.split("|")
        }
        if words:
            cells = ", ".join(_code(word) for word in sorted(words, key=str.strip))
            yield f"| {cells} | {text} |"


def _code(word: str) -> str:
    """A word as code, whose backquotes need more of them around."""
    fence = "``" if "`" in word else "`"
    space = " " if "`" in word else ""
    return f"{fence}{space}{word.strip()}{space}{fence}"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
