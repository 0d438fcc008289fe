"""Deploying to real nodes: what is sent, what is noticed, what a killed run leaves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.machine.process import ProcessRunner
from sifline.model import Cluster, Sif
from tests.support.deploying import deploy, forget
from tests.support.deploying import variant as made
from tests.support.engine import Project
from tests.support.groups import shares_cluster
from tests.support.holdings import catalog
from tests.support.moments import Moment, ended_at

pytestmark = [shares_cluster("cluster of deploy and quickstart"), pytest.mark.long]

NAME = "deploy-test"
SIZE = 20_000_000
ENDINGS = (signal.SIGKILL, signal.SIGINT)

# Before a byte is sent; while two of three nodes get theirs; when one has the whole file,
# which nobody looked at yet; when all have it and none uses it; when the first one does.
MOMENTS = (
    Moment(words=": sending"),
    Moment(words="+ rsync", times=3),
    Moment(words="python3 - stage"),
    Moment(words="python3 - switch"),
    Moment(words=" in place"),
)


@pytest.fixture(scope="module")
def ssh(cluster: Cluster, context: Context) -> Iterator[Ssh]:
    with Ssh(cluster, context.runner) as connection:
        yield connection


@pytest.fixture
def sif(cluster: Cluster, ssh: Ssh, tmp_path: Path) -> Iterator[Sif]:
    """A whole SIF of its own, gone from the nodes before and afterwards."""
    for node in cluster.nodes:
        forget(ssh, node, NAME)
    yield variant(tmp_path, 0)
    for node in cluster.nodes:
        forget(ssh, node, NAME)


def variant(folder: Path, number: int) -> Sif:
    return made(folder, number, name=NAME, size=SIZE)


def test_deploying_again_asks_each_node_once_and_sends_nothing(
    cluster: Cluster, context: Context, sif: Sif
) -> None:
    first = deploy(sif, cluster, context)
    commands = list[str]()
    counting = replace(context, runner=ProcessRunner(echo=commands.append))
    again = deploy(sif, cluster, counting)

    assert [item.sent for item in first.placements] == [True] * len(cluster.nodes)
    assert not any(item.sent for item in again.placements)
    # Nothing else takes the time of a node; how the connections are made is ssh's matter.
    asked = [command for command in commands if "python3 -" in command]
    assert len(asked) == len(cluster.nodes)
    assert all("python3 - status" in command for command in asked)
    assert not any("rsync" in command for command in commands)


def test_the_file_on_every_node_is_the_one_that_was_sent(
    cluster: Cluster, context: Context, sif: Sif, ssh: Ssh
) -> None:
    done = deploy(sif, cluster, context)

    for node in cluster.nodes:
        printed = ssh.run(node, ["sha256sum", str(done.path)], user=cluster.job_user).stdout
        assert printed.split()[0] == sif.sha256


def test_the_catalog_of_every_node_knows_what_was_deployed(
    cluster: Cluster, context: Context, sif: Sif
) -> None:
    deploy(replace(sif, commit="abc", fingerprint="f" * 64), cluster, context)

    held = [item for item in catalog(cluster, context) if item.name == NAME]

    assert [item.node for item in held] == [node.name for node in cluster.nodes]
    assert {(item.sha256, item.found, item.size) for item in held} == {
        (sif.sha256, sif.sha256, sif.size)
    }
    assert {(item.commit, item.fingerprint) for item in held} == {("abc", "f" * 64)}


FAILING = """
def test_it_counts(container):
    assert container.run(["sh", "-c", "echo 2"]).stdout == "1\\n"
