from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

import pytest

from sifline.engines.registry import lease
from sifline.engines.ssh.faults import SshFailed
from sifline.errors import StepFailed, UsageError
from sifline.machine.process import Beside, Result
from sifline.machine.streams import Argv
from sifline.model import (
    BuiltImage,
    Cluster,
    FoundSif,
    Image,
    Node,
    Partition,
    ProvisionedCluster,
    Role,
    Sif,
    SshAccess,
    TestedImage,
    TestedSif,
    TestReport,
    WouldDeploy,
)
from sifline.nodeside.registry import RESERVE
from sifline.report import clusters as report_clusters
from sifline.report import planned, screen
from sifline.stages import deploy as stage
from sifline.stages.deploy import (
    Action,
    Survey,
    decide,
    percents,
    shortage,
)
from sifline.stages.inspect import inspect
from tests.support.contexts import context_of
from tests.support.deploying import deploy
from tests.support.recording import answer
from tests.support.remote import begun

SHA = "a" * 64
OTHER = "b" * 64
CONTENT = b"not looked into: the stage asks the SIF reader"
NODES = ("controller", "compute-01", "compute-02")
VERBS = ("ready", "status", "stage", "switch", "lease", "release", "list")
CLUSTER = Cluster(
    name="blue",
    nodes=tuple(
        Node(
            name=name,
            role=Role.CONTROLLER if name == "controller" else Role.COMPUTE,
            address=name,
        )
        for name in NODES
    ),
    ssh=SshAccess(user="admin"),
    partitions=(Partition(name="main"),),
    source=Path("clusters/blue.yaml"),
)
TOLD = {"tests": "untested", "module": "", "run": "", "override": ""}
EMPTY = {
    "current": None,
    "settled": False,
    "held": False,
    "read": False,
    "upload": "/opt/containers/.registry/uploads/x.partial",
    "uploaded": 0,
    "free": 10**12,
    "path": "/opt/containers/custom-images/hello.sif",
    "told": TOLD,
    "offered": True,
    "when": "",
    "foreign": "",
    "fence": 0,
}


REPORT = TestReport(name="hello", runtime="apptainer", passed=7, failed=0, skipped=2, seconds=1.0)
IMAGE = TestedImage(
    built=BuiltImage(
        image=Image(name="hello", folder=Path("hello"), tag="sifline/hello:latest"),
        image_id="sha256:1",
        fingerprint="f",
        size=1,
        reused=True,
    ),
    report=REPORT,
)


def found(sif: Sif) -> FoundSif:
    return FoundSif(name=sif.name, path=sif.path, sha256=sif.sha256, size=sif.size)


def survey(**changes: Any) -> Survey:
    values = {key: EMPTY[key] for key in ("current", "settled", "held", "uploaded", "free")}
    given = {**values, "node": "compute-01", "upload": PurePosixPath("/u"), **changes}
    return Survey(**given)


class Read(NamedTuple):
    """What the reader of SIF files is asked for."""

    size: int


class Nodes:
    """A runner whose ssh and rsync reach registries that live in a table."""

    def __init__(self, **states: dict[str, Any] | str) -> None:
        self.states = {name: states.get(name.replace("-", "_"), dict(EMPTY)) for name in NODES}
        self.sent: list[str] = []
        self.installed: list[str] = []
        self.told: list[str] = []
        self.asked: list[tuple[str, str]] = []

    def which(self, tool: str) -> str | None:
        return tool

    def beside(self, argv: Argv, **_: Any) -> AbstractContextManager[Beside]:
        raise AssertionError(argv)

    def attach(self, argv: Argv, **_: Any) -> int:
        raise AssertionError(argv)

    def stop(self) -> None:
        raise AssertionError("nothing is to be stopped")

    def check(self) -> None:
        """Nothing is stopped."""

    def run(self, argv: Argv, **_: Any) -> Result:
        name = next(name for name in NODES if any(f"admin@{name}" in word for word in argv))
        state = self.states[name]
        if isinstance(state, str):
            return answer(stderr=state, returncode=255)
        if argv[0] == "rsync":
            self.sent.append(name)
            return answer()
        verb = next((verb for verb in VERBS if f" {verb} " in argv[-1]), "")
        if verb:
            self.asked.append((verb, name))
        if verb == "switch":
            self.installed.append(name)
            self.told.append(argv[-1])
        answers = {
            "status": state,
            "stage": {"staged": "1,2,3,4"},
            "switch": {"module": "", "surplus": False},
            "lease": {"number": 1, "now": "2026-05-01T00:00:00.000+00:00"},
        }
        return begun(json.dumps(state.get(verb, answers.get(verb, {}))) if verb else "")


