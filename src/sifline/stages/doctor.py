"""Doctor: checks whether this machine has what scripts/bootstrap installs and the verbs need.

``look`` and ``_ask`` collect facts, from files and from programs; the functions below them decide.
A verdict says what was found and, if something is wrong, how to fix it.

One module, so that each fact and its verdict stay together.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sifline.engines.docker.engine import reason
from sifline.errors import SiflineError
from sifline.machine import certificates, facts
from sifline.machine.context import Context
from sifline.machine.process import Result, Runner
from sifline.model import CheckResult, Status, Workspace
from sifline.model.units import gigabytes

BOOTSTRAP = "run scripts/bootstrap"
OLDEST_ENGINE = (20, 10)
OLDEST_PYTHON = (3, 10)
OLDEST_SINGULARITY = 4
# Disk space of the quickstart's images, build cache and SIFs: about 4 GB.
NEEDED_DISK = 8_000_000_000
# Memory of three nodes of the virtual cluster and one conversion.
NEEDED_MEMORY = 2_000_000_000
TOOLBOX = "sifline/toolbox:latest"
# Programs that verbs start, and the packages they come from.
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "rsync": "rsync",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Facts read from files. Sizes in bytes; None if the file is missing."""

    python: tuple[int, ...]
    disk_free: int
    memory_available: int | None
    cgroup_controllers: str | None
    cgroup_v1: bool
    fuse: bool
    user_namespaces: int | None
    userns_restricted: bool
    ca_bundle: str | None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of a check, in words."""

    status: Status
    message: str


def doctor(context: Context) -> tuple[CheckResult, ...]:
    """Check everything that bootstrap and the verbs need; missing things raise no error."""
    machine = look(context.workspace)
    return tuple(
        _timed(name, check, context) for name, check in _checks(machine, context.workspace)
    )


def _timed(name: str, check: Callable[[Runner], Verdict], context: Context) -> CheckResult:
    context.progress(name)
    started = time.monotonic()
    try:
        verdict = check(context.runner)
    except SiflineError as error:
        verdict = _failed(error.message)
    return CheckResult(
        suite="doctor",
        name=name,
        status=verdict.status,
        message=verdict.message,
        seconds=time.monotonic() - started,
    )


def _checks(
    machine: Machine, workspace: Workspace
) -> Iterator[tuple[str, Callable[[Runner], Verdict]]]:
    """Yield the checks, in the order in which to fix what fails."""
    yield "python", lambda _: judge_python(machine.python)
    yield "engine", lambda runner: judge_engine(_ask(runner, *ENGINE_VERSION))
    yield "buildkit", lambda runner: judge_buildx(_ask(runner, "docker", "buildx", "version"))
    for tool, package in TOOLS.items():
        yield (
            tool,
            lambda runner, t=tool, p=package: judge_tool(  # type: ignore[misc]
                t, p, runner.which(t)
            ),
        )
    yield "graphviz", lambda runner: judge_graphviz(runner.which("dot"))
    yield "containers", _containers
    yield "ansible", lambda runner: judge_ansible(_find_ansible(runner))
    yield "apptainer", lambda runner: _apptainer(runner, workspace)
    yield "disk", lambda _: judge_disk("the workspace", workspace.root, machine.disk_free)
    yield "engine disk", _engine_disk
    yield "memory", lambda _: judge_memory(machine.memory_available)
    yield "cgroups", lambda _: judge_cgroups(machine.cgroup_controllers, v1=machine.cgroup_v1)
    yield "fuse", lambda _: judge_fuse(there=machine.fuse)
    yield (
        "user namespaces",
        lambda _: judge_namespaces(machine.user_namespaces, restricted=machine.userns_restricted),
    )
    yield "certificates", lambda _: judge_certificates(machine.ca_bundle)


# Collecting facts

ENGINE_VERSION = ("docker", "version", "--format", "{{.Server.Version}}")
BRIDGE = ("docker", "network", "inspect", "--format", "{{.Name}}", "bridge")
ENGINE_ROOT = ("docker", "info", "--format", "{{.DockerRootDir}}")


def look(workspace: Workspace, root: Path = Path("/")) -> Machine:
    """Read the facts that files contain, below the folder ``root``."""
    limit = _read(root / "proc/sys/user/max_user_namespaces")
    clone = _read(root / "proc/sys/kernel/unprivileged_userns_clone")
    apparmor = _read(root / "proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    memory = facts.Machine([], root).free_memory()
    bundle = certificates.bundle(os.environ, root)
    return Machine(
        python=tuple(sys.version_info[:3]),
        disk_free=shutil.disk_usage(workspace.root).free,
        memory_available=memory if memory < sys.maxsize else None,
        cgroup_controllers=_read(root / "sys/fs/cgroup/cgroup.controllers"),
        cgroup_v1=(root / "sys/fs/cgroup/memory").is_dir(),
        fuse=(root / "dev/fuse").exists(),
        user_namespaces=int(limit) if limit else None,
        userns_restricted=clone == "0" or apparmor == "1",
        ca_bundle=str(bundle) if bundle else None,
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _ask(runner: Runner, *argv: str) -> Result | None:
    """Run a command that only reports; None if it is not installed."""
    return runner.run(argv, check=False, timeout=20) if runner.which(argv[0]) else None


def _find_ansible(runner: Runner) -> str | None:
    """Return the path of ansible-playbook: beside this Python, or on the search path."""
    beside = Path(sys.executable).with_name("ansible-playbook")
    return str(beside) if beside.is_file() else runner.which("ansible-playbook")


def _engine_disk(runner: Runner) -> Verdict:
    asked = _ask(runner, *ENGINE_ROOT)
    folder = Path(asked.stdout.strip()) if asked and asked.ok else None
    if folder is None:
        return _skipped("no engine answers, so its folder is not known")
    if not folder.is_dir():
        return _skipped(f"the engine's {folder} is not visible from here")
    return judge_disk("the engine", folder, shutil.disk_usage(folder).free)


def _containers(runner: Runner) -> Verdict:
    """Start a container with a network and one without: builds and conversions use both."""
    if not _has_toolbox(runner):
        return _skipped("none can be tried without sifline/toolbox; invoke build.toolbox makes it")
    # Without a bridge, containers still start, but build steps have no network.
    bridge = _ask(runner, *BRIDGE)
    if bridge and not bridge.ok:
        return _failed(
            f"build steps get no network: {reason(bridge)}; restart the engine without"
            " --bridge=none, or take bridge out of its daemon.json"
        )
    for network in ("bridge", "none"):
        options = ("--rm", "--pull", "never", "--network", network, "--entrypoint", "true")
        tried = _ask(runner, "docker", "run", *options, TOOLBOX)
        if tried and not tried.ok:
            return _failed(
                f"none starts with --network {network}: {reason(tried)}; restart the engine"
            )
    return _passed("they start, with and without a network")


def _has_toolbox(runner: Runner) -> bool:
    asked = _ask(runner, "docker", "image", "inspect", "--format", "{{.Id}}", TOOLBOX)
    return bool(asked and asked.ok)


def _apptainer(runner: Runner, workspace: Workspace) -> Verdict:
    for tool in ("apptainer", "singularity"):
        asked = _ask(runner, tool, "--version")
        if asked and asked.ok:
            return judge_apptainer(tool, asked.stdout)
    return judge_toolbox(
        built=_has_toolbox(runner), source=(workspace.images / "toolbox").is_dir()
    )


# Deciding


def judge_python(version: tuple[int, ...]) -> Verdict:
    """Check the version of this Python."""
    words = ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        return _failed(f"Python {words} is too old; run scripts/bootstrap with 3.10 or newer")
    return _passed(f"Python {words}")


def judge_engine(asked: Result | None) -> Verdict:
    """Check the output of ``docker version``; None if there is no client."""
    if asked is None:
        return _failed(f"the docker client is not installed; {BOOTSTRAP}")
    if "permission denied" in asked.stderr:
        return _failed(
            "no permission on the engine's socket; sudo usermod --append --groups docker "
            "$USER, then log in again"
        )
    version = asked.stdout.strip()
    if not asked.ok or not version:
        return _failed(f"no Docker engine answers; {BOOTSTRAP}, which starts one")
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < OLDEST_ENGINE:
        return _failed(f"Docker engine {version} is too old; install 20.10 or newer")
    return _passed(f"Docker engine {version}")


def judge_buildx(asked: Result | None) -> Verdict:
    """Check the output of ``docker buildx version``."""
    if asked is None or not asked.ok:
        return _failed(f"no buildx, which builds with BuildKit; {BOOTSTRAP}")
    words = asked.stdout.split()
    return _passed(f"buildx {words[1] if len(words) > 1 else 'of unknown version'}")


def judge_tool(tool: str, package: str, path: str | None) -> Verdict:
    """Check that a program of a distribution's package is installed."""
    if path is None:
        return _failed(f"{tool} is not installed; {BOOTSTRAP}, or install the package {package}")
    return _passed(path)


