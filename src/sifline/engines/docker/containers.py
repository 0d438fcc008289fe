"""Starts, finds and removes long-running containers and networks, by their labels."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sifline.engines.docker.engine import docker, reason
from sifline.errors import StepFailed
from sifline.machine.process import CommandFailed, Result, Runner

LOG_LINES = 20
START_SECONDS = 60
BUSY_SECONDS = 10
POLL_SECONDS = 0.05

_BUSY = re.compile("already in use by container|already in progress|has active endpoints")


class Busy(StepFailed):
    """The engine refused because a name or a network is still in use; a retry may succeed."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container of the engine. ``address`` is "" if it does not run."""

    name: str
    state: str
    address: str
    labels: Mapping[str, str]

    @property
    def running(self) -> bool:
        """Return whether the container runs."""
        return self.state == "running"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The CPUs and the memory (MiB) of the machine on which the engine runs."""

    cpus: int
    memory_mb: int


class Containers:
    """Starts, finds and removes containers and networks; ``label`` is always ``key=value``."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def image_id(self, tag: str) -> str:
        """Return the id of the image ``tag``; "" if the engine does not have it."""
        result = self._docker("image", "inspect", "--format", "{{.Id}}", "--", tag, check=False)
        return result.stdout.strip() if result.ok else ""

    def machine(self) -> Machine:
        """Return the CPUs and the memory of the engine's machine."""
        result = self._docker("info", "--format", "{{.NCPU}} {{.MemTotal}}")
        cpus, memory = result.stdout.split()
        return Machine(cpus=int(cpus), memory_mb=int(memory) // 2**20)

    def find(self, label: str) -> tuple[Container, ...]:
        """Return all containers with ``label``, running or not."""
        ids = self._ids("container", "--all", label=label)
        if not ids:
            return ()
        # docker reports containers that vanish meanwhile as errors, but prints the others.
        result = self._docker("container", "inspect", *ids, check=False)
        return tuple(_container(entry) for entry in json.loads(result.stdout or "[]"))

    def start(self, options: Sequence[str], image: str) -> None:
        """Start a container in the background; the image must be in the engine.

        :raises StepFailed: with the engine's message.
        """
        try:
            self._docker("run", "--detach", "--pull=never", *options, image, timeout=START_SECONDS)
        except CommandFailed as error:
            raise _refused("a container did not start", error.result, error.message) from None

    def execute(self, name: str, *argv: str, check: bool = True) -> Result:
        """Run ``argv`` inside the container ``name``, as root."""
        return self._docker("exec", "--", name, *argv, check=check, timeout=START_SECONDS)

    def log(self, name: str) -> str:
        """Return the last lines of output of the first process of ``name``."""
        return self._docker("logs", f"--tail={LOG_LINES}", "--", name, check=False).tail()

    def remove(self, name: str) -> None:
        """Remove the container ``name`` and its volumes, if it exists."""
        result = self._docker("rm", "--force", "--volumes", "--", name, check=False)
        if not result.ok and "No such container" not in result.stderr:
            raise _refused(f"container {name} cannot be removed", result)

    def create_network(self, name: str, labels: Sequence[str]) -> None:
        """Create a bridge network.

        :raises StepFailed: if the engine has no free address range.
        """
        words = [word for label in labels for word in ("--label", label)]
        result = self._docker("network", "create", *words, "--", name, check=False)
        if not result.ok:
            more = "; take a cluster down that is not needed" if "pool" in result.stderr else ""
            raise StepFailed(f"network {name} cannot be created: {result.tail(1)}{more}")

    def networks(self, label: str) -> tuple[str, ...]:
        """Return the ids of all networks with ``label``."""
        return self._ids("network", label=label)

    def network_labels(self, label: str, key: str) -> set[str]:
        """Return the label ``key`` of all networks with ``label``; "" for none."""
        wanted = ["--filter", f"label={label}", "--format", f'{{{{.Label "{key}"}}}}']
        return set(self._docker("network", "ls", *wanted).stdout.splitlines())

    def volumes(self, label: str) -> tuple[str, ...]:
        """Return the names of all volumes with ``label``."""
        return self._ids("volume", label=label)

    def remove_network(self, name: str) -> None:
        """Remove the network ``name``.

        :raises Busy: while a container uses it.
        """
        result = self._docker("network", "rm", name, check=False)
        if not result.ok:
            more = f"; docker network inspect {name} shows what uses it"
            raise _refused(f"network {name} cannot be removed", result, more=more)

    def remove_volume(self, name: str) -> None:
        """Remove the unused volume ``name``."""
        self._docker("volume", "rm", name)

    def shell_argv(
        self, name: str, command: Sequence[str], *, user: str = "", folder: str, terminal: bool
    ) -> list[str]:
        """Return the command line that runs ``command`` inside ``name``, in ``folder``."""
        argv = ["docker", "exec", "--interactive", *(["--tty"] if terminal else [])]
        argv += [f"--user={user}"] if user and user != "root" else []
        return [*argv, f"--workdir={folder}", name, *command]

    def _ids(self, kind: str, *options: str, label: str) -> tuple[str, ...]:
        result = self._docker(kind, "ls", "--quiet", *options, "--filter", f"label={label}")
        return tuple(result.stdout.split())

    def _docker(self, *argv: str, check: bool = True, timeout: float | None = None) -> Result:
        return docker(self._runner, *argv, check=check, timeout=timeout)


def _container(entry: Mapping[str, Any]) -> Container:
    networks = entry["NetworkSettings"]["Networks"] or {}
    addresses = [network["IPAddress"] for network in networks.values() if network["IPAddress"]]
    return Container(
        name=entry["Name"].removeprefix("/"),
        state=entry["State"]["Status"],
        address=addresses[0] if addresses else "",
        labels=entry["Config"].get("Labels") or {},
    )


def _refused(what: str, result: Result, otherwise: str = "", *, more: str = "") -> StepFailed:
    """Return the error for a failed command; ``Busy`` if a retry may succeed."""
    kind = Busy if _BUSY.search(result.stderr) else StepFailed
    return kind(f"{what}: {reason(result, otherwise)}{more}", details=result.tail())


def despite_a_killed_run(work: Callable[[], None]) -> None:
    """Call ``work`` again while the engine still processes requests of a killed run.

    Such requests may use a name or a network that was not listed a moment before.
    """
    last = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return work()
        except Busy:
            if time.monotonic() > last:
                raise
            time.sleep(POLL_SECONDS)
