"""Decides whether a reference names an image of this repository, and which one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from sifline.errors import UsageError, did_you_mean
from sifline.formats.reference import normalise

PREFIX = "sifline"
# Placeholder of the image's name in a declared pattern.
NAME = "{name}"
_TAG = ":latest"


class OwnReferences:
    """The references that name one of the images ``names``.

    :param patterns: references that the repository declares as its own, ``ghcr.io/acme/{name}``.
    :raises UsageError: if two images would have the same reference.
    """

    def __init__(self, names: Iterable[str], patterns: Iterable[str] = ()) -> None:
        self._names = tuple(names)
        self._declared = _declared(self._names, patterns)

    def image(self, reference: str, *, beside: str = "", foreign: Sequence[str] = ()) -> str:
        """Return the name of the image that ``reference`` names; "" for a foreign image.

        Declared references are compared in full: ``acme/x`` is ``docker.io/acme/x``. So
        ``docker.io/sifline/x`` is foreign, like all references with a registry.

        :param beside: the image whose Dockerfile contains it, which a plain name never means:
            ``images/python`` may be built on ``python``.
        :param foreign: patterns of references that are foreign in spite of their name.
        :raises UsageError: if it begins with ``sifline/`` and names no image.
        """
        if reference.startswith(f"{PREFIX}/"):
            return self._under_prefix(reference)
        if any(fnmatchcase(reference, pattern) for pattern in foreign):
            return ""
        plain = reference if reference in self._names else ""
        name = self._declared.get(normalise(reference), plain)
        return "" if name == beside else name

    def _under_prefix(self, reference: str) -> str:
        name = reference.partition("/")[2].removesuffix(_TAG)
        if name in self._names:
            return name
        for mark, what in (("@", "digest"), (":", "tag")):
            if mark in name:
                raise UsageError(
                    f"{reference}: images of this repository are named without a {what}; remove it"
                )
        raise UsageError(
            f"is built on {PREFIX}/{name}, but there is no images/{name}."
            f"{did_you_mean(name, self._names)} Images named {PREFIX}/… are folders of images/;"
            " copy that folder here, or tag the image under another name"
        )


def _declared(names: tuple[str, ...], patterns: Iterable[str]) -> Mapping[str, str]:
    """Return the images by their declared references, in full."""
    found: dict[str, str] = {}
    for reference, name in _pairs(names, patterns):
        other = found.setdefault(normalise(reference), name)
        if other != name:
            raise UsageError(
                f"pyproject.toml: tool.sifline.own-references: {reference} would mean both"
                f" images/{other} and images/{name}; change a pattern"
            )
    return found


def _pairs(names: tuple[str, ...], patterns: Iterable[str]) -> Iterator[tuple[str, str]]:
    for pattern in patterns:
        for name in names:
            yield pattern.replace(NAME, name), name
