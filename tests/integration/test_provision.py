"""Provisioning on real nodes: repeated, looked at only, repairing, and failing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import PurePosixPath

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Cluster, Node
from sifline.stages.provision import provision
from tests.support.groups import shares_cluster

pytestmark = [shares_cluster("cluster of deploy, provision and quickstart"), pytest.mark.long]

KEY = "/etc/munge/munge.key"
FILES = (*(f"/etc/slurm/{name}.conf" for name in ("slurm", "cgroup", "gres", "mpi")), KEY)

# A provisioning in between takes as long as it takes.
SESSION_SECONDS = 900


@pytest.fixture
def ssh(cluster: Cluster, context: Context) -> Iterator[Ssh]:
    with Ssh(cluster, context.runner) as connections:
        yield connections


@pytest.fixture
def node(cluster: Cluster) -> Node:
    """The node that is damaged."""
    return cluster.compute[-1]


def output(ssh: Ssh, node: Node, *argv: str) -> str:
    return ssh.run(node, argv, sudo=True).stdout


def daemons(ssh: Ssh) -> dict[str, str]:
    """Process and start of each daemon on each node."""
    units = ("munge.service", "slurmctld.service", "slurmd.service")
    asked = ("systemctl", "show", "--property=Id,MainPID,ActiveEnterTimestampMonotonic", *units)
    return {node.name: output(ssh, node, *asked) for node in ssh.cluster.nodes}


def digests(ssh: Ssh) -> dict[str, str]:
    return {node.name: output(ssh, node, "sha256sum", *FILES) for node in ssh.cluster.nodes}


def key(ssh: Ssh, node: Node) -> str:
    return output(ssh, node, "sha256sum", KEY)


def test_a_second_run_changes_nothing_and_restarts_nothing(
    cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    before = daemons(ssh)
    done = provision(cluster, context)
    assert done.changed == 0
    assert done.ok > 0
    assert daemons(ssh) == before


def test_what_sifline_did_not_write_is_replaced_only_where_that_is_asked_for(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    gres, slurm = "/etc/slurm/gres.conf", "/etc/slurm/slurm.conf"
    written, foreign = output(ssh, node, "cat", gres), "# Somebody else's\nAutoDetect=nvml\n"
    # Of somebody else; with our first line, and changed since; a key that cannot say whose it is.
    ssh.run(node, ["tee", gres], sudo=True, input=foreign)
    output(ssh, node, "sed", "--in-place", "s/^SlurmdTimeout=.*/SlurmdTimeout=99/", slurm)
    output(ssh, node, "dd", "if=/dev/urandom", f"of={KEY}", "bs=128", "count=1")
    output(ssh, node, "systemctl", "restart", "munge")
    output(ssh, cluster.controller, "chmod", "0700", str(cluster.registry_root / "base-images"))
    before, lost = (digests(ssh), daemons(ssh)), key(ssh, node)

    with pytest.raises(StepFailed) as caught:
        provision(cluster, context)

    assert f"{node.name}: task" in caught.value.message
    assert f"{slurm}, {gres}, {KEY}: not written by sifline" in caught.value.message
    assert "--adopt" in caught.value.message
    log = (context.workspace.logs / f"{cluster.name}.provision.log").read_text()
    assert {"-AutoDetect=nvml", "-SlurmdTimeout=99", "+SlurmdTimeout=120"} <= {
        line.partition(" ")[2] for line in log.splitlines()
    }
    # On no node was anything changed.
    assert (digests(ssh), daemons(ssh)) == before

    done = provision(cluster, context, adopt=True)

    kept = [place.partition(":")[2] for place in done.kept if place.startswith(node.name)]
    files = [path for places in kept for path in places.split(", ")]
    assert sorted(path.partition(".conf")[0].partition(".key")[0] for path in files) == [
        "/etc/munge/munge",
        "/etc/slurm/gres",
        "/etc/slurm/slurm",
    ]
    assert len(done.kept) == len(kept)
    (old_key,) = (path for path in files if path.startswith(KEY))
    (old_gres,) = (path for path in files if path.startswith(gres))
    assert output(ssh, node, "sha256sum", old_key).split()[0] == lost.split()[0]
    assert output(ssh, node, "cat", old_gres) == foreign
    assert output(ssh, node, "cat", gres) == written
    assert key(ssh, node) == key(ssh, cluster.controller)
    ssh.run(node, ["unmunge"], input=output(ssh, cluster.controller, "munge", "--no-input"))
    output(ssh, node, "rm", *files)


def test_a_configuration_that_slurm_does_not_take_is_refused_before_anything_is_changed(
    cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    before = digests(ssh), daemons(ssh)
    variables = (*cluster.variables, ("slurm_common_extra", ["NoSuchKey=1"]))
    wrong = dataclasses.replace(cluster, variables=variables)
    said = r"slurm\.conf:\d+: NoSuchKey=1: Slurm 24\.11 does not start with it"
    with pytest.raises(StepFailed, match=said):
        provision(wrong, context)
    assert (digests(ssh), daemons(ssh)) == before


def test_the_stage_of_the_registry_makes_its_folders_and_nothing_else(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    folder = str(cluster.registry_root / "base-images")
    output(ssh, node, "rmdir", folder)
    output(ssh, node, "sed", "--in-place", "$a # by hand", "/etc/slurm/gres.conf")
    before = digests(ssh), daemons(ssh)
    try:
        done = provision(cluster, context, stage="registry")
        assert (digests(ssh), daemons(ssh)) == before
    finally:
        output(ssh, node, "sed", "--in-place", "$d", "/etc/slurm/gres.conf")
    assert done.changed == 1
    assert output(ssh, node, "stat", "--format=%a %U:%G", folder) == "755 root:slurm\n"


def test_check_tells_of_a_change_and_makes_none(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    folder = str(cluster.registry_root / "base-images")
    output(ssh, node, "sed", "--in-place", "$a # by hand", "/etc/slurm/gres.conf")
    output(ssh, node, "chmod", "0700", folder)
    before = digests(ssh), daemons(ssh)
    try:
        looked = provision(cluster, context, check=True, adopt=True)
        assert looked.changed >= 2
        assert (digests(ssh), daemons(ssh)) == before
        assert output(ssh, node, "stat", "--format=%a", folder) == "700\n"
    finally:
        provision(cluster, context, adopt=True)
    assert output(ssh, node, "stat", "--format=%a %U:%G", folder) == "755 root:slurm\n"
    assert digests(ssh) != before[0]


def test_only_the_daemons_of_changed_files_are_restarted(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    output(ssh, node, "sed", "--in-place", "$a # by hand", "/etc/slurm/gres.conf")
    # As after the key of the controller was changed: the node has the one that it was given.
    output(ssh, node, "dd", "if=/dev/urandom", f"of={KEY}", "bs=128", "count=1")
    given = key(ssh, node).split()[0]
    ssh.run(node, ["tee", "/etc/munge/.sifline"], sudo=True, input=f"{given}\n")
    before = daemons(ssh)
    done = provision(cluster, context, adopt=True)
    after = daemons(ssh)
    assert [name for name in after if after[name] != before[name]] == [node.name]
    # A key that sifline gave is replaced without a question, and not kept.
    assert key(ssh, node) == key(ssh, cluster.controller)
    record = output(ssh, node, "cat", "/etc/munge/.sifline").split()
    assert record == [given, key(ssh, node).split()[0]]
    (kept,) = done.kept
    assert kept.startswith(f"{node.name}:/etc/slurm/gres.conf.")
    assert "," not in kept


def test_a_change_that_an_interrupted_run_left_unread_is_read(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    before = daemons(ssh)
    output(ssh, node, "touch", "/etc/slurm/slurm.conf")
    done = provision(cluster, context)
    after = daemons(ssh)
    assert done.changed > 0
    assert [name for name in after if after[name] != before[name]] == [node.name]


@contextmanager
def without_sshd(ssh: Ssh, node: Node) -> Iterator[None]:
    """Nobody can log in to ``node``, but who has: a session lasts, and so does its connection."""
    script = (
        "systemctl stop ssh; touch /run/stopped; until test -e /run/mend; do sleep 0.1; done;"
        " systemctl start ssh; rm /run/stopped /run/mend"
    )
    with ThreadPoolExecutor(1) as pool:
        session = pool.submit(
            ssh.run, node, ["sh", "-euc", script], sudo=True, timeout=SESSION_SECONDS
        )
        try:
            output(ssh, node, "sh", "-c", "until test -e /run/stopped; do sleep 0.1; done")
            yield
        finally:
            output(ssh, node, "touch", "/run/mend")
            session.result()


def test_a_node_without_sshd_is_named_and_the_others_are_done(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    other = cluster.controller
    folder = str(cluster.registry_root / "base-images")
    output(ssh, other, "chmod", "0700", folder)
    with (
        without_sshd(ssh, node),
        pytest.raises(StepFailed, match=f"{node.name} does not answer"),
    ):
        provision(cluster, context)
    assert output(ssh, other, "stat", "--format=%a", folder) == "755\n"


def test_a_failed_task_is_told_with_its_node_and_message(
    cluster: Cluster, context: Context
) -> None:
    impossible = dataclasses.replace(cluster, registry_root=PurePosixPath("/etc/hostname"))
    fault = r": task 'container-registry : .* failed: /etc/hostname already exists"
    with pytest.raises(StepFailed, match=fault):
        provision(impossible, context)
