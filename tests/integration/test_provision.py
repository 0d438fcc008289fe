"""Provisioning on real nodes: repeated, looked at only, repairing, and failing."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Cluster, Node
from sifline.stages.provision import provision
from tests.support.command import ROOT
from tests.support.groups import shares_cluster
from tests.support.processes import read_all
from tests.support.waiting import until

pytestmark = [shares_cluster("cluster of provision"), pytest.mark.long]

KEY = "/etc/munge/munge.key"
SLURM_CONF = "/etc/slurm/slurm.conf"
FILES = (*(f"/etc/slurm/{name}.conf" for name in ("slurm", "cgroup", "gres", "mpi")), KEY)

# A provisioning in between takes as long as it takes.
SESSION_SECONDS = 900


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


def test_folders_of_slurm_get_their_owner_and_mode(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    """As where root's umask is 077, or where an earlier release made none."""
    config, jobs = "/etc/slurm", "/var/log/slurm-jobs"
    look = ("stat", "--format=%a %U %G %n", config, jobs)
    output(ssh, node, "chmod", "0700", config)
    output(ssh, node, "rmdir", jobs)
    output(ssh, cluster.controller, "chown", "alice", jobs)
    before = daemons(ssh)
    done = provision(cluster, context)
    folders = "Make the folders of Slurm's configuration and of job records"
    assert done.changes == ((folders, tuple(sorted((node.name, cluster.controller.name)))),)
    for other in cluster.nodes:
        assert output(ssh, other, *look) == f"755 root root {config}\n711 root root {jobs}\n"
    ssh.run(node, ["sinfo"], user="alice")
    assert ssh.run(node, ["ls", jobs], user="alice", check=False).returncode
    assert daemons(ssh) == before


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


def with_variables(cluster: Cluster, **variables: object) -> Cluster:
    return dataclasses.replace(cluster, variables=(*cluster.variables, *variables.items()))


@contextmanager
def running_job(ssh: Ssh, *options: str) -> Iterator[str]:
    """A job of the cluster's user, which runs until the end of the block; its number."""
    user = ("runuser", "-u", str(ssh.cluster.job_user), "--")
    submit = ("sbatch", "--parsable", "--chdir=/tmp", "--output=/dev/null", *options)
    number = output(
        ssh, ssh.cluster.controller, *user, *submit, "--wrap=exec sleep infinity"
    ).strip()
    try:
        until(lambda: state(ssh, number) == "RUNNING", f"job {number} to run")
        yield number
    finally:
        output(ssh, ssh.cluster.controller, "scancel", number)


def state(ssh: Ssh, job: str) -> str:
    """The job's state; "" where Slurm does not know it any more."""
    asked = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
    return ssh.run(ssh.cluster.controller, asked, sudo=True, check=False).stdout.strip()


def node_state(ssh: Ssh, node: Node) -> str:
    return output(ssh, ssh.cluster.controller, "sinfo", "-h", "-n", node.name, "-o", "%T").strip()


REFUSED = {
    "slurmctld": (
        {"slurm_common_state_dir": "/proc/none/state"},
        r"controller: .*slurmctld does not start: fatal: mkdir\(/proc/none/state\)",
    ),
    "slurmd": (
        {"slurm_common_spool_dir": "/proc/none/spool"},
        r"compute-\d+: .*slurmd does not start: fatal: mkdir\(/proc/none/spool\)",
    ),
    # slurmctld has run under the new name by then.
    "slurmd after a new name": (
        {"slurm_common_spool_dir": "/proc/none/spool", "slurm_common_cluster_name": "renamed"},
        r"compute-\d+: .*slurmd does not start: fatal: mkdir\(/proc/none/spool\)",
    ),
}


@pytest.mark.parametrize(("variables", "said"), REFUSED.values(), ids=REFUSED)
def test_all_nodes_go_back_where_a_daemon_does_not_start_with_the_new_configuration(
    cluster: Cluster, context: Context, ssh: Ssh, variables: dict[str, object], said: str
) -> None:
    before = digests(ssh)
    with running_job(ssh) as job:
        with pytest.raises(StepFailed, match=said) as caught:
            provision(with_variables(cluster, **variables), context)
        assert state(ssh, job) == "RUNNING"
    assert "the old configuration is back on" in caught.value.message
    assert "with the old configuration:" not in caught.value.message
    assert digests(ssh) == before
    assert not any("unsettled" in kept(ssh, node) for node in cluster.nodes)
    assert provision(cluster, context).changed == 0