@pytest.fixture
def sif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sif:
    path = tmp_path / "hello.sif"
    path.write_bytes(CONTENT)
    monkeypatch.setattr("sifline.stages.deploy.read_sif", lambda path: Read(path.stat().st_size))
    return Sif(
        name="hello",
        path=path,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
    )


def in_place(sif: Sif) -> dict[str, Any]:
    return {**EMPTY, "current": sif.sha256, "settled": True, "held": True}


@pytest.mark.parametrize(
    ("found", "action"),
    [
        (survey(), Action.SEND),
        (survey(current=OTHER, settled=True), Action.SEND),
        (survey(current=OTHER, settled=True, held=True), Action.SWITCH),
        (survey(current=SHA, settled=False, held=True), Action.SWITCH),
        (survey(current=SHA, settled=False, held=False), Action.SEND),
        (survey(current=SHA, settled=True, held=True), Action.KEEP),
    ],
)
def test_what_a_node_holds_decides_what_it_gets(found: Survey, action: Action) -> None:
    assert decide(SHA, found) is action


def test_what_an_interrupted_upload_left_counts_as_space(sif: Sif) -> None:
    fits = survey(free=RESERVE + 10, uploaded=sif.size - 10)
    lacks = survey(free=RESERVE + 9, uploaded=sif.size - 10)

    assert (shortage(sif, fits), shortage(sif, lacks)) == (0, 1)


def test_a_node_that_gets_nothing_needs_no_space(sif: Sif) -> None:
    assert shortage(sif, survey(current=sif.sha256, settled=True, free=0)) == 0


def test_an_image_goes_to_all_nodes(tmp_path: Path, sif: Sif) -> None:
    nodes = Nodes()

    done = deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert sorted(nodes.sent) == sorted(nodes.installed) == sorted(NODES)
    assert [(item.node, item.sent) for item in done.placements] == [(n, True) for n in NODES]
    assert done.path == PurePosixPath("/opt/containers/custom-images/hello.sif")


PARTLY = replace(CLUSTER, nodes=CLUSTER.nodes[1:2], left_out=(CLUSTER.nodes[0], CLUSTER.nodes[2]))


def test_nodes_that_are_left_out_get_nothing_and_are_named(tmp_path: Path, sif: Sif) -> None:
    nodes = Nodes()

    done = deploy(sif, PARTLY, context_of(tmp_path, nodes))

    assert nodes.sent == nodes.installed == ["compute-01"]
    # The lease is the controller's, though nothing is put there.
    assert {name for verb, name in nodes.asked if verb in {"lease", "release"}} == {"controller"}
    assert report_clusters.deployed([done]).splitlines()[-1] == (
        "hello: deployed to 1 of 3 nodes; left out, unchanged: controller, compute-02"
    )


def test_the_path_on_the_nodes_is_printed_once_and_whole(tmp_path: Path, sif: Sif) -> None:
    done = deploy(sif, CLUSTER, context_of(tmp_path, Nodes()))
    screen.use(screen.Screen(columns=40))
    try:
        lines = report_clusters.deployed([done]).splitlines()
    finally:
        screen.use(screen.PLAIN)

    path = "/opt/containers/custom-images/hello.sif"
    assert [line.strip() for line in lines if "/" in line] == [path]


def test_nodes_are_told_by_a_digest_which_image_it_is_of(tmp_path: Path, sif: Sif) -> None:
    nodes = Nodes()
    deploy(replace(sif, image_digest="sha256:d"), CLUSTER, context_of(tmp_path, nodes))
    assert ['"image_digest": "sha256:d"' in told for told in nodes.told] == [True] * 3


@pytest.mark.parametrize(
    ("tested", "told"),
    [
        (TestedSif.untested, "untested"),
        (lambda sif: TestedSif.of(sif, IMAGE, REPORT), "7 passed, 2 skipped"),
        (
            lambda sif: TestedSif.from_file(found(sif), REPORT),
            "7 passed, 2 skipped, the tests of every SIF alone",
        ),
    ],
    ids=["untested", "of an image", "from a file"],
)
def test_nodes_are_told_how_its_tests_ended(
    tmp_path: Path, sif: Sif, tested: Callable[[Sif], TestedSif], told: str
) -> None:
    nodes = Nodes()
    ready = ProvisionedCluster(cluster=CLUSTER)
    stage.deploy(tested(sif), ready, context_of(tmp_path, nodes))
    assert [f'"tests": "{told}"' in line for line in nodes.told] == [True] * 3


