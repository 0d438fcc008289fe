"""How tests ended, and the images and SIFs that passed theirs: only those are deployed."""

from __future__ import annotations

from dataclasses import dataclass, field

from sifline.model.plan import BuiltImage
from sifline.model.sif import FoundSif, Sif, SifFile

UNTESTED = "untested"


@dataclass(frozen=True, kw_only=True)
class TestReport:
    """What the tests of one image, or of one SIF, said."""

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
class TestedImage:
    """An image of the engine whose tests passed there."""

    __test__ = False

    built: BuiltImage
    report: TestReport


@dataclass(frozen=True, kw_only=True)
class PassedAsImage:
    """A SIF of ours that passed its tests, and so did the image that it was made of."""

    sif: Sif
    image: TestedImage
    report: TestReport

    @property
    def tests(self) -> str:
        """How the tests of the SIF ended."""
        return self.report.summary


@dataclass(frozen=True, kw_only=True)
class PassedAsFile:
    """A SIF of others that passed the tests of every SIF; it has no others."""

    sif: FoundSif
    report: TestReport

    @property
    def tests(self) -> str:
        """How these tests ended, and that there were no others."""
        return f"{self.report.summary}, the tests of every SIF alone"


@dataclass(frozen=True, kw_only=True)
class Untested:
    """A SIF of which somebody said that its tests do not count."""

    sif: Sif
    tests: str = field(default=UNTESTED, init=False)


@dataclass(frozen=True, kw_only=True)
class TestedSif:
    """A SIF that may be deployed: its tests passed, or somebody said that they do not count.

    A SIF of ours gets here with the ``TestedImage`` that it was made of, or as ``untested``.
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
        """Take ``sif`` as it is: the record of its deployment says so."""
        return cls(proof=Untested(sif=sif))

    @property
    def sif(self) -> SifFile:
        """The file that is deployed."""
        return self.proof.sif

    @property
    def tests(self) -> str:
        """How its tests ended, for the record of a deployment."""
        return self.proof.tests
