"""Environments and caches of a checkout: those of scripts/bootstrap, Nox, linters and tests."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sifline.model import Cleaned, Workspace

# Whoever made an environment for this checkout left this file in it: scripts/bootstrap, Nox.
STAMP = "sifline-stamp"
ENVIRONMENT, NOX = ".venv", ".nox"
BYTE_CODE = "__pycache__"
CACHES = (
    *(".ansible", ".hypothesis", ".import_linter_cache", ".mypy_cache", ".pytest_cache"),
    *(".ruff_cache", BYTE_CODE),
)
# Where byte code of this checkout lies; build/ holds what images are made of.
SOURCES = ("ansible", "images", "scripts", "src", "tests")


@dataclass(frozen=True, kw_only=True)
class _Thing:
    """What is removed together, and how it is called."""

    what: str
    folders: tuple[Path, ...]

    @property
    def size(self) -> int:
        """The bytes of its files."""
        paths = (path for folder in self.folders for path in folder.rglob("*"))
        return sum(path.lstat().st_size for path in paths if path.is_file() or path.is_symlink())

    @property
    def in_use(self) -> bool:
        """Whether the Python that runs this is in it."""
        return any(Path(sys.prefix).is_relative_to(folder) for folder in self.folders)


def clean(workspace: Workspace, *, dry: bool = False) -> Cleaned:
    """Remove the environments and caches that were made for this checkout, and nothing else.

    Links are not followed: what they lead to is somebody else's. The environment that this runs
    in goes last.

    :param dry: remove nothing, only say what would go.
    """
    things = sorted(_things(workspace.root), key=lambda thing: thing.in_use)
    removed = tuple((thing.what, thing.size) for thing in things)
    for folder in (folder for thing in things for folder in thing.folders):
        if not dry:
            shutil.rmtree(folder)
    freed = 0 if dry else sum(size for _, size in removed)
    return Cleaned(removed=removed, kept=tuple(_kept(workspace.root)), freed=freed)


def _things(root: Path) -> Iterator[_Thing]:
    if _is_folder(root / ENVIRONMENT) and (root / ENVIRONMENT / STAMP).is_file():
        yield _Thing(what=ENVIRONMENT, folders=(root / ENVIRONMENT,))
    # One of them has the stamp; those of other sessions, such as lock, do not.
    if _is_folder(root / NOX) and any((root / NOX).glob(f"*/{STAMP}")):
        yield _Thing(what=NOX, folders=(root / NOX,))
    for name in CACHES:
        if _is_folder(root / name):
            yield _Thing(what=name, folders=(root / name,))
    for name in SOURCES:
        paths = sorted((root / name).rglob(BYTE_CODE)) if _is_folder(root / name) else []
        if found := tuple(path for path in paths if _is_folder(path)):
            yield _Thing(what=f"byte code in {name}", folders=found)


def _kept(root: Path) -> Iterator[str]:
    """Environments that are there and that nobody made for this checkout."""
    for name, stamp in ((ENVIRONMENT, STAMP), (NOX, f"*/{STAMP}")):
        folder = root / name
        if folder.is_symlink():
            yield f"{name}: it is a link, and what it leads to may be in use elsewhere"
        elif folder.is_dir() and not any(folder.glob(stamp)):
            yield f"{name}: it was not made by scripts/bootstrap or this project's Nox"


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
