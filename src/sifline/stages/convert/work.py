"""One conversion: what is converted, how, where its files go, and what the SIF says of it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sifline.contents import environment
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.squashfs import Compression
from sifline.engines.docker.images import Docker
from sifline.errors import StepFailed
from sifline.formats import oci_layout
from sifline.formats.sif import Kind, Part
from sifline.machine.context import Context
from sifline.machine.process import Result
from sifline.model import (
    BuiltImage,
    DefinitionFile,
    FetchedImage,
    HeldImage,
    Image,
    SifOptions,
)

PREFIX = "org.sifline."
# How the names of definition files end, the templates of some as well.
DEFINITIONS = (".def", ".def.j2")
# The data object that says where the SIF came from.
PROVENANCE = "sifline.json"
_FORMAT = 1
_DISK_FULL = "no space left on device"


def compression(options: SifOptions) -> Compression:
    """Return how the squashfs of a SIF is compressed."""
    name, level = options.packing
    return Compression(name=name, level=level)


@dataclass(frozen=True, kw_only=True)
class Work(ABC):
    """What a conversion backend is given; the caller holds the lock of the SIF.

    ``scratch`` is an empty folder, ``partial`` the file to make.
    """

    context: Context
    options: SifOptions
    scratch: Path
    partial: Path
    log: Path

    @property
    @abstractmethod
    def image(self) -> Image:
        """The image, or what stands for one: it names the SIF."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many bytes are converted, as far as is known before."""

    @property
    @abstractmethod
    def origin(self) -> Mapping[str, str]:
        """Where the SIF comes from, as its labels say it."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What the image was made of, where that is known."""
        return {}

    @property
    def name(self) -> str:
        """The name of the SIF."""
        return self.image.name

    @property
    def compression(self) -> Compression:
        """How the squashfs is compressed."""
        return compression(self.options)

    @property
    def processors(self) -> int:
        """How many compress; 0 for all."""
        return self.options.processors or 0

    @property
    def labels(self) -> dict[str, str]:
        """What the labels of the SIF say of where it came from."""
        found = {"name": self.name, **self.origin}
        return {f"{PREFIX}{key}": value for key, value in found.items() if value}

    def provenance(self, made: Made) -> Part:
        """Return the data object that says where the SIF came from, the same every time."""
        origin, recipe = self.origin, self.recipe
        told = {
            "format": _FORMAT,
            "name": self.name,
            "image": {
                "digest": origin.get("image-digest", ""),
                "fingerprint": origin.get("fingerprint", ""),
                "recipe": recipe,
            },
            "bases": {**recipe.get("parents", {}), **recipe.get("bases", {})},
            "commit": origin.get("commit", ""),
            "conversion": {"method": made.method, "compression": self.compression.mksquashfs},
            "tools": dict(made.tools),
            **({"source": origin["source"]} if "source" in origin else {}),
        }
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return Part(kind=Kind.JSON, name=PROVENANCE, content=text.encode())

    def failure(self, result: Result) -> StepFailed:
        """Return the error for a command of the conversion that failed."""
        full = _DISK_FULL in (result.stdout + result.stderr).lower()
        cause = "the disk is full; make room" if full else "see below"
        return StepFailed(
            f"converting {self.name} failed: {cause}; the whole log is {self.log}",
            details=result.tail(),
        )


@dataclass(frozen=True, kw_only=True)
class ImageWork(Work):
    """The conversion of an image of the engine."""

    held: HeldImage

    @property
    def image(self) -> Image:
        """The image."""
        return self.held.image

    @property
    def size(self) -> int:
        """Its size in the engine."""
        return self.held.size

    @property
    def origin(self) -> Mapping[str, str]:
        """Which image it is, and where that came from."""
        if isinstance(self.held, BuiltImage):
            own = {"fingerprint": self.held.fingerprint, "commit": self.held.commit}
        else:
            own = {"source": self.held.source} if isinstance(self.held, FetchedImage) else {}
        return {"image-digest": self.digest, **own}

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What an image of ours was made of."""
        return self.held.recipe if isinstance(self.held, BuiltImage) else {}

    @cached_property
    def inspected(self) -> Mapping[str, Any]:
        """What the engine says of the image."""
        return Docker(self.context.runner).inspect(self.held.image_id)

    @property
    def digest(self) -> str:
        """What the image is called in the SIF; no engine knows it."""
        return oci_layout.identity(self.inspected)

    @property
    def env(self) -> Sequence[str]:
        """The ENV of the image."""
        return tuple((self.inspected.get("Config") or {}).get("Env") or ())

    def environment(self) -> Path:
        """Write the script that sets the image's ENV in the SIF, into ``scratch``; return it."""
        path = self.scratch / "environment.sh"
        path.write_bytes(environment.script(self.env))
        path.chmod(environment.MODE)
        return path


@dataclass(frozen=True, kw_only=True)
class DefinitionWork(Work):
    """The conversion that a definition file alone decides."""

    definition: DefinitionFile

    @property
    def image(self) -> Image:
        """What stands for an image."""
        return self.definition.image

    @property
    def size(self) -> int:
        """Nothing is known of what it will install."""
        return 0

    @property
    def origin(self) -> Mapping[str, str]:
        """The file, and the commit of the checkout."""
        source = f"definition file {self.definition.file.name}"
        return {"commit": self.definition.commit, "source": source}


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a SIF was made, with which tools; ``notes`` are for people.

    ``apptainer`` sees the new SIF; where it has none, any will do. ``env`` is the image's ENV, all
    of which has to arrive; None where a definition file says what the environment is.
    """

    method: str
    tools: Mapping[str, str]
    notes: Sequence[str] = ()
    apptainer: Apptainer | None = None
    env: Sequence[str] | None = None


def read_provenance(parts: tuple[Part, ...]) -> dict[str, Any]:
    """Return what a SIF's data objects say of where it came from; {} where none does."""
    for part in parts:
        if part.name == PROVENANCE:
            try:
                return dict(json.loads(part.content))
            except (ValueError, TypeError):
                return {}
    return {}
