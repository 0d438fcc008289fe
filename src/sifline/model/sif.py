"""SIF files, and how the tests of an image or a SIF ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

UNTESTED = "untested"


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

    @property
    def summary(self) -> str:
        """The counts, for people and for the records of nodes."""
        return f"{self.passed} passed, {self.skipped} skipped"


@dataclass(frozen=True, kw_only=True)
class TestedSif:
    """A SIF that may be deployed: its tests passed, or somebody said that this does not count.

    ``report`` is None where it is untested.
    """

    __test__ = False

    sif: Sif
    report: TestReport | None

    @classmethod
    def untested(cls, sif: Sif) -> TestedSif:
        """Take ``sif`` as it is: the record of its deployment says so."""
        return cls(sif=sif, report=None)

    @property
    def tests(self) -> str:
        """How its tests ended, for the record of a deployment."""
        return self.report.summary if self.report else UNTESTED
