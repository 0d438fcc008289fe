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
    Deployment,
    Image,
    Node,
    Partition,
    Quickstart,
    Role,
    Sif,
    SshAccess,
    Status,
    TestReport,
    Workspace,
)
from sifline.report import tables
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
    assert commands(tables.quickstart(done(replace(CLUSTER, name="green")))) == [
        ["validate", "--cluster", "green"],
        ["cluster.shell", "--cluster", "green"],
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

    assert tables.facts([item]).splitlines() == [
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

    assert tables.tested([report]).splitlines() == [
        "x (docker): 3 passed, 0 skipped, 1 warning, 1.0 s",
        "  warning: test_small (inherited from base): too large",
        "  to skip a test, give its reason under [tests.skip] in images/x/image.toml",
    ]
