"""The inputs of one conversion: what is converted, how, and what the SIF's records say of it."""

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
# The data object with the provenance record.
PROVENANCE = "sifline.json"
_FORMAT = 1
_DISK_FULL = "no space left on device"


def compression(options: SifOptions) -> Compression:
    """Return how the squashfs of a SIF is compressed."""
    name, level = options.packing
    return Compression(name=name, level=level)


@dataclass(frozen=True, kw_only=True)
class Work(ABC):
    """The inputs of a conversion backend; the caller holds the lock of the SIF.

    ``scratch`` is an empty folder, ``partial`` the file to write.
    """

    context: Context
    options: SifOptions
    scratch: Path
    partial: Path
    log: Path

    @property
    @abstractmethod
    def image(self) -> Image:
        """Return the image, or a placeholder with the SIF's name."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Return the number of bytes to convert, as far as it is known."""

    @property
    @abstractmethod
    def origin(self) -> Mapping[str, str]:
        """Return the source of the SIF, for its labels."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return the recipe of the image; {} if it is unknown."""
        return {}

    @property
    def name(self) -> str:
        """The name of the SIF."""
        return self.image.name

    @property
    def compression(self) -> Compression:
        """Return how the squashfs is compressed."""
        return compression(self.options)

    @property
    def processors(self) -> int:
        """Return how many processors compress; 0 for all."""
        return self.options.processors or 0

    @property
    def labels(self) -> dict[str, str]:
        """Return the SIF's labels about its origin."""
        found = {"name": self.name, **self.origin}
        return {f"{PREFIX}{key}": value for key, value in found.items() if value}

    def provenance(self, made: Made) -> Part:
        """Return the provenance record as a data object; the same input gives the same bytes."""
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
        """Return the error for a failed command of the conversion."""
        full = _DISK_FULL in (result.stdout + result.stderr).lower()
        cause = "the disk is full; make room" if full else result.last
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
        """Return the image."""
        return self.held.image

    @property
    def size(self) -> int:
        """Return its size in the engine."""
        return self.held.size

    @property
    def origin(self) -> Mapping[str, str]:
        """Return the image's name and id, and where it came from."""
        if isinstance(self.held, BuiltImage):
            own = {"fingerprint": self.held.fingerprint, "commit": self.held.commit}
        else:
            own = {"source": self.held.source} if isinstance(self.held, FetchedImage) else {}
        return {"image-digest": self.digest, **own}

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return the recipe of an image of ours."""
        return self.held.recipe if isinstance(self.held, BuiltImage) else {}

    @cached_property
    def inspected(self) -> Mapping[str, Any]:
        """Return the engine's metadata of the image."""
        return Docker(self.context.runner).inspect(self.held.image_id)

    @property
    def digest(self) -> str:
        """Return the digest of the image's layers and configuration."""
        return oci_layout.identity(self.inspected)

    @property
    def env(self) -> Sequence[str]:
        """Return the ENV of the image."""
        return tuple((self.inspected.get("Config") or {}).get("Env") or ())

    def environment(self) -> Path:
        """Write the script that sets the image's ENV into ``scratch``; return its path."""
        path = self.scratch / "environment.sh"
        path.write_bytes(environment.script(self.env))
        path.chmod(environment.MODE)
        return path


@dataclass(frozen=True, kw_only=True)
class DefinitionWork(Work):
    """The conversion of a definition file without an image."""

    definition: DefinitionFile

    @property
    def image(self) -> Image:
        """Return a placeholder with the SIF's name."""
        return self.definition.image

    @property
    def size(self) -> int:
        """Return 0: what it will install is unknown."""
        return 0

    @property
    def origin(self) -> Mapping[str, str]:
        """Return the file, and the commit of the checkout."""
        source = f"definition file {self.definition.file.name}"
        return {"commit": self.definition.commit, "source": source}


@dataclass(frozen=True, kw_only=True)
class Made:
    """How a SIF was made, and with which tools; ``notes`` are for the user.

    ``apptainer`` can see the new SIF; None: any Apptainer can. ``env`` is the image's ENV, to be
    compared; None if a definition file sets the environment.
    """

    method: str
    tools: Mapping[str, str]
    notes: Sequence[str] = ()
    apptainer: Apptainer | None = None
    env: Sequence[str] | None = None


def read_provenance(parts: tuple[Part, ...]) -> dict[str, Any]:
    """Return the provenance record in a SIF's data objects; {} if there is none."""
    for part in parts:
        if part.name == PROVENANCE:
            try:
                return dict(json.loads(part.content))
            except (ValueError, TypeError):
                return {}
    return {}
