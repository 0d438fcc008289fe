"""What has to be built, in which order, and why: pure decisions over fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from sifline.buildcontext import digest
from sifline.errors import UsageError
from sifline.model import PREPARED, Image, Step

# Changing what goes into a fingerprint makes every image new: raise this then.
FORMAT = 1


def order(images: Mapping[str, Image], wanted: Iterable[str]) -> tuple[str, ...]:
    """Return ``wanted`` and all they are built on, parents first, otherwise by name.

    :raises UsageError: for a circle, showing its path.
    """
    done: dict[str, None] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " → ".join([*path[path.index(name) :], name])
            raise UsageError(f"images are built on each other in a circle: {circle}")
        if name not in done:
            for parent in sorted(images[name].parents):
                visit(parent, (*path, name))
            done[name] = None

    for name in sorted(set(wanted)):
        visit(name, ())
    return tuple(done)


def fingerprint(image: Image, parents: Mapping[str, str]) -> str:
    """Return the SHA-256 over all that decides an image's content.

    :param parents: fingerprints of the images it is built on, by name.
    """
    prepared = frozenset({PREPARED}) if image.prepare else frozenset()
    content = {
        "format": FORMAT,
        "context": digest(image.folder, without=prepared),
        "arguments": image.build_args,
        "prepare": [image.prepare.suite, *image.prepare.packages] if image.prepare else None,
        "parents": sorted((name, parents[name]) for name in image.parents),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def plan(
    images: Mapping[str, Image], wanted: Iterable[str], existing: Mapping[str, str]
) -> tuple[Step, ...]:
    """Return one step per image that ``wanted`` needs, in order.

    :param existing: the fingerprint label of each image the engine holds, by name.
    """
    prints: dict[str, str] = {}
    steps: list[Step] = []
    rebuilt: set[str] = set()
    for name in order(images, wanted):
        image = images[name]
        prints[name] = fingerprint(image, prints)
        reason = _reason(image, prints[name], existing.get(name), rebuilt)
        if reason:
            rebuilt.add(name)
        steps.append(
            Step(image=image, fingerprint=prints[name], reason=reason, needed=bool(reason))
        )
    return tuple(steps)


def _reason(image: Image, now: str, before: str | None, rebuilt: set[str]) -> str:
    """Why the image has to be built; "" where it is up to date."""
    if before is None:
        return "not in the engine"
    new = sorted(rebuilt.intersection(image.parents))
    if new:
        return f"built on {', '.join(new)}, which is built anew"
    if before != now:
        return "its Dockerfile, context or arguments changed"
    return ""
