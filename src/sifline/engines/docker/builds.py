"""Builds of images, and why they fail. The docker command does them: nothing else has BuildKit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from glob import escape
from pathlib import Path
from secrets import token_hex

from sifline.config.docker_client import EPOCH
from sifline.engines.docker.engine import builder, docker
from sifline.errors import StepFailed
from sifline.machine.process import Result, Runner

CA_SECRET = "ca-certificates"  # noqa: S105 - the secret's id, not its content
LOG_LINES = 20
STEP_WIDTH = 100

# Bytes of chance in the name of a file.
_TOKEN = 4
_STEP = re.compile(r"^#\d+ (\[[^\]]+\] .*)$")
# Why it refuses a Dockerfile as a whole: behind the words of all who pass that on.
_REFUSED = re.compile(r"^ERROR: .*(?:LLB definition|frontend gateway\.v0): (.+)$", re.MULTILINE)
_READER = re.compile(r"frontend gateway\.v0|resolve image config for")
_UNKNOWN = re.compile("unknown (?:instruction|flag)|unexpected key|in substitution", re.IGNORECASE)
_FAILED_STEP = re.compile(r"^ > (\[[^\]]+\] .*?):?$", re.MULTILINE)


def build(
    runner: Runner,
    folder: Path,
    *,
    labels: Mapping[str, str],
    build_args: Mapping[str, str],
    secrets: Sequence[str],
    log: Path,
    on_step: Callable[[str], None],
    proxies: Mapping[str, str] | None = None,
    hide: Sequence[str] = (),
    ssh: Sequence[str] = (),
    contexts: Mapping[str, Path] | None = None,
    file: Path | None = None,
    target: str = "",
    no_cache: bool = False,
) -> str:
    """Build ``folder`` through BuildKit; return the id of the image, which has no name yet.

    Until it has one, a file beside the log holds its id, see ``id_files``.

    :param proxies: build arguments whose values, maybe with passwords, no list of processes
        and no log shall show.
    :param hide: what steps may print and no log shall show: the content of secrets.
    :param secrets: as docker's ``--secret`` takes them: ``id=…,src=…`` or ``id=…,env=…``.
    :param contexts: folders beside ``folder``, by their names.
    :param ssh: as docker's ``--ssh`` takes them: ``ID=SOCKET-OR-KEY``.
    :raises StepFailed: naming the Dockerfile's step, with the log's last lines.
    """
    # Another builder keeps what it builds to itself.
    argv = ["buildx", "build", "--builder", builder(), "--progress", "plain"]
    for flag, values in (
        ("--label", [f"{key}={value}" for key, value in labels.items()]),
        ("--build-arg", [f"{key}={value}" for key, value in build_args.items()]),
        ("--build-arg", [*(proxies or {})]),
        ("--secret", secrets),
        ("--ssh", ssh),
        ("--build-context", [f"{key}={path}" for key, path in (contexts or {}).items()]),
        ("--file", [str(file)] if file else []),
        ("--target", [target] if target else []),
    ):
        for value in values:
            argv += [flag, value]
    argv += ["--no-cache"] if no_cache else []

    def line(text: str) -> None:
        match = _STEP.match(text)
        if match:
            on_step(_shortened(match[1]))

    log.parent.mkdir(parents=True, exist_ok=True)
    made = log.with_name(f"{log.stem}.{token_hex(_TOKEN)}.id")
    argv += ["--iidfile", str(made), "--", str(folder)]
    try:
        result = docker(
            runner,
            *argv,
            check=False,
            # buildx would make a build argument of it, which no fingerprint shows.
            env={EPOCH: "", **(proxies or {})},
            log=log,
            on_line=line,
            hide=hide,
        )
        if not result.ok:
            raise _error(folder, result, log)
        return made.read_text(encoding="utf-8").strip()
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def id_files(log: Path) -> dict[Path, str]:
    """Return the files in which builds with this ``log`` left the ids of their images.

    Whoever names an image removes its file: those that are there are of killed runs.
    """
    found = log.parent.glob(f"{escape(log.stem)}.{'[0-9a-f]' * 2 * _TOKEN}.id")
    return {path: id_of(path) for path in found}


def id_of(path: Path) -> str:
    """Return the id in such a file; "" where the build that wrote it has removed it."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _error(folder: Path, result: Result, log: Path) -> StepFailed:
    match = _FAILED_STEP.search(result.stderr)
    step = f"at {_shortened(match[1])}" if match else "before the first step"
    cause = _cause(result.stderr)
    return StepFailed(
        f"building {folder.name} failed {step}; {cause}the whole log is {log}",
        details=result.tail(LOG_LINES),
    )


def _cause(said: str) -> str:
    """Why a build failed, as far as that is known, with what to do; in front of the rest."""
    if "no space left on device" in said:
        return "the disk is full; "
    refused = _REFUSED.search(said)
    if refused and _READER.search(said):
        return (
            f"its line # syntax= names an image that does not read it: {refused[1]}; fix the name"
            " or the network, or remove that line; "
        )
    if refused and _UNKNOWN.search(refused[1]):
        return (
            f"{refused[1]}; correct it, or install a Docker engine that knows it and see invoke"
            " doctor; "
        )
    return f"{refused[1]}; " if refused else ""


def _shortened(step: str) -> str:
    """A step of a Dockerfile on one readable line: a RUN may hold a whole script."""
    words = " ".join(step.split())
    return words if len(words) <= STEP_WIDTH else f"{words[:STEP_WIDTH]}…"