def judge_graphviz(path: str | None) -> Verdict:
    """Check whether graphs can be drawn as SVGs; nothing else needs Graphviz."""
    if path is None:
        return _skipped(f"not installed, so invoke graph draws no SVG; {BOOTSTRAP}")
    return _passed(path)


def judge_ansible(path: str | None) -> Verdict:
    """Check that ansible-playbook is installed."""
    if path is None:
        return _failed(
            "ansible-playbook is not in this environment; run scripts/bootstrap, then "
            "source .venv/bin/activate"
        )
    return _passed(path)


def judge_apptainer(tool: str, said: str) -> Verdict:
    """Check the version of a native apptainer, or of a singularity, which must be 4."""
    found = re.search(r"(\d+)\.\d+[.\d]*", said)
    version = found[0] if found else "of unknown version"
    other = tool == "singularity" and "apptainer" not in said
    if other and (not found or int(found[1]) < OLDEST_SINGULARITY):
        return _failed(f"singularity {version} is too old; install 4 or newer, or remove it")
    return _passed(f"native {tool} {version}")


def judge_toolbox(*, built: bool, source: bool) -> Verdict:
    """Check whether the toolbox can replace a native apptainer."""
    if built:
        return _passed(f"no native apptainer; the image {TOOLBOX} is there")
    if source:
        return _skipped("no native apptainer; the toolbox is not built yet: invoke build.toolbox")
    return _failed("neither apptainer nor images/toolbox; install apptainer")


