"""SIF files, and how the tests of an image or a SIF ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Sif:
    """A finished, verified SIF file; ``notes`` is what people should know of its making.

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
    reused: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TestReport:
    """What the tests of one image said."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    name: str
    runtime: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    skip_reasons: tuple[str, ...] = ()
