"""The content of an image or a SIF, and the differences between two of them."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sifline.contents.compatibility import Compatibility
from sifline.formats.packages import Found, Package

# Labels that sifline itself writes: they differ between any two builds.
_OURS = ("sifline.", "org.sifline.")
# Labels that Apptainer adds to those of the image.
_APPTAINER = re.compile(
    r"org\.label-schema\.(?:build-(?:arch|date)|schema-version|usage(?:\..+)?)"
)
_EXPORT = re.compile(r"^[ \t]*export[ \t]+([A-Za-z_]\w*)=(.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a container starts. A SIF that was not made from an image has ``script`` instead."""

    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    script: str = ""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The content of an image or a SIF; ``version`` is its digest.

    ``size`` in bytes, ``created`` in seconds since 1970. ``image_digest`` is the same for an image
    and its SIF. ``fingerprint`` and ``commit`` are "" if sifline did not make it.
    """

    name: str
    kind: str
    version: str
    size: int
    created: int = 0
    architecture: str = ""
    image_digest: str = ""
    fingerprint: str = ""
    commit: str = ""
    found: Found = field(default_factory=Found)
    settings: Settings = field(default_factory=Settings)
    compatibility: Compatibility = field(default_factory=Compatibility)


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """A package with different versions; several if it is installed in several places."""

    kind: str
    name: str
    architecture: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting with its old and new value; None if it is unset."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two compared images or SIFs.

    It may have more ``packages`` than were counted, unless it is ``complete``: None if it has no
    package database that is known here. See ``Difference`` for ``broken`` and ``unread``.
    """

    name: str
    kind: str
    version: str
    size: int
    fingerprint: str
    packages: int
    complete: bool | None = True
    broken: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What the ``new`` one has and the ``old`` one lacks, and the reverse.

    ``broken`` are package lists that could not be read, ``unread`` are databases of package
    managers that sifline cannot read: there may be more differences.
    """

    old: Side
    new: Side
    added: tuple[Package, ...]
    removed: tuple[Package, ...]
    changed: tuple[Upgrade, ...]
    environment: tuple[Change, ...]
    labels: tuple[Change, ...]
    start: tuple[Change, ...]
    broken: tuple[str, ...]
    unread: tuple[str, ...] = ()

    @property
    def same(self) -> bool | None:
        """Return whether only sizes and names differ; None if that is unknown.

        It is unknown if no difference was found, and not all packages could be read.
        """
        packages = (*self.added, *self.removed, *self.changed)
        if packages or self.environment or self.labels or self.start:
            return False
        read = self.old.complete and self.new.complete
        return True if read or self.old.version == self.new.version else None


def of_config(config: Mapping[str, Any]) -> Settings:
    """Return the settings in an image's configuration, in the format of Docker and OCI."""
    return Settings(
        environment=_variables(config.get("Env") or ()),
        labels=_others(config.get("Labels") or {}),
        entrypoint=_words(config.get("Entrypoint")),
        command=_words(config.get("Cmd")),
        workdir=config.get("WorkingDir") or "",
        user=config.get("User") or "",
    )


def of_attributes(attributes: Mapping[str, Any]) -> Settings:
    """Return the settings in Apptainer's metadata of a SIF that was not made from an image."""
    scripts = (attributes.get("environment") or {}).items()
    exported = (match for _, text in sorted(scripts) for match in _EXPORT.finditer(str(text)))
    labels = _others(attributes.get("labels") or {})
    return Settings(
        environment={match[1]: _value(match[2]) for match in exported},
        labels={key: value for key, value in labels.items() if not _APPTAINER.fullmatch(key)},
        script=str(attributes.get("runscript") or ""),
    )


def compare(old: Contents, new: Contents) -> Difference:
    """Return the differences of two images or SIFs; packages are compared by kind and name."""
    before, after = _by_name(old), _by_name(new)
    return Difference(
        old=_side(old),
        new=_side(new),
        added=_missing(after, before),
        removed=_missing(before, after),
        changed=tuple(_upgrades(before, after)),
        environment=_changes(old.settings.environment, new.settings.environment),
        labels=_changes(old.settings.labels, new.settings.labels),
        start=_changes(_start(old), _start(new)),
        broken=tuple(sorted({*old.found.broken, *new.found.broken})),
        unread=tuple(map(str, sorted({*old.found.unread, *new.found.unread}))),
    )


def _side(contents: Contents) -> Side:
    return Side(
        name=contents.name,
        kind=contents.kind,
        version=contents.version,
        size=contents.size,
        fingerprint=contents.fingerprint,
        packages=len(contents.found.packages),
        complete=contents.found.complete,
        broken=contents.found.broken,
        unread=tuple(map(str, contents.found.unread)),
    )


_Names = dict[tuple[str, str, str], list[Package]]


def _by_name(contents: Contents) -> _Names:
    found: _Names = {}
    for package in contents.found.packages:
        key = (package.kind, package.name, package.architecture)
        found.setdefault(key, []).append(package)
    return found


def _missing(here: _Names, there: _Names) -> tuple[Package, ...]:
    return tuple(
        package for key, packages in here.items() if key not in there for package in packages
    )


def _upgrades(before: _Names, after: _Names) -> Iterable[Upgrade]:
    """Yield the packages with other versions; another place alone is no difference."""
    for key in sorted(before.keys() & after.keys()):
        old, new = (tuple(item.version for item in side[key]) for side in (before, after))
        if Counter(old) != Counter(new):
            kind, name, architecture = key
            yield Upgrade(kind=kind, name=name, architecture=architecture, before=old, after=new)


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Change, ...]:
    return tuple(
        Change(name=key, before=before.get(key), after=after.get(key))
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    )


def _start(contents: Contents) -> dict[str, str]:
    """Return all non-empty settings that decide how it starts."""
    settings, system = contents.settings, contents.found.distribution
    found = {
        "architecture": contents.architecture,
        "distribution": system.name or " ".join([system.id, system.version]).strip(),
        "entrypoint": shlex.join(settings.entrypoint),
        "cmd": shlex.join(settings.command),
        "workdir": settings.workdir.rstrip("/"),  # "" means "/"
        "user": settings.user,
        "runscript": settings.script,
    }
    return {key: value for key, value in found.items() if value}


def _variables(lines: Iterable[str]) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines)
    return {name: value for name, _, value in pairs}


def _others(labels: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in labels.items() if not key.startswith(_OURS)}


def _words(value: Any) -> tuple[str, ...]:
    """Return a command as a tuple; old engines wrote a single string as well."""
    return (value,) if isinstance(value, str) else tuple(value or ())


def _value(written: str) -> str:
    """Return the value a shell would assign, without expanding variables; unparsed if complex."""
    try:
        words = shlex.split(written)
    except ValueError:
        return written
    return words[0] if len(words) == 1 else written
