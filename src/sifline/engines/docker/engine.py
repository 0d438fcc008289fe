"""Runs the ``docker`` command, and asks a local engine's API."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sifline.config import docker_client
from sifline.errors import MissingError, SiflineError, StepFailed
from sifline.formats.times import seconds_of
from sifline.machine.process import CommandFailed, Result, Runner
from sifline.machine.streams import OnLine
from sifline.model import Bind

# The whole phrase: a build log may contain "permission denied", too.
_DENIED = re.compile("permission denied while trying to connect to the docker", re.IGNORECASE)
_REASON = re.compile(r"(?:docker: |(?=Error))(.+)")
_SILENT = re.compile("Cannot connect to the Docker daemon|error during connect")

SOCKET = Path("/var/run/docker.sock")
# Label of containers with their purpose, by which the next run finds leftovers.
LABEL_PURPOSE = "sifline.apptainer"
ANSWER_SECONDS = 60
# Seconds that a container under removal may take to disappear.
REMOVE_SECONDS = 60
# The engine needs minutes to unpack an image of tens of gigabytes.
LOAD_SECONDS = 3600
DEFAULT_CONTEXT = "default"


def docker(
    runner: Runner,
    *argv: str,
    check: bool = True,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
    on_line: OnLine | None = None,
    hide: Sequence[str] = (),
    input: str | None = None,
) -> Result:
    """Run the docker command with ``argv``.

    :raises MissingError: if no engine answers, or its socket may not be used.
    :raises CommandFailed: with ``check``, for any status but 0; after ``timeout`` seconds.
    """
    try:
        result = runner.run(
            ["docker", *argv],
            check=check,
            timeout=timeout,
            env=env,
            log=log,
            on_line=on_line,
            hide=hide,
            input=input,
        )
    except CommandFailed as error:
        need_answer(error.result)
        raise
    need_answer(result)
    return result


def mount(bind: Bind) -> str:
    """Return a bind mount in the ``--mount`` format of docker and Apptainer.

    The format is CSV: quotes are doubled.
    """
    fields = ["type=bind", f"source={bind.source}", f"target={bind.target}"]
    fields += [] if bind.writable else ["readonly"]
    quoted = ['"' + field.replace('"', '""') + '"' for field in fields]
    return ",".join(quoted)


def need_answer(result: Result) -> None:
    """Raise MissingError if a docker command failed because no engine answered."""
    if result.ok:
        return
    if _DENIED.search(result.stderr):
        raise MissingError(
            "no permission on the Docker engine's socket; run: sudo usermod -aG docker $USER,"
            " then log in again"
        )
    if _SILENT.search(result.stderr):
        raise MissingError("no Docker engine answers; run scripts/bootstrap, which starts one")


def reason(result: Result, otherwise: str = "") -> str:
    """Return the engine's own message about a failed docker command."""
    found = _REASON.findall(result.stderr)
    return str(found[-1]) if found else otherwise or result.tail(1)


def all_images(runner: Runner) -> list[dict[str, Any]]:
    """Return all images of the engine in the API's format: Id, RepoTags, Labels, Size and more.

    Asks a local engine through its socket: the command needs two calls and ten times as long.
    Through ssh, TLS or another docker context it uses the command.

    :raises MissingError: if no engine answers, or its socket may not be used.
    """
    local = _socket()
    if local is not None:
        try:
            listed: list[dict[str, Any]] = _ask(local, "/images/json")
            return listed
        except (OSError, ValueError):
            pass  # the command gives a better error message
    ids = docker(runner, "image", "ls", "--quiet", "--no-trunc").stdout.split()
    if not ids:
        return []
    # Images that are removed between the two calls are left out.
    result = docker(runner, "image", "inspect", *sorted(set(ids)), check=False)
    return [_as_listed(entry) for entry in json.loads(result.stdout)]


def layers_size() -> int | None:
    """Return the size of all layers of a local engine in bytes; None if it is unknown."""
    local = _socket()
    try:
        return int(_ask(local, "/system/df")["LayersSize"]) if local else None
    except (OSError, ValueError, KeyError):
        return None


def attach(
    runner: Runner, argv: Sequence[str], *, name: str, env: Mapping[str, str] | None = None
) -> int:
    """Run ``argv``, which runs a container called ``name``, on the user's own terminal.

    Return its exit status. The container is removed in any case: if the docker command is killed,
    or its reader exits, as ``head`` does, docker leaves it running.
    """
    try:
        return runner.attach(argv, env=env)
    finally:
        remove(runner, name)


def remove(runner: Runner, name: str) -> None:
    """Remove the container ``name`` with its volumes, running or not, if it exists."""
    with suppress(SiflineError):
        runner.run(["docker", "rm", "--force", "--volumes", name], check=False, timeout=30)


