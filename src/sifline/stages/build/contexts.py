"""The build contexts of an image: the digest of all their files, and the list of them."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

from sifline.config.images import origin
from sifline.contents.build_context import digest, entries
from sifline.errors import UsageError
from sifline.formats import dockerignore
from sifline.model import PREPARED, SETTINGS, Image, Workspace


def context_digest(image: Image, workspace: Workspace) -> str:
    """Return the digest of all build contexts of ``image``; fast if nothing changed."""
    found = digest(image.folder, **_context(image, workspace))
    if not image.contexts:
        return found
    _refuse_own_output(image, workspace)
    named = [
        [name, digest(folder, **_named_context(image, name, workspace))]
        for name, folder in image.contexts
    ]
    return sha256(json.dumps([found, named]).encode()).hexdigest()


def context_entries(image: Image, workspace: Workspace) -> dict[str, str]:
    """Return each file of all build contexts of ``image``; ``NAME:PATH`` in a named context."""
    found = entries(image.folder, **_context(image, workspace))
    for name, folder in image.contexts:
        own = entries(folder, **_named_context(image, name, workspace))
        found |= {f"{name}:{path}": entry for path, entry in own.items()}
    return found


def _refuse_own_output(image: Image, workspace: Workspace) -> None:
    """Raise an error if a named context contains sifline's own output, which changes all the time.

    :raises UsageError: with the line of .dockerignore that excludes it.
    """
    for name, folder in image.contexts:
        output = workspace.build.resolve()
        if not output.is_relative_to(folder):
            continue
        below = output.relative_to(folder).as_posix()
        if below in entries(folder, **_named_context(image, name, workspace)):
            raise UsageError(
                f"{origin(image.name)}: contexts: {name}: {folder} holds {below}, which changes"
                f" while images are built; add the line {below} to {folder / '.dockerignore'}"
            )


def _named_context(image: Image, name: str, workspace: Workspace) -> dict[str, Any]:
    cache = workspace.caches / f"{image.name}.context-{name}"
    return {"cache": cache, "rules": dockerignore.NAMED_FILES}


def _context(image: Image, workspace: Workspace) -> dict[str, Any]:
    # The prepared root file system is represented by its settings in the recipe, and so are the
    # settings of image.toml that concern the image.
    without = frozenset({SETTINGS, PREPARED} if image.prepare else {SETTINGS})
    return {"without": without, "cache": workspace.caches / f"{image.name}.context"}
