"""What status knows without asking a node: tests, signatures, deployments, and durations."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from sifline import virtual
from sifline.errors import StepFailed
from sifline.formats import sif as sif_format
from sifline.machine import records
from sifline.model import (
    BuiltImage,
    Cluster,
    Deployed,
    Deployment,
    Image,
    ImageState,
    Node,
    Partition,
    Placement,
    ProvisionedCluster,
    Role,
    Sif,
    SshAccess,
    Step,
    TestedSif,
    TestReport,
    Verb,
    Workspace,
)
from sifline.model.catalog import CatalogImage, RolledBack, Version
from sifline.pipeline import Pipeline, deployments
from sifline.report import images as report_images
from sifline.report.terminal import Terminal
from sifline.stages import build, convert, deploy, imagetest
from sifline.stages.imagetest import TestsFailed
from sifline.virtual import Description
from tests.support import sif_files
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner

SHA = "a" * 64
NODE = Node(name="controller", role=Role.CONTROLLER)
LAB = Cluster(
    name="lab",
    nodes=(NODE,),
    ssh=SshAccess(user="admin"),
    partitions=(Partition(name="main"),),
    source=Path("clusters/lab.yaml"),
)
SIF = Sif(name="x", path=Path("x.sif"), sha256=SHA, size=1)
REPORT = TestReport(name="x", runtime="docker", passed=1, failed=0, skipped=0, seconds=12.5)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    tests = tmp_path / "images" / "x" / "tests"
    tests.mkdir(parents=True)
    (tests.parent / "Dockerfile").write_text("FROM scratch\n")
    (tests / "test_x.py").write_text("def test_x() -> None: ...\n")
    return Pipeline(context_of(tmp_path, RecordingRunner()), Terminal(quiet=True))


def image(pipeline: Pipeline) -> BuiltImage:
    found = pipeline.planner.images["x"]
    return BuiltImage(image=found, image_id="sha256:1", fingerprint="f", size=9, reused=True)


# Deployments


def done(*, sha256: str = SHA) -> Deployment:
    place = Placement(node="controller", path=PurePosixPath("/x.sif"), sha256=sha256, sent=True)
    made = replace(SIF, sha256=sha256)
    return Deployment(
        sif=made, cluster=LAB, path=PurePosixPath("/x.sif"), placements=(place,), seconds=3.21
    )


def deployed_by(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, result: Deployment | StepFailed
) -> None:
    """Deploy where the stage, which would go to the nodes, ends so."""

    def stage(*_: object, **__: object) -> Deployment:
        if isinstance(result, StepFailed):
            raise result
        return result

    monkeypatch.setattr(deploy, "deploy", stage)
    pipeline.clusters.deployed(TestedSif.untested(SIF), ProvisionedCluster(cluster=LAB))


def known(tmp_path: Path) -> tuple[Deployed, ...]:
    return deployments.known("x", Workspace(root=tmp_path), sha256=SHA)


def test_a_deployment_is_recorded_with_its_nodes(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed_by(pipeline, monkeypatch, done())

    (found,) = known(tmp_path)
    assert (found.cluster, found.nodes, found.current) == ("lab", ("controller",), True)
    assert found.when.endswith("+00:00")
    assert deployments.seconds("x", LAB, Workspace(root=tmp_path)) == 3.2


def test_a_deployment_of_another_sif_is_not_current(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed_by(pipeline, monkeypatch, done(sha256="b" * 64))

    assert [item.current for item in known(tmp_path)] == [False]


def test_a_deployment_that_failed_is_none_of_which_anything_is_known(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed_by(pipeline, monkeypatch, done())
    with pytest.raises(StepFailed):
        deployed_by(pipeline, monkeypatch, StepFailed("x is on 1 of 2 nodes"))

    (found,) = known(tmp_path)
    assert (found.error, found.current) == ("x is on 1 of 2 nodes", True)
    assert found.nodes == tuple(place.node for place in done().placements)


def test_a_deployment_to_some_nodes_adds_to_those_before(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = done().placements
    lab = replace(LAB, nodes=(*LAB.nodes, replace(LAB.nodes[0], name="extra")))
    places = tuple(replace(place, node=node.name) for node in lab.nodes)
    whole = replace(done(), cluster=lab, placements=places)
    part = replace(whole, placements=whole.placements[-1:])
    deployed_by(pipeline, monkeypatch, whole)
    deployed_by(pipeline, monkeypatch, part)
    (same,) = known(tmp_path)
    deployed_by(pipeline, monkeypatch, replace(part, sif=replace(part.sif, sha256="c" * 64)))
    (other,) = known(tmp_path)

    names = tuple(place.node for place in whole.placements)
    assert (same.nodes, same.missing) == (names, ())
    assert (other.nodes, other.missing) == (names[-1:], names[:-1])
    assert (
        report_images._deployed_to(replace(other, current=True))
        == f"lab (1 of {len(names)} nodes)"
    )


def test_what_was_deployed_to_a_cluster_that_is_gone_is_forgotten(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployments.remember(done(), Workspace(root=tmp_path))
    other = replace(done(), cluster=replace(LAB, name="other"))
    deployments.remember(other, Workspace(root=tmp_path))
    monkeypatch.setattr(virtual, "down", lambda *_, **__: ("lab-controller",))

    pipeline.clusters.down("lab")

    assert [item.cluster for item in known(tmp_path)] == ["other"]


def rolled_back(*names: str) -> RolledBack:
    """A rollback of the image to ``SHA`` on these nodes."""
    image = CatalogImage(name="x", category="custom", path=PurePosixPath("/x.sif"), current=None)
    actions = tuple((name, "switch") for name in names)
    return RolledBack(image=image, cluster=LAB, version=Version(sha256=SHA), actions=actions)


def test_after_a_rollback_status_shows_the_version_put_back(tmp_path: Path) -> None:
    space = Workspace(root=tmp_path)
    deployments.remember_switch(rolled_back("controller"), space)
    unknown = known(tmp_path)
    deployments.remember(done(sha256="b" * 64), space)
    deployments.remember_failure("x", LAB, "it failed", space)

    deployments.remember_switch(rolled_back("controller"), space)

    (found,) = known(tmp_path)
    assert unknown == ()
    assert (found.sha256, found.current, found.error) == (SHA, True, "")
    assert found.nodes == ("controller",)


def test_what_was_undeployed_is_no_longer_shown(tmp_path: Path) -> None:
    space = Workspace(root=tmp_path)
    deployments.remember(done(), space)

    deployments.forget_image("x", LAB, space)

    assert known(tmp_path) == ()


# Tests


def run_tests(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, result: TestReport | StepFailed
) -> None:
    """Test the image where its tests, which would start containers, end so."""

    def stage(*_: object, **__: object) -> TestReport:
        if isinstance(result, StepFailed):
            raise result
        return result

    monkeypatch.setattr(imagetest, "imagetest", stage)
    pipeline.planner.testing.test(image(pipeline), nullcontext(""))


def states(pipeline: Pipeline) -> tuple[str, str]:
    held = image(pipeline)
    return pipeline.planner.testing.states(held.image, held)


def test_tests_passed_failed_or_were_not_run(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [states(pipeline)[0]]
    run_tests(pipeline, monkeypatch, REPORT)
    found.append(states(pipeline)[0])
    with pytest.raises(StepFailed):
        run_tests(pipeline, monkeypatch, TestsFailed("testing x: 1 failed"))
    found.append(states(pipeline)[0])
    (tmp_path / "images" / "x" / "tests" / "test_x.py").write_text("# another\n")
    found.append(states(pipeline)[0])

    assert found == ["not tested", "passed", "failed", "not tested"]


def test_an_image_that_is_not_there_is_not_tested(pipeline: Pipeline) -> None:
    held = image(pipeline)
    assert pipeline.planner.testing.states(held.image, None) == ("not tested", "not tested")


def state(**changes: str) -> ImageState:
    usual = {"tests": "passed", "sif_tests": "passed", "sif": "up to date", **changes}
    return ImageState(name="x", image_id="i", size=1, stale="", sif_size=1, **usual)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        (state(), "passed"),
        (state(sif_tests="failed"), "failed (SIF)"),
        (state(sif_tests="not tested"), "untested (SIF)"),
        (state(sif_tests="not tested", sif="none"), "passed"),
        (state(tests="failed", sif_tests="not tested", sif="none"), "failed"),
    ],
)
def test_the_table_says_which_tests_are_missing(item: ImageState, shown: str) -> None:
    assert re.split(" {2,}", report_images.states([item]).splitlines()[1])[3] == shown


# Signatures


def test_a_sif_with_a_signature_is_told_from_one_without(tmp_path: Path) -> None:
    plain, signed = tmp_path / "plain.sif", tmp_path / "signed.sif"
    sif_files.write(plain, [sif_files.SQUASHFS])
    signature = (int(sif_format.Kind.SIGNATURE), "part-signature", b"x" * 99)
    sif_files.write(signed, [sif_files.SQUASHFS, signature])

    found = [convert.signed(path) for path in (plain, signed, tmp_path / "none.sif")]
    assert found == [False, True, False]


# Durations


class Announced(Terminal):
    """A terminal that remembers what it was told to expect."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.steps: dict[str, float | None] = {}

    def expect(self, steps: object, *, workers: int = 0) -> None:
        assert isinstance(steps, dict)
        self.steps |= steps


