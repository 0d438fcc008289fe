"""Remove what sifline made, and nothing else: its images, SIFs, records, logs."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sifline import records
from sifline.adapters.docker import Docker, EngineImage, versions
from sifline.model import PREPARED, Cleaned, Image, Workspace
from sifline.recipe import SHORT
from sifline.runner import Context

LOGS = ("build", "prepare", "convert", "test-docker", "test-apptainer")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What to remove. ``older_than`` in seconds; ``unused`` spares what is up to date."""

    docker: bool = True
    sifs: bool = True
    state: bool = True
    older_than: float = 0
    unused: bool = False


def clean(
    images: Sequence[Image],
    parts: Parts,
    context: Context,
    *,
    current: Collection[str],
    dry: bool = False,
) -> Cleaned:
    """Remove ``parts`` of ``images``; what a container uses is kept, and named.

    :param current: the ids of the images that are up to date.
    :param dry: remove nothing, only say what would go.
    """
    engine, before = Docker(context.runner), time.time() - parts.older_than
    listed = engine.all() if parts.docker or parts.unused else ()
    cleaned = Cleaned(removed=(), kept=(), freed=0)
    if parts.docker:
        cleaned = _clean_images(images, listed, engine, before, current if parts.unused else ())
        if cleaned.removed and not dry:
            size = engine.layers_size()
            engine.remove([tag for names, _ in cleaned.removed for tag in names.split(", ")])
            cleaned = replace(cleaned, freed=size - engine.layers_size())
    removed, freed = [(f"image {names}", size) for names, size in cleaned.removed], cleaned.freed
    for path in _files(images, parts, context.workspace, current, listed):
        status = path.lstat()
        if status.st_mtime <= before:
            freed += status.st_size
            removed.append((str(path.relative_to(context.workspace.root)), status.st_size))
            if not dry:
                path.unlink()
    return Cleaned(removed=tuple(removed), kept=cleaned.kept, freed=freed)


def _clean_images(
    images: Sequence[Image],
    listed: Sequence[EngineImage],
    engine: Docker,
    before: float,
    spared: Collection[str],
) -> Cleaned:
    """Say which images go, by their tags, and which stay since containers use them."""
    removed, kept, used = list[tuple[str, int]](), list[str](), engine.used_images()
    found = [built for item in versions(images, listed).values() for built in item]
    tagged = engine.tagged([built.image_id for built in found])
    for built in found:
        if built.image_id in spared or tagged.get(built.image_id, 0) > before:
            continue
        prefix = f"sifline/{built.image.name}:"
        names = ", ".join(tag for tag in built.tags if tag.startswith(prefix))
        if built.image_id in used:
            kept.append(f"image {names}: a container uses it")
        else:
            removed.append((names, built.size))
    return Cleaned(removed=tuple(removed), kept=tuple(kept), freed=0)


def _files(
    images: Sequence[Image],
    parts: Parts,
    space: Workspace,
    current: Collection[str],
    listed: Sequence[EngineImage],
) -> Iterator[Path]:
    """Yield the files to remove, as far as they exist."""
    held = {
        built.fingerprint[:SHORT] for found in versions(images, listed).values() for built in found
    }
    for image in images:
        name, found = image.name, list[Path]()
        record = records.read(space.record(name, "convert")) or {}
        if parts.sifs and not (parts.unused and record.get("image_id") in current):
            found.append(space.sif(name))
        if parts.state and parts.unused:
            builds = space.records.joinpath(name).glob("build-*.json")
            found += [path for path in builds if path.stem.removeprefix("build-") not in held]
        elif parts.state:
            found += space.records.joinpath(name).glob("*.json")
            found += [space.logs / f"{name}.{kind}.log" for kind in LOGS]
            found += [space.caches / f"{name}.context", space.resolved / f"{name}.Dockerfile"]
            found += [image.folder / PREPARED] if image.prepare else []
        yield from (path for path in found if path.is_file())
