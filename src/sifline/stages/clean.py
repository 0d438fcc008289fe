"""Remove what sifline made: images, SIFs, records, logs."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path

from sifline.config.image_names import is_name
from sifline.engines.docker.builds import id_files, id_of
from sifline.engines.docker.images import Docker, EngineImage
from sifline.engines.docker.versions import unnamed, version_tag, versions
from sifline.errors import MissingError
from sifline.machine import records
from sifline.machine.context import Context
from sifline.model import PREPARED, BuiltImage, Cleaned, Image, Workspace
from sifline.model.recipe import SHORT

LOGS = ("build", "prepare", "convert", "test-docker", "test-apptainer")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What to remove. ``older_than`` in seconds; ``unused`` keeps current versions.

    ``foreign`` also removes an image's versions that other checkouts built.
    """

    docker: bool = True
    sifs: bool = True
    state: bool = True
    older_than: float = 0
    unused: bool = False
    foreign: bool = False


@dataclass(frozen=True, kw_only=True)
class _Doomed:
    """An image to remove, with its tags; its id if it has none."""

    built: BuiltImage
    names: tuple[str, ...]


def gone(known: Collection[str], workspace: Workspace) -> list[str]:
    """Return the names of images built here whose folder in images/ no longer exists."""
    folders = workspace.records.glob("*/build-*.json")
    return sorted({path.parent.name for path in folders if is_name(path.parent.name)} - {*known})


def sources(known: Collection[str], workspace: Workspace) -> list[str]:
    """Return the names of SIFs that were made of other sources than the images ``known``."""
    found = sorted(path.parent.name for path in workspace.records.glob("*/convert.json"))
    return [
        name
        for name in found
        if is_name(name) and name not in known and not _built(name, workspace)
    ]


def _built(name: str, workspace: Workspace) -> bool:
    """Return whether the SIF of that name was made of an image of images/."""
    record = records.read(workspace.record(name, "convert")) or {}
    return bool(record.get("fingerprint"))


def clean(
    images: Sequence[Image],
    parts: Parts,
    context: Context,
    *,
    at_hand: Collection[str] = (),
    sources: Sequence[str] = (),
    dry: bool = False,
) -> Cleaned:
    """Remove ``parts`` of ``images``; keep and report what a container or another run uses.

    :param sources: the names of SIFs of other sources, whose SIFs and logs are removed as well.
    :param at_hand: the ids of images to keep: the up-to-date or latest versions.
    :param dry: remove nothing, only return what would be removed.
    """
    with ExitStack() as locks:
        # Between its build and its tag, an image looks like one of a killed run.
        idle = [
            image
            for image in images
            if dry
            or locks.enter_context(
                records.locked_if_free(records.build_lock(context.workspace, image.name))
            )
        ]
        done = _clean(idle, parts, context, at_hand, sources, dry=dry)
    busy = (f"{image.name}: another run builds it" for image in images if image not in idle)
    return replace(done, kept=(*done.kept, *busy))


def _clean(
    images: Sequence[Image],
    parts: Parts,
    context: Context,
    at_hand: Collection[str],
    sources: Sequence[str],
    *,
    dry: bool,
) -> Cleaned:
    engine, before = Docker(context.runner), time.time() - parts.older_than
    held = _held(engine, parts)
    listed = held or ()
    staying = None if held is None else _ours(images, held)
    removed, freed, kept = list[tuple[str, int]](), 0, list[str]()
    if parts.docker:
        doomed, kept = _doomed(images, parts, listed, at_hand, context.workspace)
        used = engine.used_images()
        tagged = engine.tagged([item.built.image_id for item in doomed])
        doomed = [item for item in doomed if tagged.get(item.built.image_id, 0) <= before]
        for item in doomed:
            if item.built.image_id in used:
                kept.append(f"image {', '.join(item.names)}: a container uses it")
        doomed = [item for item in doomed if item.built.image_id not in used]
        removed += [(f"image {', '.join(item.names)}", item.built.size) for item in doomed]
        freed = 0 if dry else _remove(engine, [name for item in doomed for name in item.names])
        if dry:
            staying = _ours(images, listed) - {item.built.image_id for item in doomed}
        else:  # some are left: a container may have started to use one
            staying = _ours(images, engine.all())
    space = context.workspace
    files = [*_files(images, parts, space, at_hand, listed), *_of_sources(sources, parts, space)]
    for path in files:
        size = None if _proves(path, staying) else _drop(path, before, dry=dry)
        if size is not None:
            freed += size
            removed.append((str(path.relative_to(space.root)), size))
    return Cleaned(removed=tuple(removed), kept=tuple(kept), freed=freed)


def _held(engine: Docker, parts: Parts) -> Sequence[EngineImage] | None:
    """Return the images of the engine if they are needed; None if it does not answer."""
    if not (parts.docker or parts.unused or parts.state):
        return ()
    try:
        return engine.all()
    except MissingError:
        if parts.docker or parts.unused:
            raise
        return None


