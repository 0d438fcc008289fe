"""Starts, finds and removes long-running containers and networks, by their labels."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

from sifline.engines.docker.engine import docker, reason
from sifline.errors import StepFailed
from sifline.machine.process import CommandFailed, Result, Runner

LOG_LINES = 20
START_SECONDS = 60
# Seconds that a container may take to shut down before the engine kills it.
STOP_SECONDS = 10
BUSY_SECONDS = 10
CPU_PERIOD = 100_000
POLL_SECONDS = 0.05

_BUSY = re.compile(
    "already in use by container|already in progress|has active endpoints|volume is in use"
)
# Another run took the addresses, or a killed one the name, a moment ago.
_TAKEN = re.compile("overlaps with other|already exists")


class Busy(StepFailed):
    """The engine refused because a name or a network is still in use; a retry may succeed."""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container of the engine. ``address`` is "" if it does not run.

    ``fixed`` is the address that it gets at each start, "" if the engine chooses one each time.
    ``cpu_quota`` limits its time on CPUs, in microseconds of each period; 0 does not. ``image`` is
    the id of its image, ``exit_status`` that of its first process.
    """

    name: str
    state: str
    address: str
    labels: Mapping[str, str]
    fixed: str = ""
    cpu_quota: int = 0
    image: str = ""
    exit_status: int = 0

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

    def start_again(self, name: str) -> None:
        """Start the stopped container ``name``; one that runs is left alone.

        :raises StepFailed: with the engine's message.
        """
        self._change(f"container {name} did not start", "start", name)

    def restart(self, name: str) -> None:
        """Shut the container ``name`` down and start it again; start it if it does not run."""
        self._change(
            f"container {name} did not restart", "restart", f"--time={STOP_SECONDS}", name
        )

    def kill(self, name: str) -> None:
        """End all processes of the container ``name`` at once."""
        self._change(f"container {name} cannot be killed", "kill", name)

    def limit_cpus(self, name: str, quota: int) -> None:
        """Limit the container's time on CPUs, in microseconds of each ``CPU_PERIOD``.

        :param quota: -1 for no limit.
        """
        limits = (f"--cpu-period={CPU_PERIOD}", f"--cpu-quota={quota}")
        self._change(f"the CPUs of container {name} cannot be limited", "update", *limits, name)

    def execute(
        self, name: str, *argv: str, check: bool = True, input: str | None = None
    ) -> Result:
        """Run ``argv`` inside the container ``name``, as root."""
        options = [] if input is None else ["--interactive"]
        words = ["exec", *options, "--", name, *argv]
        return self._docker(*words, check=check, timeout=START_SECONDS, input=input)

    def beside(
        self, container: Container, *argv: str, capability: str, input: str | None = None
    ) -> Result:
        """Run ``argv`` in a new container of the same image, with the network of ``container``.

        :param capability: the one that it has more than others.
        """
        options = ["--rm", "--interactive", "--pull=never", f"--cap-add={capability}"]
        options += [f"--network=container:{container.name}"]
        words = ["run", *options, container.image, *argv]
        return self._docker(*words, check=False, timeout=START_SECONDS, input=input)

    def log(self, name: str) -> str:
        """Return the last lines of output of the first process of ``name``."""
        return self._docker("logs", f"--tail={LOG_LINES}", "--", name, check=False).tail()

    def remove(self, name: str) -> None:
        """Remove the container ``name`` and its volumes, if it exists."""
        result = self._docker("rm", "--force", "--volumes", "--", name, check=False)
        if not result.ok and "No such container" not in result.stderr:
            raise _refused(f"container {name} cannot be removed", result)

    def create_network(
        self, name: str, labels: Sequence[str], *, subnet: IPv4Network, dynamic: IPv4Network
    ) -> None:
        """Create a bridge network with the addresses of ``subnet``.

        :param dynamic: the part of it from which the engine takes addresses that are not fixed.
        :raises Busy: if the name or the addresses were taken meanwhile.
        """
        words = [word for label in labels for word in ("--label", label)]
        words += [f"--subnet={subnet}", f"--ip-range={dynamic}"]
        result = self._docker("network", "create", *words, "--", name, check=False)
        if not result.ok:
            kind = Busy if _TAKEN.search(result.stderr) else StepFailed
            raise kind(f"network {name} cannot be created: {result.tail(1)}")

    def subnets(self) -> dict[str, tuple[IPv4Network, ...]]:
        """Return the IPv4 subnets of all networks of the engine, by their names."""
        ids = self._docker("network", "ls", "--quiet").stdout.split()
        # Networks that vanish meanwhile are errors, but the others are printed.
        result = self._docker("network", "inspect", *ids, check=False)
        return {entry["Name"]: _subnets(entry) for entry in json.loads(result.stdout or "[]")}

    def create_volume(self, name: str, labels: Sequence[str]) -> None:
        """Create a volume; one of that name is left as it is."""
        words = [word for label in labels for word in ("--label", label)]
        self._docker("volume", "create", *words, "--", name)

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
        """Remove the volume ``name``.

        :raises Busy: while a container uses it.
        """
        self._change(f"volume {name} cannot be removed", "volume", "rm", name)

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

    def _change(self, what: str, *argv: str) -> None:
        result = self._docker(*argv, check=False, timeout=START_SECONDS)
        if not result.ok:
            raise _refused(what, result)

    def _docker(
        self,
        *argv: str,
        check: bool = True,
        timeout: float | None = None,
        input: str | None = None,
    ) -> Result:
        return docker(self._runner, *argv, check=check, timeout=timeout, input=input)


def _container(entry: Mapping[str, Any]) -> Container:
    networks = entry["NetworkSettings"]["Networks"] or {}
    addresses = [network["IPAddress"] for network in networks.values() if network["IPAddress"]]
    wanted = [network.get("IPAMConfig") or {} for network in networks.values()]
    fixed = [config["IPv4Address"] for config in wanted if config.get("IPv4Address")]
    host = entry.get("HostConfig") or {}
    return Container(
        name=entry["Name"].removeprefix("/"),
        state=entry["State"]["Status"],
        address=addresses[0] if addresses else "",
        labels=entry["Config"].get("Labels") or {},
        fixed=fixed[0] if fixed else "",
        cpu_quota=max(host.get("CpuQuota") or 0, 0),
        image=entry.get("Image") or "",
        exit_status=entry["State"].get("ExitCode") or 0,
    )


def _subnets(network: Mapping[str, Any]) -> tuple[IPv4Network, ...]:
    configs = (network.get("IPAM") or {}).get("Config") or []
    texts = [config.get("Subnet") or "" for config in configs]
    return tuple(IPv4Network(text, strict=False) for text in texts if text and ":" not in text)


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
