"""Inventory: the content of an image or a SIF, its bill of materials, and comparisons.

Nothing of an image is run. A SIF is listed first, then only the files that matter are unpacked;
for an image they are read from the stream of its file system.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sifline.contents import comparison, compatibility, excerpt, sbom, sif_records
from sifline.contents.build_context import file_digest
from sifline.contents.comparison import Contents, Difference, Settings
from sifline.contents.compatibility import Compatibility
from sifline.contents.compatible import Needs
from sifline.contents.excerpt import Excerpt, Sought
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.scratch import scratch_folder
from sifline.engines.apptainer.squashfs import Squashfs
from sifline.engines.docker.image_files import exported
from sifline.engines.docker.images import Docker
from sifline.engines.docker.versions import (
    LABEL_COMMIT,
    LABEL_FINGERPRINT,
    LABEL_IMAGE,
    version_tag,
)
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.formats import oci_layout, packages, sif, squashfs
from sifline.formats.times import seconds_of
from sifline.machine import records
from sifline.machine.context import Context
from sifline.machine.process import CommandFailed
from sifline.model import BuiltImage, Workspace

IMAGE, SIF = "image", "sif"
# A SIF, or an image in the engine: one of ours, or any tag or id.
Subject = Path | BuiltImage | str

_LABEL = "org.sifline."
# Length of date and seconds in the engine's times.


@dataclass(frozen=True, kw_only=True)
class Bill:
    """A bill of materials that was written, and its subject."""

    path: Path
    contents: Contents


def write_sbom(subject: Subject, context: Context, *, target: Path | None = None) -> Bill:
    """Write the bill of materials of ``subject``, by default into ``build/sbom``.

    :param target: the file, or a folder for a file of the usual name.
    :raises StepFailed: if the file system cannot be read, or the bill cannot be written.
    :raises UsageError: if a SIF is invalid or damaged.
    :raises MissingError: if there is no such image, or no tool to read it.
    """
    found = look(subject, context)
    ending = f".sif{sbom.ENDING}" if found.kind == SIF else sbom.ENDING
    usual = f"{_file_name(found.name)}{ending}"
    path = target or context.workspace.build / "sbom" / usual
    if path.is_dir():
        path /= usual
    context.progress("writing the bill of materials")
    text = sbom.document(found)
    try:
        records.write_bytes(path, text)
    except OSError as error:
        raise StepFailed(records.unwritable(path, error)) from None
    return Bill(path=path, contents=found)


def diff(old: Subject, new: Subject, context: Context) -> Difference:
    """Return the differences of two images or SIFs; see ``write_sbom`` for errors."""
    return comparison.compare(look(old, context), look(new, context))


def needs(subject: Path | BuiltImage, context: Context) -> Compatibility:
    """Return what ``subject`` needs of hosts and clusters; see ``write_sbom`` for errors.

    The result for an image is cached: an image with the same id never changes.
    """
    if isinstance(subject, Path):
        return look(subject, context).compatibility
    kept = context.workspace.needs(subject.image_id)
    if known := compatibility.restored(records.read(kept) or {}):
        return known
    found = look(subject, context).compatibility
    records.write(kept, compatibility.kept(found))
    return found


def needs_of_sif(path: Path, sha256: str, context: Context) -> Needs:
    """Return what the SIF with the digest ``sha256`` needs; see ``write_sbom`` for errors.

    The record of its image is cached by the digest; what the file's head says is read.
    """
    file = sif.read(path)
    kept = context.workspace.needs(f"sif:{sha256}")
    found = compatibility.restored(records.read(kept) or {})
    if found is None:
        found = look(path, context).compatibility
        records.write(kept, compatibility.kept(found))
    packed = sif.file_system(file) == "squashfs"
    with path.open("rb") as opened:
        opened.seek(sif.system(file).offset if packed else 0)
        compression = squashfs.compression(opened.read(squashfs.HEAD))
    return Needs(record=found, architecture=file.architecture, compression=compression)


def look(subject: Subject, context: Context) -> Contents:
    """Return the packages and settings of ``subject``; see ``write_sbom`` for errors."""
    if isinstance(subject, Path):
        return _of_sif(subject, context)
    return _of_image(subject, context)


# A SIF


def _of_sif(path: Path, context: Context) -> Contents:
    file = sif.read(path)
    target, labels = path.resolve(), sif.labels(file)
    offset = sif.system(file).offset
    started = settings(file)
    with scratch_folder("inventory", str(target), context) as scratch:
        context.progress("reading the SIF")
        try:
            picked = _unpacked(target, offset, scratch, Squashfs(Apptainer(context.runner)))
        except CommandFailed as error:
            raise StepFailed(
                f"{path}: its file system cannot be read; is it damaged? Convert it again",
                details=error.details,
            ) from None
    found = _found(picked)
    return Contents(
        name=path.stem,
        kind=SIF,
        version=_digest(target, context.workspace),
        size=file.size,
        created=max(0, file.created),
        architecture=file.architecture,
        image_digest=sif.image_digest(labels),
        fingerprint=labels.get(f"{_LABEL}fingerprint", ""),
        commit=labels.get(f"{_LABEL}commit", ""),
        found=found,
        settings=started,
        compatibility=_compatible(picked, found, file.architecture),
    )


def _unpacked(path: Path, offset: int, scratch: Path, squashfs: Squashfs) -> Excerpt:
    """Unpack the wanted files of the squashfs into ``scratch`` and read them."""
    listing, names, tree = (scratch / name for name in ("listing", "names", "tree"))
    squashfs.list_files(path, offset, listing, purpose=str(scratch))
    listed = excerpt.listed(listing.read_bytes(), _SOUGHT)
    if listed.files:
        names.write_bytes(excerpt.patterns(listed.files))
        squashfs.unpack(path, offset, names, tree, purpose=str(scratch))
    tree.mkdir(exist_ok=True)
    return excerpt.of_folder(tree, listed, _SOUGHT)


def settings(file: sif.SifFile) -> Settings:
    """Return the settings in a SIF: the image's configuration, or Apptainer's metadata."""
    held = {part.name: part.content for part in sif.parts(file)}
    try:
        config = sif.configuration(file)
        if config is not None:
            return comparison.of_config(config)
        if sif.LABELS_OBJECT in held:
            notes = json.loads(held[sif.LABELS_OBJECT])
            return comparison.of_attributes(notes["data"]["attributes"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{file.path}: is a damaged SIF: its configuration cannot be read;"
            " copy or convert it again"
        ) from None
    return Settings()


def _digest(path: Path, workspace: Workspace) -> str:
    """Return the SHA-256 of a SIF; taken from the record if the file is unchanged."""
    record = (
        sif_records.read(path.stem, workspace) if sif_records.is_ours(path, workspace) else None
    )
    known = sif_records.current(path, record) if record else None
    return str(known["sha256"]) if known else file_digest(path)


# An image in the engine


def _of_image(subject: BuiltImage | str, context: Context) -> Contents:
    engine = Docker(context.runner)
    reference = subject if isinstance(subject, str) else subject.image_id
    image = _inspected(engine, reference)
    identity = str(image["Id"])
    config: Mapping[str, Any] = image.get("Config") or {}
    with scratch_folder("inventory", identity, context) as scratch:
        context.progress("reading the image's files")
        with (
            exported(context.runner, identity, purpose=str(scratch)) as connection,
            connection.makefile("rb") as stream,
        ):
            picked = excerpt.of_tar(stream, _SOUGHT, check=context.runner.check)
    name, mark, commit = _origin(subject, image)
    found = _found(picked)
    return Contents(
        name=name,
        kind=IMAGE,
        version=identity,
        size=int(image["Size"]),
        created=seconds_of(str(image.get("Created") or "")),
        architecture=str(image.get("Architecture") or ""),
        image_digest=oci_layout.identity(image),
        fingerprint=mark,
        commit=commit,
        found=found,
        settings=comparison.of_config(config),
        compatibility=_compatible(picked, found, str(image.get("Architecture") or "")),
    )


def _origin(subject: BuiltImage | str, image: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return name, fingerprint and commit of an image; a foreign one has only a name."""
    if isinstance(subject, BuiltImage):
        return subject.image.name, subject.fingerprint, subject.commit
    tags: list[str] = image.get("RepoTags") or []
    labels: Mapping[str, str] = (image.get("Config") or {}).get("Labels") or {}
    name, mark = labels.get(LABEL_IMAGE, ""), labels.get(LABEL_FINGERPRINT, "")
    # Images built on ours by others inherit our labels, but not this tag.
    if version_tag(name, mark) in tags:
        return name, mark, labels.get(LABEL_COMMIT, "")
    return next(iter(tags), str(image["Id"])), "", ""


