"""Read a configuration file of Slurm into its lines, as Slurm's own parser takes them apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

SLURM, GRES, CGROUP = "slurm.conf", "gres.conf", "cgroup.conf"
YES = frozenset({"yes", "up", "true", "1"})
# A key that others follow on its line; their meaning depends on it.
GROUPS = {
    "slurm.conf": (
        *("NodeName", "PartitionName", "NodeSet", "DownNodes", "FrontendName", "PowerAction"),
    ),
    # A line of NodeName may name a GRES as well: its keys are those of Name.
    "gres.conf": ("NodeName", "Name"),
    "topology.conf": ("SwitchName", "BlockName", "RingName"),
    "job_container.conf": ("NodeName",),
}
_PAIR = re.compile(
    r'\s*(?P<name>[\w.]+)\s*(?P<sign>[-*+/]?)=\s*(?:"(?P<quoted>[^"]*)"|(?P<value>\S+))(?=\s|$)',
    re.ASCII,
)
_COMMENT = re.compile(r"(?<!\\)#.*")
_INCLUDE = re.compile(r"include\s+(?P<path>\S+)\s*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A key with its value, as written."""

    name: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line with its number. ``rest`` is what is no key with a value; ``include`` a path."""

    number: int
    pairs: tuple[Pair, ...] = ()
    group: str = ""
    rest: str = ""
    include: str = ""

    def value(self, name: str) -> str | None:
        """Return the value of a key, whatever its case; None where the line has none."""
        found = (pair.value for pair in self.pairs if pair.name.lower() == name.lower())
        return next(found, None)


@dataclass(frozen=True, kw_only=True)
class File:
    """A configuration file: its kind (``slurm.conf``), its path for messages, and its lines."""

    kind: str
    path: str
    lines: tuple[Line, ...]

    def last(self, name: str) -> tuple[int, str] | None:
        """Return line and value of a key that stands alone; the last one counts."""
        found = [
            (line.number, pair.value)
            for line in self.lines
            if not line.group
            for pair in line.pairs
            if pair.name.lower() == name.lower()
        ]
        return found[-1] if found else None

    def of(self, group: str) -> tuple[Line, ...]:
        """Return the lines that start with the key ``group``."""
        return tuple(line for line in self.lines if line.group == group)


def read(text: str, *, kind: str, path: str) -> File:
    """Return the lines of ``text`` that say something.

    :param kind: the file's name in the table, which decides what a line that starts so means.
    """
    groups = {name.lower(): name for name in GROUPS.get(kind, ())}
    found = (_line(number, line, groups) for number, line in _joined(text))
    return File(kind=kind, path=path, lines=tuple(line for line in found if line))


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Yield lines without comments, those that end in a backslash with the next, and numbers."""
    held, first = "", 0
    for number, raw in enumerate(text.split("\n"), start=1):
        line = _COMMENT.sub("", raw).replace("\\#", "#").rstrip()
        first = first or number
        if line.endswith("\\"):
            held += line[:-1]
            continue
        yield first, held + line
        held, first = "", 0
    if held:
        yield first, held


def _line(number: int, text: str, groups: dict[str, str]) -> Line | None:
    if include := _INCLUDE.fullmatch(text):
        return Line(number=number, include=include["path"])
    pairs, position = list[Pair](), 0
    while match := _PAIR.match(text, position):
        value = match["value"] if match["quoted"] is None else match["quoted"]
        pairs.append(Pair(name=match["name"], value=value))
        position = match.end()
    rest = text[position:].strip()
    if not pairs and not rest:
        return None
    group = groups.get(pairs[0].name.lower(), "") if pairs else ""
    return Line(number=number, pairs=tuple(pairs), group=group, rest=rest)