def test_nodes_that_hold_the_digest_are_told_where_its_tests_ended_otherwise(
    tmp_path: Path, sif: Sif
) -> None:
    passed = {**in_place(sif), "told": {**TOLD, "tests": "7 passed, 0 skipped"}}
    nodes = Nodes(controller=in_place(sif), compute_01=passed, compute_02=in_place(sif))
    deploy(sif, CLUSTER, context_of(tmp_path, nodes))
    assert (nodes.sent, sorted(nodes.installed)) == ([], sorted(NODES))


READY: dict[str, Any] = {"ready": {"free": 1}}
DOWN = "ssh: connect to host x port 22: No route to host"


def test_a_cluster_whose_nodes_have_registries_can_be_deployed_to(tmp_path: Path) -> None:
    nodes = Nodes(controller=READY, compute_01=READY, compute_02=DOWN)
    found = inspect(CLUSTER, context_of(tmp_path, nodes))
    # Of the one that does not answer the deployment tells.
    assert found == ProvisionedCluster(cluster=CLUSTER)


def test_a_node_without_a_registry_is_named_with_what_makes_one(tmp_path: Path) -> None:
    none = {"ready": {"error": "no-registry", "message": "/opt/containers has no x"}}
    nodes = Nodes(controller=READY, compute_01=none, compute_02=DOWN)
    with pytest.raises(StepFailed, match=r"compute-01: .* provision --cluster blue --stage reg"):
        inspect(CLUSTER, context_of(tmp_path, nodes))


def test_a_node_whose_sudo_refuses_is_told_before_anything_is_built(tmp_path: Path) -> None:
    nodes = Nodes(controller=READY, compute_01=READY, compute_02=READY)
    answers = nodes.run

    def run(argv: Argv, **options: Any) -> Result:
        if any("admin@compute-02" in word for word in argv) and "sudo" in argv[-1]:
            return answer(stderr="sudo: a password is required", returncode=1)
        return answers(argv, **options)

    nodes.run = run  # type: ignore[method-assign]
    with pytest.raises(SshFailed, match="compute-02"):
        inspect(CLUSTER, context_of(tmp_path, nodes))


def test_a_cluster_of_which_no_node_answers_cannot_be_deployed_to(tmp_path: Path) -> None:
    nodes = Nodes(controller=DOWN, compute_01=DOWN, compute_02=DOWN)
    with pytest.raises(StepFailed, match="not answer"):
        inspect(CLUSTER, context_of(tmp_path, nodes))


def test_nodes_that_hold_the_digest_get_nothing(tmp_path: Path, sif: Sif) -> None:
    nodes = Nodes(controller=in_place(sif), compute_01=in_place(sif))

    done = deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert nodes.sent == ["compute-02"]
    # The others' catalogs say the same.
    assert sorted(nodes.installed) == sorted(NODES)
    assert [item.sent for item in done.placements] == [False, False, True]


def test_where_all_is_in_place_each_node_is_asked_once(tmp_path: Path, sif: Sif) -> None:
    nodes = Nodes(controller=in_place(sif), compute_01=in_place(sif), compute_02=in_place(sif))

    done = deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert sorted(nodes.asked) == sorted(("status", name) for name in NODES)
    assert [item.sent for item in done.placements] == [False] * 3


def test_a_node_that_is_down_is_left_behind_and_named(tmp_path: Path, sif: Sif) -> None:
    nodes = Nodes(compute_01=DOWN)

    done = deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert sorted(nodes.installed) == ["compute-02", "controller"]
    assert [item.node for item in done.placements] == ["controller", "compute-02"]
    assert [item.node for item in done.behind] == ["compute-01"]
    lines = report_clusters.deployed([done]).splitlines()
    assert lines[-2].startswith("hello: behind: compute-01 (compute-01) does not answer")
    assert lines[-1] == "hello: when they answer again: invoke deploy.hello --cluster blue"
    assert report_clusters.deployed_values([done])[0]["behind"] == [
        {"node": "compute-01", "why": done.behind[0].why}
    ]


