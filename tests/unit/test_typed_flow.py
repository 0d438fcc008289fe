"""The order of the stages is in their types: mypy finds one that was left out.

A line that mypy refuses says so. If mypy accepted it, the remark would be one too many, which is
an error of ``nox -s typing``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.machine.context import Context
from sifline.model import (
    BuiltImage,
    Cluster,
    FoundSif,
    ProvisionedCluster,
    Sif,
    TestedImage,
    TestedSif,
    TestReport,
)
from sifline.model.tested import PassedAsFile, PassedAsImage
from sifline.stages.deploy import deploy


def of_a_sif_of_ours(sif: Sif, built: BuiltImage, image: TestedImage, report: TestReport) -> None:
    TestedSif.of(sif, image, report)
    TestedSif.untested(sif)
    TestedSif.of(sif, built, report)  # type: ignore[arg-type]
    TestedSif.from_file(sif, report)  # type: ignore[arg-type]
    TestedSif(proof=PassedAsFile(sif=sif, report=report))  # type: ignore[arg-type]
    TestedSif(proof=PassedAsImage(sif=sif, report=report))  # type: ignore[call-arg]
    TestedSif(proof=report)  # type: ignore[arg-type]


def of_a_sif_of_others(found: FoundSif, image: TestedImage, report: TestReport) -> None:
    TestedSif.from_file(found, report)
    TestedSif.from_file(found)  # type: ignore[call-arg]
    TestedSif.of(found, image, report)  # type: ignore[arg-type]
    TestedSif.untested(found)  # type: ignore[arg-type]


def of_a_deployment(
    sif: Sif, tested: TestedSif, cluster: Cluster, ready: ProvisionedCluster, context: Context
) -> None:
    deploy(tested, ready, context)
    deploy(sif, ready, context)  # type: ignore[arg-type]
    deploy(tested, cluster, context)  # type: ignore[arg-type]


def test_a_sif_of_ours_has_passed_with_its_image_alone() -> None:
    sif = Sif(name="x", path=Path("x.sif"), sha256="0", size=1)
    report = TestReport(name="x", runtime="apptainer", passed=1, failed=0, skipped=0, seconds=0)
    with pytest.raises(TypeError, match="image"):
        PassedAsImage(sif=sif, report=report)  # type: ignore[call-arg]
