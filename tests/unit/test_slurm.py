from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sifline.engines.slurm import Slurm
from sifline.errors import StepFailed
from sifline.machine.process import CommandFailed, Result
from sifline.machine.streams import Argv
from sifline.model import Cluster, Node, Partition, Role, SshAccess
from tests.support.recording import answer

CLUSTER = Cluster(
    name="blue",
    nodes=(Node(name="head", role=Role.CONTROLLER), Node(name="n1", role=Role.COMPUTE)),
    ssh=SshAccess(),
    partitions=(Partition(name="main"),),
    source=Path("clusters/blue.yaml"),
    job_user="alice",
)


class Told:
    """A remote that answers by the command's first word."""

    def __init__(self, **answers: Result | Exception) -> None:
        self.cluster = CLUSTER
        self.asked: list[tuple[str, tuple[str, ...], str | None]] = []
        self._answers = answers

    def run(self, node: Node, argv: Argv, *, user: str | None = None, **_: Any) -> Result:
        self.asked.append((node.name, tuple(argv), user))
        given = self._answers.get(argv[0], answer())
        if isinstance(given, Exception):
            raise given
        return given


def test_a_job_runs_as_the_job_user_from_the_controller() -> None:
    remote = Told(srun=answer(stdout="hi"))

    result = Slurm(remote).srun(["hostname"], options=["--nodes=2"], timeout=90)
    (node, argv, user), *others = remote.asked

    assert (node, user, others) == ("head", "alice", [])
    assert (argv[0], argv[-2:]) == ("srun", ("--nodes=2", "hostname"))
    assert "--time=2" in argv
    assert result.stdout == "hi"


def test_a_job_keeps_away_from_nodes_that_are_left_out() -> None:
    remote = Told(srun=answer())
    others = tuple(Node(name=name, role=Role.COMPUTE) for name in ("n2", "n3"))
    head = Node(name="head", role=Role.CONTROLLER)
    remote.cluster = replace(CLUSTER, nodes=CLUSTER.nodes[1:], left_out=(head, *others))

    Slurm(remote).srun(["hostname"])

    assert "--exclude=n2,n3" in remote.asked[0][1]
    assert remote.asked[0][0] == "head"


CPU = Partition(name="cpu", nodes="n[1-2]")
GPU = Partition(name="gpu", nodes="g1")


@pytest.mark.parametrize(
    ("partitions", "option"),
    [
        # The default one has all nodes, or is not known.
        ((Partition(name="main"), Partition(name="other")), []),
        ((CPU, GPU), ["--partition=cpu,gpu"]),
        ((CPU, replace(GPU, state="drain")), ["--partition=cpu"]),
        # A check of shared nodes cannot work where jobs get whole ones.
        ((CPU, replace(GPU, exclusive=True)), ["--partition=cpu,gpu"]),
        ((CPU, GPU, Partition(name="whole", exclusive=True)), ["--partition=cpu,gpu"]),
        ((Partition(name="main"), replace(CPU, exclusive=True)), ["--partition=main"]),
    ],
)
def test_a_job_may_run_on_nodes_that_the_default_partition_lacks(
    partitions: tuple[Partition, ...], option: list[str]
) -> None:
    names = ("n1", "n2", "g1")
    nodes = (CLUSTER.nodes[0], *(Node(name=name, role=Role.COMPUTE) for name in names))
    remote = Told(srun=answer())
    remote.cluster = replace(CLUSTER, nodes=nodes, partitions=partitions)
    Slurm(remote).srun(["hostname"])
    assert [word for word in remote.asked[0][1] if "partition" in word] == option


def test_partitions_that_variables_replace_are_not_named() -> None:
    remote = Told(srun=answer())
    given = (("slurm_common_partitions", [{"name": "x"}]),)
    remote.cluster = replace(CLUSTER, partitions=(replace(CPU, nodes="n1"),), variables=given)
    Slurm(remote).srun(["hostname"])
    assert not any("partition" in word for word in remote.asked[0][1])


def test_a_job_that_does_not_end_is_cancelled() -> None:
    late = CommandFailed("head: srun did not end within 9 s", answer(returncode=124))
    remote = Told(srun=late)

    with pytest.raises(CommandFailed, match="did not end"):
        Slurm(remote).srun(["sleep", "99"], timeout=9)

    name = next(word for word in remote.asked[0][1] if word.startswith("--job-name="))
    assert remote.asked[1][1] == ("scancel", name.replace("--job-name", "--name"))


def test_the_reason_is_kept_where_cancelling_fails_too() -> None:
    remote = Told(srun=StepFailed("head is gone"), scancel=StepFailed("head is still gone"))

    with pytest.raises(StepFailed, match="head is gone"):
        Slurm(remote).srun(["true"])


def test_a_controller_that_is_up_says_so() -> None:
    remote = Told(scontrol=answer(stdout="Slurmctld(primary) at head is UP\n"))

    assert Slurm(remote).ping() == "Slurmctld(primary) at head is UP"


@pytest.mark.parametrize(
    "said",
    [
        answer(stdout="Slurmctld(primary) at head is DOWN\n"),
        answer(stdout="Slurmctld(primary) at head is DOWN\n", returncode=1),
        answer(stdout="", returncode=1),
    ],
)
def test_a_controller_that_is_down_is_named_with_the_next_command(said: Result) -> None:
    with pytest.raises(StepFailed, match=r"slurmctld on head .* systemctl status slurmctld"):
        Slurm(Told(scontrol=said)).ping()


def test_nodes_are_read_from_sinfo() -> None:
    remote = Told(sinfo=answer(stdout="n1|mixed|2|1000|gpu:fake:2(S:0)|24.11.5\n"))

    node = Slurm(remote).nodes()["n1"]

    assert (node.usable, node.answers, node.cpus, node.memory_mb, node.gpus) == (
        True,
        True,
        2,
        1000,
        2,
    )
