"""Nodes, their partitions and their GPUs: what slurm.conf and gres.conf say of the same node."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice

from sifline.formats.node_lists import NodeListError, expand, fold
from sifline.formats.slurm_conf.finding import Effect, Finding, Rule
from sifline.formats.slurm_conf.lines import GRES, SLURM, File, Line

_FILES = re.compile(
    r"(?P<start>.*?)\[(?P<ranges>\d{1,6}(?:-\d{1,6})?(?:,\d{1,6}(?:-\d{1,6})?)*)\](?P<end>.*)",
    re.ASCII,
)
_GPU = re.compile(
    r"gpu(?::(?P<type>(?!\d+(?:\(|$))[^:=()]+))?(?::no_consume)?(?:[:=](?P<count>\d+))?(?:\(.*\))?",
    re.IGNORECASE,
)
# No node has more devices of a kind.
_MOST = 4096
# Words that stand for nodes and are no names of any.
_EVERY = frozenset({"all", "default"})


def _nodes_and_devices(files: Mapping[str, File], _: str) -> Iterator[Finding]:
    slurm, gres = files[SLURM], files.get(GRES)
    unread = [*_unread(slurm), *(_unread(gres) if gres else ())]
    if unread:  # the others would miss those nodes
        yield from unread
        return
    if gres and not _detects_all(gres):
        yield from _gpus(slurm, gres)
    yield from _described(slurm)
    yield from _partitions(slurm)


RULES: tuple[Rule, ...] = (_nodes_and_devices,)


def _unread(file: File) -> Iterator[Finding]:
    """Yield the lists of nodes that cannot be read."""
    for line in file.lines:
        for text in filter(None, (line.value("NodeName"), line.value("Nodes"))):
            try:
                _members(text)
            except NodeListError as error:
                yield Finding(
                    file=file.path,
                    line=line.number,
                    effect=Effect.ADVICE,
                    what=text[:40],
                    does=f"sifline cannot read it ({error}), and checks no nodes and partitions",
                    write="check these by hand",
                )


# GPUs


def _gpus(slurm: File, gres: File) -> Iterator[Finding]:
    """The GPUs of a node in slurm.conf and in gres.conf are as many."""
    counts, shared = _devices_of(gres)
    itself, without = _detecting(gres), list[str]()
    for line, text in _gres_of(slurm):
        said = _gpus_of(text)
        nodes = [node for node in _members(line.value("NodeName")) if node not in itself]
        without += [node for node in nodes if shared and not said and node not in counts]
        wrong = (
            node
            for node in nodes
            if (said or node in counts) and said != counts.get(node, 0) + shared
        )
        if node := next(wrong, None):
            here = node in counts or shared or not counts
            there = counts.get(node, 0) + shared if here else None
            yield _differ(slurm, line, node, said, there)
    if without:
        yield Finding(
            file=gres.path,
            line=next(line.number for line in _gpu_lines(gres) if not line.value("NodeName")),
            effect=Effect.FATAL,
            what="a GPU of all nodes",
            does=f"{fold(without)} have none in slurm.conf: with this file there, slurmd waits"
            " for the device and does not start",
            write="write NodeName= of the nodes with GPUs",
        )


def _differ(slurm: File, line: Line, node: str, said: int, there: int | None) -> Finding:
    """A node has another number of GPUs in gres.conf; None where that describes others alone."""
    if there is None:
        # Each node may have a gres.conf of its own.
        effect, write = Effect.ADVICE, "describe its GPUs there"
        does = "gres.conf names other nodes: if this one has the same file, Slurm drains it"
    elif said > there:
        effect, does = Effect.DRAINS, f"gres.conf has {there} with a file: Slurm drains the node"
        write = f"write Gres=gpu:{there}, or correct gres.conf"
    else:
        effect, does = Effect.USELESS, f"gres.conf has {there}: jobs can use {said}"
        write = f"write Gres=gpu:{there}, or correct gres.conf"
    if there == 0:
        write = "write File=/dev/nvidia0 and so on, or AutoDetect=nvml, in gres.conf"
    return Finding(
        file=slurm.path,
        line=line.number,
        effect=effect,
        what=f"{node} has {said} GPUs",
        does=does,
        write=write,
    )


def _devices_of(gres: File) -> tuple[dict[str, int], int]:
    """How many GPUs each named node has, and how many lines without a node give to all."""
    counts, shared = dict[str, int](), 0
    for line in _gpu_lines(gres):
        nodes = _members(line.value("NodeName"))
        for node in nodes:
            counts[node] = counts.get(node, 0) + _count(line)
        shared += 0 if nodes else _count(line)
    return counts, shared


def _gres_of(slurm: File) -> Iterator[tuple[Line, str]]:
    """Yield the lines that describe nodes with their Gres, which may be that of DEFAULT."""
    default = ""
    for line in slurm.of("NodeName"):
        said = line.value("Gres")
        if (line.value("NodeName") or "").lower() == "default":
            default = default if said is None else said
        else:
            yield line, default if said is None else said


def _gpu_lines(gres: File) -> Iterator[Line]:
    return (line for line in gres.lines if (line.value("Name") or "").lower() == "gpu")


def _detects_all(gres: File) -> bool:
    """Tell whether slurmd of every node finds its devices by itself."""
    every = gres.last("AutoDetect")
    return every is not None and every[1].lower() != "off"


def _detecting(gres: File) -> set[str]:
    """The nodes whose slurmd finds its devices by itself."""
    lines = (line for line in gres.lines if (line.value("AutoDetect") or "off").lower() != "off")
    return {node for line in lines for node in _members(line.value("NodeName"))}


def _count(line: Line) -> int:
    """How many GPUs a line of gres.conf has on each node; Slurm drops those without a file."""
    if line.value("MultipleFiles"):
        return 1  # one device, of several files
    files = line.value("File") or line.value("Files") or ""
    every = (path for part in _listed(files) for path in _expanded(part))
    return sum(1 for _ in islice(every, _MOST))


def _expanded(path: str) -> Iterator[str]:
    match = _FILES.fullmatch(path)
    if not match:
        yield path
        return
    for part in match["ranges"].split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), min(int(last or first), int(first) + _MOST) + 1):
            yield from (f"{match['start']}{number}{end}" for end in _expanded(match["end"]))


def _gpus_of(gres: str) -> int:
    """How many GPUs ``Gres=gpu:a100:2,gpu:1`` has."""
    # A comma may stand in the sockets: gpu:2(S:0,1).
    texts = re.split(r",(?![^(]*\))", gres)
    found = (match for text in texts if (match := _GPU.fullmatch(text.strip())))
    return sum(int(match["count"] or 1) for match in found)


# Nodes and partitions


def _described(slurm: File) -> Iterator[Finding]:
    """Every node is described once."""
    described = dict[str, int]()
    for line in slurm.of("NodeName"):
        for node in _members(line.value("NodeName")):
            if node in described:
                yield Finding(
                    file=slurm.path,
                    line=line.number,
                    effect=Effect.FATAL,
                    what=f"NodeName={node}",
                    does=f"Slurm does not start: line {described[node]} describes it already",
                    write="describe each node once",
                )
            described.setdefault(node, line.number)


def _partitions(slurm: File) -> Iterator[Finding]:
    """Partitions name nodes that are described, and every node belongs to one."""
    described = {
        node: line.number
        for line in reversed(slurm.of("NodeName"))
        for node in _members(line.value("NodeName"))
    }
    used = set[str]()
    for line in slurm.of("PartitionName"):
        named = _in_partition(slurm, line, described)
        used |= {*named}
        unknown = [node for node in named if node not in described]
        if unknown:
            yield Finding(
                file=slurm.path,
                line=line.number,
                effect=Effect.FATAL,
                what=f"Nodes={line.value('Nodes')}",
                does=f"Slurm does not start: no line of NodeName describes {fold(unknown)}",
                write="describe them, or leave them out",
            )
    # Reserves belong to no partition yet.
    reserves = {
        node
        for line in slurm.of("NodeName")
        if (line.value("State") or "").upper() in {"FUTURE", "CLOUD"}
        for node in _members(line.value("NodeName"))
    }
    lost = [node for node in described if node not in used | reserves]
    if lost and slurm.of("PartitionName"):
        yield Finding(
            file=slurm.path,
            line=described[lost[0]],
            effect=Effect.USELESS,
            what=f"NodeName={fold(lost)}",
            does="no partition has it, so that no job can run there",
            write="add it to the Nodes= of a partition",
        )


def _in_partition(slurm: File, line: Line, described: Mapping[str, int]) -> list[str]:
    """The nodes of a partition."""
    sets = {item.value("NodeSet") for item in slurm.of("NodeSet")}
    texts = _listed(line.value("Nodes") or "")
    # Which nodes a set has is decided by their features as well.
    every = any(text.lower() in _EVERY or text in sets for text in texts)
    return [*(described if every else ()), *_members(",".join(t for t in texts if t not in sets))]


def _members(text: str | None) -> tuple[str, ...]:
    """Return the names in a list of nodes, but for words that stand for all of them.

    :raises NodeListError: where it cannot be read.
    """
    return _expand(",".join(part for part in _listed(text or "") if part.lower() not in _EVERY))


@lru_cache(maxsize=4096)
def _expand(text: str) -> tuple[str, ...]:
    return tuple(expand(text))


def _listed(text: str) -> list[str]:
    """Take a list apart at the commas that are outside of brackets."""
    return [part for part in re.split(r",(?![^\[]*\])", text) if part]
