"""Debian packages, by dpkg's status file: a stanza for each package. Format: deb-control(5).

Images without dpkg may have a folder of such files, one for each package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sifline.formats.packages.package import DEB, VERSION, NoPackageError, Package
from sifline.formats.packages.stanzas import Fields, fields, first, stanzas

FOLDERS = ("var/lib/dpkg",)
_STATUS = "var/lib/dpkg/status"
# In that folder, lists of checksums are not packages.
_END = r"status(?:\.d/[^/]+(?<!\.md5sums))?"
_FILES = re.compile(rf"var/lib/dpkg/{_END}")
_ELSEWHERE = re.compile(rf"(?:.*/)?{_END}", re.DOTALL)
# States of packages whose files are installed, even if not configured.
_PRESENT = {"installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}
_ABSENT = {"not-installed", "config-files", "half-installed"}
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_SOURCE = re.compile(r"(\S+)(?:\s+\((\S+)\))?")


def wanted(path: str) -> bool:
    """Return whether the file at ``path`` describes packages."""
    return bool(_FILES.fullmatch(path))


def elsewhere(path: str) -> bool:
    """Return whether ``path`` may describe packages if dpkg's folder is a link."""
    return bool(_ELSEWHERE.fullmatch(path))


def read(path: str, content: bytes) -> Iterator[Package]:
    """Yield the installed packages that the file at ``path`` describes.

    :raises NoPackageError: after the readable ones, if some were not readable.
    """
    # Without dpkg there are no states, and all described packages are installed.
    usual = "" if path == _STATUS else "install ok installed"
    broken = False
    for stanza in stanzas(content):
        if not stanza and path == _STATUS:
            continue
        try:
            package = _package(fields(stanza), usual)
        except NoPackageError:
            broken = True
            continue
        if package:
            yield package
    if broken:
        raise NoPackageError(path)


def _package(found: Fields, usual: str) -> Package | None:
    """Return the package of a stanza; None if it is not installed.

    :param usual: the state of a stanza without one.
    """
    words = (first(found, "status") or usual).split()
    state = words[-1] if len(words) == 3 else ""  # noqa: PLR2004 - wanted, flag, state
    name, version = first(found, "package"), first(found, "version")
    if state not in _PRESENT | _ABSENT or not _NAME.fullmatch(name):
        raise NoPackageError(name)
    if state in _ABSENT:
        return None
    if not VERSION.fullmatch(version):
        raise NoPackageError(name)
    return Package(
        kind=DEB,
        name=name,
        version=version,
        architecture=first(found, "architecture"),
        source=_source(first(found, "source"), name, version),
    )


def _source(written: str, name: str, version: str) -> str:
    match = _SOURCE.fullmatch(written)
    if not match or (match[1], match[2] or version) == (name, version):
        return ""
    return f"{match[1]}@{match[2]}" if match[2] else match[1]