def test_where_all_nodes_are_required_nothing_is_sent_if_one_is_down(
    tmp_path: Path, sif: Sif
) -> None:
    nodes = Nodes(compute_01=DOWN)
    ready = ProvisionedCluster(cluster=CLUSTER)

    with pytest.raises(StepFailed, match=r"to no node of blue, as --require all asks: compute-01"):
        stage.deploy(TestedSif.untested(sif), ready, context_of(tmp_path, nodes), require_all=True)

    assert (nodes.sent, nodes.installed) == ([], [])


def test_without_the_controller_nothing_is_sent(tmp_path: Path, sif: Sif) -> None:
    nodes = Nodes(controller=DOWN)

    with pytest.raises(SshFailed, match="controller"):
        deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert (nodes.sent, nodes.installed) == ([], [])


def test_a_node_that_is_lost_after_it_got_the_file_is_behind(tmp_path: Path, sif: Sif) -> None:
    nodes = Nodes()
    answers = nodes.run

    def run(argv: Argv, **options: Any) -> Result:
        if " switch " in argv[-1] and any("admin@compute-02" in word for word in argv):
            return answer(stderr=DOWN, returncode=255)
        return answers(argv, **options)

    nodes.run = run  # type: ignore[method-assign]
    done = deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert [item.node for item in done.behind] == ["compute-02"]
    assert sorted(nodes.installed) == ["compute-01", "controller"]


def test_a_node_that_refuses_to_switch_is_named_with_those_that_did(
    tmp_path: Path, sif: Sif
) -> None:
    nodes = Nodes(compute_01={**EMPTY, "switch": {"error": "system", "message": "no space"}})

    with pytest.raises(
        StepFailed, match=r"2 of 3 nodes of blue were switched, and not compute-01: .*no space"
    ):
        deploy(sif, CLUSTER, context_of(tmp_path, nodes))


def test_somebody_elses_lease_is_told_once_its_end_was_waited_for(
    tmp_path: Path, sif: Sif, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "WAIT_SECONDS", 0)
    told = "ada@ws deploys custom-images/hello since 12:00; its lease ends in 9 s if it was killed"
    nodes = Nodes(controller={**EMPTY, "lease": {"error": "leased", "message": told}})

    with pytest.raises(StepFailed, match=r"controller: ada@ws deploys .*; try again then"):
        deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert (nodes.sent, nodes.installed) == ([], [])


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_others_put_in_its_place_is_not_replaced(tmp_path: Path, sif: Sif, kind: str) -> None:
    nodes = Nodes(compute_01={**EMPTY, "foreign": kind})
    ready = ProvisionedCluster(cluster=CLUSTER)
    said = {"file": "is not sifline's; to replace it, add --foreign", "folder": "is a folder"}

    with pytest.raises(StepFailed, match=f"compute-01: /opt/.*hello.sif {said[kind]}"):
        deploy(sif, CLUSTER, context_of(tmp_path, nodes))
    assert nodes.sent == []
    if kind == "file":
        done = stage.deploy(
            TestedSif.untested(sif), ready, context_of(tmp_path, nodes), foreign=True
        )
        assert len(done.placements) == 3


def test_a_missing_registry_stops_before_anything_is_sent(tmp_path: Path, sif: Sif) -> None:
    nodes = Nodes(compute_02={"error": "no-registry", "message": "/opt/containers has no x"})

    with pytest.raises(StepFailed, match="invoke provision --cluster blue --stage registry"):
        deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert nodes.sent == []


def test_a_node_that_cannot_be_written_to_is_named_with_the_way_on(
    tmp_path: Path, sif: Sif
) -> None:
    error = {"error": "system", "message": "[Errno 30] Read-only file system: '/opt/containers'"}
    nodes = Nodes(compute_02=error)

    with pytest.raises(
        StepFailed,
        match=r"no node of blue was switched: compute-02: .*Read-only.*--without compute-02",
    ):
        deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert (nodes.sent, nodes.installed) == ([], [])


def test_a_lease_is_renewed_again_after_the_controller_was_silent_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    asked = list[str]()
    third = threading.Event()

    class Silent:
        def ask(self, node: Node, verb: str, **options: str | int) -> dict[str, Any]:
            asked.append(verb)
            if asked.count("lease") == 2:
                raise StepFailed("it does not answer")
            if asked.count("lease") == 3:
                third.set()
            return {"number": 1, "now": ""}

    given = {"category": "x", "name": "y", "token": "z", "who": "ada", "above": 0}
    silent = cast("Any", Silent())
    with lease.Lease(silent, CLUSTER.controller, **given, progress=print):  # type: ignore[arg-type]
        assert third.wait(60)
    assert asked[-1] == "release"


