"""SIF files: those that sifline made, and others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sifline.model.image import Run


@dataclass(frozen=True, kw_only=True)
class SifFile:
    """A complete SIF file, and what its labels say of its image.

    ``image_digest`` is the digest of the image's layers and configuration, not the engine's id.
    ``module`` is the NAME/VERSION of its module on nodes, "" for none; ``run`` are its options.
    """

    name: str
    path: Path
    sha256: str
    size: int
    image_digest: str = ""
    fingerprint: str = ""
    commit: str = ""
    category: str = "custom-images"
    module: str = ""
    run: Run = field(default_factory=Run)


@dataclass(frozen=True, kw_only=True)
class Sif(SifFile):
    """A SIF that sifline made and verified; ``notes`` are messages about its conversion."""

    reused: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FoundSif(SifFile):
    """A SIF file that sifline did not make: the tests of its image are unknown."""
