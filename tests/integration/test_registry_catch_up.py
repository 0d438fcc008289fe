"""What nodes that were down fetch from the controller, and what their key cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sifline.config.node_lists import choose
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Cluster, Node, Registry, Sif
from sifline.stages.deployed import catalog as catalog_of
from sifline.stages.deployed import rollback
from sifline.stages.provision import provision
from tests.support.deploying import deploy, forget, held, variant
from tests.support.groups import shares_cluster
from tests.support.holdings import catalog
from tests.support.waiting import until

pytestmark = [shares_cluster("cluster of isolation and accounting"), pytest.mark.long]

NAME, SIZE = "catch-up-test", 200_000
STAGE = "registry"
# Somebody who has an account on the nodes.
OTHER = "alice"


@pytest.fixture(scope="module")
def ssh(cluster: Cluster, context: Context) -> Iterator[Ssh]:
    with Ssh(cluster, context.runner) as connection:
        yield connection


@pytest.fixture(scope="module")
def opened(cluster: Cluster, context: Context, ssh: Ssh) -> Iterator[Cluster]:
    """The cluster with nodes that catch up."""
    wanted = replace(cluster, registry=Registry(catch_up=True))
    provision(wanted, context, stage=STAGE)
    yield wanted
    provision(cluster, context, stage=STAGE)
    for node in cluster.nodes:
        forget(ssh, node, NAME)


@pytest.fixture
def late(opened: Cluster) -> Node:
    return opened.compute[-1]


def test_a_second_run_changes_nothing(opened: Cluster, context: Context) -> None:
    assert provision(opened, context, stage=STAGE).changed == 0


def test_a_controller_that_does_not_let_nodes_in_is_told_at_once(
    opened: Cluster, context: Context, ssh: Ssh
) -> None:
    rule = "/etc/ssh/sshd_config.d/refusing.conf"
    refuse = f"echo 'DenyUsers sifline-registry' > {rule}; systemctl reload ssh"
    ssh.run(opened.controller, ["sh", "-c", refuse], sudo=True)
    try:
        said = r"this node cannot catch up with \S+: rsync of catalog.json .*Permission denied"
        with pytest.raises(StepFailed, match=said) as caught:
            provision(opened, context, stage=STAGE)
        assert all(node.name in caught.value.message for node in opened.compute)
    finally:
        mend = f"rm {rule}; systemctl reload ssh"
        ssh.run(opened.controller, ["sh", "-c", mend], sudo=True)
    assert provision(opened, context, stage=STAGE).changed == 0


def test_a_node_that_is_down_keeps_its_key(
    opened: Cluster, context: Context, ssh: Ssh, late: Node
) -> None:
    letter = ["cat", "/var/lib/sifline-registry/.ssh/authorized_keys"]
    before = ssh.run(ssh.cluster.controller, letter, sudo=True).stdout
    assert before.count("restrict,") == len(opened.compute)
    # A node that does not answer is a failure of the run, but of no other node.
    gone = replace(late, address="192.0.2.1")
    nodes = tuple(gone if node == late else node for node in opened.nodes)
    with pytest.raises(StepFailed):
        provision(replace(opened, nodes=nodes), context, stage=STAGE)

    assert ssh.run(ssh.cluster.controller, letter, sudo=True).stdout == before


def test_an_account_of_others_is_not_taken_for_that_of_the_nodes(
    opened: Cluster, context: Context
) -> None:
    name = "container_registry_catch_up_user"
    taken = replace(opened, variables=(*opened.variables, (name, OTHER)))

    with pytest.raises(StepFailed, match=f"the account {OTHER} is there with another home"):
        provision(taken, context, stage=STAGE)
    # The other nodes were told of that user.
    provision(opened, context, stage=STAGE)


def test_a_node_that_was_down_has_the_image_before_its_first_job(
    opened: Cluster, context: Context, ssh: Ssh, late: Node, tmp_path: Path
) -> None:
    sif = variant(tmp_path, 3, name=NAME, size=SIZE)
    others = choose(opened, only=None, without=late.name)
    deploy(sif, others, context)
    assert held(opened, context, NAME).get(late.name, ("", ""))[0] != sif.sha256

    context.runner.run(["docker", "restart", f"sifline-{opened.name}-{late.name}"])

    def arrived() -> bool:
        try:
            return held(opened, context, NAME).get(late.name, ("", ""))[0] == sif.sha256
        except StepFailed:  # sshd does not answer yet
            return False

    until(arrived, "the image on the node")
    until(lambda: ssh.run(late, ["systemctl", "is-active", "slurmd"], check=False).ok, "slurmd")
    began = "ExecMainExitTimestampMonotonic", "ExecMainStartTimestampMonotonic"
    times = [
        int(ssh.run(late, ["systemctl", "show", "--value", f"-p{key}", unit], sudo=True).stdout)
        for key, unit in zip(began, ("sifline-catch-up", "slurmd"), strict=True)
    ]
    assert 0 < times[0] <= times[1]


def test_a_node_that_missed_a_rollback_takes_the_earlier_version(
    opened: Cluster, context: Context, ssh: Ssh, late: Node, tmp_path: Path
) -> None:
    old, new = (variant(tmp_path, number, name=NAME, size=SIZE) for number in (11, 12))
    for sif in (old, new):
        deploy(sif, opened, context)
    rollback.rollback(choose(opened, only=None, without=late.name), NAME, context)
    assert held(opened, context, NAME)[late.name][0] == new.sha256

    ssh.run(late, ["systemctl", "restart", "sifline-catch-up"], sudo=True)

    assert held(opened, context, NAME)[late.name][0] == old.sha256
    event = catalog_of.find(catalog_of.read(opened, context), NAME).history[-1]
    assert (event.what, late.name in event.version.nodes) == ("rolled back", True)


def test_what_was_deployed_to_a_node_later_stays(
    opened: Cluster, context: Context, ssh: Ssh, late: Node, tmp_path: Path
) -> None:
    deploy(variant(tmp_path, 4, name=NAME, size=SIZE), opened, context)
    own = variant(tmp_path, 5, name=NAME, size=SIZE)
    # The catalog tells times by the second.
    until(lambda: deploy_alone(own, opened, late, context), "a later second")

    ssh.run(late, ["systemctl", "start", "sifline-catch-up"], sudo=True)

    assert held(opened, context, NAME)[late.name][0] == own.sha256


def deploy_alone(sif: Sif, cluster: Cluster, node: Node, context: Context) -> bool:
    """Deploy to one node; whether its catalog names a later time than the controller's."""
    deploy(sif, choose(cluster, only=node.name, without=None), context)
    when = {item.node: item.when for item in catalog(cluster, context) if item.name == NAME}
    if when[node.name] > when[cluster.controller.name]:
        return True
    older = variant(sif.path.parent, 6, name=NAME, size=SIZE)
    deploy(older, choose(cluster, only=node.name, without=None), context)
    return False


