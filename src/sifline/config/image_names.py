"""The names of the images: the folders of ``images/`` that contain a Dockerfile."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sifline.errors import SiflineError, StepFailed, UsageError, did_you_mean

if TYPE_CHECKING:
    from sifline.model import Workspace

MAX_NAME = 100
# A name of images and site profiles is part of task, tag and file names.
NAME = r"[a-z0-9]+(?:(?:\.|-+)[a-z0-9]+)*"
# Used by Invoke: `build.all` is the default task of `build --all`.
RESERVED = frozenset({"all"})
_NAME = re.compile(NAME)
RULE = (
    "lower-case letters and digits, joined by single dots or dashes,"
    f" at most {MAX_NAME} characters, not {' or '.join(sorted(RESERVED))}"
)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The folders with a Dockerfile: valid names, and the errors of invalid ones."""

    names: tuple[str, ...]
    refused: Mapping[str, UsageError]


def found(workspace: Workspace) -> Found:
    """Return the names of all images, valid and invalid; reads only folder entries.

    :raises UsageError: if there is no ``images/`` folder, or it cannot be read.
    """
    if not workspace.images.is_dir():
        raise UsageError(
            f"no images/ folder in {workspace.root}; run this where tasks.py is,"
            " or make images/<name>/Dockerfile"
        )
    try:
        there = sorted(entry.name for entry in os.scandir(workspace.images) if _is_image(entry))
    except OSError as error:
        raise UsageError(f"{workspace.images}: cannot be read: {error.strerror}") from None
    return Found(
        names=tuple(name for name in there if is_name(name)),
        refused={name: _refusal(name) for name in there if not is_name(name)},
    )


def names(workspace: Workspace) -> tuple[str, ...]:
    """Return the names of all images, sorted; see ``found``."""
    return found(workspace).names


def _is_image(folder: os.DirEntry[str]) -> bool:
    """Return whether there is a Dockerfile, even an unreadable one: reading it gives the error."""
    try:
        os.lstat(f"{folder.path}/Dockerfile")
    except PermissionError:
        return is_name(folder.name)
    except OSError:
        return False
    return True


def _refusal(name: str) -> UsageError:
    return UsageError(
        f"images/{_shown(name)}: a folder of this name cannot be an image; rename it: {RULE}"
    )


def is_name(name: str) -> bool:
    """Return whether ``name`` is valid as a task, tag and file name."""
    return bool(_NAME.fullmatch(name)) and len(name) <= MAX_NAME and name not in RESERVED


def unknown(name: str, workspace: Workspace) -> UsageError:
    """Return the error for an image that does not exist, or has an invalid name."""
    here = found(workspace)
    if name in here.refused:
        return here.refused[name]
    if is_name(name) and (workspace.images / name).is_dir():
        return UsageError(f"images/{name} has no Dockerfile; add one, or remove the folder")
    return UsageError(
        f"no image {_shown(name)} in images/.{did_you_mean(name, here.names)}"
        " See invoke --list build."
    )


def refuse_broken(broken: Mapping[str, SiflineError]) -> None:
    """Raise an error with the names of broken images, after the others were handled.

    The results have the error of each, which is not repeated.
    """
    if broken:
        names = ", ".join(map(printable, broken))
        one = len(broken) == 1
        what = (
            "1 image is broken, see its error"
            if one
            else f"{len(broken)} images are broken, see the errors"
        )
        raise StepFailed(f"{what} above: {names}")


def printable(name: str) -> str:
    """Return a name from outside in a form that fits on one line of a terminal."""
    shown = "".join(char if char.isprintable() else "?" for char in name)
    return shown if len(shown) <= MAX_NAME else shown[:60] + "…"


def _shown(name: str) -> str:
    return repr(printable(name))
