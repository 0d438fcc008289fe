"""Steps of a plan, what a build returns, and why an image would be built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from sifline.model.image import Image


class Verb(str, Enum):
    """What a step of a plan does with an image, in the order of the way."""

    BUILD = "build"
    TEST = "test"
    CONVERT = "convert"
    TEST_SIF = "test the SIF"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One entry of a plan: what would be done with an image, and why.

    ``pull`` names the foreign images that have moved in their registry. ``retag`` means that the
    image is there and has only lost its common tag. ``anew`` means without the builder's cache.
    ``recipe`` is what a build would be made of, as far as is known before its parents are
    built; without a ``fingerprint`` that is not all. ``held`` is the image that is kept, or that
    would be replaced.
    """

    verb: Verb = Verb.BUILD
    image: Image
    reason: str
    needed: bool
    needs: tuple[str, ...] = ()
    pull: tuple[str, ...] = ()
    retag: bool = False
    anew: bool = False
    recipe: Mapping[str, Any] | None = None
    fingerprint: str = ""
    held: BuiltImage | None = None

    @property
    def changes(self) -> bool:
        """Whether what depends on it has to be done as well."""
        return self.needed and not self.retag

    @property
    def key(self) -> str:
        """What other steps call it, and people."""
        return f"{self.verb.value} {self.image.name}"


@dataclass(frozen=True, kw_only=True)
class HeldImage:
    """An image that exists in the engine. ``size`` in bytes."""

    image: Image
    image_id: str
    size: int


@dataclass(frozen=True, kw_only=True)
class BuiltImage(HeldImage):
    """An image of ours in the engine; ``recipe`` is what it was made of."""

    fingerprint: str
    reused: bool
    created: int = 0
    tags: tuple[str, ...] = ()
    commit: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FetchedImage(HeldImage):
    """An image of others in the engine; ``source`` is the registry or archive it came from.

    Its ``image`` has no folder: it says what the SIF is called, and how it is made.
    """

    source: str


@dataclass(frozen=True, kw_only=True)
class DefinitionFile:
    """A definition file that is no image's: it says itself where the files of its SIF come from.

    ``image`` is as in ``FetchedImage``; ``commit`` is that of the checkout.
    """

    image: Image
    file: Path
    commit: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why an image would be built or not, against the build at hand (``built`` in seconds).

    ``notes`` tell what differs and is no reason by itself. ``words`` is what the Dockerfile calls
    each image of ours that it is built on. ``error`` is why its files, or those of an image that
    it is built on, cannot be used; nothing else is known then.
    """

    name: str
    needed: bool
    reason: str
    image_id: str
    built: int
    changes: tuple[str, ...]
    notes: tuple[str, ...]
    words: tuple[tuple[str, str], ...] = ()
    later: tuple[str, ...] = ()
    error: str = ""