def remove_left_over(runner: Runner, purpose: str) -> None:
    """Remove the containers that a killed run started for ``purpose``.

    :raises MissingError: if no engine answers, or its socket may not be used.
    :raises StepFailed: if one still exists after ``REMOVE_SECONDS``.
    """
    deadline = time.monotonic() + REMOVE_SECONDS
    listing = ("ps", "--all", "--quiet", "--filter", f"label={LABEL_PURPOSE}={purpose}")
    while left := docker(runner, *listing, timeout=ANSWER_SECONDS).stdout.split():
        result = docker(runner, "rm", "--force", "--volumes", *left, check=False)
        if result.ok:
            return
        # Many end by themselves without their caller. Removing a container that is gone, or being
        # removed, is an error for the engine.
        if time.monotonic() > deadline:
            raise StepFailed(
                f"what a killed run left cannot be removed: {result.tail(1)}; remove it yourself:"
                f" docker rm --force {' '.join(left)}"
            )
        time.sleep(0.1)


def labelled(runner: Runner, label: str) -> dict[str, str]:
    """Return the containers with ``label``, running or not: the label's value by container id.

    :raises MissingError: if no engine answers, or its socket may not be used.
    """
    local = _socket()
    if local is not None:
        filters = quote(json.dumps({"label": [label]}))
        with suppress(OSError, ValueError):  # the command gives a better error message
            listed = _ask(local, f"/containers/json?all=1&filters={filters}")
            labels = {entry["Id"]: entry.get("Labels") or {} for entry in listed}
            return {name: own[label] for name, own in labels.items() if label in own}
    show = ("--filter", f"label={label}", "--format", f'{{{{.ID}}}} {{{{.Label "{label}"}}}}')
    listing = ("ps", "--all", "--no-trunc", *show)
    lines = docker(runner, *listing, timeout=ANSWER_SECONDS).stdout.splitlines()
    return {name: value for name, _, value in (line.partition(" ") for line in lines)}


def is_local() -> bool:
    """Return whether the engine has a socket on this machine."""
    return _socket() is not None


@contextmanager
def exported(container: str) -> Iterator[socket.socket]:
    """Yield a connection from which the file system of ``container`` can be read as a tar.

    docker's own command copies each byte once more. The connection closes at the end of the
    stream, complete or not: only the tar's own end shows that it is complete.

    :raises MissingError: if the engine is on another machine, or does not answer.
    """
    local = _socket()
    if local is None:
        raise MissingError("the Docker engine is on another machine; run this there")
    from sifline.engines.docker import api

    try:
        response = api.get(local, f"/containers/{container}/export", ANSWER_SECONDS)
    except OSError as error:
        raise MissingError(
            f"the Docker engine does not answer: {error.strerror or error}; run"
            " scripts/bootstrap, which starts one"
        ) from None
    except ValueError as error:
        raise StepFailed(f"the Docker engine does not hand out the file system: {error}") from None
    with response as answer:
        answer.connection.settimeout(None)
        yield answer.connection


def load(archive: Iterable[bytes]) -> None:
    """Load a docker-archive, given in chunks, into the engine (``docker load``).

    :raises MissingError: if the engine is on another machine, or does not answer.
    :raises StepFailed: with the engine's message about the archive.
    """
    from docker import APIClient
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    local = _socket()
    if local is None:
        raise MissingError("the Docker engine is on another machine; run this there")
    try:
        client = APIClient(base_url=f"unix://{local}", timeout=LOAD_SECONDS)
        said: list[dict[str, str]] = [*client.load_image(archive)]  # type: ignore[no-untyped-call]
    except (DockerException, RequestException) as error:
        raise MissingError(
            f"the Docker engine does not take an image: {error}; run scripts/bootstrap, which"
            " starts one that does not run"
        ) from None
    for answer in said:
        if wrong := answer.get("error") or answer.get("message"):
            full = "no space left on device" in wrong
            cause = (
                "its disk is full; make room there" if full else f"{wrong.strip()}; save it again"
            )
            raise StepFailed(f"the Docker engine does not take the image: {cause}")


def builder() -> str:
    """Return the name of the buildx builder that is the engine itself: docker's context."""
    if os.environ.get("DOCKER_HOST"):
        return DEFAULT_CONTEXT
    return os.environ.get("DOCKER_CONTEXT") or _context_of_settings() or DEFAULT_CONTEXT


def _as_listed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an entry of ``docker image inspect`` to the format of the API's image list."""
    labels = entry["Config"].get("Labels")
    return {**entry, "Labels": labels, "Created": seconds_of(entry["Created"])}


def _socket() -> Path | None:
    """Return the socket of the local engine; None if docker uses an engine elsewhere."""
    host = os.environ.get("DOCKER_HOST", "")
    if host:
        return Path(host.removeprefix("unix://")) if host.startswith("unix://") else None
    context = os.environ.get("DOCKER_CONTEXT") or _context_of_settings()
    return SOCKET if context in ("", DEFAULT_CONTEXT) else None


def _context_of_settings() -> str:
    """Return the current context of docker's config.json; "" if it has none."""
    return str(docker_client.settings().get("currentContext") or "")


def _ask(local: Path, path: str) -> Any:
    """Return the JSON of the engine's response to GET ``path``; raises what ``api.get`` raises."""
    from sifline.engines.docker import api  # takes a while to import

    return api.ask(local, path, ANSWER_SECONDS)
