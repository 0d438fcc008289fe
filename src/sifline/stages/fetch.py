"""Fetch: loads an image of a registry or an archive into the engine, for one conversion."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sifline.engines.docker.images import Docker
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.formats import image_archive
from sifline.formats.image_archive import Archive
from sifline.formats.reference import is_reference, last_part, normalise, split_tag
from sifline.machine import records
from sifline.machine.context import Context
from sifline.machine.process import CommandFailed

REGISTRY = "docker://"
ENGINE = "docker-daemon:"
ARCHIVE = ("docker-archive:", "oci-archive:")
ENDINGS = (".tar", ".tar.gz", ".tgz")
KIND = "fetch"
FORMS = (
    "docker-daemon:NAME:TAG, docker://REFERENCE, an archive (FILE.tar), or a definition file"
    " (FILE.def, FILE.def.j2)"
)
# Seconds that the engine may take to finish an abandoned request.
LATE_SECONDS = 3.0
LOOK_SECONDS = 0.1
# Tag of a fetched image while it is in the engine.
_TAG = "sifline-source"
_DIGEST = re.compile("sha256:[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An image to convert that may not be in the engine yet, identified by its id.

    ``image_id`` is the engine's id. ``pull`` is its reference in a registry, by digest;
    ``archive`` is the archive that contains it. Without both, the engine has the image.
    """

    image_id: str
    source: str
    pull: str = ""
    archive: Archive | None = None


def is_image(source: str) -> bool:
    """Return whether ``source`` names an image of the engine, a registry or an archive."""
    return source not in (REGISTRY, ENGINE, *ARCHIVE) and (
        source.startswith((REGISTRY, ENGINE, *ARCHIVE)) or source.endswith(ENDINGS)
    )


def check(source: str) -> None:
    """Refuse a reference that no image can have, before any engine or registry is asked.

    :raises UsageError: with what a reference looks like.
    """
    kind = next((kind for kind in (REGISTRY, ENGINE) if source.startswith(kind)), "")
    reference = source.removeprefix(kind)
    # An id may be written with its algorithm.
    if kind and not (is_reference(reference) or _DIGEST.fullmatch(reference)):
        raise UsageError(
            f"--source {source!r}: is no reference of an image; that is [REGISTRY/]NAME[:TAG], the"
            " name in lower case"
        )


def name_of(source: str) -> str:
    """Return a SIF name for ``source``; it may be invalid."""
    if not source.startswith((REGISTRY, ENGINE)):
        file = Path(source.partition(":")[2] if source.startswith(ARCHIVE) else source).name
        return next((file.removesuffix(end) for end in ENDINGS if file.endswith(end)), file)
    reference = source.removeprefix(REGISTRY).removeprefix(ENGINE)
    tag = split_tag(reference.partition("@")[0])[1]
    return last_part(reference) + (f"-{tag}" if tag not in ("", "latest") else "")


def origin_of(source: str) -> str:
    """Return ``source`` in its full form, which is one and the same in any folder."""
    for kind in (REGISTRY, ENGINE):
        if source.startswith(kind):
            return kind + normalise(source.removeprefix(kind))
    kind = next((kind for kind in ARCHIVE if source.startswith(kind)), "")
    return os.path.realpath(source.removeprefix(kind))


