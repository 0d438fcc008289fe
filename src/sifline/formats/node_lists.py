"""Lists of nodes as Slurm writes them: ``compute-[01-03,07],gpu-1``."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import TYPE_CHECKING

from sifline.errors import MissingError, UsageError

if TYPE_CHECKING:
    from ClusterShell.NodeSet import NodeSet

# As many nodes as Slurm takes in a range; the library would go on until the memory is full.
MOST = 1 << 16
_RANGE = re.compile(r"(?<=[\[,])\s*(\d+)-(\d+)", re.ASCII)
_BRACKET = re.compile(r"([^\[\]]*)\[([^\[\]]+)\](.*)")
_PIECES = re.compile(r",(?![^\[]*\])")
# Not of IPv6 addresses: they end in hexadecimal digits.
_NUMBERED = re.compile(r"([^:]*?)([0-9]{1,9})", re.ASCII)
# What the library has beside Slurm's syntax: operators, groups and their variables.
_OPERATORS = frozenset("!&^@%")


class NodeListError(ValueError):
    """A text is no list of nodes, or one without an end."""


def expand(text: str) -> list[str]:
    """Return the names that a list stands for, sorted; empty for an empty list.

    :raises NodeListError: with the reason.
    :raises MissingError: if this Python environment has no ClusterShell.
    """
    if set(text) & _OPERATORS:
        raise NodeListError("is no list such as compute-[01-03],gpu-1")
    nodes = _node_set(_RANGE.sub(_padded, text))
    if len(nodes) > MOST:
        raise NodeListError(f"names more than {MOST} nodes")
    return [str(node) for node in nodes]


def expand_in_order(text: str) -> list[str]:
    """Return the names that a list stands for, in the order in which it has them.

    :raises NodeListError: with the reason.
    """
    names = (name for piece in _PIECES.split(text) for name in _in_order(piece.strip()))
    found = list(islice(names, MOST + 1))
    if len(found) > MOST:
        raise NodeListError(f"names more than {MOST} nodes")
    return found


def _in_order(piece: str) -> Iterator[str]:
    match = _BRACKET.fullmatch(piece)
    if not match:
        yield piece
        return
    start, ranges, rest = match.groups()
    for part in ranges.split(","):
        for number in expand(f"n[{part}]"):
            yield from (f"{start}{number[1:]}{end}" for end in _in_order(rest))


def fold_in_order(names: Iterable[str]) -> str:
    """Return the list that stands for ``names`` in their order, as slurm.conf takes it.

    Slurm wants numbers at the end of a name; others are written one by one.
    """
    # Of each run of numbers what is before them, the first and the last; "" for a name without.
    runs: list[tuple[str, str, str]] = []
    for name in names:
        match = _NUMBERED.fullmatch(name)
        start, number = match.groups() if match else (name, "")
        last = runs[-1] if runs else ("", "", "")
        if number and start == last[0] and last[2] and number == _next(last[1], last[2]):
            runs[-1] = (start, last[1], number)
        else:
            runs.append((start, number, number))
    return ",".join(_written(runs))


def _next(first: str, last: str) -> str:
    """Return the number after ``last`` in a range that begins with ``first``."""
    return str(int(last) + 1).zfill(len(first))


def _written(runs: list[tuple[str, str, str]]) -> Iterator[str]:
    for start, group in groupby(runs, key=lambda run: run[0]):
        ranges = [first if first == last else f"{first}-{last}" for _, first, last in group]
        single = len(ranges) == 1 and "-" not in ranges[0]
        if single or "" in ranges:
            yield from (f"{start}{number}" for number in ranges)
        else:
            yield f"{start}[{','.join(ranges)}]"


def fold(names: Iterable[str]) -> str:
    """Return the list that stands for ``names``."""
    return str(_node_set(",".join(names)))


def _padded(match: re.Match[str]) -> str:
    """Return a range as the library takes it: for Slurm ``08-12`` and ``08-112`` go on from 08.

    :raises NodeListError: for a range that is too long.
    """
    first, last = match.groups()
    if len(last) > len(first) + len(str(MOST)) or int(last) - int(first) >= MOST:
        raise NodeListError(f"{first}-{last} has more than {MOST} nodes")
    pieces = []
    while first.startswith("0") and len(first) < len(last):
        pieces.append(f"{first}-{'9' * len(first)}")
        first = f"1{'0' * len(first)}"
    return ",".join([*pieces, f"{first}-{last}"])


def _node_set(text: str) -> NodeSet:
    try:
        from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
    except ModuleNotFoundError:
        raise MissingError(
            "this Python environment has no ClusterShell; run scripts/bootstrap, or install"
            " sifline anew"
        ) from None
    except (configparser.Error, ValueError) as error:
        # It reads defaults.conf as it is loaded; nothing of that matters here.
        raise UsageError(
            "the configuration of ClusterShell cannot be read:"
            f" {' '.join(str(error).split())}; fix that file"
        ) from None
    try:
        # No groups: they would be read from the configuration of ClusterShell.
        return NodeSet(text, resolver=RESOLVER_NOGROUP)
    except NodeSetException as error:
        raise NodeListError(f"is no list such as compute-[01-03],gpu-1: {error}") from None
