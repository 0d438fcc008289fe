"""Provisioning on real nodes: repeated, looked at only, repairing, and failing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import PurePosixPath

import pytest

from sifline.adapters.ssh import Ssh
from sifline.errors import StepFailed
from sifline.model import Cluster, Node
from sifline.runner import Context
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


def test_a_wrong_munge_key_is_replaced(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    output(ssh, node, "dd", "if=/dev/urandom", f"of={KEY}", "bs=128", "count=1")
    output(ssh, node, "systemctl", "restart", "munge")
    credential = output(ssh, cluster.controller, "munge", "--no-input")
    assert ssh.run(node, ["unmunge"], input=credential, check=False).returncode != 0

    done = provision(cluster, context)

    assert done.changed > 0
    assert key(ssh, node) == key(ssh, cluster.controller)
    ssh.run(node, ["unmunge"], input=output(ssh, cluster.controller, "munge", "--no-input"))


def test_check_tells_of_a_change_and_makes_none(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    folder = str(cluster.registry_root / "base-images")
    output(ssh, node, "sed", "--in-place", "$a # by hand", "/etc/slurm/gres.conf")
    output(ssh, node, "chmod", "0700", folder)
    before = digests(ssh), daemons(ssh)
    try:
        looked = provision(cluster, context, check=True)
        assert looked.changed >= 2
        assert (digests(ssh), daemons(ssh)) == before
        assert output(ssh, node, "stat", "--format=%a", folder) == "700\n"
    finally:
        provision(cluster, context)
    assert output(ssh, node, "stat", "--format=%a %U:%G", folder) == "755 root:slurm\n"
    assert digests(ssh) != before[0]


def test_only_the_daemon_of_a_changed_file_is_restarted(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    output(ssh, node, "sed", "--in-place", "$a # by hand", "/etc/slurm/gres.conf")
    before = daemons(ssh)
    provision(cluster, context)
    after = daemons(ssh)
    assert [name for name in after if after[name] != before[name]] == [node.name]


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
