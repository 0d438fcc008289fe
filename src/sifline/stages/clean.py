"""Remove what sifline made, and nothing else: its images, SIFs, records, logs."""

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
    """What to remove. ``older_than`` in seconds; ``unused`` spares what is at hand.

    ``foreign`` takes the versions of an image that other checkouts made as well.
    """

    docker: bool = True
    sifs: bool = True
    state: bool = True
    older_than: float = 0
    unused: bool = False
    foreign: bool = False


@dataclass(frozen=True, kw_only=True)
class _Doomed:
    """An image of ours, and the names by which it is removed; its id where it has none."""

    built: BuiltImage
    names: tuple[str, ...]


def gone(known: Collection[str], workspace: Workspace) -> list[str]:
    """Return the names of images that were built here and are in images/ no more."""
    folders = workspace.records.glob("*/build-*.json")
    return sorted({path.parent.name for path in folders if is_name(path.parent.name)} - {*known})


def clean(
    images: Sequence[Image],
    parts: Parts,
    context: Context,
    *,
    at_hand: Collection[str] = (),
    dry: bool = False,
) -> Cleaned:
    """Remove ``parts`` of ``images``; what a container uses or a run builds is kept, and named.

    :param at_hand: the ids of images to spare: they are up to date, or the last ones built.
    :param dry: remove nothing, only say what would go.
    """
    with ExitStack() as locks:
        # Between its end and its name, an image that is built looks like one of a killed run.
        idle = [
            image
            for image in images
            if dry
            or locks.enter_context(
                records.locked_if_free(records.build_lock(context.workspace, image.name))
            )
        ]
        done = _clean(idle, parts, context, at_hand, dry=dry)
    busy = (f"{image.name}: another run builds it" for image in images if image not in idle)
    return replace(done, kept=(*done.kept, *busy))


def _clean(
    images: Sequence[Image],
    parts: Parts,
    context: Context,
    at_hand: Collection[str],
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
        else:  # not all are gone: a container may use one by now
            staying = _ours(images, engine.all())
    for path in [*_files(images, parts, context.workspace, at_hand, listed)]:
        size = None if _proves(path, staying) else _drop(path, before, dry=dry)
        if size is not None:
            freed += size
            removed.append((str(path.relative_to(context.workspace.root)), size))
    return Cleaned(removed=tuple(removed), kept=tuple(kept), freed=freed)


def _held(engine: Docker, parts: Parts) -> Sequence[EngineImage] | None:
    """Return the images in the engine, as far as they matter; None where it does not say."""
    if not (parts.docker or parts.unused or parts.state):
        return ()
    try:
        return engine.all()
    except MissingError:
        if parts.docker or parts.unused:
            raise
        return None


def _ours(images: Sequence[Image], listed: Sequence[EngineImage]) -> set[str]:
    """Return the ids of all that may be ours in the engine."""
    named = (built for found in versions(images, listed).values() for built in found)
    return {built.image_id for built in (*named, *unnamed(images, listed))}


def _proves(path: Path, staying: Collection[str] | None) -> bool:
    """Tell whether ``path`` says that this checkout built an image which stays in the engine.

    Without it nobody would know that, and no ``clean`` would remove the image.

    :param staying: the ids of those images; None where they are not known.
    """
    if path.match("logs/*.id"):
        image_id = id_of(path)
    elif path.match("records/*/build-*.json"):
        image_id = str((records.read(path) or {}).get("image_id", ""))
    else:
        return False
    return staying is None or image_id in staying


def _drop(path: Path, before: float, *, dry: bool) -> int | None:
    """Remove a file; return its size, or None where it stays because it is young."""
    with suppress(FileNotFoundError):  # another run was faster
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

    They go by our own tags: others may have given them more.
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
    """Remove ``names``; return the bytes that are free then, as far as the engine tells."""
    if not names:
        return 0
    before = engine.layers_size()
    engine.remove(names)
    after = engine.layers_size()
    return max(0, before - after) if before is not None and after is not None else 0


def _record(space: Workspace, name: str, mark: str) -> Path:
    return space.record(name, f"build-{mark[:SHORT]}")


def _files(
    images: Sequence[Image],
    parts: Parts,
    space: Workspace,
    at_hand: Collection[str],
    listed: Sequence[EngineImage],
) -> Iterator[Path]:
    """Yield the files to remove, as far as they exist."""
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
            # Only what was made here is known by a record.
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
