"""A virtual cluster with Slurm: stopped, restarted, scaled, and with faults that are measured."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping

import pytest

from sifline.engines.ssh.faults import SshFailed
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Cluster, Node
from sifline.pipeline import Pipeline
from tests.support.command import ROOT, invoke
from tests.support.groups import shares_cluster
from tests.support.waiting import until

pytestmark = [shares_cluster("cluster of isolation and accounting"), pytest.mark.long]

NODE = "compute-02"
PAGE = ROOT / "docs" / "how-to" / "practise-on-a-virtual-cluster.md"


def engine(*argv: str) -> list[str]:
    """What the docker command prints, asked past the code under test."""
    done = subprocess.run(["docker", *argv], check=True, capture_output=True, text=True)
    return done.stdout.split()


def names(cluster: Cluster) -> list[str]:
    return [f"sifline-{cluster.name}-{node.name}" for node in cluster.nodes]


def started(cluster: Cluster) -> dict[str, str]:
    """The container of each node, and when it was started."""
    shown = engine("inspect", "--format={{.Name}} {{.Id}}@{{.State.StartedAt}}", *names(cluster))
    return dict(zip(shown[::2], shown[1::2], strict=True))


def ids(found: Mapping[str, str]) -> list[str]:
    return [item.partition("@")[0] for item in found.values()]


def job(ssh: Ssh, *words: str) -> list[str]:
    """What a job of alice prints on two nodes; it has to start at once."""
    argv = ["srun", "--immediate=10", "--nodes=2", *words]
    return sorted(ssh.run(ssh.cluster.controller, argv, user="alice").stdout.split())


def shown(ssh: Ssh, node: str) -> str:
    """The state of a node as Slurm shows it; a star where it does not answer."""
    asked = ["sinfo", "--noheader", f"--nodes={node}", "--format=%T"]
    return ssh.run(ssh.cluster.controller, asked, check=False).stdout.strip()


def queued(ssh: Ssh) -> str:
    """The jobs that have not ended, a line for each."""
    return ssh.run(ssh.cluster.controller, ["squeue", "--noheader"]).stdout


def addresses(pipeline: Pipeline, cluster: Cluster) -> dict[str, str]:
    return {item.node: item.address for item in pipeline.clusters.status(cluster.name)}


def test_nodes_that_come_back_in_another_order_have_their_addresses(
    cluster: Cluster, pipeline: Pipeline, ssh: Ssh
) -> None:
    before = addresses(pipeline, cluster)
    engine("stop", *names(cluster))
    for name in reversed(names(cluster)):
        engine("start", name)

    assert pipeline.clusters.up(cluster.name).nodes == cluster.nodes
    assert addresses(pipeline, cluster) == before
    until(lambda: {shown(ssh, "compute-01"), shown(ssh, NODE)} == {"idle"}, "two nodes")
    assert job(ssh, "hostname") == ["compute-01", "compute-02"]


def test_a_cluster_that_was_stopped_is_started_again_and_runs_jobs(
    cluster: Cluster, pipeline: Pipeline, ssh: Ssh
) -> None:
    before = started(cluster)
    # slurmctld forgets the end of a job that it had no time to write down.
    engine("stop", *names(cluster)[:1])
    engine("kill", *names(cluster)[1:])
    would = pipeline.clusters.would_up(cluster.name)

    again = pipeline.clusters.up(cluster.name)

    assert (would.removed, would.started) == ((), tuple(node.name for node in cluster.nodes))
    assert again.nodes == cluster.nodes
    assert ids(started(again)) == ids(before)
    assert job(ssh, "hostname") == ["compute-01", "compute-02"]


def test_the_output_of_a_job_is_found_on_every_node(cluster: Cluster, ssh: Ssh) -> None:
    job(ssh, "--output=shared-home.txt", "hostname")

    for node in cluster.nodes:
        found = ssh.run(node, ["cat", "shared-home.txt"], user="alice").stdout.split()
        assert sorted(found) == ["compute-01", "compute-02"]
        homes = ["stat", "--format=%n %U %a", "/home/admin", "/home/alice"]
        assert ssh.run(node, homes).stdout == "/home/admin admin 700\n/home/alice alice 700\n"


def test_a_shell_gives_a_job_the_variables_of_a_login_and_none_of_the_container(
    cluster: Cluster,
) -> None:
    words = ("cluster.shell", "--cluster", cluster.name, "--user", "alice", "--")
    done = invoke(*words, "srun", "--nodes=1", "env")

    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert (found["USER"], found["LOGNAME"], found["HOME"]) == ("alice", "alice", "/home/alice")
    assert {"NODE_GPUS", "NODE_AUTHORIZED_KEY", "container"} & set(found) == set()


# --- faults: each is measured on the node, and by what uses it


def faulty(ssh: Ssh) -> Node:
    return next(node for node in ssh.cluster.nodes if node.name == NODE)


def seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


WRITE = """
ls "$0" > /dev/null || exit 9
echo x 2> /dev/null > "$0/x"; status=$?
rm -f "$0/x"
exit $status
"""


def no_space(ssh: Ssh) -> bool:
    """Whether nothing can be written, while what is there can be read."""
    found = {
        ssh.run(faulty(ssh), ["sh", "-c", WRITE, folder], sudo=True, check=False).returncode != 0
        for folder in ("/opt/containers", "/tmp")
    }
    assert len(found) == 1
    images = ["ls", "/opt/containers/custom-images"]
    assert "hello-mpi.sif" in ssh.run(faulty(ssh), images).stdout
    return found == {True}


def slow_network(ssh: Ssh) -> bool:
    """Whether 200 kB take more than a second, in both directions."""
    node, size = faulty(ssh), 200_000
    received = seconds(lambda: ssh.run(node, ["head", f"--bytes={size}", "/dev/zero"]))
    sent = seconds(lambda: ssh.run(node, ["wc", "--bytes"], input="x" * size))
    return received > 1 and sent > 1


BUSY = """
import time
begun = time.monotonic()
while time.monotonic() < begun + 1.5: pass
print(time.process_time() / (time.monotonic() - begun))
"""


def slow_cpu(ssh: Ssh) -> bool:
    """Whether a busy program has less than a third of a CPU."""
    return float(ssh.run(faulty(ssh), ["python3", "-c", BUSY]).stdout) < 0.33


def slow_disk(ssh: Ssh) -> bool:
    """Whether 2 MiB take more than a second, written and read, without the cache."""
    file, size = "/root/slow-disk", ["bs=256k", "count=8"]
    write = ["dd", "if=/dev/zero", f"of={file}", *size, "oflag=direct"]
    read = ["dd", f"if={file}", "of=/dev/null", *size, "iflag=direct"]
    written = seconds(lambda: ssh.run(faulty(ssh), write, sudo=True))
    return written > 1 and seconds(lambda: ssh.run(faulty(ssh), read, sudo=True)) > 1


def wrong_clock(ssh: Ssh) -> bool:
    """Whether a login sees another time, and another node refuses what MUNGE signs."""
    ahead = float(ssh.run(faulty(ssh), ["date", "+%s"]).stdout) - time.time()
    signed = ssh.run(faulty(ssh), ["munge", "--no-input"]).stdout
    checked = ssh.run(ssh.cluster.controller, ["unmunge"], input=signed, check=False)
    assert ("Rewound" in checked.stdout + checked.stderr) == (ahead > 3000), checked
    return ahead > 3000


def no_gpu(ssh: Ssh) -> bool:
    found = ssh.run(faulty(ssh), ["find", "/dev", "-name", "nvidia[01]"]).stdout.split()
    assert len(found) in (0, 2)
    return not found


def dead(ssh: Ssh) -> bool:
    try:
        return not ssh.run(faulty(ssh), ["true"], check=False).ok
    except SshFailed:
        return True


MEASURED: Mapping[str, Callable[[Ssh], bool]] = {
    "disk-full": no_space,
    "slow-network": slow_network,
    "slow-cpu": slow_cpu,
    "slow-disk": slow_disk,
    "clock": wrong_clock,
    "no-gpu": no_gpu,
    "kill": dead,
}


@pytest.mark.parametrize("fault", MEASURED)
def test_a_fault_has_its_effect_until_it_is_undone(
    cluster: Cluster, pipeline: Pipeline, context: Context, ssh: Ssh, fault: str
) -> None:
    def has_it() -> bool:
        # With new connections: logins see a new clock, and old ones may be to a dead node.
        with Ssh(cluster, context.runner) as fresh:
            return MEASURED[fault](fresh)

    def change(*, undo: bool = False) -> list[str]:
        done = pipeline.practice.fault(cluster.name, NODE, fault, undo=undo)
        assert {item.node for item in done} == {NODE}
        return [item.action for item in done]

    def active() -> dict[str, tuple[str, ...]]:
        found = pipeline.clusters.status(cluster.name)
        return {item.node: item.faults for item in found if item.faults}

    # Others use this machine too: for a moment it may be as slow as with the fault.
    until(lambda: not has_it(), f"a node without {fault}")
    try:
        assert change() == ["set"]
        assert active() == {NODE: (fault,)}
        assert change() == ["set already"]
        assert has_it()
    finally:
        undone = change(undo=True)

    assert undone == ["undone"]
    assert change(undo=True) == ["not set"]
    assert active() == {}
    until(lambda: not has_it(), f"a node without {fault}")
    until(lambda: shown(ssh, NODE) == "idle", "the node in Slurm")


def test_nodes_are_restarted_and_run_jobs_at_once(
    cluster: Cluster, pipeline: Pipeline, ssh: Ssh
) -> None:
    before = started(cluster)

    assert pipeline.practice.restart(cluster.name, f"controller,{NODE}") == [NODE, "controller"]

    changed = {name for name, moment in started(cluster).items() if moment != before[name]}
    assert changed == {f"/sifline-{cluster.name}-{node}" for node in ("controller", NODE)}
    assert job(ssh, "hostname") == ["compute-01", "compute-02"]


def runs(ssh: Ssh, number: str) -> bool:
    asked = ["squeue", "--noheader", "--format=%T", f"--jobs={number}"]
    # squeue does not know jobs that ended a while ago.
    told = ssh.run(ssh.cluster.controller, asked, sudo=True, check=False)
    return told.stdout.strip() == "RUNNING"


def test_a_node_that_runs_jobs_is_not_removed(
    cluster: Cluster, pipeline: Pipeline, ssh: Ssh
) -> None:
    asked = ["sbatch", "--parsable", f"--nodelist={NODE}", "--output=/dev/null", "--wrap=sleep 99"]
    number = ssh.run(cluster.controller, asked, user="alice").stdout.strip()
    try:
        until(lambda: runs(ssh, number), f"job {number} to run")
        with pytest.raises(StepFailed, match=rf"job {number} of alice \(RUNNING\) on {NODE}; "):
            pipeline.practice.scale(cluster.name, 1)
    finally:
        ssh.run(cluster.controller, ["scancel", number], user="alice")
    assert len(started(cluster)) == 3
    until(lambda: not runs(ssh, number), f"the end of job {number}")


# --- the page about it

COMMAND = re.compile(r"^    (invoke .*)$", re.MULTILINE)
# The check that finds the fault of the page.
FAILS = "validate"
WAITING = "while test ! -e $HOME/end; do sleep 0.5; done"


def test_what_the_page_says_works(cluster: Cluster, ssh: Ssh) -> None:
    wait = ["sbatch", "--parsable", "--nodelist=compute-01", "--output=/dev/null"]
    printed, number = "", ""
    for line in COMMAND.findall(PAGE.read_text(encoding="utf-8")):
        words = shlex.split(line.replace("practice", cluster.name))[1:]
        if words[0] in ("cluster.down", "deploy.hello-mpi"):
            continue
        if words[0] == "cluster.scale" and not number:
            # Restarts end jobs; adding and removing nodes does not.
            asked = [*wait, f"--wrap={WAITING}"]
            number = ssh.run(cluster.controller, asked, user="alice").stdout.strip()
        done = invoke(*words)
        assert done.returncode == (words[0] == FAILS), f"{line}: {done.stderr}"
        printed += done.stdout

    assert re.search(r"the clock of compute-02 is 3(599|60.)\.", printed)
    assert "added compute-03" in printed
    assert "removed compute-03" in printed
    running = ["squeue", "--noheader", f"--jobs={number}", "--format=%T"]
    assert ssh.run(cluster.controller, running, user="alice").stdout == "RUNNING\n"
    ssh.run(cluster.controller, ["touch", "end"], user="alice")
    until(lambda: not queued(ssh), "the end of the job")
    ssh.run(cluster.controller, ["rm", "end"], user="alice")
