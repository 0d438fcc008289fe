"""Where a checkout keeps its files, and how a stage tells what it is doing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where one checkout keeps what sifline reads and what it makes."""

    root: Path

    @property
    def images(self) -> Path:
        """The folder whose sub-folders are the images."""
        return self.root / "images"

    @property
    def build(self) -> Path:
        """Everything sifline writes; deleting it loses work, never sources."""
        return self.root / "build"

    @property
    def sifs(self) -> Path:
        """The converted images, ``<name>.sif``."""
        return self.build / "sif"

    @property
    def records(self) -> Path:
        """What was made of what: a folder per image, a JSON file per verb."""
        return self.build / "records"

    @property
    def logs(self) -> Path:
        """Full output of the tools, one file per step."""
        return self.build / "logs"

    @property
    def caches(self) -> Path:
        """What was read before; deleting it costs time alone."""
        return self.build / "cache"

    def needs(self, image_id: str) -> Path:
        """Path of what is remembered of the needs of an image of the engine."""
        return self.caches / "compatibility" / f"{image_id.rpartition(':')[2]}.json"

    @property
    def resolved(self) -> Path:
        """Dockerfiles as they are built, every image they stand on named for certain."""
        return self.build / "resolved"

    def record(self, name: str, kind: str) -> Path:
        """Path of the record of that kind (``convert``, ``test-docker``, …) of an image."""
        return self.records / name / f"{kind}.json"

    @property
    def clusters(self) -> Path:
        """State of virtual clusters, one folder each."""
        return self.build / "clusters"

    def sif(self, name: str) -> Path:
        """Path of the SIF of the image ``name``."""
        return self.sifs / f"{name}.sif"


class Progress(Protocol):
    """How a stage tells a person what it is doing."""

    def __call__(self, text: str) -> None:
        """Say what is being done now; one short line."""
