"""What verbs print when they are done: the next command, unless only results are wanted."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sifline.model import (
    Cluster,
    Deployment,
    Node,
    Partition,
    ProvisionedCluster,
    Role,
    Sif,
    SshAccess,
    TestReport,
    Verb,
    Workspace,
)
from sifline.pipeline.done import Done, Results
from sifline.tasks import cluster, making
from sifline.tasks.support import Run

CLUSTER = Cluster(
    name="second",
    nodes=(Node(name="controller", role=Role.CONTROLLER),),
    ssh=SshAccess(user="admin"),
    partitions=(Partition(name="main"),),
    source=Path("clusters/second.yaml"),
)


def deployment(name: str) -> Deployment:
    sif = Sif(name=name, path=Path(f"{name}.sif"), sha256="a" * 64, size=1)
    path = PurePosixPath(f"/opt/containers/{name}.sif")
    return Deployment(sif=sif, cluster=CLUSTER, path=path, placements=(), seconds=0)


def run(*names: str, quiet: bool = False) -> Run:
    """A call of a task whose pipeline has done everything."""
    done = tuple(map(deployment, names))
    clusters = SimpleNamespace(
        up=lambda _: CLUSTER,
        find=lambda *_, **__: CLUSTER,
        deploy=lambda *_, **__: (done, {}),
        provision=lambda *_, **__: ProvisionedCluster(cluster=CLUSTER),
    )
    work = SimpleNamespace(run=lambda *_, **__: Done(steps=()))

    class Faked(Run):
        def pipeline(self, **_: object) -> Any:
            return SimpleNamespace(clusters=clusters, work=work)

    # Not this checkout, where a cluster may stand.
    return Faked(workspace=Workspace(root=Path("/nowhere")), dry=False, echo=False, quiet=quiet)


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ("", "invoke provision"),
        ("clusters/second.yaml", "invoke provision --cluster second"),
    ],
)
def test_a_cluster_that_is_up_is_to_be_provisioned(
    capsys: pytest.CaptureFixture[str], asked: str, command: str
) -> None:
    cluster.up(run(), (), cluster=asked)

    assert capsys.readouterr().err == f"next: {command}\n"


@pytest.mark.parametrize(("names", "file"), [("x", "/opt/containers/x.sif"), ("xy", "FILE.sif")])
def test_what_is_deployed_is_to_be_run(
    capsys: pytest.CaptureFixture[str], names: str, file: str
) -> None:
    making.deploy(run(*names), cast("Any", [*names]))

    assert capsys.readouterr().err == f"next: on the cluster: srun apptainer exec {file} COMMAND\n"


def test_a_job_on_a_virtual_cluster_is_that_of_its_user(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container root cannot mount an image, so the shell of root is no place for it."""
    space = Workspace(root=tmp_path)
    monkeypatch.setattr(
        sys.modules[__name__],
        "CLUSTER",
        replace(CLUSTER, source=space.clusters / "second" / "cluster.yaml", job_user="alice"),
    )

    making.deploy(replace(run("x"), workspace=space), ["x"])

    assert capsys.readouterr().err == (
        "next: invoke cluster.shell --cluster second --user alice"
        " -- srun apptainer exec /opt/containers/x.sif COMMAND\n"
    )


@pytest.mark.parametrize(
    ("standing", "flag"),
    [((), ""), (("mine",), " --cluster mine"), (("virtual",), ""), (("mine", "virtual"), "")],
)
def test_a_deployment_goes_to_the_cluster_that_stands(
    tmp_path: Path, standing: tuple[str, ...], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    space = Workspace(root=tmp_path)
    for name in standing:
        (space.clusters / name).mkdir(parents=True)
        (space.clusters / name / "cluster.yaml").touch()

    making.make(replace(run(), workspace=space), ["x"])

    assert capsys.readouterr().err == f"next: invoke deploy.x{flag}\n"


@pytest.mark.parametrize(
    ("verb", "command"),
    [
        (making.build, "invoke test.x"),
        (making.test, "invoke convert.x"),
        (making.convert, "invoke deploy.x"),
        (making.make, "invoke deploy.x"),
    ],
)
def test_an_image_goes_on_to_the_next_stage(
    capsys: pytest.CaptureFixture[str], verb: Any, command: str
) -> None:
    verb(run(), ["x"])

    assert capsys.readouterr().err == f"next: {command}\n"


def test_all_images_go_on_together(capsys: pytest.CaptureFixture[str]) -> None:
    making.make(replace(run(), over_all=True), ["x", "y"])

    assert capsys.readouterr().err == "next: invoke deploy --all\n"


@pytest.mark.parametrize(
    ("stage", "told"), [("", "next: invoke validate --cluster second\n"), ("registry", "")]
)
def test_a_provisioned_cluster_is_to_be_validated(
    capsys: pytest.CaptureFixture[str], stage: str, told: str
) -> None:
    cluster.provision(run(), (), cluster="second", stage=stage)

    assert capsys.readouterr().err == told


def test_results_of_tests_that_did_not_run_now_are_told_as_earlier_ones() -> None:
    reports = {
        name: TestReport(
            name=name, runtime="apptainer", passed=2, failed=0, skipped=0, seconds=7.8
        )
        for name in ("old", "new")
    }

    texts = making._texts(Results(sif_reports=reports), {(Verb.TEST_SIF, "old")})

    assert texts[Verb.TEST_SIF].splitlines() == [
        "old (apptainer): 2 passed, 0 skipped, 7.8 s (earlier run)",
        "new (apptainer): 2 passed, 0 skipped, 7.8 s",
    ]


def test_who_wants_results_alone_is_told_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    cluster.up(run(quiet=True), ())
    making.deploy(run("x", quiet=True), ["x"])

    assert capsys.readouterr().err == ""
