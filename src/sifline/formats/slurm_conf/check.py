"""What is wrong with the configuration files of a cluster, for one release of Slurm."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from sifline.errors import did_you_mean
from sifline.formats.slurm_conf import table
from sifline.formats.slurm_conf.finding import Effect, Finding
from sifline.formats.slurm_conf.lines import File, Line, Pair
from sifline.formats.slurm_conf.table import at_least

if TYPE_CHECKING:
    from ClusterShell.NodeSet import NodeSet

SLURM, GRES, CGROUP = "slurm.conf", "gres.conf", "cgroup.conf"
_REMOVE = "remove it"
# Keys that are gone, and what took their place.
_INSTEAD = {
    "taskaffinity": "remove it, and write TaskPlugin=task/affinity,task/cgroup in slurm.conf",
    "alloweddevicesfile": "remove it: a job gets the devices of gres.conf that it asked for",
    "cgroupreleaseagentdir": "remove it: Slurm removes its cgroups itself",
    "fastschedule": "remove it; SlurmdParameters=config_overrides does what FastSchedule=2 did",
    "sallocdefaultcommand": "write LaunchParameters=use_interactive_step",
    "accountingstorejobcomment": "write AccountingStoreFlags=job_comment",
    "memlimitenforce": "remove it, and write ConstrainRAMSpace=yes in cgroup.conf",
    "schedulerport": _REMOVE,
    "checkpointtype": _REMOVE,
    "cachegroups": _REMOVE,
    "jobcredentialprivatekey": "remove it: credentials are signed by CredType's plugin",
    "frontendname": "remove it: front ends are no longer supported",
    "prologtimeout": "write PrologEpilogTimeout",
    "epilogtimeout": "write PrologEpilogTimeout",
}
_YES_NO = frozenset({"yes", "up", "true", "1", "no", "down", "false", "0"})
_ENDLESS = frozenset({"infinite", "unlimited"})
_NUMBER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|\d+)[kKmMgGtTpP]?[bB]?")
_FRACTION = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?")
_FILES = re.compile(
    r"(?P<start>.*?)\[(?P<ranges>\d{1,6}(?:-\d{1,6})?(?:,\d{1,6}(?:-\d{1,6})?)*)\](?P<end>.*)",
    re.ASCII,
)
_GPU = re.compile(
    r"gpu(?::(?P<type>(?!\d+(?:\(|$))[^:=()]+))?(?::no_consume)?(?:[:=](?P<count>\d+))?(?:\(.*\))?",
    re.IGNORECASE,
)
# What TaskPluginParam takes; any other word is fatal.
_TASK = re.compile(
    r"none|sockets|cores|threads|verbose|slurmdoffspec|oomkillstep|autobind=\w+", re.IGNORECASE
)
_ENFORCE = frozenset(
    {"none", "all", "associations", "limits", "nojobs", "nosteps", "qos", "safe", "wckeys"}
)
# No node has more devices of a kind, and no list more nodes.
_MOST, _MOST_NODES, _DIGITS = 4096, 1 << 16, 9
_NODE_RANGE = re.compile(r"[\[,]\s*(\d+)-(\d+)", re.ASCII)
# Words that stand for nodes and are no names of any.
_EVERY = frozenset({"all", "default"})


def check(files: Mapping[str, File], release: str) -> tuple[Finding, ...]:
    """Return what is wrong, in the order of files and lines.

    :param files: by their kind, ``slurm.conf`` and so on; what is not there is not checked.
    :param release: one of ``RELEASES``.
    """
    found = [*(item for file in files.values() for item in _keys(file, release))]
    # What is in a file that was not read with it, these rules would miss.
    if SLURM in files and not any(line.include for line in files[SLURM].lines):
        for rule in _RULES:
            found += rule(files, release)
    return tuple(sorted(found, key=lambda item: (item.file, item.line, item.what)))


# Each key by itself


def _keys(file: File, release: str) -> Iterator[Finding]:
    for line in file.lines:
        place = file, line
        if line.rest:
            does = f"Slurm {release} does not start with it: it is no KEY=VALUE"
            yield _at(place, repr(line.rest[:40]), Effect.FATAL, does, "correct or remove it")
        for number, pair in enumerate(line.pairs):
            group = line.group if number else ""
            if file.kind == GRES and group == "NodeName":
                group = "Name"
            yield from _pair(place, pair, group, release)


def _pair(place: tuple[File, Line], pair: Pair, group: str, release: str) -> Iterator[Finding]:
    file, what = place[0], f"{pair.name}={pair.value}"
    known = table.key(file.kind, group, pair.name)
    refused = f"Slurm {release} does not start with it:"
    instead = _instead(file, group, pair, known)
    if not known or not known.known(release):
        does = f"{refused} {_why_unknown(file, group, pair, known)}"
        yield _at(place, what, Effect.FATAL, does, instead)
    elif (known.name, pair.value) == ("FastSchedule", "1"):
        yield _at(place, what, Effect.ERROR, f"Slurm {release} logs an error", instead)
    elif known.fatal and at_least(release, known.fatal):
        yield _at(place, what, Effect.FATAL, f"{refused} its support was removed", instead)
    elif known.obsolete and at_least(release, known.obsolete):
        does = f"Slurm {release} logs an error and ignores it: obsolete since {known.obsolete}"
        yield _at(place, what, Effect.ERROR, does, instead)
    elif (file.kind, known.name) == (CGROUP, "AllowedDevicesFile"):
        does = f"Slurm {release} logs a warning and ignores it"
        yield _at(place, what, Effect.IGNORED, does, instead)
    elif takes := _wrong_value(known.kind, pair.value):
        yield _at(place, what, Effect.FATAL, f"{refused} it takes {takes}", f"write {takes}")
    else:
        yield from _plugins(place, pair, known.name, release)


def _why_unknown(file: File, group: str, pair: Pair, known: table.Key | None) -> str:
    if known and known.since:
        return f"{pair.name} came with {known.since}"
    if known:
        return f"{pair.name} was removed after {known.until}"
    where = f" in a line of {group}" if group else ""
    return f"{file.kind} has no {pair.name}{where}"


def _instead(file: File, group: str, pair: Pair, known: table.Key | None) -> str:
    if instead := _INSTEAD.get(pair.name.lower()):
        return instead
    if known and known.since and not known.obsolete:
        return "remove it, or use a newer Slurm"
    others = [item.name for item in table.keys(file.kind) if item.group == group]
    near = did_you_mean(pair.name, others) if not known else ""
    return f"correct or remove it.{near}" if near else _REMOVE


def _wrong_value(kind: str, value: str) -> str:
    """Return what a key of that kind takes, where ``value`` is none of it."""
    text = value.lower()
    if kind == table.YES_NO and text not in _YES_NO:
        return "yes or no"
    if text in _ENDLESS:
        return ""
    if kind == table.NUMBER and not _NUMBER.fullmatch(value):
        return "a whole number"
    return "a number" if kind == table.FRACTION and not _FRACTION.fullmatch(value) else ""


def _plugins(
    place: tuple[File, Line], pair: Pair, setting: str, release: str
) -> Iterator[Finding]:
    for name in pair.value.split(","):
        since, until = table.plugin(setting, name.rpartition("/")[2])
        if (since and not at_least(release, since)) or (until and not at_least(until, release)):
            when = f"came with {since}" if since else f"was removed after {until}"
            does = f"Slurm {release} does not start with it: {name} {when}"
            instead = "select/cons_tres" if setting == "SelectType" else "another plugin"
            what = f"{pair.name}={pair.value}"
            yield _at(place, what, Effect.FATAL, does, f"write {instead}")


# Keys that need each other


def _memory(files: Mapping[str, File], release: str) -> Iterator[Finding]:
    limited = _yes(files.get(CGROUP), "ConstrainRAMSpace")
    selects = files[SLURM].last("SelectTypeParameters")
    # From 24.05 on memory is a resource by default.
    default = "" if at_least("23.11", release) else "CR_Core_Memory"
    if limited and "memory" not in (selects[1] if selects else default).lower():
        yield Finding(
            file=files[CGROUP].path,
            line=limited,
            effect=Effect.USELESS,
            what="ConstrainRAMSpace=yes",
            does="memory is no resource that jobs ask for, so that jobs get all of a node's",
            write="write SelectTypeParameters=CR_Core_Memory in slurm.conf",
        )


def _devices(files: Mapping[str, File], _: str) -> Iterator[Finding]:
    limited, slurm = _yes(files.get(CGROUP), "ConstrainDevices"), files[SLURM]
    if not limited:
        return
    plugins = slurm.last("TaskPlugin")
    if not (plugins and "cgroup" in plugins[1].lower()):
        yield Finding(
            file=files[CGROUP].path,
            line=limited,
            effect=Effect.USELESS,
            what="ConstrainDevices=yes",
            does="without task/cgroup no job is kept from any device",
            write="write TaskPlugin=task/cgroup,task/affinity in slurm.conf",
        )


def _gpus(files: Mapping[str, File], _: str) -> Iterator[Finding]:
    """The GPUs of a node in slurm.conf and in gres.conf are as many."""
    slurm, gres = files[SLURM], files.get(GRES)
    if gres is None or _detects_all(gres):
        return
    counts, shared = _devices_of(gres)
    itself = _detecting(gres)
    without = list[str]()
    for line, text in _gres_of(slurm):
        said = _gpus_of(text)
        nodes = [node for node in _nodes(line.value("NodeName") or "") if node not in itself]
        without += [node for node in nodes if shared and not said and node not in counts]
        wrong = [
            node
            for node in nodes
            if (said or node in counts) and said != counts.get(node, 0) + shared
        ]
        elsewhere = [node for node in wrong if counts and not shared and node not in counts]
        if elsewhere:
            yield Finding(
                file=slurm.path,
                line=line.number,
                # Each node may have a gres.conf of its own.
                effect=Effect.ADVICE,
                what=f"{elsewhere[0]} has {said} GPUs",
                does="gres.conf names other nodes: if this one has the same file, Slurm drains it",
                write="describe its GPUs there",
            )
        elif wrong:
            there = counts.get(wrong[0], 0) + shared
            yield Finding(
                file=slurm.path,
                line=line.number,
                effect=Effect.DRAINS if said > there else Effect.USELESS,
                what=f"{wrong[0]} has {said} GPUs",
                does=f"gres.conf has {there} with a file: Slurm drains the node"
                if said > there
                else f"gres.conf has {there}: jobs can use {said}",
                write=f"write Gres=gpu:{there}, or correct gres.conf"
                if there
                else "write File=/dev/nvidia0 and so on, or AutoDetect=nvml, in gres.conf",
            )
    if without:
        yield Finding(
            file=gres.path,
            line=next(line.number for line in _gpu_lines(gres) if not line.value("NodeName")),
            effect=Effect.FATAL,
            what="a GPU of all nodes",
            does=f"{_folded(without)} have none in slurm.conf: with this file there, slurmd waits"
            " for the device and does not start",
            write="write NodeName= of the nodes with GPUs",
        )


def _devices_of(gres: File) -> tuple[dict[str, int], int]:
    """How many GPUs each named node has, and how many lines without a node give to all."""
    counts, shared = dict[str, int](), 0
    for line in _gpu_lines(gres):
        nodes = _nodes(line.value("NodeName") or "")
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


def _prologs(files: Mapping[str, File], _: str) -> Iterator[Finding]:
    slurm = files[SLURM]
    limits = ("PrologEpilogTimeout", "PrologTimeout", "EpilogTimeout")
    if any(slurm.last(name) for name in limits):
        return
    for name in ("Prolog", "Epilog"):
        if found := slurm.last(name):
            yield Finding(
                file=slurm.path,
                line=found[0],
                effect=Effect.USELESS,
                what=f"{name}={found[1]}",
                does="its time is not limited: if it hangs, the node takes no more jobs",
                write="write PrologEpilogTimeout=60",
            )
            return


def _contain(files: Mapping[str, File], _: str) -> Iterator[Finding]:
    slurm = files[SLURM]
    tracks, flags = slurm.last("ProctrackType"), slurm.last("PrologFlags")
    # X11 and RunInJob imply it; the default of ProctrackType is proctrack/cgroup.
    implied = re.search("contain|x11|runinjob", flags[1], re.IGNORECASE) if flags else None
    if implied or (tracks and "cgroup" not in tracks[1].lower()):
        return
    yield Finding(
        file=slurm.path,
        line=(flags or tracks or (0, ""))[0],
        effect=Effect.ADVICE,
        what="no PrologFlags=Contain",
        does="a job has no cgroup on a node before its first step starts there: pam_slurm_adopt"
        " finds none for a login",
        write="write PrologFlags=Contain",
    )


def _values(files: Mapping[str, File], release: str) -> Iterator[Finding]:
    """Values that slurmctld does not start with."""
    slurm = files[SLURM]
    for name, takes, wrong in (
        ("TaskPluginParam", "such as Cores, Verbose or AutoBind=cores", _wrong_task),
        ("AccountingStorageEnforce", ", ".join(sorted(_ENFORCE)), _wrong_enforced),
        ("AccountingStorageType", "accounting_storage/slurmdbd", _wrong_storage),
    ):
        found = slurm.last(name)
        words = wrong(found[1]) if found else []
        if found and words:
            yield Finding(
                file=slurm.path,
                line=found[0],
                effect=Effect.FATAL,
                what=f"{name}={found[1]}",
                does=f"Slurm {release} does not start with {', '.join(words)}",
                write=f"write {takes}",
            )
    if slurm.lines and not slurm.last("ClusterName"):
        yield Finding(
            file=slurm.path,
            line=0,
            effect=Effect.FATAL,
            what="no ClusterName",
            does=f"Slurm {release} does not start without it",
            write="write ClusterName=",
        )


def _wrong_task(value: str) -> list[str]:
    return [word for word in value.split(",") if not _TASK.fullmatch(word.strip())]


def _wrong_enforced(value: str) -> list[str]:
    # Slurm also takes them as one number of bits.
    words = [word.strip().lower() for word in value.split(",")]
    return [word for word in words if word not in _ENFORCE and not word.isdecimal()]


def _wrong_storage(value: str) -> list[str]:
    gone = {"accounting_storage/mysql", "accounting_storage/filetxt"}
    return [value] if value.lower() in gone else []


def _described(files: Mapping[str, File], _: str) -> Iterator[Finding]:
    """Every node is described once."""
    slurm, described = files[SLURM], dict[str, int]()
    for line in slurm.of("NodeName"):
        for node in _nodes(line.value("NodeName") or ""):
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


def _partitions(files: Mapping[str, File], _: str) -> Iterator[Finding]:
    """Partitions name nodes that are described, and every node belongs to one."""
    slurm = files[SLURM]
    described = {
        node: line.number
        for line in reversed(slurm.of("NodeName"))
        for node in _nodes(line.value("NodeName") or "")
    }
    used = set[str]()
    for line in slurm.of("PartitionName"):
        named = _members(slurm, line, described)
        used |= {*named}
        unknown = [node for node in named if node not in described]
        if unknown:
            yield Finding(
                file=slurm.path,
                line=line.number,
                effect=Effect.FATAL,
                what=f"Nodes={line.value('Nodes')}",
                does=f"Slurm does not start: no line of NodeName describes {_folded(unknown)}",
                write="describe them, or leave them out",
            )
    # Reserves belong to no partition yet.
    reserves = {
        node
        for line in slurm.of("NodeName")
        if (line.value("State") or "").upper() in {"FUTURE", "CLOUD"}
        for node in _nodes(line.value("NodeName") or "")
    }
    lost = [node for node in described if node not in used | reserves]
    if lost and slurm.of("PartitionName"):
        yield Finding(
            file=slurm.path,
            line=described[lost[0]],
            effect=Effect.USELESS,
            what=f"NodeName={_folded(lost)}",
            does="no partition has it, so that no job can run there",
            write="add it to the Nodes= of a partition",
        )


def _members(slurm: File, line: Line, described: Mapping[str, int]) -> list[str]:
    """The nodes of a partition."""
    sets = {item.value("NodeSet") for item in slurm.of("NodeSet")}
    found = list[str]()
    for text in _listed(line.value("Nodes") or ""):
        # Which nodes a set has is decided by their features as well.
        every = text.lower() in _EVERY or text in sets
        found += described if every else _nodes(text)
    return found


_RULES: tuple[Callable[[Mapping[str, File], str], Iterator[Finding]], ...] = (
    *(_memory, _devices, _gpus, _prologs, _contain, _values, _described, _partitions),
)


# What lines say


def _at(place: tuple[File, Line], what: str, effect: Effect, does: str, write: str) -> Finding:
    file, line = place
    return Finding(
        file=file.path, line=line.number, effect=effect, what=what, does=does, write=write
    )


def _yes(file: File | None, name: str) -> int:
    """Return the line in which a key says yes; 0 where none does."""
    found = file.last(name) if file else None
    return found[0] if found and found[1].lower() in {"yes", "up", "true", "1"} else 0


def _gpu_lines(gres: File) -> Iterator[Line]:
    return (line for line in gres.lines if (line.value("Name") or "").lower() == "gpu")


def _detects_all(gres: File) -> bool:
    """Tell whether slurmd of every node finds its devices by itself."""
    every = gres.last("AutoDetect")
    return every is not None and every[1].lower() != "off"


def _detecting(gres: File) -> set[str]:
    """The nodes whose slurmd finds its devices by itself."""
    lines = (line for line in gres.lines if (line.value("AutoDetect") or "off").lower() != "off")
    return {node for line in lines for node in _nodes(line.value("NodeName") or "")}


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


def _listed(text: str) -> list[str]:
    """Take a list apart at the commas that are outside of brackets."""
    return [part for part in re.split(r",(?![^\[]*\])", text) if part]


def _nodes(text: str) -> Sequence[str]:
    """Return the names in a list of nodes; none where it cannot be read."""
    from ClusterShell.NodeSet import NodeSetException

    if not text or text.lower() in _EVERY or _endless(text):
        return []
    try:
        return [str(node) for node in _node_set(text)]
    except (NodeSetException, ValueError):
        return []


def _endless(text: str) -> bool:
    """Tell whether a list has more nodes than anybody; the library would expand it."""
    count = 1
    for first, last in _NODE_RANGE.findall(text):
        count *= (
            max(1, int(last[-9:]) - int(first[-9:]) + 1) if len(last) < _DIGITS else _MOST_NODES
        )
    return count >= _MOST_NODES


def _folded(nodes: Sequence[str]) -> str:
    return str(_node_set(",".join(nodes)))


def _node_set(text: str) -> NodeSet:
    from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet

    return NodeSet(text, resolver=RESOLVER_NOGROUP)
