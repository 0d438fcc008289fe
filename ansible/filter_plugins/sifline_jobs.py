"""What a new configuration of Slurm does to the jobs that a cluster has.

Measured on Slurm 24.11 with jobs that ran and jobs that waited, by restarts and by reloads alike:

- A node or a partition that is gone: what runs there, and what waits for it by name, fails with
  NODE_FAIL.
- Other CPUs of a node, more or fewer: what runs there is stopped, and queued again if it may be.
- Fewer GPUs: the same for the jobs that hold any of the node's, even those that remain. More of
  them, or a type for those that had none, do no harm.
- Less memory, a node that leaves a partition, a shorter time limit: what runs goes on; what waits
  and does not fit any more stays in the queue.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FAILS, QUEUED_AGAIN, STUCK = "fails", "queued again", "stays queued"
_PENDING = "PENDING"
# Jobs that a message names for each change.
MOST_NAMED = 10


@dataclass(frozen=True)
class Node:
    """What Slurm may hand out of a node; GPUs by their type, which may be ""."""

    cpus: int
    gpus: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Partition:
    """The nodes of a partition, None for all; its longest time in minutes, None for no limit."""

    nodes: frozenset[str] | None
    minutes: int | None


def slurm_changes(seen: Iterable[str], text: str) -> dict[str, Any]:
    """Return what a slurm.conf changes that jobs may feel.

    :param seen: lines of ``scontrol --oneliner show nodes`` and of ``show partitions``.
    :param text: the slurm.conf that shall be.
    :returns: ``nodes`` and ``partitions`` that jobs lose, with the reason by name; ``gpus``: nodes
        whose GPUs change, likewise; ``leaving``: addresses of the nodes that go, by name;
        ``outside``: nodes that each partition loses; ``minutes``: of the partitions whose limit
        becomes shorter; ``drained``: nodes that take no jobs already.
    """
    lines = list(seen)
    old = {row["NodeName"]: row for row in _rows(lines, "NodeName")}
    new, parts = _wanted(text)
    changes: dict[str, Any] = {
        "nodes": {},
        "partitions": {},
        "gpus": {},
        "leaving": {},
        "outside": {},
        "minutes": {},
        "drained": sorted(name for name, row in old.items() if "DRAIN" in row.get("State", "")),
    }
    for name, row in old.items():
        was, node = _node(row, "CPUTot"), new.get(name)
        if node is None:
            changes["nodes"][name] = "leaves the cluster"
            changes["leaving"][name] = row.get("NodeAddr", name)
        elif node.cpus != was.cpus:
            changes["nodes"][name] = f"goes from {was.cpus} to {node.cpus} cpus"
        elif _loses(was.gpus, node.gpus):
            changes["gpus"][name] = f"goes from {_said(was.gpus)} to {_said(node.gpus)} gpus"
    _compare_partitions(changes, lines, parts, set(new))
    return changes


def _compare_partitions(
    changes: dict[str, Any], lines: Iterable[str], parts: Mapping[str, Partition], nodes: set[str]
) -> None:
    """Add what becomes of the partitions; ``nodes`` are those that there will be."""
    for row in _rows(lines, "PartitionName"):
        name, had = row["PartitionName"], set(expand(row.get("Nodes", "")))
        part = parts.get(name)
        if part is None:
            changes["partitions"][name] = "goes"
            continue
        if part.nodes is not None and (lost := sorted((had & nodes) - part.nodes)):
            changes["outside"][name] = lost
        before = minutes(row.get("MaxTime", ""))
        if part.minutes is not None and (before is None or part.minutes < before):
            changes["minutes"][name] = part.minutes


def slurm_jobs(
    queue: Iterable[str], columns: Sequence[str], changes: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the jobs that feel these changes.

    :param queue: lines of squeue, ``|`` after each cell.
    :param columns: what the cells are, as squeue's --Format names them.
    :param changes: of ``slurm_changes``.
    :returns: for each job its ``id``, ``user``, ``state``, ``where`` it runs or waits, ``why``,
        ``becomes``: "fails", "queued again" or "stays queued"; and ``can_end``: whether it would
        end by itself if the change waited.
    """
    found = []
    for line in queue:
        cells = line.split("|")
        if len(cells) <= len(columns):
            continue
        job = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
        if felt := _felt(job, changes):
            where, why, becomes = felt
            found.append(
                {
                    "id": job["JobArrayID"],
                    "user": job["UserName"],
                    "state": job["State"],
                    "where": where,
                    "why": why,
                    "becomes": becomes,
                    "can_end": job["State"] != _PENDING or where not in changes["leaving"],
                }
            )
    return found


