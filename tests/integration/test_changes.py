"""Changes of a living cluster, each beside two jobs: one elsewhere, and one on what changes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import pytest

from sifline.config.node_lists import choose
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Cluster, Node, Partition
from sifline.stages.provision import provision
from tests.integration.test_provision import daemons, digests, node_state, output, with_variables
from tests.support.groups import shares_cluster
from tests.support.waiting import until

pytestmark = [shares_cluster("cluster of provision"), pytest.mark.long]

OTHER, GRES = "other", "/etc/slurm/gres.conf"
ENDED = frozenset({"CANCELLED", "NODE_FAIL"})
SHORT = ("--mem=100M", "--chdir=/tmp", "--output=/dev/null", "--wrap=exec sleep infinity")


@pytest.fixture(scope="module")
def base(cluster: Cluster, context: Context) -> Iterator[Cluster]:
    """The cluster with a second partition, in which the job is that feels a change."""
    parts = (*cluster.partitions, Partition(name=OTHER, max_time="2:00:00"))
    changed = replace(cluster, partitions=parts)
    provision(changed, context)
    try:
        yield changed
    finally:
        provision(cluster, context, interrupt_jobs=True)


@dataclass(frozen=True)
class Job:
    """A job, and what Slurm and its node say of it as long as nothing disturbs it."""

    number: str
    node: Node
    processes: str = ""

    def of(self, ssh: Ssh) -> dict[str, str]:
        """Slurm's fields of the job."""
        told = output(ssh, ssh.cluster.controller, "scontrol", "-o", "show", "job", self.number)
        return dict(re.findall(r"(\S+?)=(\S*)", told))

    def state(self, ssh: Ssh) -> str:
        return self.of(ssh)["JobState"]

    def seen(self, ssh: Ssh) -> str:
        """Its processes on the node."""
        return output(ssh, self.node, "scontrol", "listpids", self.number)


def submit(ssh: Ssh, *options: str) -> str:
    user = ("runuser", "-u", str(ssh.cluster.job_user), "--")
    words = (*user, "sbatch", "--parsable", *options, *SHORT)
    return output(ssh, ssh.cluster.controller, *words).strip()


def held(ssh: Ssh, number: str) -> bool:
    return Job(number, ssh.cluster.controller).state(ssh) == "RUNNING"


@contextmanager
def job(ssh: Ssh, node: Node, *options: str) -> Iterator[Job]:
    """A job that runs on ``node`` until the end of the block, if nothing ends it before."""
    number = submit(ssh, f"--nodelist={node.name}", *options)
    try:
        until(lambda: held(ssh, number), f"job {number} to run")
        found = Job(number, node)
        yield replace(found, processes=found.seen(ssh))
    finally:
        output(ssh, ssh.cluster.controller, "scancel", number)
        until(lambda: Job(number, node).state(ssh) in ENDED, f"the end of job {number}")


@contextmanager
def undisturbed(ssh: Ssh, node: Node) -> Iterator[None]:
    """A job on ``node`` that goes on as if nothing happened."""
    with job(ssh, node) as other:
        before = other.of(ssh)
        yield
        after = other.of(ssh)
        for name in ("JobState", "StartTime", "Restarts"):
            assert after[name] == before[name]
        assert other.seen(ssh) == other.processes


def without_last(cluster: Cluster) -> Cluster:
    return replace(cluster, nodes=cluster.nodes[:-1])


def last(cluster: Cluster, *, cpus: int = 0, gpus: int = 0, memory_mb: int = 0) -> Cluster:
    *others, node = cluster.nodes
    changed = replace(
        node,
        cpus=cpus or node.cpus,
        gpus=gpus or node.gpus,
        memory_mb=memory_mb or node.memory_mb,
    )
    return replace(cluster, nodes=(*others, changed))


def renamed(cluster: Cluster) -> Cluster:
    parts = tuple(
        replace(part, name="renamed") if part.name == OTHER else part
        for part in cluster.partitions
    )
    return replace(cluster, partitions=parts)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """A change that ends a job, the job's options, why it is refused, and the job's state then."""

    change: Callable[[Cluster], Cluster]
    options: tuple[str, ...] = ()
    why: str
    state: str


ENDING = {
    # Otherwise Slurm queues a job again whose node or partition is back before it has ended.
    "a node leaves": Ending(
        options=("--no-requeue",), change=without_last, why="leaves the cluster", state="NODE_FAIL"
    ),
    "fewer gpus": Ending(
        change=partial(last, gpus=1),
        options=("--gres=gpu:1",),
        why="goes from 2 to 1 gpus",
        state="PENDING",
    ),
    "a partition is renamed": Ending(
        options=("--no-requeue",), change=renamed, why=f"partition {OTHER} goes", state="NODE_FAIL"
    ),
}
BECOMES = {"NODE_FAIL": "fails", "PENDING": "queued again"}


