"""The Docker engine, through its own command line: BuildKit is not to be had otherwise."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sifline.engine import docker
from sifline.errors import StepFailed
from sifline.runner import Result, Runner

LABEL_IMAGE = "sifline.image"
LABEL_FINGERPRINT = "sifline.fingerprint"
CA_SECRET = "ca-certificates"  # noqa: S105 - the secret's id, not its content
LOG_LINES = 20
STEP_WIDTH = 100

_STEP = re.compile(r"^#\d+ (\[[^\]]+\] .*)$")
_FAILED_STEP = re.compile(r"^ > (\[[^\]]+\] .*?):?$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class EngineImage:
    """What the engine says of an image it holds. ``size`` in bytes."""

    tag: str
    image_id: str
    size: int
    created: str
    labels: Mapping[str, str]


class Docker:
    """The engine that the ``docker`` command talks to."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def images(self, tags: Sequence[str]) -> dict[str, EngineImage]:
        """Return those of ``tags`` that the engine holds, by tag."""
        if not tags:
            return {}
        result = docker(self._runner, "image", "inspect", *tags, check=False)
        entries = json.loads(result.stdout or "[]")
        found = {}
        for entry in entries:
            for tag in set(entry["RepoTags"] or ()) & set(tags):
                found[tag] = EngineImage(
                    tag=tag,
                    image_id=entry["Id"],
                    size=entry["Size"],
                    created=entry["Created"],
                    labels=entry["Config"].get("Labels") or {},
                )
        return found

    def build(
        self,
        folder: Path,
        *,
        tag: str,
        labels: Mapping[str, str],
        build_args: Mapping[str, str],
        secrets: Mapping[str, Path],
        log: Path,
        on_step: Callable[[str], None],
    ) -> None:
        """Build ``folder`` through BuildKit and tag the result.

        :raises StepFailed: naming the Dockerfile's step, with the log's last lines.
        """
        argv = ["buildx", "build", "--progress", "plain", "--tag", tag]
        for key, value in labels.items():
            argv += ["--label", f"{key}={value}"]
        for key, value in build_args.items():
            argv += ["--build-arg", f"{key}={value}"]
        for name, path in secrets.items():
            argv += ["--secret", f"id={name},src={path}"]

        def line(text: str) -> None:
            match = _STEP.match(text)
            if match:
                on_step(_shortened(match[1]))

        log.unlink(missing_ok=True)
        result = docker(self._runner, *argv, "--", str(folder), check=False, log=log, on_line=line)
        if not result.ok:
            raise self._build_error(folder, result, log)

    def save(self, image: str, archive: Path, *, log: Path | None = None) -> None:
        """Write the image of that tag or id to ``archive``, in the docker-archive format."""
        docker(self._runner, "image", "save", "--output", str(archive), image, log=log)

    def remove_images(self, tags: Sequence[str]) -> None:
        """Remove ``tags`` from the engine, and what only they held."""
        if tags:
            docker(self._runner, "image", "rm", "--force", *tags)

    def shell_argv(
        self,
        tag: str,
        command: Sequence[str],
        *,
        volumes: Sequence[str] = (),
        gpus: str = "",
        terminal: bool = False,
    ) -> list[str]:
        """Return the command line that runs ``command`` in a throw-away container."""
        argv = ["docker", "run", "--rm", "--interactive", *(["--tty"] if terminal else [])]
        for volume in volumes:
            argv += ["--volume", volume]
        argv += ["--gpus", gpus] if gpus else []
        return [*argv, tag, *command]

    @staticmethod
    def _build_error(folder: Path, result: Result, log: Path) -> StepFailed:
        match = _FAILED_STEP.search(result.stderr)
        step = _shortened(match[1]) if match else "before the first step"
        cause = "the disk is full; " if "no space left on device" in result.stderr else ""
        return StepFailed(
            f"building {folder.name} failed at {step}; {cause}the whole log is {log}",
            details=result.tail(LOG_LINES),
        )


def _shortened(step: str) -> str:
    """A step of a Dockerfile on one readable line: a RUN may hold a whole script."""
    words = " ".join(step.split())
    return words if len(words) <= STEP_WIDTH else f"{words[:STEP_WIDTH]}…"
