"""Records of conversions, and whether a SIF is still the file that its record describes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sifline.contents.build_context import DOCKERFILE, file_digest
from sifline.machine import records
from sifline.model import Workspace

KIND = "convert"
# Key of the stamp that a file will have, recorded before the file is replaced.
NEXT = "next"


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """Fields of stat(2) that show whether a file changed; its change time cannot be set back."""

    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Return the stamp of the file ``path`` as it is now."""
        found = path.stat()
        return cls(
            size=found.st_size,
            inode=found.st_ino,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
        )


def current(path: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return ``record`` with the file's current stamp; None if the file has other content.

    The file is read only if its stamp differs. If a run was killed right after it replaced the
    file, the file matches the announced state, which becomes its record.
    """
    stamp, known = vars(Stamp.of(path)), dict(record)
    following = known.pop(NEXT, None)
    if known.get("stamp") == stamp:
        return known
    digest = file_digest(path)
    if isinstance(following, Mapping) and following.get("sha256") == digest:
        known.update(following)
    return {**known, "stamp": stamp} if known.get("sha256") == digest else None


def untouched(path: Path, record: Mapping[str, Any]) -> bool:
    """Return whether the SIF at ``path`` has the content that ``record`` names."""
    return current(path, record) is not None


def read(name: str, workspace: Workspace) -> dict[str, Any] | None:
    """Return the record of the conversion of ``name``; None if there is none."""
    return records.read(workspace.record(name, KIND))


def write(name: str, workspace: Workspace, record: Mapping[str, Any]) -> None:
    """Write the record of the conversion of ``name``."""
    records.write(workspace.record(name, KIND), record)


def lock(path: Path, workspace: Workspace) -> Path:
    """Return the path of the lock file for writing the SIF at ``path``.

    A SIF of this checkout has the lock of its conversion; another has one shared by all checkouts
    of this user, so that nothing is written beside it.
    """
    if is_ours(path, workspace):
        return workspace.build / "locks" / f"{path.stem}.convert.lock"
    name = f"{path.stem[:32]}.{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.lock"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    found = Path(home) / "sifline" / "locks" / name
    if found.is_absolute():
        with suppress(OSError):
            found.parent.mkdir(parents=True, exist_ok=True)
            if os.access(found if found.exists() else found.parent, os.W_OK):
                return found
    return workspace.build / "locks" / name


def image_of(path: Path, workspace: Workspace) -> str:
    """Return the name of the image of the SIF at ``path``; "" if it has none in this checkout.

    A SIF of another source (``--source``) is ours as well, but no image has its name.
    """
    target = path.resolve()
    named = os.path.lexists(workspace.images / target.stem / DOCKERFILE)
    return target.stem if named and is_ours(target, workspace) else ""


def is_ours(path: Path, workspace: Workspace) -> bool:
    """Return whether ``path``, which is resolved, is where this checkout puts SIFs."""
    return path == workspace.sif(path.stem).resolve()