@pytest.mark.parametrize("case", ENDING.values(), ids=ENDING)
def test_a_change_that_would_end_a_job_is_refused_and_told_and_made_where_that_is_asked_for(
    base: Cluster, context: Context, ssh: Ssh, case: Ending
) -> None:
    node, wanted = base.compute[-1], case.change(base)
    with undisturbed(ssh, base.compute[0]):
        with job(ssh, node, f"--partition={OTHER}", *case.options) as felt:
            before = digests(ssh), daemons(ssh)
            said = f"{case.why}, which would end {felt.number} of alice; wait for them with --wait"
            with pytest.raises(StepFailed, match=said) as caught:
                provision(wanted, context)
            assert "--interrupt-jobs" in caught.value.message
            assert (digests(ssh), daemons(ssh)) == before
            assert felt.state(ssh) == "RUNNING"

            done = provision(wanted, context, interrupt_jobs=True)

            (told,) = done.jobs
            assert (told.id, told.user, told.state) == (felt.number, "alice", "RUNNING")
            assert told.becomes == BECOMES[case.state]
            until(lambda: felt.state(ssh) == case.state, f"the job to be {case.state}")
            if case.change is without_last:
                found = ssh.run(
                    node, ["pgrep", "-x", "-l", "slurmd|slurmstepd|sleep"], check=False
                )
                assert found.stdout == ""
                asked = ssh.run(node, ["systemctl", "is-enabled", "slurmd"], check=False)
                assert asked.stdout.strip() == "disabled"
        # Adding a node disturbs nothing either.
        provision(base, context)
        assert node_state(ssh, node) in {"idle", "mixed"}


def harmless(cluster: Cluster) -> Cluster:
    """Less memory on the last node, a shorter time in its partition, and another partition."""
    default, other = cluster.partitions
    parts = (default, replace(other, max_time="1:00:00"), Partition(name="third"))
    return replace(last(cluster, memory_mb=1024), partitions=parts)


def test_a_change_that_ends_no_job_restarts_nothing(
    base: Cluster, context: Context, ssh: Ssh
) -> None:
    with (
        undisturbed(ssh, base.compute[0]),
        undisturbed(ssh, base.compute[-1]),
        job_that_waits(ssh, base.compute[-1]) as number,
    ):
        before = entered(ssh)
        done = provision(harmless(base), context)
        assert entered(ssh) == before
        assert [(item.id, item.becomes) for item in done.jobs] == [(number, "stays queued")]
        assert Job(number, base.compute[-1]).state(ssh) == "PENDING"
        assert provision(harmless(base), context).changed == 0
        provision(base, context)
        assert entered(ssh) == before


def entered(ssh: Ssh) -> dict[str, str]:
    """When each daemon was started last by systemd; a reload is no start."""
    asked = ("systemctl", "show", "--property=Id,ActiveEnterTimestampMonotonic")
    units = ("munge.service", "slurmctld.service", "slurmd.service")
    return {node.name: output(ssh, node, *asked, *units) for node in ssh.cluster.nodes}


@contextmanager
def job_that_waits(ssh: Ssh, node: Node) -> Iterator[str]:
    """A job in the queue that would take more time than the partition will have."""
    hold = ("--hold", "--time=90", f"--partition={OTHER}", f"--nodelist={node.name}")
    number = submit(ssh, *hold)
    try:
        yield number
    finally:
        output(ssh, ssh.cluster.controller, "scancel", number)


def test_a_check_shows_which_jobs_would_feel_a_change(
    base: Cluster, context: Context, ssh: Ssh
) -> None:
    node = base.compute[-1]
    with (
        job(ssh, node, f"--partition={OTHER}") as felt,
        job_that_waits(ssh, node) as waits,
        undisturbed(ssh, base.compute[0]),
    ):
        before = digests(ssh), daemons(ssh)
        looked = provision(last(base, cpus=1), context, check=True)
        assert [(job.id, job.becomes) for job in looked.jobs] == [(felt.number, "queued again")]
        looked = provision(renamed(base), context, check=True)
        told = {job.id: (job.where, job.becomes) for job in looked.jobs}
        assert told == dict.fromkeys((felt.number, waits), (f"partition {OTHER}", "fails"))
        assert (digests(ssh), daemons(ssh)) == before
        assert felt.state(ssh) == "RUNNING"


