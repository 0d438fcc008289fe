"""Which images there are: the folders of ``images/`` that hold a Dockerfile."""

from __future__ import annotations

import re
from pathlib import Path

from sifline.config.images import load_image_settings
from sifline.dockerfile import references
from sifline.errors import UsageError, did_you_mean
from sifline.model import Image, Workspace

PREFIX = "sifline"
MAX_NAME = 100
# Taken by Invoke: `build.all` is the default task behind `build --all`.
RESERVED = frozenset({"all"})
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|-+)[a-z0-9]+)*")
RULE = (
    "lower-case letters and digits, joined by single dots or dashes,"
    f" at most {MAX_NAME} characters, not {' or '.join(sorted(RESERVED))}"
)


def names(workspace: Workspace) -> tuple[str, ...]:
    """Return the names of all images, sorted; looks at folder entries alone.

    :raises UsageError: where there is no ``images/`` folder, and for a folder with a
        Dockerfile whose name could be no task, tag or file.
    """
    if not workspace.images.is_dir():
        raise UsageError(
            f"no images/ folder in {workspace.root}; run this where tasks.py is,"
            " or make images/<name>/Dockerfile"
        )
    found = sorted(path.parent.name for path in workspace.images.glob("*/Dockerfile"))
    for name in found:
        if not is_name(name):
            raise UsageError(
                f"images/{_shown(name)}: a folder of this name cannot be an image;"
                f" rename it: {RULE}"
            )
    return tuple(found)


def is_name(name: str) -> bool:
    """Tell whether ``name`` works as task, tag and file name alike."""
    return bool(_NAME.fullmatch(name)) and len(name) <= MAX_NAME and name not in RESERVED


def unknown(name: str, workspace: Workspace) -> UsageError:
    """Return the error for an image that is not there."""
    if is_name(name) and (workspace.images / name).is_dir():
        return UsageError(f"images/{name} has no Dockerfile; add one, or remove the folder")
    return UsageError(
        f"no image {_shown(name)} in images/.{did_you_mean(name, names(workspace))}"
        " See invoke --list."
    )


def load(workspace: Workspace) -> dict[str, Image]:
    """Return every image by name, with its settings and its parents.

    :raises UsageError: for a Dockerfile or image.toml that cannot be used.
    """
    known = names(workspace)
    return {name: _image(workspace.images / name, known) for name in known}


def tag_of(name: str) -> str:
    """Return the tag the engine knows the image ``name`` by."""
    return f"{PREFIX}/{name}:latest"


def _image(folder: Path, known: tuple[str, ...]) -> Image:
    settings = load_image_settings(folder / "image.toml")
    used = references(folder / "Dockerfile", dict(settings.build_args))
    parents = tuple(name for name in (_local(ref) for ref in used) if name)
    for parent in parents:
        if parent not in known:
            raise UsageError(
                f"{folder / 'Dockerfile'}: is built on {PREFIX}/{parent}, but there is no"
                f" images/{parent}.{did_you_mean(parent, known)}"
            )
    return Image(
        name=folder.name,
        folder=folder,
        tag=tag_of(folder.name),
        parents=parents,
        description=settings.description,
        build_args=settings.build_args,
        prepare=settings.prepare,
        category=settings.category,
    )


def _local(reference: str) -> str:
    """The name of one of our own images in ``reference``, or ""."""
    prefix, _, rest = reference.partition("/")
    return re.split(r"[:@]", rest)[0] if prefix == PREFIX else ""


def _shown(name: str) -> str:
    """A name from outside, fit for one line of a terminal."""
    printable = "".join(char if char.isprintable() else "?" for char in name)
    return repr(printable if len(printable) <= MAX_NAME else printable[:60] + "…")
