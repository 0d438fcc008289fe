"""Builds images with the docker command (only it offers BuildKit), and explains failed builds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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

# Begins the repetition at the end.
_REPETITION = "\n------\n"
# Number of random bytes in the name of a file.
_TOKEN = 4
_STEP = re.compile(r"^#\d+ (\[[^\]]+\] .*)$")
# The reason why BuildKit rejects a whole Dockerfile, after the words of the layers above it.
_REFUSED = re.compile(r"^ERROR: .*(?:LLB definition|frontend gateway\.v0): (.+)$", re.MULTILINE)
_READER = re.compile(r"frontend gateway\.v0|resolve image config for")
_UNKNOWN = re.compile("unknown (?:instruction|flag)|unexpected key|in substitution", re.IGNORECASE)
_FAILED_RUN = re.compile(r"^#(\d+) ERROR: (?:process|executor failed running) ", re.MULTILINE)
_MARKED = re.compile(r"(?:E|error|fatal): +(\S.*)", re.IGNORECASE)
# As dash and bash begin their own messages.
_SHELL = re.compile(r"(?:/\S+/)?(?:ba|da)?sh: (?:line )?\d+: ")
_NOT_THERE = re.compile(
    r"^ERROR: .*failed to (?:compute|calculate) .*: (.+: not found)$", re.MULTILINE
)
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
    """Build ``folder`` with BuildKit; return the id of the untagged image.

    Until the image is tagged, a file beside the log contains its id, see ``id_files``.

    :param proxies: build arguments that may contain passwords, so that their values appear in no
        process list and no log.
    :param hide: secrets that steps may print and that are masked in the log.
    :param secrets: in docker's ``--secret`` format: ``id=…,src=…`` or ``id=…,env=…``.
    :param contexts: folders of named build contexts, by name.
    :param ssh: in docker's ``--ssh`` format: ``ID=SOCKET-OR-KEY``.
    :raises StepFailed: naming the Dockerfile's step, with the log's last lines.
    """
    # Another builder would not load the image into the engine.
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
            # buildx would make a build argument of it that is not in the fingerprint.
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
    """Return the files in which builds with this ``log`` left the ids of untagged images.

    Tagging an image removes its file, so the remaining files are of killed runs.
    """
    found = log.parent.glob(f"{escape(log.stem)}.{'[0-9a-f]' * 2 * _TOKEN}.id")
    return {path: id_of(path) for path in found}


def id_of(path: Path) -> str:
    """Return the id in such a file; "" if the build removed the file."""
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
        details=replace(result, stdout="", stderr=_excerpt(result)).tail(LOG_LINES),
    )


def _excerpt(result: Result) -> str:
    """Return what BuildKit printed of the failed step, once: at its end it repeats the last lines.

    Of a RUN that is what its command printed, without what other steps printed meanwhile.
    """
    said = result.stderr
    failed = _FAILED_RUN.search(said)
    if failed:
        lines = re.findall(rf"^#{failed[1]} (?:\d+\.\d+(?: |$))?(.*)$", said, re.MULTILINE)
        return "\n".join(line for line in lines if line.strip())
    before, line, _ = said.partition(_REPETITION)
    return before if line and before.strip() else f"{result.stdout}\n{said}"


def _cause(said: str) -> str:
    """Return the known cause of a failed build and what to do, as the first part of the error."""
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
    if refused:
        return f"{refused[1]}; "
    missing = _NOT_THERE.search(said)
    words = missing[1] if missing else _last_words(said)
    return f"{_shortened(words)}; " if words else ""


def _last_words(said: str) -> str:
    """Return the line with which the command of the failed RUN says why; "" if it said nothing.

    That is its first line that is marked as an error, as apt, pip and git do, else the last one
    of the shell, which a line of another stream may follow, else its last.
    """
    failed = _FAILED_RUN.search(said)
    if not failed:
        return ""
    lines = re.findall(rf"^#{failed[1]} \d+\.\d+ (.*\S)", said, re.MULTILINE)
    marked = (found[1] for line in lines if (found := _MARKED.match(line)))
    shell = (line for line in reversed(lines) if _SHELL.match(line))
    return next(marked, "") or next(shell, "") or (lines[-1] if lines else "")


def _shortened(step: str) -> str:
    """Return a step of a Dockerfile, or a line of its output, as one readable line."""
    words = " ".join(step.split())
    return words if len(words) <= STEP_WIDTH else f"{words[:STEP_WIDTH]}…"
