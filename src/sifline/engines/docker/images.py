"""The images in the Docker engine, through the docker command."""

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

# Debian 13 builds its engine without a version, which is v0.0.0+unknown then.
_BUILDKIT = re.compile(r"^buildkit(?: version)?:\s*v?0\.([1-9]\d*)", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class EngineImage:
    """An image in the engine. ``size`` in bytes, ``created`` in seconds.

    ``tags`` and ``digests`` (``name@sha256:…``, of images from a registry) in the engine's short
    form: without docker.io and library.
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
        """Return those of ``tags`` that exist in the engine, by tag."""
        wanted = set(tags)
        return {tag: entry for entry in self.all() for tag in wanted.intersection(entry.tags)}

    def tag(self, image_id: str, tag: str) -> None:
        """Tag an image; the tag is taken from the image that had it."""
        docker(self._runner, "image", "tag", image_id, tag)

    def pull(self, reference: str, *, platform: str = "", log: Path | None = None) -> None:
        """Pull ``reference`` from its registry."""
        option = ["--platform", platform] if platform else []
        docker(self._runner, "image", "pull", "--quiet", *option, "--", reference, log=log)

    def remote_digest(self, reference: str) -> str:
        """Return the current digest of ``reference`` in its registry.

        :raises CommandFailed: if the registry does not answer, or does not know it.
        """
        words = ("imagetools", "inspect", "--builder", builder())
        argv = ("buildx", *words, "--format", "{{json .Manifest}}", reference)
        return str(json.loads(docker(self._runner, *argv).stdout)["digest"])

    def remote_manifest(self, reference: str) -> dict[str, Any]:
        """Return the manifest or index of ``reference`` in its registry.

        :raises CommandFailed: if the registry does not answer, or does not know it.
        """
        argv = ("buildx", "imagetools", "inspect", "--builder", builder(), "--raw", reference)
        return dict(json.loads(docker(self._runner, *argv).stdout))

    def platform(self) -> str:
        """Return the engine's platform, such as ``linux/amd64``."""
        show = "{{.Server.Os}}/{{.Server.Arch}}"
        return docker(self._runner, "version", "--format", show).stdout.strip()

    def has_other_ids(self) -> bool:
        """Return whether ids are not digests of configurations, as in containerd's image store."""
        said = docker(self._runner, "info", "--format", "{{json .DriverStatus}}").stdout
        return "io.containerd.snapshotter" in said

    def names(self, image: str) -> tuple[str, ...] | None:
        """Return the tags and digests of the image with that id; None if it does not exist."""
        show = ("--format", "{{json .RepoTags}} {{json .RepoDigests}}")
        done = docker(self._runner, "image", "inspect", *show, "--", image, check=False)
        if not done.ok:
            return None
        lists = (json.loads(text) for text in done.stdout.split())
        return tuple(name for found in lists for name in found or ())

    def holds(self, image: str) -> bool:
        """Return whether the engine has the image of that tag or id."""
        show = ("--format", "{{.Id}}")
        return docker(self._runner, "image", "inspect", *show, "--", image, check=False).ok

    def versions(self) -> dict[str, str]:
        """Return the versions of the build tools: the engine, and buildx."""
        engine = docker(self._runner, "version", "--format", "{{.Server.Version}}").stdout
        buildx = docker(self._runner, "buildx", "version").stdout.split()
        return {"engine": engine.strip(), "buildx": buildx[1] if len(buildx) > 1 else ""}

    def buildkit(self) -> int | None:
        """Return the version of the engine's BuildKit, 8 for 0.8; None if it is unknown."""
        said = docker(self._runner, "buildx", "inspect", builder(), check=False).stdout
        found = _BUILDKIT.search(said)
        return int(found[1]) if found else None

    def inspect(self, image: str) -> dict[str, Any]:
        """Return the output of ``docker image inspect`` for that tag or id."""
        found = docker(self._runner, "image", "inspect", "--format", "{{json .}}", "--", image)
        return dict(json.loads(found.stdout))

    def history(self, image: str) -> tuple[tuple[str, int], ...]:
        """Return the instructions that made an image, oldest first, and the bytes each added.

        The instructions are in the engine's own wording.
        """
        show = ("--no-trunc", "--human=false", "--format", "{{json .}}")
        said = docker(self._runner, "image", "history", *show, "--", image).stdout
        entries = [json.loads(line) for line in said.splitlines()]
        return tuple((entry["CreatedBy"], int(entry["Size"])) for entry in reversed(entries))

    def save(self, image: str, archive: Path, *, log: Path | None = None) -> None:
        """Write the image of that tag or id to ``archive``, in the docker-archive format."""
        docker(self._runner, "image", "save", "--output", str(archive), image, log=log)

    def load(self, archive: Iterable[bytes]) -> None:
        """Load the image of a docker-archive, given in chunks; see ``engine.load``."""
        load(archive)

    def remove(self, names: Sequence[str]) -> bool:
        """Remove tags or ids, and images without other tags; False if a container uses one."""
        return docker(self._runner, "image", "rm", *names, check=False).ok

    def tagged(self, ids: Sequence[str]) -> dict[str, int]:
        """Return when each image was last tagged here, in seconds.

        The creation time is less useful: it is the age of its last layer, maybe from a cache.
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
        """Return the ids of the images of all containers, running or not."""
        ids = docker(self._runner, "container", "ls", "--all", "--quiet").stdout.split()
        if not ids:
            return set()
        found = docker(
            self._runner, "container", "inspect", "--format", "{{.Image}}", *ids, check=False
        )
        return set(found.stdout.split())

    def layers_size(self) -> int | None:
        """Return the size of the layers of all images in bytes, each layer counted once.

        None for an engine on another machine, whose command prints only rounded sizes.
        """
        return layers_size()

    def root(self) -> str:
        """Return the engine's root folder."""
        return docker(self._runner, "info", "--format", "{{.DockerRootDir}}").stdout.strip()


def _names(found: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(name for name in found or () if "<none>" not in name)
