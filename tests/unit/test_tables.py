"""What people read when a verb is done: the next commands mean the same cluster."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from sifline.config.clusters import find_cluster
from sifline.engines.registry import RegistryRefused, ask
from sifline.errors import UsageError
from sifline.machine.process import Result
from sifline.model import (
    BuiltImage,
    CheckResult,
    Cluster,
    Deployed,
    Deployment,
    Image,
    ImageState,
    ListedCluster,
    Node,
    NodeState,
    Partition,
    Placement,
    Quickstart,
    Role,
    Sif,
    SshAccess,
    StandingCluster,
    Status,
    Step,
    TestReport,
    Verb,
    Workspace,
)
from sifline.report import checks as report_checks
from sifline.report import clusters as report_clusters
from sifline.report import images as report_images
from sifline.report import planned, screen
from sifline.tasks import flags
from sifline.validation.outcome import CheckSkipped
from sifline.validation.probe import Probe, deployed
from tests.support.recording import answer

NODE = Node(name="controller", role=Role.CONTROLLER)
CLUSTER = Cluster(
    name="blue",
    nodes=(NODE, Node(name="n1", role=Role.COMPUTE)),
    ssh=SshAccess(user="admin"),
    partitions=(Partition(name="main"),),
    source=Path("clusters/blue.yaml"),
)


class Answering:
    """A node that answers every command with ``stdout``."""

    def __init__(self, cluster: Cluster, stdout: str) -> None:
        self.cluster = cluster
        self._stdout = stdout

    def run(self, *_: object, **__: object) -> Result:
        return answer(self._stdout)


def commands(text: str) -> list[list[str]]:
    """Return what follows each ``invoke`` in ``text``, word by word, up to the text beside it."""
    found = re.findall(r"\binvoke (\S+(?: --\S+(?: (?:'[^']*'|[^\s;,]+))?)*)", text)
    words = [shlex.split(item.rstrip(".")) for item in found]
    for item in words:
        for here, word in flags.walk(item):
            here.check(word)
        assert flags.of_task(item[0]) is not None, item
    return words


def done(cluster: Cluster) -> Quickstart:
    image = Image(
        name="hello-mpi", folder=Path("images/hello-mpi"), tag="sifline/hello-mpi:latest"
    )
    sif = Sif(name="hello-mpi", path=Path("hello-mpi.sif"), sha256="a" * 64, size=1)
    return Quickstart(
        built=BuiltImage(image=image, image_id="b", fingerprint="", size=1, reused=True),
        sif=sif,
        cluster=cluster,
        deployment=Deployment(
            sif=sif, cluster=cluster, path=PurePosixPath("/x"), placements=(), seconds=0
        ),
        job=CheckResult(
            suite="mpi-job", name="x", status=Status.PASSED, message="fine", seconds=0
        ),
        seconds=(("build", 1.0),),
    )


def test_the_commands_after_a_quickstart_name_its_cluster() -> None:
    assert commands(
        report_clusters.quickstart(done(replace(CLUSTER, name="green", job_user="alice")))
    ) == [
        ["validate", "--cluster", "green"],
        ["cluster.shell", "--cluster", "green", "--user", "alice"],
        ["shell.hello-mpi"],
        ["cluster.down", "--cluster", "green"],
    ]


def test_an_unknown_cluster_is_named_in_the_command_for_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_cluster("green", Workspace(root=tmp_path))
    assert commands(caught.value.message) == [["cluster.up", "--cluster", "green"]]


@pytest.mark.parametrize("asked", ["", "clusters/other name.yaml"])
def test_a_hint_names_the_cluster_as_the_user_did(asked: str) -> None:
    answered = '{"error": "no-registry", "message": "gone"}'
    remote = Answering(replace(CLUSTER, asked=asked), answered)
    with pytest.raises(RegistryRefused) as caught:
        ask(remote, NODE, "list")
    assert commands(caught.value.message)[0][1:3] == ["--cluster", asked or "blue"]


def test_a_check_that_needs_an_image_names_the_cluster_to_deploy_it_to() -> None:
    class Empty(Probe):
        def __init__(self) -> None:
            pass

        cluster = CLUSTER

        def holdings(self, *, read: bool = False) -> dict[str, dict[str, object]]:
            return {"controller": {"images": {}}}

    with pytest.raises(CheckSkipped) as caught:
        deployed(Empty(), "hello-mpi")
    assert commands(str(caught.value)) == [["deploy.hello-mpi", "--cluster", "blue"]]


def test_facts_are_lines_that_people_read_and_keys_that_scripts_do() -> None:
    item = {
        "name": "hello",
        "built_on": ["debian", "other"],
        "image_id": "",
        "size": 247291925,
        "sif_budget": None,
        "sif": {"file_system": "squashfs", "labels": {"own_label": "a_b"}},
    }

    assert report_images.facts([item]).splitlines() == [
        "name: hello",
        "built on: debian, other",
        "image id: -",
        "size: 247 MB (247291925 bytes)",
        "sif budget: -",
        "sif:",
        "  file system: squashfs",
        "  labels:",
        "    own_label: a_b",
    ]


def test_long_facts_are_on_lines_of_their_own_and_no_word_is_broken() -> None:
    digest, recipe = f"sha256:{'0' * 64}", f'{{"steps":"{"x" * 99}"}}'
    item = {
        "image_id": digest,
        "description": "word " * 19 + "end",
        "sif": {"labels": {"sifline.recipe": recipe}},
    }
    screen.use(screen.Screen(columns=80))
    try:
        lines = report_images.facts([item]).splitlines()
    finally:
        screen.use(screen.PLAIN)

    assert lines == [
        *("image id:", f"  {digest}"),
        *("description:" + " word" * 13, "  word word word word word word end"),
        *("sif:", "  labels:", "    sifline.recipe:", f"      {recipe}"),
    ]


LONG = "pytorch-cuda12.1-mpi4.1"
CHECKS = [
    CheckResult(suite=suite, name=name, status=status, message=message, seconds=12.3)
    for suite, name, status, message in (
        ("infrastructure", "munge-credentials-cross-nodes", Status.PASSED, "3 nodes, 3 of 3"),
        ("gpu-resources", "counts-match", Status.FAILED, "a job sees CUDA_VISIBLE_DEVICES=0,1"),
        (
            *("registry", "copies-equal", Status.SKIPPED),
            f"no image is deployed; run: invoke deploy.{LONG} --cluster virtual",
        ),
    )
]


def test_on_80_columns_names_commands_and_variables_of_checks_are_whole() -> None:
    screen.use(screen.Screen(columns=80))
    try:
        text = report_checks.checks(CHECKS)
    finally:
        screen.use(screen.PLAIN)

    assert max(map(len, text.splitlines())) <= 80
    assert {word for item in CHECKS for word in (item.name, *item.message.split())} <= {
        *text.split()
    }
    assert [line for line in text.splitlines() if line in {item.suite for item in CHECKS}] == [
        *("infrastructure", "gpu-resources", "registry")
    ]


def test_in_a_pipe_each_check_names_its_suite_unless_there_is_one() -> None:
    head, *lines = report_checks.checks(CHECKS).splitlines()
    assert head.split()[:3] == ["result", "suite", "check"]
    assert [line.split()[1] for line in lines[:3]] == [item.suite for item in CHECKS]

    head, line, _ = report_checks.checks(CHECKS[:1]).splitlines()
    assert head.split()[:2] == ["result", "check"]
    assert line.split()[:2] == ["passed", "munge-credentials-cross-nodes"]


def test_the_reason_of_a_broken_image_makes_no_column_wider() -> None:
    whole = ImageState(name="whole", stale="", image_id="i", size=1, sif="none", sif_size=0)
    broken = replace(whole, name="bad", error="reason " * 40)

    lines = report_images.states([broken, whole]).splitlines()

    assert max(map(len, lines[:3])) < 80
    assert lines[3].startswith("bad: broken: reason reason")


def test_a_warning_of_a_test_is_counted_and_told_with_the_way_out() -> None:
    report = TestReport(
        name="x",
        runtime="docker",
        passed=3,
        failed=0,
        skipped=0,
        seconds=1.0,
        warnings=("test_small (inherited from base): too large",),
    )

    assert report_images.tested([report], earlier=frozenset()).splitlines() == [
        "x (docker): 3 passed, 0 skipped, 1 warning, 1.0 s",
        "  warning: test_small (inherited from base): too large",
        "  to skip a test, give its reason under [tests.skip] in images/x/image.toml",
    ]
    assert report_images.tested(
        [replace(report, runtime="apptainer")], earlier=frozenset(), told={*report.warnings}
    ).splitlines() == [
        "x (apptainer): 3 passed, 0 skipped, 1 warning, 1.0 s",
        "  warning: test_small (inherited from base), see above",
    ]
    first = report_images.tested([report], earlier={"x"}).splitlines()[0]
    assert first == "x (docker): 3 passed, 0 skipped, 1 warning, 1.0 s (earlier run)"


LONG = "tensorflow2.18-cuda12.5-mpi4.1"
NAMED = replace(CLUSTER, name="second-cluster-of-the-lab", job_user="alice")
PLACE = PurePosixPath(f"/opt/containers/ml-frameworks/{LONG}.sif")
FAR = Deployed(
    cluster=NAMED.name,
    sha256="",
    nodes=("controller",),
    missing=("compute-01", "compute-02"),
    when="",
    current=False,
)


def everywhere() -> dict[str, str]:
    """Every table about images and clusters, of long names and of much that was deployed."""
    image = Image(name=LONG, folder=Path("images") / LONG, tag=f"sifline/{LONG}:latest")
    held = BuiltImage(
        image=image,
        image_id="sha256:" + "b" * 64,
        fingerprint="",
        size=54_690_000_000,
        reused=True,
    )
    sif = Sif(name=LONG, path=Path(f"build/sif/{LONG}.sif"), sha256="a" * 64, size=28_690_000_000)
    state = ImageState(
        name=LONG,
        image_id="b",
        size=54_690_000_000,
        stale="its Dockerfile or context changed",
        sif="its image was built again since",
        sif_size=28_690_000_000,
        tests="passed",
        deployed=(FAR, replace(FAR, cluster="virtual", missing=(), current=True)),
    )
    whole = replace(state, stale="", sif="up to date", signed=True)
    nodes = tuple(
        Node(name=f"compute-gpu-{number:03}", role=Role.COMPUTE, address=f"192.168.100.{number}")
        for number in range(100, 103)
    )
    cluster = replace(NAMED, nodes=nodes)
    placements = tuple(
        Placement(node=node.name, path=PLACE, sha256="a" * 64, sent=True) for node in cluster.nodes
    )
    deployment = Deployment(
        sif=sif, cluster=cluster, path=PLACE, placements=placements, seconds=1.0
    )
    other = "/srv/checkouts/of-another-person"
    standing = StandingCluster(name=NAMED.name, nodes=3, running=3, checkout=other)
    step = Step(image=image, verb=Verb.TEST_SIF, needed=True, reason="its SIF was made again")
    quick = replace(
        done(cluster),
        built=held,
        sif=sif,
        deployment=deployment,
        seconds=tuple((name, 100.0) for name in ("test in Docker", "test the SIF", "cluster up")),
    )
    return {
        "status": report_images.states([state, whole]),
        "status of a stale one": report_images.states(
            [replace(state, deployed=(replace(FAR, cluster="virtual"),))]
        ),
        "status of a whole one": report_images.states(
            [replace(whole, deployed=(replace(FAR, cluster="virtual"),))]
        ),
        "build": report_images.built([held]),
        "convert": report_images.converted([sif]),
        "deploy": report_clusters.deployed([deployment]),
        "nodes": report_clusters.nodes(cluster),
        "cluster.status": report_clusters.node_states(
            [
                NodeState(
                    node=node.name,
                    role="compute",
                    address=node.address,
                    state="running",
                    checkout=standing.checkout,
                )
                for node in nodes
            ]
        ),
        "cluster.list": report_clusters.clusters(
            [
                ListedCluster(
                    name=NAMED.name, file=Path(f"clusters/{NAMED.name}.yaml"), standing=standing
                )
            ]
        ),
        "plan": planned.plan([step], {}),
        "quickstart": report_clusters.quickstart(quick),
        "checks": report_checks.checks(CHECKS),
    }


@pytest.mark.parametrize("name", everywhere())
def test_every_table_fits_a_terminal_of_80_columns(name: str) -> None:
    screen.use(screen.Screen(columns=80))
    try:
        text = everywhere()[name]
    finally:
        screen.use(screen.PLAIN)

    assert [line for line in text.splitlines() if len(line) > 80] == []
