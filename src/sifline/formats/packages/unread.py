"""Package databases that sifline cannot read: their files are recognised, and named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sifline.formats.packages.package import printable


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a database is: a pattern of its files in ``folders``; in any folder without them."""

    files: str
    folders: tuple[str, ...] = ()

    @property
    def pattern(self) -> str:
        if not self.folders:
            return rf"(?:.+/)?(?:{self.files})"
        return rf"(?:{'|'.join(map(re.escape, self.folders))})/(?:{self.files})"


_ANY = r"[^/]+"
# What a store of Nix or Guix holds: a hash, and a name.
_STORED = r"[0-9a-z]{32}-[^/]+"
# Of each database something that is always there where packages are installed; what comes first
# is named.
_DATABASES = {
    "apk": (_Place(folders=("lib/apk/db", "usr/lib/apk/db"), files="installed"),),
    "rpm": (
        _Place(
            folders=("var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"),
            files=r"rpmdb\.sqlite|Packages(?:\.db)?",
        ),
    ),
    "pacman": (_Place(folders=("var/lib/pacman/local",), files="ALPM_DB_VERSION"),),
    "Portage": (_Place(folders=("var/db/pkg",), files=r"[^/]+/[^/]+/PF"),),
    "opkg": (
        _Place(folders=("usr/lib/opkg", "var/lib/opkg"), files=r"status|info/[^/]+\.control"),
    ),
    "xbps": (_Place(folders=("var/db/xbps",), files=r"pkgdb-[^/]+\.plist"),),
    "Slackware": (
        _Place(
            folders=("var/lib/pkgtools/packages", "var/log/packages"),
            files=r"[^/]+-[^/-]+-[^/-]+-[^/-]+",
        ),
    ),
    "eopkg": (_Place(folders=("var/lib/eopkg/package",), files=r"[^/]+/metadata\.xml"),),
    "Clear Linux": (_Place(folders=("usr/share/clear/bundles",), files=_ANY),),
    "Nix": (
        _Place(folders=("nix/var/nix/db",), files=r"db\.sqlite"),
        _Place(folders=("nix/store",), files=_STORED),
    ),
    "Guix": (
        _Place(folders=("var/guix/db",), files=r"db\.sqlite"),
        _Place(folders=("gnu/store",), files=_STORED),
    ),
    "Homebrew": (_Place(files=r"Cellar/[^/]+/[^/]+/INSTALL_RECEIPT\.json"),),
    "conda": (
        _Place(files="conda-meta/history"),
        _Place(files=r"conda-meta/[^/]+\.json"),
    ),
    "Spack": (_Place(files=r"\.spack-db/index\.json"),),
}
_MANAGERS = {
    manager: [re.compile(place.pattern, re.DOTALL) for place in places]
    for manager, places in _DATABASES.items()
}
_PLACES = [place for places in _DATABASES.values() for place in places]
# One pattern for all: it is tried on every file of an image.
_NAMED = re.compile("|".join(place.pattern for place in _PLACES), re.DOTALL)
# A file's last parts cannot tell of a database whose files may have any name.
_ENDS = (place.files for place in _PLACES if place.folders and place.files != _ANY)
_ELSEWHERE = re.compile(rf"(?:.*/)?(?:{'|'.join(_ENDS)})", re.DOTALL)

FOLDERS = tuple(folder for place in _PLACES for folder in place.folders)


@dataclass(frozen=True, kw_only=True, order=True)
class Unread:
    """A package database that sifline cannot read: its package manager, and one of its files."""

    manager: str
    path: str

    def __str__(self) -> str:
        return f"{self.manager} (/{self.path})"


def named(path: str) -> bool:
    """Return whether what is at ``path`` belongs to a package database that is not read."""
    return bool(_NAMED.fullmatch(path))


def elsewhere(path: str) -> bool:
    """Return whether ``path`` may belong to one whose folder is a link to another place."""
    return bool(_ELSEWHERE.fullmatch(path))


def databases(paths: Iterable[str]) -> tuple[Unread, ...]:
    """Return the databases to which ``paths`` belong; several environments of conda are several.

    Of a database with a file for each package one is named.
    """
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for path in filter(named, paths):
        for manager, patterns in _MANAGERS.items():
            rank = next((at for at, one in enumerate(patterns) if one.fullmatch(path)), None)
            if rank is not None:
                key = (manager, path.rpartition("/")[0] if manager == "conda" else "")
                found[key] = min(found.get(key, (rank, path)), (rank, path))
    return tuple(
        sorted(
            Unread(manager=manager, path=printable(path))
            for (manager, _), (_, path) in found.items()
        )
    )