def _felt(job: Mapping[str, str], changes: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Return where a job feels a change, which, and what becomes of it."""
    parts = job["Partition"].split(",")
    waits = job["State"] == _PENDING
    # A job that waits for one of several partitions has the others.
    if all(part in changes["partitions"] for part in parts):
        return f"partition {parts[0]}", changes["partitions"][parts[0]], FAILS
    named = expand(job["ReqNodes"] if waits else job["NodeList"])
    for name in named:
        why = changes["nodes"].get(name)
        if why and name in changes["leaving"]:
            return name, why, FAILS
        if not waits and (why or (_holds_gpus(job) and (why := changes["gpus"].get(name)))):
            return name, why, QUEUED_AGAIN if job["Requeue"] == "1" else FAILS
    if waits and all(any(n in changes["outside"].get(part, ()) for n in named) for part in parts):
        return f"partition {parts[0]}", "loses the node that it names", STUCK
    limits = [changes["minutes"].get(part) for part in parts]
    asked = minutes(job["TimeLimit"])
    if waits and all(limit is not None and (asked or 0) > limit for limit in limits):
        return f"partition {parts[0]}", f"time limit becomes {limits[0]} min", STUCK
    return None


def slurm_refusal(jobs: Iterable[Mapping[str, Any]]) -> str:
    """Return which changes would end which jobs, in a line."""
    found: dict[tuple[str, str], list[str]] = {}
    for job in jobs:
        found.setdefault((job["where"], job["why"]), []).append(f"{job['id']} of {job['user']}")
    said = []
    for (where, why), names in found.items():
        more = f" and {len(names) - MOST_NAMED} others" if len(names) > MOST_NAMED else ""
        said.append(f"{where} {why}, which would end {', '.join(names[:MOST_NAMED])}{more}")
    return "; ".join(said)


def _holds_gpus(job: Mapping[str, str]) -> bool:
    asked = [text for name, text in job.items() if name.startswith("tres")]
    return any(word in text for text in asked for word in ("gpu", "shard", "mps"))


def _rows(lines: Iterable[str], first: str) -> Iterator[dict[str, str]]:
    """Return the fields of the lines that begin with that key."""
    for line in lines:
        if line.startswith(f"{first}="):
            yield dict(re.findall(r"(\S+?)=(\S*)", line))


def _wanted(text: str) -> tuple[dict[str, Node], dict[str, Partition]]:
    """Return the nodes and the partitions of a slurm.conf that the roles wrote."""
    lines = text.splitlines()
    nodes = {
        name: _node(row, "CPUs")
        for row in _rows(lines, "NodeName")
        for name in expand(row["NodeName"])
    }
    parts = {}
    for row in _rows(lines, "PartitionName"):
        listed = row.get("Nodes", "ALL")
        parts[row["PartitionName"]] = Partition(
            nodes=None if listed.upper() == "ALL" else frozenset(expand(listed)),
            minutes=minutes(row.get("MaxTime", "")),
        )
    return nodes, parts


def _node(row: Mapping[str, str], cpus: str) -> Node:
    gpus: dict[str, int] = {}
    # scontrol adds where the GPUs are: gpu:a100:2(S:0-1).
    for item in re.sub(r"\([^)]*\)", "", row.get("Gres", "")).split(","):
        kind, *words = item.split(":")
        if kind == "gpu" and words and words[-1].isdigit():
            gpus[":".join(words[:-1])] = gpus.get(":".join(words[:-1]), 0) + int(words[-1])
    return Node(cpus=int(row.get(cpus) or 1), gpus=gpus)


def _loses(was: Mapping[str, int], now: Mapping[str, int]) -> bool:
    """Return whether fewer remain, of all or of some type."""
    fewer = any(now.get(kind, 0) < count for kind, count in was.items() if kind)
    return fewer or sum(now.values()) < sum(was.values())


def _said(gpus: Mapping[str, int]) -> str:
    return "+".join(f"{kind}:{n}" if kind else str(n) for kind, n in sorted(gpus.items())) or "0"


def expand(text: str) -> list[str]:
    """Return the names of a list of nodes as Slurm writes it: ``n[01-03,7],gpu-1``."""
    if text in ("", "(null)", "N/A"):
        return []
    found = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        names = [""]
        for plain, ranges in re.findall(r"([^\[]+)|\[([^\]]*)\]", item):
            pieces = [plain] if plain else [n for part in ranges.split(",") for n in _range(part)]
            names = [name + piece for name in names for piece in pieces]
        found += names
    return found


def _range(text: str) -> list[str]:
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit()):
        return [text]
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def minutes(text: str) -> int | None:
    """Return a time of Slurm's in minutes, ``1-12:00:00`` or ``30``; None for no limit."""
    days, _, rest = text.rpartition("-")
    pieces = rest.split(":")
    if not all(piece.isdigit() for piece in (*pieces, days or "0")):
        return None
    # With days the first is hours; without, minutes come first where there are at most two.
    hours, mins, *_ = (
        (*map(int, pieces), 0) if days or len(pieces) == 3 else (0, int(pieces[0]))  # noqa: PLR2004
    )
    return int(days or 0) * 24 * 60 + hours * 60 + mins


class FilterModule:
    """Gives Ansible the filters."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by their names."""
        return {
            "slurm_changes": slurm_changes,
            "slurm_jobs": slurm_jobs,
            "slurm_refusal": slurm_refusal,
        }