@pytest.mark.parametrize(
    "change", [partial(last, cpus=1), renamed], ids=["fewer cpus", "a partition is renamed"]
)
def test_a_change_waits_for_the_jobs_that_it_would_end(
    base: Cluster, context: Context, ssh: Ssh, change: Callable[[Cluster], Cluster]
) -> None:
    node = base.compute[-1]
    with undisturbed(ssh, base.compute[0]), ThreadPoolExecutor(1) as pool:
        with job(ssh, node, f"--partition={OTHER}") as felt:
            # Not for ever, should another job be there.
            wanted = with_variables(change(base), slurm_controller_wait_for_jobs_seconds=120)
            done = pool.submit(provision, wanted, context, wait=True)
            until(lambda: closed(ssh, node), "the node or the partition to take no jobs")
            assert felt.state(ssh) == "RUNNING"
            assert not done.done()
        assert done.result().jobs == ()
        assert Job(felt.number, node).state(ssh) == "CANCELLED"
        # Nothing is held any more.
        assert not closed(ssh, node)
        assert node_state(ssh, node) == "idle"
        provision(base, context)


def closed(ssh: Ssh, node: Node) -> bool:
    told = output(ssh, ssh.cluster.controller, "scontrol", "-o", "show", "partition")
    return "drain" in node_state(ssh, node) or "State=DRAIN" in told


def test_a_run_takes_back_what_a_broken_run_held(
    base: Cluster, context: Context, ssh: Ssh
) -> None:
    node, by_person = base.compute[-1], base.compute[0]
    change = ("scontrol", "update")
    reason = "reason=sifline: waits for the end of jobs"
    output(ssh, base.controller, *change, f"nodename={node.name}", "state=drain", reason)
    mine = "reason=Low memory, says a person"
    output(ssh, base.controller, *change, f"nodename={by_person.name}", "state=drain", mine)
    output(ssh, base.controller, *change, f"partitionname={OTHER}", "state=drain")
    ssh.run(base.controller, ["tee", "/var/lib/sifline/slurm-held"], sudo=True, input=f"{OTHER}\n")
    try:
        provision(base, context)
        assert node_state(ssh, node) == "idle"
        # What a person drained is never touched.
        assert node_state(ssh, by_person) == "drained"
        told = output(ssh, base.controller, "scontrol", "-o", "show", "partition", OTHER)
        assert "State=UP" in told
        assert provision(base, context).changed == 0
    finally:
        output(ssh, base.controller, *change, f"nodename={by_person.name}", "state=resume")


def test_a_node_whose_prolog_failed_is_taken_back_once_that_is_mended(
    base: Cluster, context: Context, ssh: Ssh
) -> None:
    node, prolog = base.compute[-1], "/usr/local/sbin/sifline-test-prolog"
    with_prolog = with_variables(base, slurm_common_extra=[f"Prolog={prolog}"])
    for each in base.compute:
        write(ssh, each, prolog, "exit 0")
    try:
        provision(with_prolog, context)
        write(ssh, node, prolog, "exit 1")
        number = submit(ssh, f"--nodelist={node.name}")
        until(lambda: "drain" in node_state(ssh, node), "the node to be drained")
        output(ssh, base.controller, "scancel", number)
        failed = failed_at(ssh, node)
        # Times are in whole seconds.
        until(lambda: clock(ssh, node) > failed, "the next second")

        (note,) = provision(with_prolog, context).notes
        assert note.startswith(f"{node.name}: stays drained: Prolog error")
        assert "drain" in node_state(ssh, node)

        write(ssh, node, prolog, "exit 0")
        assert provision(with_prolog, context).notes == ()
        assert node_state(ssh, node) == "idle"
    finally:
        provision(base, context)
        for each in base.compute:
            output(ssh, each, "rm", "-f", prolog)


def write(ssh: Ssh, node: Node, path: str, line: str) -> None:
    ssh.run(node, ["tee", path], sudo=True, input=f"#!/bin/sh\n{line}\n")
    output(ssh, node, "chmod", "0755", path)


def clock(ssh: Ssh, node: Node) -> str:
    return output(ssh, node, "date", "+%Y-%m-%dT%H:%M:%S").strip()


def failed_at(ssh: Ssh, node: Node) -> str:
    told = output(ssh, ssh.cluster.controller, "scontrol", "-o", "show", "node", node.name)
    found = re.search(r"Reason=Prolog error \[\w+@(\S+)\]", told)
    assert found, told
    return found.group(1)


def test_some_nodes_alone_are_done_and_the_others_stay_as_they_are(
    base: Cluster, context: Context, ssh: Ssh
) -> None:
    first, node = base.compute[0], base.compute[-1]
    chosen = choose(base, only=node.name)
    for each in (first, node):
        output(ssh, each, "chmod", "0600", GRES)
    before = entered(ssh)

    done = provision(chosen, context)

    assert {host for _, hosts in done.changes for host in hosts} == {node.name}
    assert output(ssh, first, "stat", "--format=%a", GRES) == "600\n"
    assert output(ssh, node, "stat", "--format=%a", GRES) == "644\n"
    assert entered(ssh) == before
    # The others would not know of it.
    with pytest.raises(StepFailed, match=r"slurm\.conf would change, which all nodes share"):
        provision(renamed(chosen), context)
    provision(base, context)
    assert output(ssh, first, "stat", "--format=%a", GRES) == "644\n"
