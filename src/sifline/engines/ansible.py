"""Runs Ansible playbooks on a cluster; returns their events and counts.

One module, because inventory, events and command line are one interface: that of ansible-playbook.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import Enum
from importlib.resources import files
from pathlib import Path
from typing import Any

from sifline.errors import MissingError
from sifline.machine.context import Context
from sifline.machine.process import CommandFailed, Result
from sifline.machine.scratch import Scratch
from sifline.model import Accounting, AffectedJob, Cluster, Node, Partition, Registry, Role
from sifline.nodeside.registry import FOLDERS, TOOLS

PROGRAM = "ansible-playbook"
EVENTS_VARIABLE = "SIFLINE_ANSIBLE_EVENTS"
CONNECT_SECONDS = 10

# Folder of ssh's control sockets, whose paths may have at most 108 bytes; TMPDIR may be longer.
SHORT_TEMPORARY = "/tmp"  # noqa: S108  the folder in it is made with a random name

# What Slurm takes for a partition without a PriorityTier.
USUAL_TIER = 1

# All supported distributions have it; letting Ansible search costs each node a second.
NODE_PYTHON = "/usr/bin/python3"


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


def inventory(cluster: Cluster) -> str:
    """Return the inventory of ``cluster`` as JSON, which Ansible's YAML reader accepts."""
    return json.dumps(hosts(cluster), indent=2) + "\n"


def hosts(cluster: Cluster) -> dict[str, Any]:
    """Return the inventory of ``cluster``, in the form of Ansible's YAML.

    All nodes, chosen or not: each has the configuration of all.
    """
    compute = [node for node in cluster.whole if node.role is Role.COMPUTE]
    groups = {
        "controller": {"hosts": {cluster.controller.name: host_variables(cluster.controller)}},
        "compute": {"hosts": {node.name: host_variables(node) for node in compute}},
    }
    variables = {**access_variables(cluster), **cluster_variables(cluster)}
    return {"all": {"vars": variables, "children": groups}}


def host_variables(node: Node) -> dict[str, Any]:
    """Return the host variables of one node."""
    variables: dict[str, Any] = {"ansible_host": node.address or node.name}
    if node.role is Role.COMPUTE:
        variables |= {
            "slurm_common_cpus": node.cpus,
            "slurm_common_memory_mb": node.memory_mb,
            "slurm_common_gpus": node.gpus,
            "slurm_common_gpu_type": node.gpu_type,
        }
    if node.features:
        variables["slurm_common_features"] = list(node.features)
    if node.gpu_devices:
        variables["slurm_common_gpu_devices"] = [
            {"count": item.count, "files": item.files, **asdict(item)} for item in node.gpu_devices
        ]
    if shares := {name: n for name, n in (("shard", node.gpu_shards), ("mps", node.gpu_mps)) if n}:
        variables["slurm_common_gpu_shares"] = shares
    if node.gpu_detect != "off":
        variables["slurm_common_gpu_detect"] = node.gpu_detect
    return variables


def access_variables(cluster: Cluster) -> dict[str, Any]:
    """Return the connection variables. Unknown host keys are refused."""
    access = cluster.ssh
    options = {"StrictHostKeyChecking": "yes", "UpdateHostKeys": "no"}
    if access.known_hosts is not None:
        options["UserKnownHostsFile"] = f'"{access.known_hosts}"'
        options["GlobalKnownHostsFile"] = "none"
    if access.identity_file is not None:
        options["IdentitiesOnly"] = "yes"
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    variables: dict[str, Any] = {
        "ansible_user": access.user,
        "ansible_port": access.port,
        "ansible_become": access.user != "root",
        "ansible_python_interpreter": NODE_PYTHON,
        "ansible_ssh_common_args": shlex.join(words),
    }
    if access.identity_file is not None:
        variables["ansible_ssh_private_key_file"] = str(access.identity_file)
    return variables


def cluster_variables(cluster: Cluster) -> dict[str, Any]:
    """Return the variables of the cluster; variables in its file override ours."""
    return {
        "slurm_common_cluster_name": cluster.name,
        "slurm_common_partitions": [partition_variables(part) for part in cluster.partitions],
        **accounting_variables(cluster.accounting),
        "container_registry_root": str(cluster.registry_root),
        **registry_variables(cluster.registry),
        **dict(cluster.variables),
    }


def partition_variables(part: Partition) -> dict[str, Any]:
    """Return the variables of one partition; what Slurm does by itself is left out."""
    further = {
        "nodes": part.nodes,
        "default_time": part.default_time,
        "max_nodes": part.max_nodes,
        # 0 is a tier as well: below all others.
        "priority_tier": str(part.priority_tier) if part.priority_tier != USUAL_TIER else "",
        "allow_groups": list(part.allow_groups),
        "allow_accounts": list(part.allow_accounts),
        "allow_qos": list(part.allow_qos),
        "exclusive": part.exclusive,
        "state": part.state if part.state != "up" else "",
    }
    return {
        "name": part.name,
        "default": part.default,
        "max_time": part.max_time,
        **{key: value for key, value in further.items() if value},
    }


