"""What is wrong with the configuration files of a cluster, for one release of Slurm."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sifline.errors import did_you_mean
from sifline.formats.slurm_conf import nodes, rules, table
from sifline.formats.slurm_conf.finding import Effect, Finding
from sifline.formats.slurm_conf.lines import GRES, SLURM, YES, File, Line, Pair
from sifline.formats.slurm_conf.table import at_least

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
_YES_NO = YES | {"no", "down", "false", "0"}
_ENDLESS = frozenset({"infinite", "unlimited"})
_NUMBER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|\d+)[kKmMgGtTpP]?[bB]?")
_FRACTION = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?%?")


def check(files: Mapping[str, File], release: str) -> tuple[Finding, ...]:
    """Return what is wrong, in the order of files and lines.

    :param files: by their kind, ``slurm.conf`` and so on; what is not there is not checked.
    :param release: one of ``RELEASES``.
    """
    found = [*(item for file in files.values() for item in _keys(file, release))]
    # What is in a file that was not read with it, these rules would miss.
    if SLURM in files and not any(line.include for line in files[SLURM].lines):
        for rule in (*rules.RULES, *nodes.RULES):
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
    elif known.ignored and at_least(release, known.ignored):
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


def _at(place: tuple[File, Line], what: str, effect: Effect, does: str, write: str) -> Finding:
    file, line = place
    return Finding(
        file=file.path, line=line.number, effect=effect, what=what, does=does, write=write
    )
