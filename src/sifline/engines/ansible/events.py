"""What a playbook did, from the lines that the callback plugin sifline_events writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from sifline.machine.process import Result
from sifline.model import AffectedJob

# Names the file for the plugin.
EVENTS_VARIABLE = "SIFLINE_ANSIBLE_EVENTS"


class Outcome(str, Enum):
    """How a task ended on a host, as far as it is reported."""

    CHANGED = "changed"
    FAILED = "failed"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, kw_only=True)
class TaskStarted:
    """A task or handler begins, on all its hosts."""

    name: str


@dataclass(frozen=True, kw_only=True)
class HostEvent:
    """A task changed something on a host, or failed there.

    ``message`` is the error, or the paths of the backups of replaced files.
    """

    host: str
    task: str
    outcome: Outcome
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class FileDiff:
    """The difference that a task makes in a file of a host, as diff(1) writes it."""

    host: str
    text: str


@dataclass(frozen=True, kw_only=True)
class JobsAffected:
    """The jobs that feel the new configuration, as the role looked at them last."""

    jobs: tuple[AffectedJob, ...]


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a role says that a person must know of a host, in a line."""

    host: str
    text: str


@dataclass(frozen=True, kw_only=True)
class NoHosts:
    """A play matched no host."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """The counts at the end, summed over the hosts, and the hosts that did not finish."""

    ok: int
    changed: int
    lost: tuple[str, ...] = ()


Event = TaskStarted | HostEvent | FileDiff | JobsAffected | Note | NoHosts | Stats


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished ansible-playbook: its events, and its output."""

    events: tuple[Event, ...]
    result: Result
    log: Path

    @property
    def stats(self) -> Stats:
        """Return the counts at the end; zeros if the run did not get there."""
        found = (event for event in self.events if isinstance(event, Stats))
        return next(found, Stats(ok=0, changed=0))

    @property
    def changes(self) -> dict[str, list[str]]:
        """The hosts that each task changed something on, by the task's words."""
        found: dict[str, list[str]] = {}
        for event in self.events:
            if isinstance(event, HostEvent) and event.outcome is Outcome.CHANGED:
                found.setdefault(event.task.rpartition(" : ")[2], []).append(event.host)
        return {task: sorted(set(hosts)) for task, hosts in found.items()}

    @property
    def kept(self) -> tuple[str, ...]:
        """Return the backups of files that were replaced, as ``host:path``."""
        return tuple(
            f"{event.host}:{event.message}"
            for event in self.events
            if isinstance(event, HostEvent) and event.outcome is Outcome.CHANGED and event.message
        )

    @property
    def diffs(self) -> dict[str, list[str]]:
        """The hosts by the difference in a file that is the same on all of them."""
        found: dict[str, list[str]] = {}
        for event in self.events:
            if isinstance(event, FileDiff) and event.text.strip():
                found.setdefault(event.text.strip("\n"), []).append(event.host)
        return found

    @property
    def jobs(self) -> tuple[AffectedJob, ...]:
        """Return the jobs that feel the new configuration."""
        found = [event.jobs for event in self.events if isinstance(event, JobsAffected)]
        return found[-1] if found else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes, each with its host."""
        notes = (event for event in self.events if isinstance(event, Note))
        return tuple(f"{note.host}: {note.text}" for note in notes)

    @property
    def faults(self) -> tuple[HostEvent, ...]:
        """Return the task at which each host failed, the first failure first.

        Failed tasks that the playbook rescued are not included.
        """
        ended = {
            event.host: event
            for event in self.events
            if isinstance(event, HostEvent) and event.outcome is not Outcome.CHANGED
        }
        return tuple(event for host, event in ended.items() if host in self.stats.lost)


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Return the events in ``lines``; unknown events are skipped."""
    for line in lines:
        event = json.loads(line)
        if read := _READERS.get(event.get("event")):
            yield read(event)


def _job(values: Mapping[str, Any]) -> AffectedJob:
    names = ("id", "user", "state", "where", "why", "becomes")
    return AffectedJob(**{name: str(values[name]) for name in names})


_READERS: dict[str, Callable[[Mapping[str, Any]], Event]] = {
    "task": lambda event: TaskStarted(name=event["name"]),
    "host": lambda event: HostEvent(
        host=event["host"],
        task=event["task"],
        outcome=Outcome(event["outcome"]),
        message=event["message"],
    ),
    "diff": lambda event: FileDiff(host=event["host"], text=event["text"]),
    "jobs": lambda event: JobsAffected(jobs=tuple(_job(item) for item in event["jobs"])),
    "note": lambda event: Note(host=event["host"], text=event["text"]),
    "nohosts": lambda _: NoHosts(),
    "stats": lambda event: total(event["hosts"]),
}


def total(hosts: Mapping[str, Mapping[str, int]]) -> Stats:
    """Return the sums over all hosts."""
    return Stats(
        ok=sum(count["ok"] for count in hosts.values()),
        changed=sum(count["changed"] for count in hosts.values()),
        lost=tuple(
            host for host, count in hosts.items() if count["failures"] or count["unreachable"]
        ),
    )
