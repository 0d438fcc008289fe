"""SIF files: those that sifline makes, and those that it finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class SifFile:
    """A whole SIF file, and what it says of the image that it was made of.

    ``image_digest`` is that of its image's layers and configuration, which no engine calls it by.
    """

    name: str
    path: Path
    sha256: str
    size: int
    image_digest: str = ""
    fingerprint: str = ""
    commit: str = ""
    category: str = "custom-images"


@dataclass(frozen=True, kw_only=True)
class Sif(SifFile):
    """A SIF that sifline made and verified; ``notes`` is what people should know of its making."""

    reused: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FoundSif(SifFile):
    """A SIF that was there: nobody knows which tests the image it was made of passed."""
