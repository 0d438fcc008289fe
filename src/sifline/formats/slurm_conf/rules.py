"""Keys of slurm.conf and cgroup.conf that need each other, and values that stop slurmctld."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sifline.formats.slurm_conf.finding import Effect, Finding, Rule
from sifline.formats.slurm_conf.lines import CGROUP, SLURM, YES, File
from sifline.formats.slurm_conf.table import at_least

# What TaskPluginParam takes; any other word is fatal.
_TASK = re.compile(
    r"none|sockets|cores|threads|verbose|slurmdoffspec|oomkillstep|autobind=\w+", re.IGNORECASE
)
_ENFORCE = frozenset(
    {"none", "all", "associations", "limits", "nojobs", "nosteps", "qos", "safe", "wckeys"}
)


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


def _yes(file: File | None, name: str) -> int:
    """Return the line in which a key says yes; 0 where none does."""
    found = file.last(name) if file else None
    return found[0] if found and found[1].lower() in YES else 0


RULES: tuple[Rule, ...] = (_memory, _devices, _prologs, _contain, _values)
