"""Runs playbooks on a cluster, and follows what they do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sifline.engines.ansible.events import (
    EVENTS_VARIABLE,
    Event,
    HostEvent,
    Run,
    TaskStarted,
    parse,
)
from sifline.engines.ansible.inventories import inventory
from sifline.errors import MissingError
from sifline.machine.context import Context
from sifline.machine.process import CommandFailed
from sifline.machine.scratch import Scratch
from sifline.model import Cluster

PROGRAM = "ansible-playbook"
CONNECT_SECONDS = 10

# Folder of ssh's control sockets, whose paths may have at most 108 bytes; TMPDIR may be longer.
SHORT_TEMPORARY = "/tmp"  # noqa: S108  the folder in it is made with a random name


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
