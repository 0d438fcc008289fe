"""Python packages, by the core metadata in their folders."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.utils import InvalidName, canonicalize_name

from sifline.formats.packages.package import (
    PYTHON,
    VERSION,
    NoPackageError,
    Package,
    printable,
)
from sifline.formats.packages.stanzas import Fields, fields, first, stanzas

# An old package may be one file, or one folder with its metadata in another.
_METADATA = re.compile(
    r"(?P<place>.*/|)[^/]+(?:\.dist-info/METADATA|\.egg-info(?:/PKG-INFO)?|\.egg/EGG-INFO/PKG-INFO)",
    re.DOTALL,
)
# Some packages have a licence's whole text in the place of its name.
_LONGEST_LICENSE = 100


def wanted(path: str) -> bool:
    """Return whether the file at ``path`` describes a package."""
    return bool(_METADATA.fullmatch(path))


def read(path: str, content: bytes) -> Iterator[Package]:
    """Yield the package that the file at ``path`` describes.

    :raises NoPackageError: if it describes none.
    """
    found = fields(stanzas(content)[0])
    version = first(found, "version")
    match = _METADATA.fullmatch(path)
    if not match or not VERSION.fullmatch(version):
        raise NoPackageError(path)
    yield Package(
        kind=PYTHON,
        name=_name(first(found, "name")),
        version=version,
        license=_license(found),
        place=printable(match["place"].rstrip("/")),
    )


def _name(written: str) -> str:
    """Return the normalised name (PEP 503)."""
    try:
        return canonicalize_name(written, validate=True)
    except InvalidName as error:
        raise NoPackageError(written) from error


def _license(found: Fields) -> str:
    """Return the licence's name; from the classifiers if no field has a usable one."""
    for key in ("license-expression", "license"):
        text = first(found, key)
        usable = text.isprintable() and len(text) <= _LONGEST_LICENSE
        if text and usable and text.upper() != "UNKNOWN":
            return text
    classified = (text.split(" :: ") for text in found.get("classifier", ()))
    return ", ".join(words[-1] for words in classified if words[0] == "License" and words[1:])