def judge_disk(whose: str, folder: Path, free: int) -> Verdict:
    """Check the free space in bytes below ``folder``."""
    words = f"{gigabytes(free)} free for {whose} in {folder}"
    if free < NEEDED_DISK:
        return _failed(
            f"{words}, {gigabytes(NEEDED_DISK)} are needed; free some, for example:"
            " invoke clean --all --unused"
        )
    return _passed(words)


def judge_memory(available: int | None) -> Verdict:
    """Check the memory in bytes that programs can still get."""
    if available is None:
        return _skipped("the kernel does not say how much memory is available")
    if available < NEEDED_MEMORY:
        return _failed(
            f"{gigabytes(available)} memory available, {gigabytes(NEEDED_MEMORY)} are needed; "
            "end other programs or clusters (invoke cluster.down --cluster NAME)"
        )
    return _passed(f"{gigabytes(available)} available")


def judge_cgroups(controllers: str | None, *, v1: bool) -> Verdict:
    """Check which control groups Slurm will find in the nodes of a virtual cluster."""
    if controllers is not None:
        lacking = sorted({"cpu", "cpuset", "memory"} - set(controllers.split()))
        if lacking:
            return _failed(
                f"version 2 without {', '.join(lacking)}; the kernel's command line "
                "(cgroup_disable=) or the container around this machine takes them away"
            )
        return _passed("version 2")
    if v1:
        return _passed("version 1; the virtual cluster's nodes get both kinds")
    return _failed("no control groups in /sys/fs/cgroup; mount them (package cgroupfs-mount)")


def judge_fuse(*, there: bool) -> Verdict:
    """Check whether an ordinary user can mount a SIF."""
    if not there:
        return _failed("no /dev/fuse, which mounts SIFs; sudo modprobe fuse")
    return _passed("/dev/fuse")


def judge_namespaces(limit: int | None, *, restricted: bool) -> Verdict:
    """Check whether ordinary users may create user namespaces, which containers need."""
    if limit is None or limit == 0:
        return _failed("none allowed; sudo sysctl user.max_user_namespaces=15000")
    if restricted:
        return _passed("for root and confined programs; ordinary users' are restricted here")
    return _passed(f"{limit} allowed")


def judge_certificates(bundle: str | None) -> Verdict:
    """Check whether build steps can get the machine's CA bundle."""
    if bundle is None:
        return _failed("no bundle of certificates; sudo apt-get install ca-certificates")
    return _passed(bundle)


def _passed(message: str) -> Verdict:
    return Verdict(status=Status.PASSED, message=message)


def _failed(message: str) -> Verdict:
    return Verdict(status=Status.FAILED, message=message)


def _skipped(reason: str) -> Verdict:
    return Verdict(status=Status.SKIPPED, message=reason)