def test_all_nodes_go_back_where_one_has_less_than_the_new_configuration_says(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    before = digests(ssh)
    more = dataclasses.replace(node, memory_mb=99_000_000)
    others = tuple(more if other == node else other for other in cluster.nodes)
    with running_job(ssh) as job:
        with pytest.raises(StepFailed, match=rf"{node.name}: .*RealMemory.* is back on"):
            provision(dataclasses.replace(cluster, nodes=others), context)
        assert state(ssh, job) == "RUNNING"
    assert digests(ssh) == before
    # Slurm had drained it.
    assert node_state(ssh, node) in {"idle", "mixed", "allocated"}
    assert provision(cluster, context).changed == 0


def kept(ssh: Ssh, node: Node) -> str:
    found = ssh.run(node, ["ls", "-d", "/var/lib/sifline/slurm-before"], sudo=True, check=False)
    return "unsettled" if found.returncode == 0 else ""


def test_a_run_that_was_killed_does_not_lose_the_configuration_that_slurm_ran_with(
    cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    before = digests(ssh)
    wrong = with_variables(cluster, slurm_common_spool_dir="/proc/none/spool")
    # As if it had been killed after it wrote a file, and before any daemon was restarted.
    for node in cluster.nodes:
        output(ssh, node, "mkdir", "-p", "/var/lib/sifline/slurm-before/etc")
        output(ssh, node, "cp", "-a", "/etc/slurm", "/var/lib/sifline/slurm-before/etc")
        output(ssh, node, "sed", "-i", "s,^SlurmdSpoolDir=.*,SlurmdSpoolDir=/x,", SLURM_CONF)
    with pytest.raises(StepFailed, match="is back on"):
        provision(wrong, context, adopt=True)
    assert digests(ssh) == before


def test_a_node_with_jobs_leaves_only_where_that_is_asked_for(
    cluster: Cluster, context: Context, ssh: Ssh, node: Node
) -> None:
    others = tuple(other for other in cluster.nodes if other != node)
    smaller = dataclasses.replace(cluster, nodes=others)
    before = digests(ssh)
    try:
        with running_job(ssh, f"--nodelist={node.name}") as job:
            said = rf"{node.name} leaves the cluster, which would end {job} of"
            with pytest.raises(StepFailed, match=said) as caught:
                provision(smaller, context)
            assert "--interrupt-jobs" in caught.value.message
            assert digests(ssh) == before
            assert state(ssh, job) == "RUNNING"
            done = provision(smaller, context, interrupt_jobs=True)
            assert state(ssh, job) == ""
        (copy,) = (place.partition(":")[2] for place in done.kept)
        found = output(ssh, cluster.controller, "ls", copy).split()
        assert {"job_state", "node_state"} <= set(found)
        output(ssh, cluster.controller, "rm", "-r", copy)
        asked = output(ssh, cluster.controller, "sinfo", "--noheader", "--Node", "--format=%N")
        assert node.name not in asked.split()
    finally:
        provision(cluster, context)
    assert node_state(ssh, node) == "idle"


def test_the_state_is_copied_where_slurmctld_cannot_say_which_jobs_there_are(
    cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    output(ssh, cluster.controller, "systemctl", "stop", "slurmctld")
    done = provision(with_variables(cluster, slurm_common_extra=["MaxJobCount=9000"]), context)
    back = provision(cluster, context)
    (copy,) = (place.partition(":")[2] for place in done.kept)
    assert "job_state" in output(ssh, cluster.controller, "ls", copy).split()
    output(ssh, cluster.controller, "rm", "-r", copy)
    assert back.kept == ()


def test_a_cluster_is_renamed_without_losing_a_job(
    cluster: Cluster, context: Context, ssh: Ssh
) -> None:
    named = with_variables(cluster, slurm_common_cluster_name="renamed")
    try:
        with running_job(ssh) as job:
            done = provision(named, context)
            assert state(ssh, job) == "RUNNING"
            asked = output(ssh, cluster.controller, "scontrol", "show", "config")
            assert re.search(r"^ClusterName\s+= renamed$", asked, re.MULTILINE)
            back = provision(cluster, context)
            assert state(ssh, job) == "RUNNING"
    finally:
        provision(cluster, context)
    for place in (*done.kept, *back.kept):
        output(ssh, cluster.controller, "rm", "-r", place.partition(":")[2])


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


def playbooks_of(parent: int) -> list[int]:
    """The playbooks that the process ``parent`` started, itself or by others."""
    parents = {
        number: int(stat.rpartition(b")")[2].split()[1]) for number, stat in read_all("stat")
    }
    named = [number for number, words in read_all("cmdline") if b"/ansible-playbook\0" in words]

    def line(number: int) -> Iterator[int]:
        while number > 1 and number in parents:
            yield number
            number = parents[number]

    return [number for number in named if parent in line(number)]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["checkouts", "machines"])
def test_a_killed_run_leaves_no_playbook_and_two_runs_take_turns(
    cluster: Cluster, tmp_path: Path, *, elsewhere: bool
) -> None:
    """Two checkouts of one user; two users or machines, which share the cluster alone."""
    words = [sys.executable, "-m", "invoke", "provision", "--cluster", cluster.name]
    others = {**os.environ, **({"XDG_CACHE_HOME": str(tmp_path)} if elsewhere else {})}
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as first:
        until(lambda: playbooks_of(first.pid), "a playbook")
        running = playbooks_of(first.pid)
        inventory = next(
            word.decode()
            for number, words in read_all("cmdline")
            if number in running
            for word in words.split(b"\0")
            if word.endswith(b"/inventory.json")
        )
        # On a terminal what it waits for is said at once.
        terminal, end = os.openpty()
        with subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=end, env=others
        ) as second:
            os.close(end)
            said = b""
            process = first.pid
            waits = f"(process {process}," if elsewhere else f"waiting for process {process}"
            while waits.encode() not in said:
                said += os.read(terminal, 4096)
            assert playbooks_of(second.pid) == []
            first.kill()
            first.wait()
            until(lambda: not {*running} & {number for number, _ in read_all("stat")}, "its end")
            # The second one goes on alone.
            with suppress(OSError):  # nobody writes to it any more
                while os.read(terminal, 4096):
                    pass
        os.close(terminal)
        assert second.returncode == 0
    assert not Path(inventory).exists()