"""


def test_an_image_whose_tests_fail_is_deployed_only_where_somebody_says_so(
    cluster: Cluster, context: Context, ssh: Ssh, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    name = project.image("bad", "FROM docker.io/sifline/debian-trixie\nRUN touch /made\n")
    (tmp_path / "images" / name / "tests").mkdir()
    (tmp_path / "images" / name / "tests" / "test_bad.py").write_text(FAILING)
    words = (f"deploy.{name}", "--cluster", str(cluster.source))

    def held() -> set[tuple[str, str]]:
        found = catalog(cluster, context)
        return {(item.node, item.tests) for item in found if item.name == name}

    try:
        refused = project.invoke(*words)
        assert (refused.returncode, held()) == (1, set())
        assert f"[test {name}]" in refused.stderr

        done = project.invoke(*words, "--untested")
        assert done.returncode == 0, done.stderr
        assert held() == {(node.name, "untested") for node in cluster.nodes}
    finally:
        project.remove_images()
        for node in cluster.nodes:
            forget(ssh, node, name)


def test_a_damaged_copy_is_noticed_and_replaced(
    cluster: Cluster, context: Context, sif: Sif, ssh: Ssh
) -> None:
    done = deploy(sif, cluster, context)
    node = cluster.compute[0]
    flip = ["dd", f"of={done.path}", "bs=1", "seek=40000", "count=8", "conv=notrunc"]
    ssh.run(node, [*flip, "if=/dev/urandom"], sudo=True)

    again = deploy(sif, cluster, context)

    assert [item.node for item in again.placements if item.sent] == [node.name]
    printed = ssh.run(node, ["sha256sum", str(done.path)]).stdout
    assert printed.split()[0] == sif.sha256


def test_going_back_to_the_version_before_sends_nothing(
    cluster: Cluster, context: Context, sif: Sif, tmp_path: Path
) -> None:
    deploy(sif, cluster, context)
    newer = deploy(variant(tmp_path, 1), cluster, context)

    back = deploy(sif, cluster, context)

    assert {item.sent for item in newer.placements} == {True}
    assert {item.sent for item in back.placements} == {False}
    assert {item.sha256 for item in back.placements} == {sif.sha256}


def test_a_process_that_reads_the_old_file_keeps_it(
    cluster: Cluster, context: Context, sif: Sif, ssh: Ssh, tmp_path: Path
) -> None:
    done = deploy(sif, cluster, context, keep=0)
    node = cluster.compute[0]
    # It holds the file open when ssh returns, reads when it is told to, and waits for a listener.
    go, heard = f"/tmp/{NAME}.go", f"/tmp/{NAME}.heard"
    reader = f"read -r _ < {go}; sha256sum <&3 > {heard}"
    script = f"exec 3< {done.path}; mkfifo {go} {heard}; ({reader}) > /dev/null 2>&1 < /dev/null &"
    ssh.run(node, ["sh", "-euc", script], user=cluster.job_user)
    try:
        newer = deploy(variant(tmp_path, 1), cluster, context, keep=0)
        ask = f"echo go > {go}; cat {heard}; sha256sum < {done.path}"
        printed = ssh.run(node, ["sh", "-euc", ask], user=cluster.job_user).stdout
    finally:
        ssh.run(node, ["rm", go, heard], sudo=True)

    assert [line.split()[0] for line in printed.splitlines()] == [
        sif.sha256,
        newer.placements[0].sha256,
    ]
    assert newer.placements[0].sha256 != sif.sha256


def test_a_node_that_is_down_is_left_behind_and_gets_the_file_when_it_is_back(
    cluster: Cluster, context: Context, sif: Sif
) -> None:
    last = cluster.nodes[-1]
    # A port of this machine's own that nobody listens on.
    gone = replace(last, address="127.0.0.2")
    broken = replace(cluster, nodes=(*cluster.nodes[:-1], gone))

    done = deploy(sif, broken, context)

    (behind,) = done.behind
    assert behind.node == last.name
    assert "does not answer" in behind.why
    held = {item.node for item in catalog(cluster, context) if item.name == NAME}
    assert held == {node.name for node in cluster.nodes[:-1]}
    again = deploy(sif, cluster, context)
    assert [item.node for item in again.placements if item.sent] == [last.name]
    # And all say the same of it, so that a job on two nodes takes one version.
    found = [item for item in catalog(cluster, context) if item.name == NAME]
    assert len({(item.sha256, item.when) for item in found}) == 1


def test_a_registry_without_folders_asks_for_provisioning(
    cluster: Cluster, context: Context, sif: Sif, ssh: Ssh
) -> None:
    node = cluster.compute[0]
    path = f"{cluster.registry_root}/base-images"
    ssh.run(node, ["mv", path, f"{path}.kept"], sudo=True)
    try:
        with pytest.raises(
            StepFailed, match=f"provision --cluster {cluster.name} --stage registry"
        ):
            deploy(sif, cluster, context)
    finally:
        ssh.run(node, ["mv", f"{path}.kept", path], sudo=True)

    assert [item for item in catalog(cluster, context) if item.name == NAME] == []


KILLED = """
import sys
from pathlib import Path
from sifline.config.clusters import load_cluster
from sifline.model import Sif
from sifline.machine.process import ProcessRunner
from tests.support.contexts import context_of
from tests.support.moments import Teller
from tests.support.deploying import deploy, forget
from tests.support.deploying import variant as made

tell = Teller(*sys.argv[1:3])
root, cluster, path, name, sha256 = sys.argv[3:]
deploy(
    Sif(name=name, path=Path(path), sha256=sha256, size=Path(path).stat().st_size),
    load_cluster(Path(cluster)),
    context_of(Path(root), ProcessRunner(echo=tell), progress=tell),
)
"""


@pytest.mark.parametrize(
    "kill", list(product(MOMENTS, ENDINGS)), ids=lambda kill: f"{kill[0]}, {kill[1].name}"
)
def test_the_run_after_a_killed_one_leaves_nothing_half_made(
    cluster: Cluster,
    context: Context,
    sif: Sif,
    ssh: Ssh,
    kill: tuple[Moment, signal.Signals],
) -> None:
    moment, end = kill
    words = [context.workspace.root, cluster.source, sif.path, NAME, sif.sha256]
    # 1: Python's status for an exception; a run that came to its end would have 0.
    assert ended_at(moment, end, KILLED, words) in (1, -end)

    done = deploy(sif, cluster, context)

    assert len(done.placements) == len(cluster.nodes)
    for node in cluster.nodes:
        printed = ssh.run(node, ["sha256sum", str(done.path)]).stdout
        assert printed.split()[0] == sif.sha256
        uploads = f"{cluster.registry_root}/.registry/uploads"
        assert NAME not in ssh.run(node, ["ls", "-A", uploads], sudo=True).stdout
