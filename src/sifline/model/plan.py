"""The steps of a plan, the result of a build, and why an image would be built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from sifline.model.image import Image


class Verb(str, Enum):
    """What a step of a plan does with an image, in the order of the pipeline."""

    BUILD = "build"
    TEST = "test"
    CONVERT = "convert"
    TEST_SIF = "test the SIF"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One entry of a plan: what would be done with an image, and why.

    ``pull`` names foreign images that have moved in their registry. ``retag``: the image exists
    and has only lost its common tag. ``anew``: build without the builder's cache. ``recipe`` is
    the recipe as far as it is known before the parents are built; without a ``fingerprint`` it
    is incomplete. ``held`` is the existing image, which is kept or replaced.
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
        """Return whether steps that depend on it must be carried out as well."""
        return self.needed and not self.retag

    @property
    def key(self) -> str:
        """Return its name for other steps and in messages."""
        return f"{self.verb.value} {self.image.name}"


@dataclass(frozen=True, kw_only=True)
class HeldImage:
    """An image that exists in the engine. ``size`` in bytes."""

    image: Image
    image_id: str
    size: int


@dataclass(frozen=True, kw_only=True)
class BuiltImage(HeldImage):
    """An image of ours in the engine, with its ``recipe``."""

    fingerprint: str
    reused: bool
    created: int = 0
    tags: tuple[str, ...] = ()
    commit: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FetchedImage(HeldImage):
    """A foreign image in the engine; ``source`` is the registry or archive it came from.

    Its ``image`` has no folder: it holds the name of the SIF and the conversion options.
    ``origin`` is the source as the user named it, in its full form.
    """

    source: str
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class DefinitionFile:
    """A definition file without an image: it says itself where the files of its SIF come from.

    ``image`` is as in ``FetchedImage``; ``commit`` is that of the checkout.
    """

    image: Image
    file: Path
    commit: str


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why an image would be built or not, compared with the current build (``built`` in seconds).

    ``notes`` are differences that alone are no reason to build. ``words`` are the references to
    images of ours in the Dockerfile. ``error`` is why its files, or those of a parent, cannot
    be used; the other fields are empty then.
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
