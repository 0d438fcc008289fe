"""The results of a plan: what each stage returned, and the errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sifline.config.image_names import refuse_broken
from sifline.errors import SiflineError
from sifline.model import BuiltImage, Sif, Step, TestedImage, TestedSif, TestReport, Verb

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of the stages, by image name; each step of a plan adds its own.

    A SIF may be tested without its image: that gives a report, but no ``TestedSif``.
    """

    built: dict[str, BuiltImage] = field(default_factory=dict)
    tested: dict[str, TestedImage] = field(default_factory=dict)
    sifs: dict[str, Sif] = field(default_factory=dict)
    sif_reports: dict[str, TestReport] = field(default_factory=dict)

    def tested_sif(self, name: str) -> TestedSif:
        """Return the SIF of an image, if both passed their tests."""
        return TestedSif.of(self.sifs[name], self.tested[name], self.sif_reports[name])

    def ordered(self, steps: Sequence[Step]) -> Results:
        """Return the same results in the order of the plan; steps end in any order."""

        def in_order(verb: Verb, found: Mapping[str, T]) -> dict[str, T]:
            names = (step.image.name for step in steps if step.verb is verb)
            return {name: found[name] for name in names if name in found}

        return Results(
            built=in_order(Verb.BUILD, self.built),
            tested=in_order(Verb.TEST, self.tested),
            sifs=in_order(Verb.CONVERT, self.sifs),
            sif_reports=in_order(Verb.TEST_SIF, self.sif_reports),
        )


@dataclass(frozen=True, kw_only=True)
class Done:
    """The results and errors of a plan.

    ``broken`` are the images whose files cannot be used, so that no step exists for them.
    """

    steps: tuple[Step, ...]
    results: Results = field(default_factory=Results)
    failure: SiflineError | None = None
    broken: Mapping[str, SiflineError] = field(default_factory=dict)

    def check(self) -> Results:
        """Return the results of the plan; raise its errors if there were any."""
        if self.failure:
            raise self.failure
        refuse_broken(self.broken)
        return self.results
