"""What is deployed to real nodes: looked at, rolled back and removed beside jobs that read it."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed, UsageError
from sifline.machine.context import Context
from sifline.model import Cluster, Node, Sif
from sifline.model.catalog import CatalogImage, Removed
from sifline.stages.deployed import catalog, removal, rollback
from tests.support.command import ROOT, invoke
from tests.support.deploying import deploy, forget
from tests.support.deploying import variant as made
from tests.support.engine import Project
from tests.support.groups import shares_cluster
from tests.support.moments import Moment, ended_at

pytestmark = [shares_cluster("cluster of deploy and quickstart"), pytest.mark.long]

NAME = "deployed-test"
KEY = f"custom-images/{NAME}"
SIZE = 2_000_000
COMMITS = ("c0ffee11", "c0ffee22")
# Each node reads its file; two of three nodes have switched.
MOMENTS = (Moment(words="python3 - verify", times=2), Moment(words=": switched to", times=2))

Prune = Callable[[], Removed]


@pytest.fixture(scope="module")
def ssh(cluster: Cluster, context: Context) -> Iterator[Ssh]:
    with Ssh(cluster, context.runner) as connection:
        yield connection


@pytest.fixture
def sifs(cluster: Cluster, context: Context, ssh: Ssh, tmp_path: Path) -> Iterator[list[Sif]]:
    """Two versions that were deployed one after the other, gone from the nodes afterwards."""
    found = [
        replace(made(tmp_path, number, name=NAME, size=SIZE), commit=COMMITS[number])
        for number in range(2)
    ]
    for sif in found:
        deploy(sif, cluster, context)
    yield found
    for node in cluster.nodes:
        forget(ssh, node, NAME)


def image(cluster: Cluster, context: Context) -> CatalogImage:
    return catalog.find(catalog.read(cluster, context), KEY)


def in_place(ssh: Ssh) -> dict[str, str]:
    """What a job would read on each node: its digest, "" if there is no file."""
    path = f"{ssh.cluster.registry_root}/{KEY}.sif"
    asked = {
        node.name: ssh.run(node, ["sha256sum", path], check=False) for node in ssh.cluster.nodes
    }
    return {name: done.stdout.split()[0] if done.ok else "" for name, done in asked.items()}


def files(ssh: Ssh, node: Node) -> set[str]:
    """The digests of the versions on a node."""
    folder = f"{ssh.cluster.registry_root}/.registry/versions/{KEY}"
    listed = ssh.run(node, ["ls", folder], sudo=True, check=False).stdout.split()
    return {name.removesuffix(".sif") for name in listed}


def everywhere(cluster: Cluster, sif: Sif) -> dict[str, str]:
    return {node.name: sif.sha256 for node in cluster.nodes}


def version_path(cluster: Cluster, sif: Sif) -> str:
    return f"{cluster.registry_root}/.registry/versions/{KEY}/{sif.sha256}.sif"


def cut_off(cluster: Cluster) -> Cluster:
    """The cluster with a last node that does not answer."""
    # A port of this machine's own that nobody listens on.
    return replace(
        cluster, nodes=(*cluster.nodes[:-1], replace(cluster.nodes[-1], address="127.0.0.2"))
    )


@contextmanager
def reading(ssh: Ssh, node: Node, path: str) -> Iterator[None]:
    """A process of the job user that holds a file open."""
    pid = f"/tmp/{NAME}.pid"
    script = (
        f"exec 3< {path}; (echo $BASHPID > {pid}; exec sleep 600) > /dev/null 2>&1 < /dev/null &"
    )
    ssh.run(node, ["bash", "-euc", script], user=ssh.cluster.job_user)
    try:
        yield
    finally:
        end = f"while ! test -s {pid}; do sleep 0.1; done; kill $(cat {pid}); rm {pid}"
        ssh.run(node, ["bash", "-euc", end], sudo=True)


@contextmanager
def queued(ssh: Ssh, command: str) -> Iterator[str]:
    """A job in the queue whose batch script has ``command``; its number."""
    user = ssh.cluster.job_user
    words = ["sbatch", "--parsable", "--hold", "--output=/dev/null", f"--wrap={command}"]
    number = ssh.run(ssh.cluster.controller, words, user=user).stdout.strip()
    try:
        yield number
    finally:
        ssh.run(ssh.cluster.controller, ["scancel", number], user=user)


def test_the_catalog_names_a_node_that_is_down_and_shows_the_others(
    cluster: Cluster, context: Context, sifs: list[Sif]
) -> None:
    found = catalog.read(cut_off(cluster), context)

    last = cluster.nodes[-1].name
    assert [name for name, _ in found.silent] == [last]
    shown = catalog.find(found, NAME)
    assert shown.current
    assert (shown.current.sha256, shown.current.commit) == (sifs[1].sha256, COMMITS[1])
    assert shown.current.nodes == tuple(node.name for node in cluster.nodes[:-1])
    assert [(item.node, item.why) for item in shown.behind] == [(last, "no answer")]


def test_a_rollback_puts_the_version_before_on_every_node_and_is_remembered(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    dry = rollback.rollback(cluster, NAME, context, dry=True)
    untouched = in_place(ssh)
    done = rollback.rollback(cluster, NAME, context)

    assert untouched == everywhere(cluster, sifs[1])
    assert dry.actions == done.actions == tuple((node.name, "switch") for node in cluster.nodes)
    assert in_place(ssh) == everywhere(cluster, sifs[0])
    found = image(cluster, context)
    assert [event.what for event in found.history] == ["deployed", "deployed", "rolled back"]
    assert found.history[-1].version.who
    assert found.history[-1].version.commit == COMMITS[0]
    assert found.behind == ()
    with pytest.raises(UsageError, match="before the one in place"):
        rollback.rollback(cluster, NAME, context)

    rollback.rollback(cluster, NAME, context, to=COMMITS[1])
    assert in_place(ssh) == everywhere(cluster, sifs[1])


def test_a_damaged_copy_on_one_node_stops_a_rollback_before_any_node_switches(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    node = cluster.compute[-1]
    path = version_path(cluster, sifs[0])
    # The catalog's times of it are still right.
    flip = f"touch -r {path} /tmp/{NAME}.times; printf wrong | dd of={path} bs=1 seek=5000"
    flip += f" conv=notrunc; touch -r /tmp/{NAME}.times {path}; rm /tmp/{NAME}.times"
    ssh.run(node, ["sh", "-euc", flip], sudo=True)

    with pytest.raises(StepFailed, match=rf"no node was switched: {node.name}: .* is damaged"):
        rollback.rollback(cluster, NAME, context)

    assert in_place(ssh) == everywhere(cluster, sifs[1])


def test_a_node_without_the_version_is_named_and_can_be_left_out(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    node = cluster.nodes[-1]
    ssh.run(node, ["rm", version_path(cluster, sifs[0])], sudo=True)

    way_out = rf"{node.name}: no file of .* --without {node.name}"
    with pytest.raises(StepFailed, match=way_out):
        rollback.rollback(cluster, NAME, context)
    rest = replace(cluster, nodes=cluster.nodes[:-1], left_out=(node,))
    rollback.rollback(rest, NAME, context)

    assert in_place(ssh) == {**everywhere(cluster, sifs[0]), node.name: sifs[1].sha256}
    assert [item.node for item in image(cluster, context).behind] == [node.name]


def test_a_node_that_is_down_stays_behind_and_is_named(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    done = rollback.rollback(cut_off(cluster), NAME, context)

    last = cluster.nodes[-1].name
    assert [name for name, _ in done.silent] == [last]
    assert in_place(ssh) == {**everywhere(cluster, sifs[0]), last: sifs[1].sha256}


ENDED = """
import sys
from pathlib import Path
from sifline.config.clusters import load_cluster
from sifline.machine.process import ProcessRunner
from sifline.stages.deployed import rollback
from tests.support.contexts import context_of
from tests.support.moments import Teller

