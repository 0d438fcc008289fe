"""One conversion: what is converted, how, where its files go, and what the SIF says of it."""

from __future__ import annotations

import json
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
from sifline.model import BuiltImage, SifOptions

PREFIX = "org.sifline."
# How the names of definition files end, the templates of some as well.
DEFINITIONS = (".def", ".def.j2")
# The data object that says where the SIF came from.
PROVENANCE = "sifline.json"
_FORMAT = 1
_DISK_FULL = "no space left on device"


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a conversion backend is given; the caller holds the image's lock.

    ``scratch`` is an empty folder, ``partial`` the file to make.
    """

    built: BuiltImage
    context: Context
    options: SifOptions
    scratch: Path
    partial: Path
    log: Path

    @property
    def name(self) -> str:
        """The name of the image, and of the SIF."""
        return self.built.image.name

    @property
    def compression(self) -> Compression:
        """How the squashfs is compressed."""
        return Compression(name=self.options.compression, level=self.options.level)

    @cached_property
    def inspected(self) -> Mapping[str, Any]:
        """What the engine says of the image; {} where there is none."""
        if not self.built.image_id:
            return {}
        return Docker(self.context.runner).inspect(self.built.image_id)

    @property
    def digest(self) -> str:
        """What the image is called in the SIF; "" where there is none. No engine knows it."""
        return oci_layout.identity(self.inspected) if self.built.image_id else ""

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

    @property
    def labels(self) -> dict[str, str]:
        """What the labels of the SIF say of where it came from."""
        built = self.built
        found = {
            "name": self.name,
            "image-digest": self.digest,
            "fingerprint": built.fingerprint,
            "commit": built.commit,
            "source": built.source,
        }
        return {f"{PREFIX}{key}": value for key, value in found.items() if value}

    def provenance(self, made: Made) -> Part:
        """Return the data object that says where the SIF came from, the same every time."""
        built = self.built
        told = {
            "format": _FORMAT,
            "name": self.name,
            "image": {
                "digest": self.digest,
                "fingerprint": built.fingerprint,
                "recipe": built.recipe,
            },
            "bases": {**built.recipe.get("parents", {}), **built.recipe.get("bases", {})},
            "commit": built.commit,
            "conversion": {"method": made.method, "compression": self.compression.mksquashfs},
            "tools": dict(made.tools),
            **({"source": built.source} if built.source else {}),
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