def registry_variables(registry: Registry) -> dict[str, Any]:
    """Return the variables of the registry of images, but for its root."""
    return {
        "container_registry_folders": list(FOLDERS),
        "container_registry_scripts": str(files("sifline.nodeside")),
        "container_registry_tools": TOOLS,
        "container_registry_deployers": registry.deployers,
        "container_registry_user_folders": list(registry.user_folders),
        "container_registry_shared": registry.shared,
        "container_registry_catch_up": registry.catch_up,
    }


def accounting_variables(accounting: Accounting | None) -> dict[str, Any]:
    """Return the variables of the accounting database; none if jobs are not recorded."""
    if accounting is None:
        return {}
    return {
        "slurm_common_accounting": True,
        "slurm_common_accounting_host": accounting.host,
        "slurm_common_accounting_enforce": list(accounting.enforce),
        "slurm_accounting_enabled": not accounting.host,
        "slurm_accounting_qos": [asdict(qos) for qos in accounting.qos],
        "slurm_accounting_accounts": [asdict(account) for account in accounting.accounts],
    }


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


def playbook(
    cluster: Cluster,
    context: Context,
    folder: Path,
    name: str,
    log: Path,
    *,
    check: bool = False,
    stage: str = "",
    allowed: Sequence[str] = (),
    diff: bool = False,
) -> Run:
    """Run the playbook ``name`` of ``folder`` on the chosen nodes of ``cluster``.

    ``log`` gets what it prints.

    ``check`` changes nothing and reports what would change; ``stage`` is the tag of the only plays
    to run; ``allowed`` names variables of the roles that are set to true, such as ``adopt``;
    ``diff`` reports changes of files line by line, as ``check`` does. The caller decides whether
    the run succeeded: Ansible's exit status is 0 for a play without hosts.

    :raises MissingError: if there is no ansible-playbook.
    """
    with _scratch(context) as scratch:
        hosts = scratch / "inventory.json"
        hosts.write_text(inventory(cluster), encoding="utf-8")
        follower = _Follower(scratch / "events", context)
        argv = [program(context), "--inventory", str(hosts), str(folder / name)]
        some = bool(cluster.left_out)
        password = cluster.ssh.become_password
        result = context.runner.run(
            [
                *_dying_with_us(context),
                *argv,
                *(["--check"] if check else []),
                *(["--tags", stage] if stage else []),
                *(["--limit", ",".join(node.name for node in cluster.nodes)] if some else []),
                *(["--diff"] if check or diff else []),
                *(word for name in allowed for word in ("--extra-vars", f"{name}=true")),
                *(["--ask-become-pass"] if password else []),
            ],
            check=False,
            # Without a terminal Ansible reads it from standard input, so that it is in no file.
            input=f"{password}\n" if password else None,
            cwd=folder,
            env=_environment(context, folder, scratch),
            log=log,
            on_line=lambda _: follower.read(),
        )
        follower.read()
    return Run(events=tuple(follower.events), result=result, log=log)


def program(context: Context) -> str:
    """Return the ansible-playbook of this installation, or else the one on the search path."""
    beside = Path(sys.executable).with_name(PROGRAM)
    found = str(beside) if beside.exists() else context.runner.which(PROGRAM)
    if not found:
        raise MissingError(f"{PROGRAM} is not installed; run scripts/bootstrap")
    return found


class _Follower:
    """Reads the events written since the last call, and reports new tasks."""

    def __init__(self, path: Path, context: Context) -> None:
        self.events: list[Event] = []
        self._path = path
        self._progress = context.progress
        self._offset = 0

    def read(self) -> None:
        for event in parse(self._lines()):
            self.events.append(event)
            if isinstance(event, TaskStarted):
                self._progress(event.name)
            elif isinstance(event, HostEvent):
                self._progress(f"{event.host}: {event.task}: {event.outcome.value}")

    def _lines(self) -> list[str]:
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            # The last line may be incomplete.
            whole, newline, _ = file.read().rpartition(b"\n")
            self._offset += len(whole) + len(newline)
            return whole.decode().splitlines()
        return []


def _environment(context: Context, folder: Path, scratch: Path) -> dict[str, str]:
    return {
        EVENTS_VARIABLE: str(scratch / "events"),
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_HOME": str(context.workspace.build / "ansible"),
        "ANSIBLE_NOCOWS": "1",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(scratch),
        "ANSIBLE_TIMEOUT": str(CONNECT_SECONDS),
        # Ansible refuses to start in another encoding, such as the C locale of a CI machine.
        "LC_ALL": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }


def _dying_with_us(context: Context) -> list[str]:
    """Return the words before a command that ends with this process, even if that is killed."""
    return ["setpriv", "--pdeathsig=TERM", "--"] if context.runner.which("setpriv") else []


@contextmanager
def _scratch(context: Context) -> Iterator[Path]:
    """Yield a folder for this run: another run's control socket might lead to a former host."""
    scratch = Scratch(Path(SHORT_TEMPORARY))
    try:
        yield scratch.path
    finally:
        _close(scratch.path, context)
        scratch.remove()


def _close(folder: Path, context: Context) -> None:
    for socket in folder.iterdir():
        if socket.is_socket():
            argv = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "sifline"]
            # A connection that hangs closes after a minute.
            with suppress(CommandFailed):
                context.runner.run(argv, check=False, timeout=5)