def test_a_full_disk_stops_before_anything_is_sent(tmp_path: Path, sif: Sif) -> None:
    nodes = Nodes(compute_02={**EMPTY, "free": 5_000_000})

    with pytest.raises(StepFailed, match=r"needs 67\.1 MB free .*: compute-02 has 5\.0 MB"):
        deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert nodes.sent == []


def test_a_copy_that_arrived_wrong_stops_all_before_any_switches(tmp_path: Path, sif: Sif) -> None:
    wrong = {**EMPTY, "stage": {"error": "digest-mismatch", "message": "x has the SHA-256 y"}}
    nodes = Nodes(compute_01=wrong)

    with pytest.raises(
        StepFailed,
        match=r"no node of blue was switched: compute-01: x has the SHA-256 y.*"
        r"or leave it as it is: --without compute-01",
    ):
        deploy(sif, CLUSTER, context_of(tmp_path, nodes))

    assert nodes.installed == []
    # What it held was given back.
    assert ("release", "controller") in nodes.asked


@pytest.mark.parametrize("name", ["../x", "a b", "", "x;y", "x" * 300])
def test_a_bad_name_is_refused_before_any_node_is_asked(
    tmp_path: Path, sif: Sif, name: str
) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        deploy(replace(sif, name=name), CLUSTER, context_of(tmp_path, Nodes()))


def test_an_unknown_category_is_refused(tmp_path: Path, sif: Sif) -> None:
    with pytest.raises(UsageError, match="ml-frameworks"):
        deploy(replace(sif, category="../etc"), CLUSTER, context_of(tmp_path, Nodes()))


def test_a_file_that_changed_its_size_is_refused(tmp_path: Path, sif: Sif) -> None:
    sif.path.write_bytes(CONTENT[:-1])

    with pytest.raises(UsageError, match=r"invoke convert\.hello"):
        deploy(sif, CLUSTER, context_of(tmp_path, Nodes()))


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n" * 100])
def test_a_file_that_is_no_sif_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.sif"
    path.write_bytes(content)
    given = Sif(name="x", path=path, sha256=SHA, size=len(content))

    with pytest.raises(UsageError, match=r"x\.sif"):
        deploy(given, CLUSTER, context_of(tmp_path, Nodes()))


def test_progress_is_told_by_tenths() -> None:
    told: list[str] = []
    read = percents("n", told.append)

    for percent in (1, 9, 10, 11, 19, 25, 34, 99, 100):
        read(f"  1,234  {percent}%  1.00MB/s  0:00:01")

    assert told == ["n: 10 % sent", "n: 25 % sent", "n: 99 % sent"]


def test_what_a_deployment_would_do_is_told_by_node(tmp_path: Path, sif: Sif) -> None:
    held = {**EMPTY, "held": True}
    runner = Nodes(compute_01=in_place(sif), compute_02=held)
    context, ready = context_of(tmp_path, runner), ProvisionedCluster(cluster=CLUSTER)

    told = stage.survey(TestedSif.untested(sif), ready, context)

    assert {node: action.value for node, action in told.items()} == {
        "controller": "send",
        "compute-01": "keep",
        "compute-02": "switch",
    }
    assert (runner.sent, runner.installed) == ([], [])
    done = WouldDeploy(steps=(), nodes={"hello": {key: told[key].value for key in told}})
    assert planned.would_deploy(done).splitlines()[-1] == (
        "hello would be sent to controller; would be switched to on compute-02; is on compute-01"
    )


def test_a_dry_run_names_the_nodes_that_are_left_out(tmp_path: Path, sif: Sif) -> None:
    ready = ProvisionedCluster(cluster=PARTLY)
    told = stage.survey(TestedSif.untested(sif), ready, context_of(tmp_path, Nodes()))
    left_out = ("controller", "compute-02")
    done = WouldDeploy(steps=(), nodes={"hello": told}, left_out=left_out)

    assert {*told} == {"compute-01"}
    assert planned.would_deploy(done).endswith("\nleft out, unchanged: controller, compute-02")
    assert planned.would_deploy_values(done)["left_out"] == left_out


def test_nothing_is_told_of_a_node_that_does_not_answer(tmp_path: Path, sif: Sif) -> None:
    runner = Nodes(compute_02="ssh: connect to host: Connection refused")
    ready = ProvisionedCluster(cluster=CLUSTER)

    told = stage.survey(TestedSif.untested(sif), ready, context_of(tmp_path, runner))

    assert {*told} == {"controller", "compute-01"}