tell = Teller(*sys.argv[1:3])
root, cluster, name = sys.argv[3:]
context = context_of(Path(root), ProcessRunner(echo=tell), progress=tell)
rollback.rollback(load_cluster(Path(cluster)), name, context)
"""


@pytest.mark.parametrize(
    "kill",
    list(product(MOMENTS, (signal.SIGKILL, signal.SIGINT))),
    ids=lambda kill: f"{kill[0]}, {kill[1].name}",
)
def test_a_rollback_that_was_killed_is_finished_by_naming_the_version(
    cluster: Cluster,
    context: Context,
    ssh: Ssh,
    sifs: list[Sif],
    kill: tuple[Moment, signal.Signals],
) -> None:
    moment, end = kill
    words = [context.workspace.root, cluster.source, NAME]
    assert ended_at(moment, end, ENDED, words) in (1, -end)
    half = in_place(ssh)

    rollback.rollback(cluster, NAME, context, to=sifs[0].sha256)

    assert set(half.values()) <= {sif.sha256 for sif in sifs}
    assert in_place(ssh) == everywhere(cluster, sifs[0])
    assert image(cluster, context).behind == ()


def test_what_a_process_has_open_survives_undeploying_until_prune(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    node = cluster.compute[0]
    with reading(ssh, node, f"{cluster.registry_root}/{KEY}.sif"):
        dry = removal.undeploy(cluster, NAME, context, dry=True)
        done = removal.undeploy(cluster, NAME, context)
        left = {item.name: files(ssh, item) for item in cluster.nodes}
        kept = removal.prune(cluster, context).kept
    pruned = removal.prune(cluster, context)

    assert set(done.removed) == set(dry.removed)
    assert in_place(ssh) == dict.fromkeys((item.name for item in cluster.nodes), "")
    # Nodes may share the folder, so that all keep what one uses.
    assert left == {item.name: {sifs[1].sha256} for item in cluster.nodes}
    assert {(item.what, f"on {node.name} has it open" in item.why) for item in kept} == {
        (sifs[1].sha256, True)
    }
    assert {item.what for item in pruned.removed if item.image == KEY} == {sifs[1].sha256}
    assert [files(ssh, item) for item in cluster.nodes] == [set()] * len(cluster.nodes)
    assert [event.what for event in image(cluster, context).history][-1] == "undeployed"


def test_what_a_queued_job_names_survives_until_it_is_gone(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    path = f"{cluster.registry_root}/{KEY}.sif"
    with queued(ssh, f"apptainer exec {path} true") as number:
        done = removal.undeploy(cluster, NAME, context)
        kept = removal.prune(cluster, context).kept
    removal.prune(cluster, context)

    named = f"job {number} of {cluster.job_user} (pending)"
    assert done.jobs == (named,)
    assert {(item.what, item.why) for item in kept if item.image == KEY} == {
        (sif.sha256, f"{named} names it") for sif in sifs
    }
    assert files(ssh, cluster.controller) == set()


def test_prune_keeps_as_many_versions_as_were_asked_for(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    kept = removal.prune(cluster, context, keep=1)
    dry = removal.prune(cluster, context, keep=0, dry=True)
    both = files(ssh, cluster.controller)
    removal.prune(cluster, context, keep=0)

    assert [item for item in kept.removed if item.image == KEY] == []
    mine = [(item.node, item.what) for item in dry.removed if item.image == KEY]
    assert mine == [(node.name, sifs[0].sha256) for node in cluster.nodes]
    assert both == {sif.sha256 for sif in sifs}
    assert [files(ssh, node) for node in cluster.nodes] == [{sifs[1].sha256}] * len(cluster.nodes)
    assert image(cluster, context).previous == ()
    assert in_place(ssh) == everywhere(cluster, sifs[1])


def test_a_foreign_file_in_the_place_of_an_image_is_not_removed(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    node = cluster.compute[-1]
    path = f"{cluster.registry_root}/{KEY}.sif"
    ssh.run(node, ["sh", "-euc", f"rm {path}; echo theirs > {path}"], sudo=True)

    with pytest.raises(StepFailed, match=rf"nothing was removed: {path} on {node.name} is not"):
        removal.undeploy(cluster, NAME, context)

    assert ssh.run(node, ["cat", path]).stdout == "theirs\n"
    assert in_place(ssh)[cluster.controller.name] == sifs[1].sha256


@pytest.mark.usefixtures("sifs")
def test_without_an_answer_of_slurm_nothing_is_removed(
    cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    ssh.run(cluster.controller, ["systemctl", "stop", "slurmctld"], sudo=True)
    try:
        with pytest.raises(StepFailed, match="nothing was removed: which files jobs need"):
            removal.prune(cluster, context, keep=0)
    finally:
        ssh.run(cluster.controller, ["systemctl", "start", "slurmctld"], sudo=True)

    assert len(image(cluster, context).previous) == 1


@pytest.mark.usefixtures("sifs")
def test_the_verbs_print_what_they_find_and_do(cluster: Cluster, ssh: Ssh) -> None:
    flag = ("--cluster", cluster.name)

    def told(*words: str) -> Mapping[str, Any]:
        done = invoke(*words, *flag, "--json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    names = [node.name for node in cluster.nodes]
    (shown,) = [item for item in told("catalog")["images"] if item["name"] == NAME]
    assert (shown["current"]["nodes"], shown["behind"]) == (names, [])
    told("rollback", "--name", NAME)
    (*_, last) = told("history", "--name", KEY)["events"]
    assert (last["event"], last["commit"], last["in_place"]) == ("rolled back", COMMITS[0], names)
    asked = invoke("undeploy", "--name", NAME, *flag)
    assert (asked.returncode, "say --yes" in asked.stderr) == (2, True)
    told("undeploy", "--name", NAME, "--yes")
    assert set(in_place(ssh).values()) == {""}
    unknown = invoke("rollback", "--name", "no-such", *flag)
    assert (unknown.returncode, "is not deployed to" in unknown.stderr) == (2, True)


STANZA = r"\nPackage: more\nStatus: install ok installed\nVersion: 1.0\nArchitecture: all\n"


def test_a_diff_with_a_cluster_shows_what_a_deployment_would_change(
    cluster: Cluster, ssh: Ssh, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    dockerfile = "FROM docker.io/sifline/debian-trixie\n"
    name = project.image("more", dockerfile)
    flag = ("--cluster", str(cluster.source))
    try:
        done = project.invoke(f"deploy.{name}", *flag, "--untested")
        assert done.returncode == 0, done.stderr
        more = f"{dockerfile}RUN printf '{STANZA}' >> /var/lib/dpkg/status\n"
        (tmp_path / "images" / name / "Dockerfile").write_text(more)
        assert project.invoke(f"build.{name}").returncode == 0
        found = project.invoke(f"diff.{name}", *flag, "--json")
    finally:
        project.remove_images()
        for node in cluster.nodes:
            forget(ssh, node, name)

    assert found.returncode == 0, found.stderr
    values = json.loads(found.stdout)
    assert [item["name"] for item in values["added"]] == ["more"]
    assert (values["removed"], values["changed"]) == ([], [])


PAGE = ROOT / "docs" / "how-to" / "roll-back.md"
COMMAND = re.compile(r"^    (invoke .*)$", re.MULTILINE)
IMAGE = "hello-mpi"


def test_the_guide_can_be_followed(
    cluster: Cluster, context: Context, ssh: Ssh, tmp_path: Path
) -> None:
    flag = ("--cluster", cluster.name)
    assert invoke(f"deploy.{IMAGE}", *flag).returncode == 0
    good = catalog.find(catalog.read(cluster, context), IMAGE).current
    assert good
    deploy(made(tmp_path, 7, name=IMAGE, size=SIZE), cluster, context)
    for number in (8, 9):
        deploy(made(tmp_path, number, name="tools", size=SIZE), cluster, context)
    told = ""
    try:
        for line in COMMAND.findall(PAGE.read_text(encoding="utf-8")):
            words = line.replace("<image>", IMAGE).replace("NAME", cluster.name)
            done = invoke(*shlex.split(words.replace("3f5a9c01", good.sha256[:8]))[1:])
            assert done.returncode == 0, f"{line}: {done.stderr}"
            told += done.stdout
    finally:
        for node in cluster.nodes:
            forget(ssh, node, "tools")
        assert invoke(f"deploy.{IMAGE}", *flag).returncode == 0

    assert "would switch" in told
    assert "the same packages and settings" in told
    assert f"would remove the name {cluster.registry_root}/custom-images/{IMAGE}.sif" in told