def test_steps_are_announced_with_how_long_they_took_the_last_time(tmp_path: Path) -> None:
    space, show = Workspace(root=tmp_path), Announced()
    space.images.mkdir()
    records.write(space.record("x", "build-1"), {"built": 1, "seconds": 99.0})
    records.write(space.record("x", "build-2"), {"built": 2, "seconds": 40.0})
    records.write(space.record("x", "test-docker"), {"key": {}, "report": vars(REPORT)})
    records.write(space.record("x", "convert"), {"sha256": SHA})  # says nothing of a duration
    work = Pipeline(context_of(tmp_path, RecordingRunner()), show).work
    one = Image(name="x", folder=tmp_path, tag="")

    work.expect(
        [
            *(Step(verb=verb, image=one, reason="", needed=True) for verb in Verb),
            Step(image=replace(one, name="kept"), reason="", needed=False),
        ]
    )

    assert show.steps == {
        "build x": 40.0,
        "test x": 12.5,
        "convert x": None,
        "test the SIF x": None,
    }


def test_nobody_knows_how_long_the_first_build_takes(tmp_path: Path) -> None:
    assert build.last_seconds("x", Workspace(root=tmp_path)) is None


def test_a_quickstart_announces_all_its_steps_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = Announced()
    pipeline = Pipeline(context_of(tmp_path, RecordingRunner()), show)
    for name in ("hello-mpi", "slurm-node", "toolbox"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "Dockerfile").write_text("FROM scratch\n")
    engine = "sifline.engines.docker"
    monkeypatch.setattr(f"{engine}.images.all_images", lambda _: [])
    monkeypatch.setattr(f"{engine}.engine.is_local", lambda: True)
    described = Description.__new__(Description)
    object.__setattr__(described, "name", "virtual")
    monkeypatch.setattr(pipeline.clusters, "described", lambda _: described)
    monkeypatch.setattr(virtual, "refuse_foreign", lambda *_: None)
    monkeypatch.setattr(pipeline.planner, "need_toolbox", lambda *_: True)

    class Begun(Exception):
        pass

    def begin(_: object) -> None:
        raise Begun

    monkeypatch.setattr(pipeline.work, "build", begin)

    with pytest.raises(Begun):
        pipeline.quickstart("virtual")

    assert set(show.steps) == {
        *("build hello-mpi", "build slurm-node", "build toolbox"),
        *("test hello-mpi", "convert hello-mpi", "test the SIF hello-mpi"),
        *("cluster.up virtual", "provision virtual", "deploy hello-mpi", "validate virtual"),
    }