def key_command(ssh: Ssh, late: Node) -> str:
    """The words with which a node logs in to the controller."""
    settings = "/etc/sifline/registry"
    controller = ssh.cluster.controller
    return (
        f"ssh -F none -i {settings}/key -o IdentitiesOnly=yes -o BatchMode=yes"
        f" -o UserKnownHostsFile={settings}/known_hosts sifline-registry@{controller.address}"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("{ssh} id", "SSH_ORIGINAL_COMMAND does not run rsync"),
        ("{ssh}", "Not invoked via sshd"),
        ("{ssh} 'rsync --server --sender -e.LsfxCIvu . ;id'", ""),
        ("{ssh} 'rsync --server --sender -e.LsfxCIvu . $(id)'", ""),
        ("{ssh} 'rsync --server -e.LsfxCIvu . catalog.json'", "read-only"),
        ("rsync --rsh='{rsh}' {host}:../../../etc/passwd /tmp/taken", ""),
        ("rsync --no-protect-args --rsh='{rsh}' {host}:/etc/passwd /tmp/taken", ""),
        ("rsync --no-protect-args --rsh='{rsh}' {host}:../../../etc/passwd /tmp/taken", ""),
        ("rsync --no-protect-args --rsh='{rsh}' {host}:uploads/ /tmp/taken", ""),
        ("rsync --no-protect-args --rsh='{rsh}' /etc/hostname {host}:x", "read-only"),
        ("timeout 5 {ssh} -o ExitOnForwardFailure=yes -N -R 9999:localhost:22", ""),
        ("{rsh} -W localhost:22 {host}", "administratively prohibited"),
        ("echo 'ls' | sftp -b - {options} {host}", ""),
    ],
)
def test_the_key_of_a_node_reads_the_registry_and_nothing_else(
    opened: Cluster, ssh: Ssh, late: Node, words: str, said: str
) -> None:
    whole = key_command(ssh, late)
    rsh, _, host = whole.rpartition(" ")
    options = rsh.removeprefix("ssh ")
    script = words.format(ssh=whole, rsh=rsh, host=host, options=options)

    done = ssh.run(late, ["sh", "-c", f"rm -rf /tmp/taken; {script}"], sudo=True, check=False)
    taken = ssh.run(late, ["cat", "/tmp/taken"], sudo=True, check=False)

    assert done.returncode, done
    assert said in done.stderr, done.stderr
    assert "uid=" not in done.stdout + done.stderr
    assert "root:" not in taken.stdout


def test_the_key_does_what_it_is_for(opened: Cluster, ssh: Ssh, late: Node) -> None:
    rsh, _, host = key_command(ssh, late).rpartition(" ")
    fetch = f"rsync --no-protect-args --rsh='{rsh}' {host}:catalog.json /tmp/fetched"

    ssh.run(late, ["sh", "-c", fetch], sudo=True)

    assert '"images"' in ssh.run(late, ["cat", "/tmp/fetched"], sudo=True).stdout


def test_what_is_no_longer_asked_for_is_taken_back(
    cluster: Cluster, context: Context, opened: Cluster, ssh: Ssh, late: Node
) -> None:
    provision(cluster, context, stage=STAGE)

    enabled = ssh.run(late, ["systemctl", "is-enabled", "sifline-catch-up"], check=False)
    assert enabled.returncode
    login = ssh.run(late, ["sh", "-c", f"{key_command(ssh, late)} true"], sudo=True, check=False)
    assert "Permission denied" in login.stderr
