"""The packages of an image, read from its package databases; one module for each database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sifline.formats.packages import dpkg, python, unread
from sifline.formats.packages.os_release import OS_RELEASE, Distribution, distribution
from sifline.formats.packages.package import (
    DEB,
    PYTHON,
    Database,
    NoPackageError,
    Package,
    printable,
)
from sifline.formats.packages.unread import Unread, databases

__all__ = [
    "DEB",
    "OS_RELEASE",
    "PYTHON",
    "Distribution",
    "Found",
    "Package",
    "Unread",
    "databases",
    "distribution",
    "printable",
    "read",
    "wanted",
]

DATABASES: tuple[Database, ...] = (dpkg, python)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The packages in an image's files, and where there may be more.

    ``broken`` are files that could not be read completely; ``unread`` are databases of package
    managers that sifline cannot read.
    """

    packages: tuple[Package, ...] = ()
    distribution: Distribution = field(default_factory=Distribution)
    broken: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether every package database that is known to exist was read."""
        return not (self.broken or self.unread)


def wanted(path: str | bytes) -> bool:
    """Return whether ``read`` needs the file at ``path``, without a leading slash."""
    text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    known = any(database.wanted(text) for database in DATABASES)
    return text in OS_RELEASE or known or unread.wanted(text)


def read(files: Mapping[str, bytes]) -> Found:
    """Return the packages in ``files``; files with other names are ignored.

    Unreadable content is never an error: a foreign image may contain anything.

    :param files: contents by path, without a leading slash.
    """
    found: dict[tuple[str, ...], Package] = {}
    broken = set()
    described = ((base, path) for base in DATABASES for path in filter(base.wanted, sorted(files)))
    for database, path in described:
        try:
            for package in database.read(path, files[path]):
                key = (package.kind, package.name, package.version, package.architecture)
                found.setdefault((*key, package.place), package)
        except NoPackageError:
            broken.add(printable(path))
    return Found(
        packages=tuple(sorted(found.values())),
        distribution=distribution(files),
        broken=tuple(sorted(broken)),
        unread=databases(files),
    )