def find(source: str, context: Context, *, offline: bool) -> Wanted:
    """Return the image that ``source`` names at this moment.

    :raises UsageError: if it is not an archive of one image.
    :raises StepFailed: if the registry does not answer or does not know it.
    :raises MissingError: at an offline site, if the engine does not have the image.
    """
    docker = Docker(context.runner)
    if source.startswith(ENGINE):
        return _of_engine(source.removeprefix(ENGINE), docker)
    if docker.has_other_ids():
        raise MissingError(
            "this engine keeps images in containerd's store, where ids mean something else: build"
            " an image whose Dockerfile says FROM that one, or use another engine"
        )
    if not source.startswith(REGISTRY):
        file = source.partition(":")[2] if source.startswith(ARCHIVE) else source
        context.progress("reading the archive")
        archive = image_archive.read(Path(file), platform=docker.platform())
        name = ", ".join(archive.names)
        return Wanted(
            image_id=archive.image_id,
            source=f"archive of {name}" if name else "archive",
            archive=archive,
        )
    reference = source.removeprefix(REGISTRY)
    if reference.startswith("-"):
        raise UsageError(f"--source {source!r}: takes {FORMS}")
    if offline:
        return _held(reference, docker)
    context.progress(f"resolving {reference}")
    try:
        digest = docker.remote_digest(reference)
        name = split_tag(reference.partition("@")[0])[0]
        # By the platform's own digest: the engine may hold another platform under the index's
        # digest.
        image_id, own = _image_id(name, digest, docker)
        return Wanted(
            image_id=image_id,
            source=f"{REGISTRY}{normalise(reference).partition('@')[0]}@{digest}",
            pull=f"{name}@{own}",
        )
    except CommandFailed as error:
        raise StepFailed(
            f"cannot resolve {reference}; check the reference and the network, or log in to the"
            " registry with docker login",
            details=error.details,
        ) from None


def _of_engine(reference: str, docker: Docker) -> Wanted:
    """Return the image that the engine has under a name, or under the beginning of its id."""
    if reference.startswith("-"):
        raise UsageError(f"--source {ENGINE}{reference}: takes {FORMS}")
    try:
        image = docker.inspect(reference)
    except CommandFailed as error:
        raise MissingError(
            f"the Docker engine has no image {reference}; see docker image ls",
            details=error.details,
        ) from None
    names = image.get("RepoTags") or image.get("RepoDigests") or [str(image["Id"])]
    # It may have several names.
    asked = next((name for name in names if normalise(name) == normalise(reference)), names[0])
    return Wanted(image_id=str(image["Id"]), source=f"{ENGINE}{asked}")


def _held(reference: str, docker: Docker) -> Wanted:
    try:
        image = docker.inspect(reference)
    except CommandFailed:
        raise MissingError(
            f"the engine does not hold {reference}, and the site is offline; load an archive of"
            " it, or leave out offline"
        ) from None
    digests = image.get("RepoDigests") or [normalise(reference)]
    return Wanted(image_id=str(image["Id"]), source=f"{REGISTRY}{digests[0]}")


def _image_id(name: str, digest: str, docker: Docker) -> tuple[str, str]:
    """Return the id of the image under ``digest``, and the digest of its own manifest.

    For an index, the image is the one for the engine's platform.
    """
    manifest = docker.remote_manifest(f"{name}@{digest}")
    try:
        if "manifests" in manifest:
            platform = docker.platform()
            digest = next(
                item["digest"]
                for item in manifest["manifests"]
                if item.get("platform") and image_archive.for_platform(item, platform)
            )
            manifest = docker.remote_manifest(f"{name}@{digest}")
        image_id = manifest["config"]["digest"]
        if not all(_DIGEST.fullmatch(item) for item in (digest, image_id)):
            raise ValueError
    except StopIteration:
        raise UsageError(f"{name}: its registry has no image for {docker.platform()}") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StepFailed(f"{name}: its registry describes no image that an engine takes") from None
    return image_id, digest


@dataclass(frozen=True, kw_only=True)
class _Note:
    """What to remove after a conversion: tags, and the image itself if it was ``brought``."""

    image_id: str
    names: tuple[str, ...]
    brought: bool

    @classmethod
    def read(cls, path: Path) -> _Note | None:
        """Return the note that a killed run left; None if there is none."""
        found = records.read(path)
        if not found or not isinstance(found.get("names"), list):
            return None
        return cls(
            image_id=str(found.get("image_id")),
            names=tuple(map(str, found["names"])),
            brought=found.get("brought") is True,
        )

    def sweep(self, path: Path, docker: Docker, *, interrupted: bool = False) -> None:
        """Remove tags and image, then the note; a container may still use the image.

        After an interruption the engine may still be loading the image. If it does not appear
        within ``LATE_SECONDS``, the note stays for the next run.
        """
        late = interrupted and self.brought and not self._comes(docker)
        docker.remove(self.names)
        if self.brought and docker.names(self.image_id) == ():
            docker.remove([self.image_id])
        if not late and not any(docker.holds(name) for name in self.names):
            path.unlink(missing_ok=True)

    def _comes(self, docker: Docker) -> bool:
        last = time.monotonic() + LATE_SECONDS
        while docker.names(self.image_id) is None:
            if time.monotonic() > last:
                return False
            time.sleep(LOOK_SECONDS)
        return True


