"""Who may write to the registry of real nodes besides root, and what each of them cannot do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from sifline.engines.registry import RECEIVER, TOOL
from sifline.engines.ssh.faults import SshFailed
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.machine.process import Result
from sifline.model import Cluster, Node, Registry, TestedSif
from sifline.nodeside.registry import KEPT
from sifline.stages.deploy.nodes import Nodes
from sifline.stages.deployed import catalog, removal, rollback
from sifline.stages.inspect import inspect
from sifline.stages.provision import provision
from tests.support.deploying import deploy, everywhere, forget, held, variant
from tests.support.groups import shares_cluster
from tests.support.waiting import until

pytestmark = [shares_cluster("cluster of isolation and accounting"), pytest.mark.long]

NAME, SIZE = "access-test", 200_000
STAGE = "registry"
# alice of the nodes' image may not become root.
USER, OTHER, GROUP = "alice", "bob", "deployers"
OPEN = Registry(deployers=GROUP, user_folders=(USER, "@guests"))
SUDOERS = "/etc/sudoers.d/sifline-registry"


@pytest.fixture(scope="module")
def ssh(cluster: Cluster, context: Context) -> Iterator[Ssh]:
    with Ssh(cluster, context.runner) as connection:
        yield connection


@pytest.fixture(scope="module")
def opened(cluster: Cluster, context: Context, ssh: Ssh) -> Iterator[Cluster]:
    """The cluster with a registry that others than root write to."""
    login = f"/home/{USER}/.ssh"
    everywhere(
        ssh,
        f"groupadd guests; useradd --create-home --groups guests {OTHER};"
        f" mkdir -p {login}; cp /home/admin/.ssh/authorized_keys {login}/;"
        f" chown -R {USER}: {login}; chmod 700 {login}",
    )
    wanted = replace(cluster, registry=OPEN)
    provision(wanted, context, stage=STAGE)
    yield wanted
    provision(cluster, context, stage=STAGE)
    for node in cluster.nodes:
        forget(ssh, node, NAME)
    everywhere(
        ssh,
        f"rm -rf {login} /opt/containers/users; gpasswd --delete {USER} {GROUP} || :;"
        f" userdel --remove {OTHER}; groupdel guests",
    )


@pytest.fixture(scope="module")
def deployer(opened: Cluster, ssh: Ssh) -> Cluster:
    """The cluster as alice sees it, who is in the group of deployers."""
    everywhere(ssh, f"usermod --append --groups {GROUP} {USER}")
    rsh = '#!/bin/sh\\nshift\\nexec sh -c "$*"\\n'
    everywhere(ssh, f"printf '{rsh}' > {RSH}; chmod 755 {RSH}")
    return replace(opened, ssh=replace(opened.ssh, user=USER))


def as_user(ssh: Ssh, script: str, *, user: str = USER, node: Node | None = None) -> Result:
    where = node or ssh.cluster.controller
    return ssh.run(where, ["sh", "-c", script], user=user, check=False)


def test_a_second_run_changes_nothing(opened: Cluster, context: Context) -> None:
    assert provision(opened, context, stage=STAGE).changed == 0


def test_one_who_is_no_deployer_is_told_of_the_group(opened: Cluster, context: Context) -> None:
    stranger = replace(opened, ssh=replace(opened.ssh, user=USER))

    with pytest.raises(SshFailed, match=rf"sudo .*; or make {USER} a member of the group {GROUP}"):
        inspect(stranger, context)


def test_a_deployer_deploys_without_being_root(
    deployer: Cluster, opened: Cluster, context: Context, tmp_path: Path
) -> None:
    sif = variant(tmp_path, 1, name=NAME, size=SIZE)
    inspect(deployer, context)

    assert [item.sent for item in deploy(sif, deployer, context).placements] == [True] * 3
    assert not any(item.sent for item in deploy(sif, deployer, context).placements)

    # The node says who it was, whatever the sender says.
    names = [node.name for node in opened.nodes]
    assert held(opened, context, NAME) == {name: (sif.sha256, f"{USER}@{name}") for name in names}
    # root deploys as before.
    newer = variant(tmp_path, 2, name=NAME, size=SIZE)
    deploy(newer, opened, context)
    assert {digest for digest, _ in held(opened, context, NAME).values()} == {newer.sha256}


def test_a_deployer_rolls_back_and_only_root_removes(
    deployer: Cluster, opened: Cluster, context: Context, tmp_path: Path
) -> None:
    old, new = (variant(tmp_path, number, name=NAME, size=SIZE) for number in (4, 5))
    for sif in (old, new):
        deploy(sif, deployer, context)

    done = rollback.rollback(deployer, NAME, context)

    names = [node.name for node in opened.nodes]
    assert done.actions == tuple((name, "switch") for name in names)
    assert {digest for digest, _ in held(opened, context, NAME).values()} == {old.sha256}
    event = catalog.find(catalog.read(deployer, context), NAME).history[-1]
    assert (event.what, event.version.nodes) == ("rolled back", tuple(names))
    assert event.version.who.startswith(f"{USER}@")
    with pytest.raises(SshFailed, match="sudo"):
        removal.prune(deployer, context, keep=0)
    kept = catalog.find(catalog.read(opened, context), NAME).previous
    assert new.sha256 in {item.sha256 for item in kept}


PARTIAL = f"custom-images.{NAME}.sif.{'a' * 64}.ab.partial"
IMAGE = f"--category=custom-images --name={NAME} --sha256={'a' * 64}"


@pytest.mark.parametrize(
    "words",
    [
        "sudo -n id",
        "sudo -n python3 -c 1",
        "sudo -n /usr/bin/rrsync /",
        f"sudo -n {TOOL} ready --root=/tmp",
        f"sudo -n {TOOL} ready --root=/opt/containers --root=/tmp",
        f"sudo -n {TOOL} ready --root=/opt/containers/../../tmp",
        f"sudo -n {TOOL} status --root=/opt/containers --category=../../etc --name=x",
        f"sudo -n {TOOL} status --root=/opt/containers {IMAGE} --name=../../../etc/passwd",
        f"sudo -n {TOOL} install --root=/opt/containers {IMAGE} --meta=[]",
        f"sudo -n {TOOL} install --root=/opt/containers {IMAGE} --keep=-1",
        f"sudo -n {TOOL} install --root=/opt/containers {IMAGE} --token=../x",
        f"sudo -n {RECEIVER} --server --sender -e.LsfxCIvu . {PARTIAL}",
        f"sudo -n {RECEIVER} --server --log-file=/etc/sifline-log -e.LsfxCIvu . {PARTIAL}",
        f"sudo -n {RECEIVER} --server -pe.LsfxCIvu . {PARTIAL}",
        f"sudo -n {RECEIVER} --server -re.LsfxCIvu . {PARTIAL}",
        f"sudo -n {RECEIVER} --server --delete -e.LsfxCIvu . {PARTIAL}",
        f"sudo -n {RECEIVER} --server -e.LsfxCIvu . .",
        f"sudo -n {RECEIVER} --server -e.LsfxCIvu . ../{PARTIAL}",
        f"sudo -n {RECEIVER} --server -e.LsfxCIvu . /etc/{PARTIAL}",
        f"sudo -n {RECEIVER} --server -e.LsfxCIvu . {PARTIAL} {PARTIAL}",
        f"sudo -n {RECEIVER}",
        f"PYTHONPATH=/tmp sudo -n --preserve-env=PYTHONPATH {TOOL} ready --root=/opt/containers",
        "touch /opt/containers/custom-images/x /opt/containers/.registry/x",
        "ls /opt/containers/.registry/uploads",
    ],
)
def test_a_deployer_can_do_nothing_else(deployer: Cluster, ssh: Ssh, words: str) -> None:
    done = as_user(ssh, words)

    assert done.returncode, done.stdout
    assert not done.stdout.startswith("{") or '"error"' in done.stdout, done.stdout
    for secret in ("uid=", "root:"):
        assert secret not in done.stdout, done.stdout
    assert ssh.run(ssh.cluster.controller, ["ls", "/etc/sifline-log"], check=False).returncode


# rsync's client, with this node's own receiver as its other end, reached without SSH.
RSH = "/tmp/rsh"
SEND = f"rsync --no-protect-args --rsh={RSH} --rsync-path='sudo -n {RECEIVER}'"


@pytest.mark.parametrize(
    "options", ["-rp", "-tp", "-rog --super", "-l", "-r --delete", "-H", "-D"]
)
def test_a_deployer_sends_nothing_but_content(deployer: Cluster, ssh: Ssh, options: str) -> None:
    prepare = "rm -rf /tmp/s; mkdir -p /tmp/s; cp /bin/true /tmp/s/x; chmod 4755 /tmp/s/x"
    as_user(ssh, f"{prepare}; ln -s /etc /tmp/s/link")
    uploads = "/opt/containers/.registry/uploads"
    look = ["sh", "-c", f"ls -lR {uploads}; stat --format='%a %U' {uploads}"]
    before = ssh.run(ssh.cluster.controller, look, sudo=True).stdout

    done = [as_user(ssh, f"{SEND} {options} {what} here:") for what in ("/tmp/s/", "/tmp/s/x")]
    done.append(as_user(ssh, f"{SEND} {options} /tmp/s/x here:{PARTIAL}"))

    assert all(item.returncode for item in done), done
    assert all("receives one upload" in item.stderr for item in done), done
    assert ssh.run(ssh.cluster.controller, look, sudo=True).stdout == before


def test_the_mode_of_a_file_that_is_sent_is_none_of_its_senders(
    deployer: Cluster, ssh: Ssh
) -> None:
    as_user(ssh, "cp /bin/true /tmp/x; chmod 4777 /tmp/x")

    sent = as_user(ssh, f"{SEND} --inplace /tmp/x here:{PARTIAL}")

    assert sent.returncode == 0, sent
    path = f"/opt/containers/.registry/uploads/{PARTIAL}"
    mode = ssh.run(ssh.cluster.controller, ["stat", "--format=%a %U", path], sudo=True).stdout
    assert mode == "600 root\n"


def test_nobody_writes_to_an_upload_that_is_put_in_place(
    deployer: Cluster, ssh: Ssh, tmp_path: Path
) -> None:
    """A receiver that waits for more holds the file, and what is held is not put in place."""
    sif = variant(tmp_path, 8, name=NAME, size=SIZE)
    image = f"--category=custom-images --name={NAME} --sha256={sif.sha256}"
    status = as_user(ssh, f"sudo -n {TOOL} status --root=/opt/containers {image}")
    upload = json.loads(status.stdout)["upload"]
    name = PurePosixPath(upload).name
    waits = f"sleep 20 | sudo -n {RECEIVER} --server -e.LsfxCIvu --inplace . {name}"
    as_user(ssh, f"nohup sh -c '{waits}' > /dev/null 2>&1 & sleep 1")
    until(lambda: ssh.run(ssh.cluster.controller, ["ls", upload], sudo=True, check=False).ok, name)

    done = as_user(ssh, f"sudo -n {TOOL} install --root=/opt/containers {image}")

    assert (done.returncode, json.loads(done.stdout)["error"]) == (1, "busy")
    # Not the words of this command itself.
    ssh.run(ssh.cluster.controller, ["pkill", "--full", f"[i]nplace . {name}"], sudo=True)


def test_what_a_deployer_did_not_send_to_its_end_is_continued(
    deployer: Cluster, opened: Cluster, context: Context, ssh: Ssh, tmp_path: Path
) -> None:
    sif = variant(tmp_path, 9, name=NAME, size=SIZE)
    # As a run that was killed leaves it: under the name that is this sender's own.
    with Ssh(deployer, context.runner) as mine:
        work = Nodes(TestedSif.untested(sif), deployer, context, mine, keep=KEPT)
        for node in opened.nodes:
            upload = work.survey(node).upload
            script = f"umask 077; head -c 1000 /dev/zero > {upload}"
            ssh.run(node, ["sh", "-c", script], sudo=True)
            assert work.survey(node).uploaded == 1000

    deploy(sif, deployer, context)

    assert {digest for digest, _ in held(opened, context, NAME).values()} == {sif.sha256}


def test_a_link_among_the_uploads_is_not_followed(deployer: Cluster, ssh: Ssh) -> None:
    """Whoever got it there: its target is not read, changed or removed."""
    status = f"sudo -n {TOOL} status --root=/opt/containers {IMAGE} --token=ab"
    link = json.loads(as_user(ssh, status).stdout)["upload"]
    for kind in (f"ln -s /etc/shadow {link}", f"mkfifo {link}"):
        ssh.run(ssh.cluster.controller, ["sh", "-c", kind], sudo=True)
        done = as_user(ssh, status.replace("status", "install"))
        assert (done.returncode, '"error"' in done.stdout) == (1, True), done
        ssh.run(ssh.cluster.controller, ["rm", link], sudo=True)
    mode = ssh.run(ssh.cluster.controller, ["stat", "--format=%a %U", "/etc/shadow"], sudo=True)
    assert mode.stdout == "640 root\n"


def test_each_user_writes_to_their_own_folder_alone(opened: Cluster, ssh: Ssh) -> None:
    users = "/opt/containers/users"
    for node in opened.nodes:
        mine = as_user(ssh, f"cp /bin/true {users}/{USER}/x && {users}/{USER}/x", node=node)
        assert mine.returncode == 0, mine.stderr
        for target in (f"{users}/{USER}/y", f"{users}/{USER}/x", f"{users}/y"):
            assert as_user(ssh, f"echo > {target}", user=OTHER, node=node).returncode, target
        assert as_user(ssh, f"mv {users}/{USER} {users}/z", node=node).returncode
        assert as_user(ssh, f"echo > {users}/{OTHER}/y", user=OTHER, node=node).returncode == 0


def test_a_user_that_a_node_does_not_know_is_named(opened: Cluster, context: Context) -> None:
    unknown = replace(opened, registry=replace(OPEN, user_folders=("nobody-here", "@no-group")))

    with pytest.raises(StepFailed, match="knows no user nobody-here, no group no-group;"):
        provision(unknown, context, stage=STAGE)


@pytest.mark.parametrize(
    "made", ["mkdir {}; chown alice {}", "ln -s /etc/skel {}", "touch {}"], ids=str
)
def test_a_folder_that_is_somebody_elses_is_left_alone(
    opened: Cluster, context: Context, ssh: Ssh, made: str
) -> None:
    place = "/opt/containers/users/admin"
    look = ["stat", "--format=%F %U", place, "/etc/skel"]
    node = opened.compute[0]
    ssh.run(node, ["sh", "-c", made.format(place, place)], sudo=True)
    before = ssh.run(node, look, sudo=True).stdout
    try:
        wanted = replace(opened, registry=replace(OPEN, user_folders=("admin",)))
        with pytest.raises(StepFailed, match=rf"{place}, a .*: is there already; move it away"):
            provision(wanted, context, stage=STAGE)
        assert ssh.run(node, look, sudo=True).stdout == before
    finally:
        everywhere(ssh, f"rm -rf {place}")


def test_what_deployers_may_run_is_replaced_only_where_that_is_asked_for(
    deployer: Cluster, opened: Cluster, cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    """Also where it would only be removed; in both cases before anything else is changed."""
    node = opened.compute[-1]
    look = ["cat", SUDOERS]
    written = ssh.run(node, look, sudo=True).stdout
    ssh.run(node, ["sed", "--in-place", "$a # by hand", SUDOERS], sudo=True)
    changed = ssh.run(node, look, sudo=True).stdout
    ssh.run(opened.controller, ["chmod", "0700", "/opt/containers/base-images"], sudo=True)
    said = rf"{node.name}: .*{SUDOERS}: not written by sifline, or changed since; .* --adopt"
    for wanted, stage_ in ((opened, STAGE), (opened, ""), (cluster, STAGE)):
        with pytest.raises(StepFailed, match=said):
            provision(wanted, context, stage=stage_)
        assert ssh.run(node, look, sudo=True).stdout == changed
        mode = ["stat", "--format=%a", "/opt/containers/base-images"]
        # What is no longer asked for is found when the registry is looked at.
        if wanted is opened:
            assert ssh.run(opened.controller, mode).stdout == "700\n"
    done = provision(opened, context, stage=STAGE, adopt=True)

    assert ssh.run(node, look, sudo=True).stdout == written
    (kept,) = (place.partition(":")[2] for place in done.kept)
    assert ssh.run(node, ["cat", kept], sudo=True).stdout == changed
    ssh.run(node, ["rm", kept], sudo=True)
    # The copy is no rule of sudo's.
    assert ssh.run(node, ["visudo", "--check"], sudo=True).returncode == 0
    assert as_user(ssh, f"sudo -n {TOOL} ready --root=/opt/containers", node=node).returncode == 0


def test_what_is_no_longer_asked_for_is_taken_back(
    deployer: Cluster, cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    ssh.run(cluster.compute[0], ["sed", "--in-place", "$a # by hand", SUDOERS], sudo=True)
    done = provision(cluster, context, stage=STAGE, adopt=True)

    (kept,) = (place.partition(":")[2] for place in done.kept)
    ssh.run(cluster.compute[0], ["rm", kept], sudo=True)
    assert as_user(ssh, f"sudo -n {TOOL} ready --root=/opt/containers").returncode
    with pytest.raises(SshFailed):
        inspect(deployer, context)
    # The folders of users stay: they may hold what nobody else has.
    assert as_user(ssh, f"ls /opt/containers/users/{USER}").returncode == 0
