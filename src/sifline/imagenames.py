"""The names of the images: the folders of ``images/`` that hold a Dockerfile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sifline.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from sifline.model import Workspace

MAX_NAME = 100
# Of images and of site profiles: a task, a tag and a file at once.
NAME = r"[a-z0-9]+(?:(?:\.|-+)[a-z0-9]+)*"
# Taken by Invoke: `build.all` is the default task behind `build --all`.
RESERVED = frozenset({"all"})
_NAME = re.compile(NAME)
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


def _shown(name: str) -> str:
    """A name from outside, fit for one line of a terminal."""
    printable = "".join(char if char.isprintable() else "?" for char in name)
    return repr(printable if len(printable) <= MAX_NAME else printable[:60] + "…")
