"""Fetch: an image from a registry or an archive, in the engine for as long as it is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sifline import archives, records
from sifline.adapters.docker import Docker
from sifline.archives import Archive
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.references import last_part, normalise, split_tag
from sifline.runner import CommandFailed, Context

REGISTRY = "docker://"
ARCHIVE = ("docker-archive:", "oci-archive:")
ENDINGS = (".tar", ".tar.gz", ".tgz")
KIND = "fetch"
FORMS = "docker://REFERENCE, an archive (FILE.tar), or a definition file (FILE.def, FILE.def.j2)"
# For what an engine may be asked to keep of a name without being asked for a tag.
_TAG = "sifline-source"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An image that is somewhere else: which one it is for certain, and where it is from.

    ``image_id`` is what the engine calls it. ``pull`` names it in its registry, by digest;
    ``archive`` is the one that holds it. Without either the engine has it.
    """

    image_id: str
    source: str
    pull: str = ""
    archive: Archive | None = None


def is_image(source: str) -> bool:
    """Tell whether ``source`` has the form of what this stage fetches."""
    return source not in (REGISTRY, *ARCHIVE) and (
        source.startswith((REGISTRY, *ARCHIVE)) or source.endswith(ENDINGS)
    )


def name_of(source: str) -> str:
    """Return what an image from there may be called; it may be no name at all."""
    if not source.startswith(REGISTRY):
        file = Path(source.partition(":")[2] if source.startswith(ARCHIVE) else source).name
        return next((file.removesuffix(end) for end in ENDINGS if file.endswith(end)), file)
    reference = source.removeprefix(REGISTRY)
    tag = split_tag(reference.partition("@")[0])[1]
    return last_part(reference) + (f"-{tag}" if tag not in ("", "latest") else "")


def find(source: str, context: Context, *, offline: bool) -> Wanted:
    """Tell which image ``source`` is at this moment.

    :raises UsageError: where it is no archive of one image.
    :raises StepFailed: where no registry tells.
    :raises MissingError: at an offline site, for what the engine does not hold.
    """
    docker = Docker(context.runner)
    if not source.startswith(REGISTRY):
        file = source.partition(":")[2] if source.startswith(ARCHIVE) else source
        context.progress("reading the archive")
        archive = archives.read(Path(file), platform=docker.platform())
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
    context.progress(f"asking for {reference}")
    try:
        digest = docker.remote_digest(reference)
        name = split_tag(reference.partition("@")[0])[0]
        exact = f"{name}@{digest}"
        return Wanted(
            image_id=_image_id(name, docker.remote_manifest(exact), docker),
            source=f"{REGISTRY}{normalise(reference).partition('@')[0]}@{digest}",
            pull=exact,
        )
    except CommandFailed as error:
        raise StepFailed(
            f"no registry tells about {reference}; is it written right, and does the network reach"
            " its registry? docker login, where it asks for a name",
            details=error.details,
        ) from None


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


def _image_id(name: str, manifest: Mapping[str, Any], docker: Docker) -> str:
    """Return the id of the image that a manifest describes, or an index's for this engine."""
    try:
        if "manifests" in manifest:
            platform = docker.platform()
            entry = next(
                item
                for item in manifest["manifests"]
                if item.get("platform") and archives.for_platform(item, platform)
            )
            manifest = docker.remote_manifest(f"{name}@{entry['digest']}")
        return str(manifest["config"]["digest"])
    except StopIteration:
        raise UsageError(f"{name}: its registry has no image for {docker.platform()}") from None
    except (KeyError, TypeError):
        raise StepFailed(f"{name}: its registry describes no image that an engine takes") from None


@contextmanager
def fetched(wanted: Wanted, name: str, context: Context) -> Iterator[int]:
    """Have the image in the engine; yield its size there. What was fetched goes afterwards.

    :param name: the one it is fetched for; what a killed run left for it goes as well.
    :raises StepFailed: where it cannot be had.
    """
    docker, space = Docker(context.runner), context.workspace
    note = space.record(name, KIND)
    tag = f"{_TAG}:{hashlib.sha256(f'{space.root} {name}'.encode()).hexdigest()[:32]}"
    lock = space.build / "locks" / f"fetch-{wanted.image_id[-16:]}.lock"
    with records.locked(space.build / "locks" / f"{name}.{KIND}.lock", context):
        left = _left(records.read(note))
        if left and left[0] != wanted.image_id:
            docker.remove(left[1])
            left = None
        with records.locked(lock, context):
            held = docker.holds(wanted.image_id)
            own = [tag] if held or not wanted.pull else [wanted.pull, tag]
            names = left[1] if left else own
            records.write(note, {"image_id": wanted.image_id, "names": names})
            if not held:
                _bring(wanted, docker, context)
            docker.tag(wanted.image_id, tag)
        try:
            yield int(docker.inspect(wanted.image_id)["Size"])
        finally:
            with records.locked(lock, context):
                docker.remove(names)
            note.unlink(missing_ok=True)


def _left(record: Mapping[str, Any] | None) -> tuple[str, list[str]] | None:
    """What a killed run had fetched, and what it would have removed."""
    if not record or not isinstance(record.get("names"), list):
        return None
    return str(record.get("image_id")), [str(name) for name in record["names"]]


def _bring(wanted: Wanted, docker: Docker, context: Context) -> None:
    """Get the image into the engine, and see that it is the one."""
    try:
        if wanted.archive:
            docker.load(_told(wanted.archive, context))
        else:
            context.progress(f"pulling {wanted.pull}")
            docker.pull(wanted.pull)
    except CommandFailed as error:
        raise StepFailed(
            f"{wanted.pull} cannot be pulled; see below", details=error.details
        ) from None
    if not docker.holds(wanted.image_id):
        raise StepFailed(
            f"the engine did not take the image {wanted.image_id} from {wanted.source};"
            " is there a newer engine?"
        )


def _told(archive: Archive, context: Context) -> Iterator[bytes]:
    """Yield the archive for the engine, and tell how far it is."""
    passed = told = 0
    for chunk in archives.stream(archive):
        context.runner.check()
        yield chunk
        passed += len(chunk)
        if passed - told >= 1 << 28:
            told = passed
            context.progress(f"loading {passed / 1e9:.2f} of {archive.size / 1e9:.2f} GB")
    context.progress("the engine unpacks the layers")
