"""Build: turns a build step into an image in the engine, under a tag unique to its content."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sifline.contents.build_context import DOCKERFILE
from sifline.engines.docker import builds
from sifline.engines.docker.builds import id_files
from sifline.engines.docker.images import Docker, EngineImage
from sifline.engines.docker.versions import (
    LABEL_COMMIT,
    LABEL_FINGERPRINT,
    LABEL_IMAGE,
    LABEL_RECIPE,
    base_ids,
    version_tag,
    versions,
)
from sifline.errors import StepFailed
from sifline.formats import dockerignore
from sifline.formats.dockerfile.stages import Dockerfile
from sifline.formats.reference import normalise
from sifline.machine import records
from sifline.machine.context import Context
from sifline.machine.process import CommandFailed
from sifline.model import SETTINGS, BuiltImage, Image, Step, Workspace
from sifline.model.recipe import SHORT, fingerprint, recipe, text
from sifline.stages.build import folders
from sifline.stages.build.contexts import context_digest, context_entries
from sifline.stages.build.needs import Surroundings, agents_of, known_secrets, need
from sifline.stages.build.rootfs import prepare


def moved(images: Iterable[Image], listed: Sequence[EngineImage], context: Context) -> set[str]:
    """Return the base images whose tag in the registry now names another image.

    :raises StepFailed: if a registry does not answer.
    """
    digests = {
        normalise(name): {item.rpartition("@")[2] for item in entry.digests}
        for entry in listed
        for name in entry.tags
    }
    found = set()
    for base in sorted({base for image in images for base in image.bases if "@" not in base}):
        if digests.get(normalise(base)) == set():
            context.progress(f"{base} came from no registry: kept as it is")
            continue
        context.progress(f"resolving {base}")
        try:
            now = Docker(context.runner).remote_digest(base)
        except CommandFailed as error:
            raise StepFailed(
                f"--pull: cannot resolve {base}; leave --pull out, or check the network",
                details=error.details,
            ) from None
        if now not in digests.get(normalise(base), set()):
            found.add(base)
    return found


def settle(step: Step, context: Context) -> BuiltImage:
    """Return the image that is up to date, after pointing its tag ``latest`` to it."""
    assert step.held is not None  # noqa: S101 - for the type checker: nothing is kept of nothing
    if step.image.tag not in step.held.tags:
        Docker(context.runner).tag(step.held.image_id, step.image.tag)
    return replace(step.held, reused=True)


def build(
    step: Step,
    parents: Mapping[str, BuiltImage],
    context: Context,
    around: Surroundings,
) -> BuiltImage:
    """Build ``step.image``; first prepare its root file system if it has ``[prepare]``.

    If two runs want the same image, one builds it and the other uses the result.

    :raises StepFailed: with the failed step of the Dockerfile and the end of the log.
    """
    if step.retag:
        return replace(settle(step, context), reused=False)
    image, docker = step.image, Docker(context.runner)
    work = _Build(step, parents, context, around)
    lock = records.build_lock(context.workspace, image.name)
    with records.locked(lock, context, what=f"the build of {image.name}"):
        need(image, around, docker.all())
        bases = work.bases()
        made_of = work.recipe(bases)
        mark = fingerprint(made_of)
        # A forced build does not use what another run has just built.
        if not step.anew:
            (existing,) = versions([image], docker.all()).values()
            for item in existing:
                if item.fingerprint == mark:
                    return settle(replace(step, held=item), context)
        return work.run(made_of, mark, anew=step.anew)


class _Build:
    """The build of one image; the caller holds the image's lock."""

    def __init__(
        self,
        step: Step,
        parents: Mapping[str, BuiltImage],
        context: Context,
        around: Surroundings,
    ) -> None:
        self._step, self._image = step, step.image
        self._parents, self._context, self._around = parents, context, around
        self._docker = Docker(context.runner)
        self._log = context.workspace.logs / f"{self._image.name}.build.log"
        self._digests: dict[str, str] = {}
        self._pulled = False

    def bases(self) -> dict[str, str]:
        """Pull the base images that are missing or moved; return the ids of all bases."""
        platforms = {item.reference: item.platform for item in self._image.sources}
        before = base_ids([self._image], self._docker.all()) if self._image.bases else {}
        for base in self._image.bases:
            if base not in before or base in self._step.pull:
                self._pull(base, platforms[base])
        listed = self._docker.all() if self._image.bases else ()
        ids = base_ids([self._image], listed)
        gone = [base for base in self._image.bases if base not in ids]
        if gone:
            raise StepFailed(
                f"building {self._image.name}: {', '.join(gone)} was pulled and is not in the"
                " engine: somebody removed it; run it again"
            )
        digests = {entry.image_id: entry.digests for entry in listed}
        self._digests = {base: next(iter(digests[ids[base]]), "") for base in ids}
        return ids

    def recipe(self, bases: Mapping[str, str]) -> dict[str, Any]:
        """Return the recipe of the image as it is now."""
        return recipe(
            self._image,
            context=context_digest(self._image, self._context.workspace),
            parents={name: built.image_id for name, built in self._parents.items()},
            bases=bases,
        )

    def run(self, made_of: Mapping[str, Any], mark: str, *, anew: bool) -> BuiltImage:
        """Build; if the build context did not change meanwhile, tag the image."""
        started, image = time.monotonic(), self._image
        if not self._pulled:  # keep the log of a build that turns out to be up to date
            self._log.unlink(missing_ok=True)
        if image.prepare:
            prepare(image, self._context, anew=anew)
        reason = self._step.reason
        self._context.progress(f"building: {reason}" if reason else "building")
        with folders.as_images(image, self._context, self._around, self._log) as copies:
            image_id = self._build(made_of, mark, copies, anew=anew)
        files = context_entries(image, self._context.workspace)
        if context_digest(image, self._context.workspace) != made_of["context"]:
            self._drop(image_id)
            raise StepFailed(
                f"building {image.name}: its folder changed while it was built; run it again"
            )
        for tag in (version_tag(image.name, mark), image.tag):
            self._docker.tag(image_id, tag)
        self._drop_replaced(mark, image_id)
        self._remember(made_of, mark, image_id, files, time.monotonic() - started)
        self._drop_unnamed()
        (found,) = versions([image], self._docker.all()).values()
        for built in found:
            if built.image_id == image_id:
                return built
        raise StepFailed(
            f"{image.name} was built and is not in the engine: another run removed it; run again"
        )

    def _build(
        self, made_of: Mapping[str, Any], mark: str, copies: Mapping[str, str], *, anew: bool
    ) -> str:
        """Return the id of the untagged image; ``copies`` are images of named contexts."""
        image = self._image
        return builds.build(
            self._context.runner,
            image.folder,
            file=self._resolved(copies),
            labels={
                **dict(image.labels),
                LABEL_IMAGE: image.name,
                LABEL_FINGERPRINT: mark,
                LABEL_RECIPE: text(made_of),
                # Not inherited from the parent, whose label would remain otherwise.
                LABEL_COMMIT: self._around.commit,
            },
            build_args=dict(image.build_args),
            proxies=self._around.proxies,
            secrets=self._secrets(),
            ssh=[f"{name}={path}" for name, path in agents_of(image, os.environ).items()],
            hide=self._around.hide,
            contexts={} if copies else dict(image.contexts),
            target=image.target,
            no_cache=anew,
            log=self._log,
            on_step=self._context.progress,
        )

    def _drop_replaced(self, mark: str, image_id: str) -> None:
        """Remove the image of the same fingerprint that lost its tag to the new one."""
        before = self._step.held
        if before and before.fingerprint == mark and before.image_id != image_id:
            self._drop(before.image_id)

    def _drop_unnamed(self) -> None:
        """Remove untagged images that killed runs built."""
        for path, made in id_files(self._log).items():
            self._drop(made)
            path.unlink(missing_ok=True)

    def _drop(self, image_id: str) -> None:
        """Remove an image without other tags than a context's: nobody else could name it."""
        for entry in self._docker.all():
            unnamed = all(tag.startswith(folders.TAG) for tag in entry.tags)
            if entry.image_id == image_id and unnamed:
                self._docker.remove([*entry.tags] or [image_id])

    def _pull(self, base: str, platform: str) -> None:
        self._context.progress(f"pulling {base}")
        if not self._pulled:
            self._log.unlink(missing_ok=True)
        self._pulled = True
        try:
            self._docker.pull(base, platform=platform, log=self._log)
        except CommandFailed as error:
            raise StepFailed(
                f"building {self._image.name}: {base} cannot be pulled; check its name or the"
                f" network, or name another under [bases] of a site; the whole log is {self._log}",
                details=error.details,
            ) from None

    def _resolved(self, copies: Mapping[str, str]) -> Path | None:
        """Write a Dockerfile with exact references; None if the image's own will do."""
        image, space = self._image, self._context.workspace
        replacements = {
            source.written: version_tag(source.image, self._parents[source.image].fingerprint)
            if source.image
            else source.reference
            for source in image.sources
        } | dict(copies)
        path = image.folder / DOCKERFILE
        same = all(key == used for key, used in replacements.items())
        # The engine follows no link out of the context, and does not get image.toml.
        if same and not path.is_symlink() and not (image.folder / SETTINGS).is_file():
            return None
        own = Dockerfile.read(path, dict(image.contexts))
        path = space.resolved / f"{image.name}.Dockerfile"
        content = own.rewritten(replacements, dict(image.build_args), target=image.target)
        records.write_bytes(path, content.encode("utf-8", "surrogateescape"))
        # The engine reads the .dockerignore beside the Dockerfile that it gets.
        found = dockerignore.find(image.folder)
        rules = found.read_bytes() if found else b""
        beside = path.with_name(f"{path.name}.dockerignore")
        records.write_bytes(beside, rules + f"\n{SETTINGS}\n".encode())
        return path

    def _secrets(self) -> list[str]:
        """Return the secrets that the Dockerfile asks for and that exist."""
        known = known_secrets(self._around)
        return [known[name] for name, _ in self._image.secrets if name in known]

    def _remember(
        self,
        made_of: Mapping[str, Any],
        mark: str,
        image_id: str,
        files: Mapping[str, str],
        seconds: float,
    ) -> None:
        records.write(
            build_record(self._context.workspace, self._image.name, mark),
            {
                "image": self._image.name,
                "image_id": image_id,
                "fingerprint": mark,
                "recipe": made_of,
                "files": files,
                "base_digests": self._digests,
                "commit": self._around.commit,
                "tools": self._docker.versions(),
                "reason": self._step.reason,
                "built": int(time.time()),
                "seconds": round(seconds, 1),
            },
        )


def build_record(workspace: Workspace, name: str, mark: str) -> Path:
    """Return the path of the record of the build with this fingerprint."""
    return workspace.record(name, f"build-{mark[:SHORT]}")


def last_seconds(name: str, workspace: Workspace) -> float | None:
    """Return how long the newest build of the image took here; None where nobody knows."""
    found = (records.read(path) for path in (workspace.records / name).glob("build-*.json"))
    known = [item for item in found if item and isinstance(item.get("built"), int)]
    return records.seconds(max(known, key=lambda item: int(item["built"]), default=None))
