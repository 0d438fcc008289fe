"""Test results, and the images and SIFs that passed: only those are deployed."""

from __future__ import annotations

from dataclasses import dataclass, field

from sifline.model.plan import BuiltImage
from sifline.model.sif import FoundSif, Sif, SifFile

UNTESTED = "untested"
NOT_TESTED = "not tested"


@dataclass(frozen=True, kw_only=True)
class TestReport:
    """The results of the tests of one image or one SIF.

    ``warnings`` are failed tests of style, each with the reason.
    """

    __test__ = False  # pytest would take the name for a test class

    name: str
    runtime: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    skip_reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Return the counts, for people and for the records on nodes."""
        count = len(self.warnings)
        warned = f", {count} warning{'s' if count > 1 else ''}" if count else ""
        return f"{self.passed} passed, {self.skipped} skipped{warned}"


@dataclass(frozen=True, kw_only=True)
class TestedImage:
    """An image of the engine that passed its tests."""

    __test__ = False

    built: BuiltImage
    report: TestReport


@dataclass(frozen=True, kw_only=True)
class PassedAsImage:
    """A SIF of ours that passed its tests, as did its image."""

    sif: Sif
    image: TestedImage
    report: TestReport

    @property
    def tests(self) -> str:
        """Return the test result of the SIF."""
        return self.report.summary


@dataclass(frozen=True, kw_only=True)
class PassedAsFile:
    """A SIF that sifline did not make, and that passed the tests of every SIF."""

    sif: FoundSif
    report: TestReport

    @property
    def tests(self) -> str:
        """Return the test result, and that only the tests of every SIF were run."""
        return f"{self.report.summary}, the tests of every SIF alone"


@dataclass(frozen=True, kw_only=True)
class Untested:
    """A SIF that is deployed without passing tests (``--untested``)."""

    sif: Sif
    tests: str = field(default=UNTESTED, init=False)


@dataclass(frozen=True, kw_only=True)
class TestedSif:
    """A SIF that may be deployed: it passed its tests, or ``--untested`` was given.

    A SIF of ours is made by ``of``, with its ``TestedImage``, or by ``untested``.
    """

    __test__ = False

    proof: PassedAsImage | PassedAsFile | Untested

    @classmethod
    def of(cls, sif: Sif, image: TestedImage, report: TestReport) -> TestedSif:
        """Return the SIF of an image that passed; ``report`` is of the tests of the SIF itself."""
        return cls(proof=PassedAsImage(sif=sif, image=image, report=report))

    @classmethod
    def from_file(cls, sif: FoundSif, report: TestReport) -> TestedSif:
        """Return a SIF that sifline did not make; ``report`` is of the tests of every SIF."""
        return cls(proof=PassedAsFile(sif=sif, report=report))

    @classmethod
    def untested(cls, sif: Sif) -> TestedSif:
        """Return ``sif`` without tests; the record of its deployment says so."""
        return cls(proof=Untested(sif=sif))

    @property
    def sif(self) -> SifFile:
        """Return the file to deploy."""
        return self.proof.sif

    @property
    def tests(self) -> str:
        """Return the test result, for the record of a deployment."""
        return self.proof.tests