def sweep(name: str, context: Context) -> None:
    """Remove what a killed run fetched for ``name``."""
    note = context.workspace.record(name, KIND)
    if note.exists():
        with records.locked(_lock(name, context), context, what=f"the image for {name}"):
            left = _Note.read(note)
            if left:
                left.sweep(note, Docker(context.runner))


@contextmanager
def fetched(wanted: Wanted, name: str, context: Context) -> Iterator[int]:
    """Load the image into the engine; yield its size; remove it afterwards if it was fetched.

    :param name: the SIF's name; what a killed run left for it is removed as well.
    :raises StepFailed: if the image cannot be pulled or loaded.
    """
    docker, space = Docker(context.runner), context.workspace
    path = space.record(name, KIND)
    one = space.build / "locks" / f"fetch-{wanted.image_id[-16:]}.lock"
    with records.locked(_lock(name, context), context, what=f"the image for {name}"):
        left = _Note.read(path)
        if left and left.image_id != wanted.image_id:
            left.sweep(path, docker)
            left = None
        interrupted = False
        try:
            with records.locked(one, context, what=f"the image for {name}"):
                _have(wanted, _tag(name, context), left, path, context)
            yield int(docker.inspect(wanted.image_id)["Size"])
        except KeyboardInterrupt:
            interrupted = True
            raise
        finally:
            with records.locked(one, context, what=f"the image for {name}"):
                note = _Note.read(path)
                if note:
                    note.sweep(path, docker, interrupted=interrupted)


def _have(wanted: Wanted, tag: str, left: _Note | None, path: Path, context: Context) -> None:
    """Load the image into the engine under ``tag``; note what must be removed later."""
    docker = Docker(context.runner)
    known = docker.names(wanted.image_id)
    if known == () and not left:
        return  # untagged: removing our tag later would delete it
    brought = known is None or bool(left and left.brought)
    pulled = [wanted.pull] if wanted.pull and brought else []
    names = dict.fromkeys([*(left.names if left else ()), *pulled, tag])
    note = _Note(image_id=wanted.image_id, names=tuple(names), brought=brought)
    records.write(path, vars(note))
    if known is None:
        _bring(wanted, docker, context)
    docker.tag(wanted.image_id, tag)


def _lock(name: str, context: Context) -> Path:
    return context.workspace.build / "locks" / f"{name}.{KIND}.lock"


def _tag(name: str, context: Context) -> str:
    text = f"{context.workspace.root} {name}"
    return f"{_TAG}:{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _bring(wanted: Wanted, docker: Docker, context: Context) -> None:
    """Pull or load the image, and check that it is the right one."""
    if not (wanted.archive or wanted.pull):
        raise MissingError(f"{wanted.source}: the Docker engine has it no longer; run it again")
    try:
        if wanted.archive:
            docker.load(_told(wanted.archive, context))
        else:
            context.progress(f"pulling {wanted.pull}")
            docker.pull(wanted.pull)
    except CommandFailed as error:
        raise StepFailed(
            f"{wanted.pull} cannot be pulled: {error.result.last}; check the network and docker"
            " login, then run it again",
            details=error.details,
        ) from None
    if not docker.holds(wanted.image_id):
        raise StepFailed(
            f"the engine did not take the image {wanted.image_id} from {wanted.source};"
            " is there a newer engine?"
        )


def _told(archive: Archive, context: Context) -> Iterator[bytes]:
    """Yield the archive for the engine, and report progress."""
    passed = told = 0
    for chunk in image_archive.stream(archive):
        context.runner.check()
        yield chunk
        passed += len(chunk)
        if passed - told >= 1 << 28:
            told = passed
            context.progress(f"loading {passed / 1e9:.2f} of {archive.size / 1e9:.2f} GB")
    context.progress("the engine unpacks the layers")
