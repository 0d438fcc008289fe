"""Where a checkout keeps its files, and the protocol of progress messages."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """The paths of the files that sifline reads and writes in one checkout.

    Those that a plan of many images asks for again and again are put together once.
    """

    root: Path

    @cached_property
    def images(self) -> Path:
        """Return the folder whose sub-folders are the images."""
        return self.root / "images"

    @cached_property
    def build(self) -> Path:
        """Return the folder of everything sifline writes; it holds no sources."""
        return self.root / "build"

    @cached_property
    def sifs(self) -> Path:
        """Return the folder of the SIFs, ``<name>.sif``."""
        return self.build / "sif"

    @cached_property
    def records(self) -> Path:
        """Return the folder of the records: a folder per image, a JSON file per verb."""
        return self.build / "records"

    @property
    def logs(self) -> Path:
        """Return the folder of the logs: full output of the tools, one file per step."""
        return self.build / "logs"

    @property
    def caches(self) -> Path:
        """Return the folder of caches; deleting it only costs time."""
        return self.build / "cache"

    def needs(self, image_id: str) -> Path:
        """Return the path of the cached compatibility report of an image of the engine."""
        return self.caches / "compatibility" / f"{image_id.rpartition(':')[2]}.json"

    @property
    def resolved(self) -> Path:
        """Return the folder of Dockerfiles as they are built, with exact references."""
        return self.build / "resolved"

    def record(self, name: str, kind: str) -> Path:
        """Return the path of an image's record of that kind (``convert``, ``test-docker``, …)."""
        return self.records.joinpath(name, f"{kind}.json")

    @property
    def clusters(self) -> Path:
        """Return the folder of virtual clusters, one sub-folder each."""
        return self.build / "clusters"

    def sif(self, name: str) -> Path:
        """Return the path of the SIF of the image ``name``."""
        return self.sifs / f"{name}.sif"


class Progress(Protocol):
    """Prints progress messages of a stage."""

    def __call__(self, text: str) -> None:
        """Print what is being done now, in one short line."""
