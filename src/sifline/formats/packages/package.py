"""A package installed in an image, from any package database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

DEB, PYTHON = "deb", "python"
VERSION = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, kw_only=True, order=True)
class Package:
    """An installed package. A Python package has its normalised ``name`` (PEP 503).

    ``source`` is the Debian source package if it has another name or version: ``NAME`` or
    ``NAME@VERSION``. ``license`` is as in the package. ``place`` is the folder of a Python
    package, without a leading slash.
    """

    kind: str
    name: str
    version: str
    architecture: str = ""
    source: str = ""
    license: str = ""
    place: str = ""


class NoPackageError(ValueError):
    """The description of a package cannot be read."""


class Database(Protocol):
    """The interface of a module for a package database. Paths have no leading slash."""

    def wanted(self, path: str) -> bool:
        """Return whether the file at ``path`` describes packages of this database."""

    def read(self, path: str, content: bytes) -> Iterator[Package]:
        """Yield the installed packages that the file at ``path`` describes.

        :raises NoPackageError: after the readable ones, if some were not readable.
        """


def printable(path: str) -> str:
    """Return a path with non-UTF-8 bytes escaped."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
