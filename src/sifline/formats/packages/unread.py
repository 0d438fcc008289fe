"""Package databases that sifline cannot read: their files are recognised, and named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sifline.formats.packages.package import printable

# One file of each database that is always there where packages are installed.
_DATABASES = {
    "apk": r"(?:usr/)?lib/apk/db/installed",
    "rpm": r"(?:var/lib|usr/lib/sysimage)/rpm/(?:rpmdb\.sqlite|Packages(?:\.db)?)",
    "pacman": r"var/lib/pacman/local/ALPM_DB_VERSION",
    "Portage": r"var/db/pkg/[^/]+/[^/]+/PF",
    "opkg": r"(?:usr|var)/lib/opkg/(?:status|info/[^/]+\.control)",
    "Nix": r"nix/var/nix/db/db\.sqlite",
    "Guix": r"var/guix/db/db\.sqlite",
    "conda": r"(?:.+/)?conda-meta/history",
    "Spack": r"(?:.+/)?\.spack-db/index\.json",
}
_MANAGERS = {manager: re.compile(pattern) for manager, pattern in _DATABASES.items()}


@dataclass(frozen=True, kw_only=True, order=True)
class Unread:
    """A package database that sifline cannot read: its package manager, and one of its files."""

    manager: str
    path: str

    def __str__(self) -> str:
        return f"{self.manager} (/{self.path})"


def wanted(path: str) -> bool:
    """Return whether the file at ``path`` belongs to a package database that is not read."""
    return any(pattern.fullmatch(path) for pattern in _MANAGERS.values())


def databases(paths: Iterable[str]) -> tuple[Unread, ...]:
    """Return the databases to which ``paths`` belong; several environments of conda are several.

    Of a database with a file for each package one is named.
    """
    found: dict[tuple[str, str], Unread] = {}
    for path in sorted(paths):
        for manager, pattern in _MANAGERS.items():
            if pattern.fullmatch(path):
                place = path.rpartition("/")[0] if manager == "conda" else ""
                found.setdefault((manager, place), Unread(manager=manager, path=printable(path)))
    return tuple(sorted(found.values()))
