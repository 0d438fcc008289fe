"""The packages of an image, read from its package databases; one module for each database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
from sifline.formats.packages.unread import Unread, databases, named

__all__ = [
    "DEB",
    "FOLDERS",
    "OS_RELEASE",
    "PYTHON",
    "Distribution",
    "Found",
    "Package",
    "Unread",
    "databases",
    "distribution",
    "elsewhere",
    "named",
    "named_elsewhere",
    "printable",
    "read",
    "wanted",
]

DATABASES: tuple[Database, ...] = (dpkg, python)
# Folders of databases; an image may have a link in the place of each, or of one above.
FOLDERS = (*dpkg.FOLDERS, *unread.FOLDERS)


@dataclass(frozen=True, kw_only=True)
class Found:
    """The packages in an image's files, and where there may be more.

    ``broken`` are files that could not be read completely; ``unread`` are databases of package
    managers that sifline cannot read. ``described`` is whether there was a database to read, which
    may have no packages.
    """

    packages: tuple[Package, ...] = ()
    described: bool = False
    distribution: Distribution = field(default_factory=Distribution)
    broken: tuple[str, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def complete(self) -> bool | None:
        """Whether every package database was read; None if there is none that is known here."""
        if self.broken or self.unread:
            return False
        return True if self.described or self.packages else None


def wanted(path: str | bytes) -> bool:
    """Return whether ``read`` needs the file at ``path``, without a leading slash."""
    text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    return text in OS_RELEASE or any(database.wanted(text) for database in DATABASES)


def elsewhere(path: str) -> bool:
    """Return whether ``read`` may need the file at ``path`` if a link leads to its folder."""
    return dpkg.elsewhere(path)


def named_elsewhere(path: str) -> bool:
    """Return whether ``path`` may be of a database that is not read, if a link leads there."""
    return unread.elsewhere(path)


def read(files: Mapping[str, bytes], names: Iterable[str] = ()) -> Found:
    """Return the packages in ``files``; files with other names are ignored.

    Unreadable content is never an error: a foreign image may contain anything.

    :param files: contents by path, without a leading slash.
    :param names: paths that are ``named``: those of databases that are not read.
    """
    found: dict[tuple[str, ...], Package] = {}
    broken = set()
    described = [(base, path) for base in DATABASES for path in filter(base.wanted, sorted(files))]
    for database, path in described:
        try:
            for package in database.read(path, files[path]):
                key = (package.kind, package.name, package.version, package.architecture)
                found.setdefault((*key, package.place), package)
        except NoPackageError:
            broken.add(printable(path))
    return Found(
        packages=tuple(sorted(found.values())),
        described=bool(described),
        distribution=distribution(files),
        broken=tuple(sorted(broken)),
        unread=databases(names),
    )
