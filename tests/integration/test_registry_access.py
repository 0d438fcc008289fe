"""Who may write to the registry of real nodes besides root, and what each of them cannot do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from sifline.config.node_lists import choose
from sifline.engines.registry import RECEIVER, TOOL
from sifline.engines.ssh.faults import SshFailed
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.machine.process import Result
from sifline.model import Cluster, Node, Registry, Sif, TestedSif
from sifline.nodeside.registry import KEPT
from sifline.stages import deploy as stage
from sifline.stages.deploy import catalog
from sifline.stages.inspect import inspect
from sifline.stages.provision import provision
from tests.support.deploying import deploy, forget, variant
from tests.support.groups import shares_cluster
from tests.support.mounts import bind
from tests.support.waiting import until

pytestmark = [shares_cluster("cluster of isolation and accounting"), pytest.mark.long]

NAME, SIZE = "access-test", 200_000
STAGE = "registry"
# alice of the nodes' image may not become root.
USER, OTHER, GROUP = "alice", "bob", "deployers"
OPEN = Registry(deployers=GROUP, user_folders=(USER, "@guests"), catch_up=True)


@pytest.fixture(scope="module")
def ssh(cluster: Cluster, context: Context) -> Iterator[Ssh]:
    with Ssh(cluster, context.runner) as connection:
        yield connection


def everywhere(ssh: Ssh, script: str) -> None:
    for node in ssh.cluster.nodes:
        ssh.run(node, ["sh", "-c", script], sudo=True)


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


def held(cluster: Cluster, context: Context) -> dict[str, tuple[str | None, str]]:
    """What each node has of the image, and who deployed it."""
    found = [item for item in catalog(cluster, context) if item.name == NAME]
    return {item.node: (item.found, item.who) for item in found}


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
    assert held(opened, context) == {name: (sif.sha256, f"{USER}@{name}") for name in names}
    # root deploys as before.
    newer = variant(tmp_path, 2, name=NAME, size=SIZE)
    deploy(newer, opened, context)
    assert {digest for digest, _ in held(opened, context).values()} == {newer.sha256}


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
        work = stage._Work(TestedSif.untested(sif), deployer, context, mine, KEPT)
        for node in opened.nodes:
            upload = work.survey(node).upload
            script = f"umask 077; head -c 1000 /dev/zero > {upload}"
            ssh.run(node, ["sh", "-c", script], sudo=True)
            assert work.survey(node).uploaded == 1000

    deploy(sif, deployer, context)

    assert {digest for digest, _ in held(opened, context).values()} == {sif.sha256}


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


@pytest.fixture
def late(opened: Cluster) -> Node:
    return opened.compute[-1]


def test_a_node_that_was_down_has_the_image_before_its_first_job(
    opened: Cluster, context: Context, ssh: Ssh, late: Node, tmp_path: Path
) -> None:
    sif = variant(tmp_path, 3, name=NAME, size=SIZE)
    others = choose(opened, only=None, without=late.name)
    deploy(sif, others, context)
    assert held(opened, context).get(late.name, ("", ""))[0] != sif.sha256

    context.runner.run(["docker", "restart", f"sifline-{opened.name}-{late.name}"])

    def arrived() -> bool:
        try:
            return held(opened, context).get(late.name, ("", ""))[0] == sif.sha256
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


def test_what_was_deployed_to_a_node_later_stays(
    opened: Cluster, context: Context, ssh: Ssh, late: Node, tmp_path: Path
) -> None:
    deploy(variant(tmp_path, 4, name=NAME, size=SIZE), opened, context)
    own = variant(tmp_path, 5, name=NAME, size=SIZE)
    # The catalog tells times by the second.
    until(lambda: deploy_alone(own, opened, late, context), "a later second")

    ssh.run(late, ["systemctl", "start", "sifline-catch-up"], sudo=True)

    assert held(opened, context)[late.name][0] == own.sha256


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
    deployer: Cluster, cluster: Cluster, context: Context, ssh: Ssh, late: Node
) -> None:
    provision(cluster, context, stage=STAGE)

    assert as_user(ssh, f"sudo -n {TOOL} ready --root=/opt/containers").returncode
    enabled = ssh.run(late, ["systemctl", "is-enabled", "sifline-catch-up"], check=False)
    assert enabled.returncode
    with pytest.raises(SshFailed):
        inspect(deployer, context)
    login = ssh.run(late, ["sh", "-c", f"{key_command(ssh, late)} true"], sudo=True, check=False)
    assert "Permission denied" in login.stderr
    # The folders of users stay: they may hold what nobody else has.
    assert as_user(ssh, f"ls /opt/containers/users/{USER}").returncode == 0


SHARED = "/srv/shared"


@pytest.fixture
def shared(cluster: Cluster) -> Cluster:
    root = PurePosixPath(f"{SHARED}/containers")
    return replace(cluster, registry_root=root, registry=Registry(shared=True))


def test_a_shared_file_system_that_is_not_mounted_is_named(
    shared: Cluster, context: Context, ssh: Ssh
) -> None:
    everywhere(ssh, f"mkdir -p {SHARED}")

    with pytest.raises(StepFailed, match=rf"{SHARED}/containers is on no mounted file system"):
        provision(shared, context, stage=STAGE)

    assert ssh.run(shared.controller, ["ls", SHARED]).stdout == ""


def test_a_shared_registry_has_to_be_the_same_on_all_nodes(
    shared: Cluster, context: Context, ssh: Ssh, tmp_path: Path
) -> None:
    ask = ["docker", "inspect", "--format={{.State.Pid}}"]
    processes = {
        node.name: int(
            context.runner.run([*ask, f"sifline-{shared.name}-{node.name}"]).stdout.strip()
        )
        for node in shared.nodes
    }
    same, other = tmp_path / "same", tmp_path / "other"
    same.mkdir(mode=0o755)
    other.mkdir(mode=0o755)
    first, *rest, last = shared.nodes
    try:
        for node in (first, *rest):
            bind(same, processes[node.name], SHARED)
        bind(other, processes[last.name], SHARED)
        with pytest.raises(StepFailed, match=rf"of {last.name} is not that of {first.name}"):
            provision(shared, context, stage=STAGE)

        ssh.run(last, ["umount", SHARED], sudo=True)
        bind(same, processes[last.name], SHARED)
        assert provision(shared, context, stage=STAGE).changed >= 0
        assert provision(shared, context, stage=STAGE).changed == 0
        assert (same / "containers" / ".registry").is_dir()
    finally:
        everywhere(ssh, f"umount {SHARED} || :")
