"""A package that is installed in an image, of whatever package database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

DEB, PYTHON = "deb", "python"
VERSION = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, kw_only=True, order=True)
class Package:
    """A package that is installed. ``name`` of a Python package as PEP 503 spells it.

    ``source`` is the Debian source package where that has another name or version: ``NAME`` or
    ``NAME@VERSION``. ``license`` as the package tells it. ``place`` is the folder that a Python
    package lies in, without a leading slash.
    """

    kind: str
    name: str
    version: str
    architecture: str = ""
    source: str = ""
    license: str = ""
    place: str = ""


class NoPackageError(ValueError):
    """A description of a package cannot be understood."""


class Database(Protocol):
    """What the module of a package database has to offer. Paths have no leading slash."""

    def wanted(self, path: str) -> bool:
        """Return whether the file at ``path`` describes packages of this database."""

    def read(self, path: str, content: bytes) -> Iterator[Package]:
        """Yield the installed packages that the file at ``path`` describes.

        :raises NoPackageError: after those that were understood, where some were not.
        """


def printable(path: str) -> str:
    """Return a path with an escape for each byte that is no UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
