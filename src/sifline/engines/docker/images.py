"""The images that the Docker engine holds, through its own command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sifline.engines.docker.engine import all_images, builder, docker, layers_size, load
from sifline.formats.times import seconds_of
from sifline.machine.process import Runner

# Debian 13 builds its engine without the version, which is v0.0.0+unknown then.
_BUILDKIT = re.compile(r"^buildkit(?: version)?:\s*v?0\.([1-9]\d*)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class EngineImage:
    """What the engine says of an image it holds. ``size`` in bytes, ``created`` in seconds.

    ``tags`` and ``digests`` (``name@sha256:…``, of images from a registry) as the engine writes
    them: without docker.io and library.
    """

    image_id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    created: int
    labels: Mapping[str, str]


class Docker:
    """The engine that the ``docker`` command talks to."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def all(self) -> tuple[EngineImage, ...]:
        """Return every image that the engine holds, the newest first."""
        return tuple(
            EngineImage(
                image_id=entry["Id"],
                tags=_names(entry["RepoTags"]),
                digests=_names(entry["RepoDigests"]),
                size=entry["Size"],
                created=entry["Created"],
                labels=entry["Labels"] or {},
            )
            for entry in all_images(self._runner)
        )

    def images(self, tags: Sequence[str]) -> dict[str, EngineImage]:
        """Return those of ``tags`` that the engine holds, by tag."""
        wanted = set(tags)
        return {tag: entry for entry in self.all() for tag in wanted.intersection(entry.tags)}

    def tag(self, image_id: str, tag: str) -> None:
        """Give an image one more tag, taking it from the image that has it now."""
        docker(self._runner, "image", "tag", image_id, tag)

    def pull(self, reference: str, *, platform: str = "", log: Path | None = None) -> None:
        """Get ``reference`` from its registry."""
        option = ["--platform", platform] if platform else []
        docker(self._runner, "image", "pull", "--quiet", *option, "--", reference, log=log)

    def remote_digest(self, reference: str) -> str:
        """Return the digest that ``reference`` has in its registry now.

        :raises CommandFailed: where the registry does not answer, or does not know it.
        """
        words = ("imagetools", "inspect", "--builder", builder())
        argv = ("buildx", *words, "--format", "{{json .Manifest}}", reference)
        return str(json.loads(docker(self._runner, *argv).stdout)["digest"])

    def remote_manifest(self, reference: str) -> dict[str, Any]:
        """Return the manifest or index that a registry has under ``reference``.

        :raises CommandFailed: where the registry does not answer, or does not know it.
        """
        argv = ("buildx", "imagetools", "inspect", "--builder", builder(), "--raw", reference)
        return dict(json.loads(docker(self._runner, *argv).stdout))

    def platform(self) -> str:
        """Return what the engine runs: ``linux/amd64``, say."""
        show = "{{.Server.Os}}/{{.Server.Arch}}"
        return docker(self._runner, "version", "--format", show).stdout.strip()

    def has_other_ids(self) -> bool:
        """Tell whether ids are no digests of configurations, as in containerd's image store."""
        said = docker(self._runner, "info", "--format", "{{json .DriverStatus}}").stdout
        return "io.containerd.snapshotter" in said

    def names(self, image: str) -> tuple[str, ...] | None:
        """Return the tags and digests that the image of that id has; None where it is not held."""
        show = ("--format", "{{json .RepoTags}} {{json .RepoDigests}}")
        done = docker(self._runner, "image", "inspect", *show, "--", image, check=False)
        if not done.ok:
            return None
        lists = (json.loads(text) for text in done.stdout.split())
        return tuple(name for found in lists for name in found or ())

    def holds(self, image: str) -> bool:
        """Tell whether the engine holds the image of that tag or id."""
        show = ("--format", "{{.Id}}")
        return docker(self._runner, "image", "inspect", *show, "--", image, check=False).ok

    def versions(self) -> dict[str, str]:
        """Return the versions of what builds: the engine, and buildx."""
        engine = docker(self._runner, "version", "--format", "{{.Server.Version}}").stdout
        buildx = docker(self._runner, "buildx", "version").stdout.split()
        return {"engine": engine.strip(), "buildx": buildx[1] if len(buildx) > 1 else ""}

    def buildkit(self) -> int | None:
        """Return the version of the engine's BuildKit, 8 of 0.8; None where it does not say."""
        said = docker(self._runner, "buildx", "inspect", builder(), check=False).stdout
        found = _BUILDKIT.search(said)
        return int(found[1]) if found else None

    def inspect(self, image: str) -> dict[str, Any]:
        """Return all that the engine says of the image of that tag or id."""
        found = docker(self._runner, "image", "inspect", "--format", "{{json .}}", "--", image)
        return dict(json.loads(found.stdout))

    def history(self, image: str) -> tuple[tuple[str, int], ...]:
        """Return what made an image, the first instruction first, and the bytes that each added.

        The instructions are as the engine remembers them, with words of its own.
        """
        show = ("--no-trunc", "--human=false", "--format", "{{json .}}")
        said = docker(self._runner, "image", "history", *show, "--", image).stdout
        entries = [json.loads(line) for line in said.splitlines()]
        return tuple((entry["CreatedBy"], int(entry["Size"])) for entry in reversed(entries))

    def save(self, image: str, archive: Path, *, log: Path | None = None) -> None:
        """Write the image of that tag or id to ``archive``, in the docker-archive format."""
        docker(self._runner, "image", "save", "--output", str(archive), image, log=log)

    def load(self, archive: Iterable[bytes]) -> None:
        """Take the image of a docker-archive, which comes in pieces; see ``engine.load``."""
        load(archive)

    def remove(self, names: Sequence[str]) -> bool:
        """Remove tags or ids, and what only they held; False where a container uses it."""
        return docker(self._runner, "image", "rm", *names, check=False).ok

    def tagged(self, ids: Sequence[str]) -> dict[str, int]:
        """Return when each image was last given a tag here, in seconds.

        When it was created tells less: that is the age of its last layer, from a cache maybe.
        """
        if not ids:
            return {}
        show = "{{.Id}} {{json .Metadata.LastTagTime}}"
        said = docker(self._runner, "image", "inspect", "--format", show, *ids, check=False)
        found = {}
        for line in said.stdout.splitlines():
            image, _, when = line.partition(" ")
            found[image] = seconds_of(json.loads(when))
        return found

    def used_images(self) -> set[str]:
        """Return the ids of the images that containers, running or not, are made of."""
        ids = docker(self._runner, "container", "ls", "--all", "--quiet").stdout.split()
        if not ids:
            return set()
        found = docker(
            self._runner, "container", "inspect", "--format", "{{.Image}}", *ids, check=False
        )
        return set(found.stdout.split())

    def layers_size(self) -> int | None:
        """Return how many bytes the layers of all images take, each counted once.

        None for an engine elsewhere: its command gives only a rounded text.
        """
        return layers_size()

    def root(self) -> str:
        """Return the folder in which the engine keeps all it holds."""
        return docker(self._runner, "info", "--format", "{{.DockerRootDir}}").stdout.strip()


def _names(found: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(name for name in found or () if "<none>" not in name)