def _inspected(engine: Docker, reference: str) -> dict[str, Any]:
    try:
        return engine.inspect(reference)
    except CommandFailed as error:
        raise MissingError(
            f"the engine holds no image {reference}; build it with invoke build.<image>, or name"
            " another",
            details=error.details,
        ) from None


# Both


def _wanted(path: str) -> bool:
    return packages.wanted(path) or compatibility.wanted(path)


_SOUGHT = Sought(
    wanted=_wanted,
    named=packages.named,
    folders=packages.FOLDERS,
    elsewhere=packages.elsewhere,
    named_elsewhere=packages.named_elsewhere,
)


def _compatible(picked: Excerpt, found: packages.Found, architecture: str) -> Compatibility:
    return compatibility.read(picked.files, picked.unread, found, architecture=architecture)


def _found(picked: Excerpt) -> packages.Found:
    """Return the packages; files that could not be read are listed as not understood."""
    found = packages.read(picked.files, picked.names)
    unread = (packages.printable(path) for path in filter(packages.wanted, picked.unread))
    lost = (path for path in unread if path not in packages.OS_RELEASE)
    return replace(found, broken=tuple(sorted({*found.broken, *lost})))


def _file_name(name: str) -> str:
    """Return a file name for an image: a tag may contain slashes and colons."""
    return re.sub(r"[^\w.-]", "-", name)
