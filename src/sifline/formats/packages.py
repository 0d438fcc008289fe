"""The Debian and Python packages of an image, told from a few of its files.

Formats: deb-control(5) and dpkg's status file, one stanza for each package; the core metadata of
Python packages, which begin as such a stanza; os-release(5).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

DEB, PYTHON = "deb", "python"
OS_RELEASE = ("etc/os-release", "usr/lib/os-release")

# In status.d, which images without dpkg have, the lists of checksums are no packages.
_DEBIAN = re.compile(r"var/lib/dpkg/status(?:\.d/[^/]+(?<!\.md5sums))?")
# An old package may be one file, or one folder with its description in another.
_METADATA = re.compile(
    r"(?P<place>.*/|)[^/]+(?:\.dist-info/METADATA|\.egg-info(?:/PKG-INFO)?|\.egg/EGG-INFO/PKG-INFO)",
    re.DOTALL,
)
# Where the files are in place, whatever is left to configure.
_PRESENT = {"installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}
_ABSENT = {"not-installed", "config-files", "half-installed"}
_DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")
# PEP 508, and PEP 503 for the one spelling of all that mean the same.
_PYTHON_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_SAME = re.compile(r"[-_.]+")
_VERSION = re.compile(r"[!-~]{1,255}")
_SOURCE = re.compile(r"(\S+)(?:\s+\((\S+)\))?")
_ID = re.compile(r"[a-z0-9._-]+")
# Some give a licence's whole text where its name belongs.
_LONGEST_LICENSE = 100

_Fields = Mapping[str, list[str]]


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


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """What os-release says: ``debian``, ``12``, ``Debian GNU/Linux 12 (bookworm)``."""

    id: str = ""
    version: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an image's files tell; ``broken`` are those that were not understood, or not wholly."""

    packages: tuple[Package, ...] = ()
    distribution: Distribution = field(default_factory=Distribution)
    broken: tuple[str, ...] = ()


class _NoPackageError(ValueError):
    """A description that is none."""


def wanted(path: str | bytes) -> bool:
    """Tell whether the file at ``path``, without a leading slash, is one that ``read`` needs."""
    text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    return text in OS_RELEASE or bool(_DEBIAN.fullmatch(text)) or bool(_METADATA.fullmatch(text))


def read(files: Mapping[str, bytes]) -> Found:
    """Return the packages that ``files`` tell of; files of other names do not count.

    What cannot be understood is never an error: a foreign image may hold anything.

    :param files: contents by path, without a leading slash.
    """
    found: dict[tuple[str, ...], Package] = {}
    broken = set()
    for path in sorted(files):
        if path in OS_RELEASE or not wanted(path):
            continue
        try:
            for package in _read(path, files[path]):
                key = (package.kind, package.name, package.version, package.architecture)
                found.setdefault((*key, package.place), package)
        except _NoPackageError:
            broken.add(printable(path))
    return Found(
        packages=tuple(sorted(found.values())),
        distribution=distribution(files),
        broken=tuple(sorted(broken)),
    )


def distribution(files: Mapping[str, bytes]) -> Distribution:
    """Return what os-release says; a version of testing, which has none, is its code name."""
    content = next((files[path] for path in OS_RELEASE if path in files), b"")
    values = {}
    for line in content.decode("utf-8", "replace").splitlines():
        key, _, value = line.strip().partition("=")
        values[key] = _unquoted(value)
    identity = values.get("ID", "").lower()
    return Distribution(
        id=identity if _ID.fullmatch(identity) else "",
        version=values.get("VERSION_ID") or values.get("VERSION_CODENAME", ""),
        name=values.get("PRETTY_NAME") or values.get("NAME", ""),
    )


def printable(path: str) -> str:
    """Return a path with an escape for each byte that is no UTF-8."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read(path: str, content: bytes) -> Iterator[Package]:
    """Yield the packages of one file.

    :raises _NoPackageError: after those that were understood.
    """
    text = content.decode("utf-8", "replace").replace("\r\n", "\n").strip("\n")
    match = _METADATA.fullmatch(path)
    if match:
        yield _python(_fields(_blocks(text)[0]), printable(match["place"].rstrip("/")))
        return
    # One without a state is of an image without dpkg, where all that is described is there.
    state = None if path.startswith("var/lib/dpkg/status.d/") else ""
    broken = bool(state is None and not text)
    for block in _blocks(text) if text else ():
        try:
            package = _debian(_fields(block), state)
        except _NoPackageError:
            broken = True
            continue
        if package:
            yield package
    if broken:
        raise _NoPackageError(path)


def _debian(fields: _Fields, state: str | None) -> Package | None:
    """Return the package of a stanza; None where it is not installed.

    :param state: of a stanza that has none; None for installed.
    """
    words = _first(fields, "status").split() or (["", "", "installed"] if state is None else [])
    last = words[-1] if len(words) == 3 else ""  # noqa: PLR2004 - wanted, flag, state
    name, version = _first(fields, "package"), _first(fields, "version")
    if last not in _PRESENT | _ABSENT or not _DEBIAN_NAME.fullmatch(name):
        raise _NoPackageError(name)
    if last in _ABSENT:
        return None
    if not _VERSION.fullmatch(version):
        raise _NoPackageError(name)
    return Package(
        kind=DEB,
        name=name,
        version=version,
        architecture=_first(fields, "architecture"),
        source=_source(_first(fields, "source"), name, version),
    )


def _source(written: str, name: str, version: str) -> str:
    match = _SOURCE.fullmatch(written)
    if not match or (match[1], match[2] or version) == (name, version):
        return ""
    return f"{match[1]}@{match[2]}" if match[2] else match[1]


def _python(fields: _Fields, place: str) -> Package:
    name, version = _first(fields, "name"), _first(fields, "version")
    if not _PYTHON_NAME.fullmatch(name) or not _VERSION.fullmatch(version):
        raise _NoPackageError(name)
    return Package(
        kind=PYTHON,
        name=_SAME.sub("-", name).lower(),
        version=version,
        license=_license(fields),
        place=place,
    )


def _license(fields: _Fields) -> str:
    """Return the licence's name; from the classifiers where no field holds a usable one."""
    for key in ("license-expression", "license"):
        text = _first(fields, key)
        usable = text.isprintable() and len(text) <= _LONGEST_LICENSE
        if text and usable and text.upper() != "UNKNOWN":
            return text
    classified = (text.split(" :: ") for text in fields.get("classifier", ()))
    return ", ".join(words[-1] for words in classified if words[0] == "License" and words[1:])


def _blocks(text: str) -> list[str]:
    """Return the stanzas of a file, which empty lines part; a line of spaces is not empty."""
    return re.split(r"\n\n+", text)


def _fields(block: str) -> dict[str, list[str]]:
    """Return the fields of a stanza by name in lower case; a line that is none does not count."""
    found: dict[str, list[str]] = {}
    last: list[str] = []
    for line in block.split("\n"):
        if line[:1] in (" ", "\t"):
            if last:
                last[-1] += f"\n{line.strip()}"
            continue
        key, colon, value = line.partition(":")
        if colon:
            last = found.setdefault(key.strip().lower(), [])
            last.append(value.strip())
    return found


def _first(fields: _Fields, key: str) -> str:
    return fields[key][0] if key in fields else ""


def _unquoted(value: str) -> str:
    """Return a value of os-release without its quotes."""
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value.strip("'\"")