def _ours(images: Sequence[Image], listed: Sequence[EngineImage]) -> set[str]:
    """Return the ids of all images in the engine that may be ours."""
    named = (built for found in versions(images, listed).values() for built in found)
    return {built.image_id for built in (*named, *unnamed(images, listed))}


def _proves(path: Path, staying: Collection[str] | None) -> bool:
    """Return whether ``path`` records that this checkout built an image that stays in the engine.

    The record must stay too: without it, no ``clean`` would remove the image.

    :param staying: the ids of those images; None if they are unknown.
    """
    if path.match("logs/*.id"):
        image_id = id_of(path)
    elif path.match("records/*/build-*.json"):
        image_id = str((records.read(path) or {}).get("image_id", ""))
    else:
        return False
    return staying is None or image_id in staying


def _drop(path: Path, before: float, *, dry: bool) -> int | None:
    """Remove a file; return its size, or None if it is too young to remove."""
    with suppress(FileNotFoundError):  # another run removed it
        status = path.lstat()
        if status.st_mtime <= before:
            if not dry:
                path.unlink()
            return status.st_size
    return None


def _doomed(
    images: Sequence[Image],
    parts: Parts,
    listed: Sequence[EngineImage],
    at_hand: Collection[str],
    space: Workspace,
) -> tuple[list[_Doomed], list[str]]:
    """Return the images to remove, and what is kept and why.

    They are removed by our own tags: others may have added more.
    """
    found, kept = [], []
    made = {image.name: _made_here(image.name, space) for image in images}
    for name, items in versions(images, listed).items():
        for built in items:
            tags = {version_tag(name, built.fingerprint), built.image.tag}.intersection(built.tags)
            item = _Doomed(built=built, names=tuple(sorted(tags)))
            if parts.unused and built.image_id in at_hand:
                continue
            if parts.foreign or built.image_id in made[name]:
                found.append(item)
            elif not parts.unused:
                kept.append(
                    f"image {', '.join(item.names)}: no record says that this checkout built"
                    " it; --foreign removes it as well"
                )
    for built in unnamed(images, listed):
        if built.image_id in made[built.image.name]:
            found.append(_Doomed(built=built, names=(built.image_id,)))
    return found, kept


def _made_here(name: str, space: Workspace) -> set[str]:
    """Return the ids of the images of that name that this checkout built."""
    built = (records.read(path) or {} for path in (space.records / name).glob("build-*.json"))
    unnamed_yet = id_files(space.logs / f"{name}.build.log").values()
    return {str(record.get("image_id", "")) for record in built} | {*unnamed_yet}


def _remove(engine: Docker, names: Sequence[str]) -> int:
    """Remove ``names``; return the freed bytes, as far as the engine reports them."""
    if not names:
        return 0
    before = engine.layers_size()
    engine.remove(names)
    after = engine.layers_size()
    return max(0, before - after) if before is not None and after is not None else 0


def _of_sources(names: Sequence[str], parts: Parts, space: Workspace) -> Iterator[Path]:
    """Yield the existing files to remove of SIFs that were made of other sources."""
    for name in names:
        # Without its record, nothing would know the SIF.
        found = [space.sif(name), space.record(name, "convert")] if parts.sifs else []
        found += [space.logs / f"{name}.convert.log"] if parts.state else []
        yield from (path for path in found if path.is_file())


def _record(space: Workspace, name: str, mark: str) -> Path:
    return space.record(name, f"build-{mark[:SHORT]}")


def _files(
    images: Sequence[Image],
    parts: Parts,
    space: Workspace,
    at_hand: Collection[str],
    listed: Sequence[EngineImage],
) -> Iterator[Path]:
    """Yield the existing files to remove."""
    by_name = versions(images, listed)
    for image in images:
        name, found = image.name, list[Path]()
        record = records.read(space.record(name, "convert")) or {}
        if parts.sifs and not (parts.unused and record.get("image_id") in at_hand):
            found.append(space.sif(name))
        if parts.state and parts.unused and image.folder.is_dir():
            held = {_record(space, name, built.fingerprint) for built in by_name[name]}
            found += sorted({*space.records.joinpath(name).glob("build-*.json")} - held)
        elif parts.state:
            # Only what this checkout built has a record here.
            made = space.record(name, "prepare").is_file()
            found += [image.folder / PREPARED] if made else []
            found += sorted(space.records.joinpath(name).glob("*.json"))
            found += [space.logs / f"{name}.{kind}.log" for kind in LOGS]
            resolved = space.resolved / f"{name}.Dockerfile"
            found += [resolved, resolved.with_name(f"{resolved.name}.dockerignore")]
            found.append(space.caches / f"{name}.context")
            found += sorted(space.caches.glob(f"{escape(name)}.context-*"))
            found += sorted(id_files(space.logs / f"{name}.build.log"))
        if parts.state and not parts.unused:
            found += [space.needs(built.image_id) for built in by_name[name]]
        yield from (path for path in found if path.is_file())
    if parts.state and parts.unused:
        known = {space.needs(entry.image_id) for entry in listed}
        yield from sorted({*space.needs("").parent.glob("*.json")} - known)
