"""What the checks make of what they saw. That each turns red on a cluster: integration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sifline.engines.slurm import Slurm, gpu_count, read_nodes
from sifline.engines.ssh.faults import Fault, SshFailed
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed, UsageError
from sifline.machine.process import Result
from sifline.machine.streams import Argv
from sifline.model import Cluster, Node, Partition, Role, SshAccess, Status
from sifline.report import checks as report_checks
from sifline.validation.check import Check, Phase
from sifline.validation.outcome import CheckFailed, CheckSkipped, one_line
from sifline.validation.probe import Probe, deployed
from sifline.validation.run import judge as run_check
from sifline.validation.run import listing, select
from sifline.validation.suites import known
from sifline.validation.suites.cgroup_isolation import judge_cores
from sifline.validation.suites.infrastructure import (
    Reading,
    judge_clocks,
    judge_fence,
    judge_nodes,
    pmix_fence_spans_nodes,
)
from sifline.validation.suites.mpi_job import Rank, judge, read_ranks
from sifline.validation.suites.registry import judge_copies
from tests.support.recording import RecordingRunner, answer

PATH = "/opt/containers/custom-images/hello-mpi.sif"
COMPUTE = Node(name="n1", role=Role.COMPUTE, cpus=2, memory_mb=1000, gpus=2)
CLUSTER = Cluster(
    name="blue",
    nodes=(Node(name="c", role=Role.CONTROLLER), COMPUTE),
    ssh=SshAccess(),
    partitions=(Partition(name="main"),),
    source=Path("clusters/blue.yaml"),
)


def line(rank: int, **changes: object) -> str:
    fields = {
        "rank": rank,
        "size": 4,
        "host": f"compute-0{rank // 2 + 1}",
        "sum": 6,
        "expected": 6,
        "os": "debian-12",
        "container": PATH,
        **changes,
    }
    return " ".join(f"{key}={value}" for key, value in fields.items())


def ranks(*lines: str) -> tuple[Rank, ...]:
    return read_ranks("\n".join(lines))


GOOD = tuple(line(rank) for rank in range(4))


def test_four_good_ranks_are_evidence() -> None:
    said = judge(ranks(*reversed(GOOD)), [PATH], {"debian-13"})

    assert said.startswith("rank 0 on compute-01 sum 6, rank 1 on compute-01 sum 6")
    assert "inside debian-12" in said


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), r"ranks \[\] instead"),
        (GOOD[:3], r"ranks \[0, 1, 2\] instead"),
        ((*GOOD[:3], line(2)), r"ranks \[0, 1, 2, 2\] instead"),
        ([line(rank, size=1) for rank in range(4)], "rank 0 sees 1 ranks"),
        ((*GOOD[:3], line(3, sum=7)), "rank 3 has the sum 7"),
        ((*GOOD[:3], line(3, sum=7, expected=7)), "rank 3 has the sum 7"),
        ((*GOOD[:3], line(3, container="")), "rank 3 runs in no container"),
        ((*GOOD[:3], line(3, container="/tmp/x.sif")), "rank 3 runs in /tmp/x.sif"),
        ((*GOOD[:3], line(3, os="debian-13")), "rank 3 sees debian-13, as the nodes do"),
        ([line(rank, host="compute-01") for rank in range(4)], "all ranks ran on compute-01"),
    ],
)
def test_ranks_that_prove_nothing_fail(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        judge(ranks(*lines), [PATH], {"debian-13"})


@pytest.mark.parametrize("text", ["rank=0", "rank=x size=4", line(0).replace("sum=6", "sum=")])
def test_a_garbled_rank_fails(text: str) -> None:
    with pytest.raises(CheckFailed, match="cannot be read"):
        read_ranks(text)


def test_other_output_of_the_job_is_no_rank() -> None:
    assert ranks("a warning: rank=9", GOOD[0]) == ranks(GOOD[0])


def fence(*rounds: str) -> str:
    """Lines of the ranks of n1 and n2, written "1c 0c 1l 0l" for each round."""
    words = {"c": "comes", "l": "leaves"}
    return "\n".join(
        f"fence {late} {step[0]} n{int(step[0]) + 1} {words[step[1]]}"
        for late, steps in enumerate(rounds)
        for step in steps.split()
    )


HELD = ("1c 0c 1l 0l", "0c 1c 0l 1l")


def test_a_fence_that_holds_all_is_evidence() -> None:
    said = judge_fence("a prolog says something\n" + fence(*HELD))

    assert said == "the ranks on n1 and n2 left the fence only after all had entered it"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (fence("1c 1l 0c 0l", HELD[1]), "rank 1 on n2 left the fence before rank 0 on n1"),
        (fence(HELD[0], "0c 0l 1c 1l"), "rank 0 on n1 left the fence before rank 1 on n2"),
        (fence(HELD[0]), "did not go through 2 fences: 0 1 comes, "),
        (fence(HELD[0], "0c 1c 0l"), "did not go through"),
        (fence(HELD[0], "0c 1c 0l 0l"), "did not go through"),
        ("", "did not go through 2 fences: nothing"),
        (fence(*HELD).replace("n2", "n1"), "all ranks ran on n1"),
    ],
)
def test_a_fence_that_proves_nothing_fails(lines: str, message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        judge_fence(lines)


def fence_seen(listed: Result, done: Result) -> str:
    """Look at a fence where srun lists plugins like that, and the job ends like this."""

    def srun(argv: Argv, *, options: Sequence[str]) -> Result:
        return listed if "--mpi=list" in options else done

    cluster = replace(CLUSTER, nodes=(*CLUSTER.nodes, replace(COMPUTE, name="n2")))
    with Ssh(cluster, RecordingRunner()) as ssh:
        probe = Probe(ssh, seconds=5)
        probe.slurm = cast("Slurm", SimpleNamespace(srun=srun))
        return pmix_fence_spans_nodes(probe)


PLUGINS = answer(stderr="MPI plugin types are...\n\tnone\n\tpmix\nversions: pmix_v5\n")
NO_PLUGIN = answer(stderr="MPI plugin types are...\n\tnone\n")
NO_SRUN = answer(stderr="env: srun: No such file", returncode=127)


@pytest.mark.parametrize(
    ("listed", "done", "outcome", "message"),
    [
        (NO_PLUGIN, answer(), CheckSkipped, "has no plugin pmix"),
        (NO_SRUN, answer(), CheckFailed, "does not list its plugins: env: srun: No such file"),
        (
            PLUGINS,
            answer(stderr="fence: no PMIx for programs: libpmix.so.2: x\nsrun: y", returncode=1),
            CheckSkipped,
            "^no PMIx for programs: libpmix.so.2: x$",
        ),
        (
            PLUGINS,
            answer(stderr="srun: x\nfence: PMIx_Init returned -25", returncode=1),
            CheckFailed,
            "status 1: fence: PMIx_Init returned -25",
        ),
        (PLUGINS, answer(stderr="srun: x", returncode=1), CheckFailed, "status 1: srun: x"),
        (PLUGINS, answer(), CheckFailed, "did not go through"),
    ],
)
def test_a_fence_that_cannot_be_looked_at(
    listed: Result, done: Result, outcome: type[Exception], message: str
) -> None:
    with pytest.raises(outcome, match=message):
        fence_seen(listed, done)


def test_a_fence_is_looked_at_through_the_plugin() -> None:
    assert "left the fence only after all had entered it" in fence_seen(
        PLUGINS, answer(fence(*HELD))
    )


def test_clocks_may_differ_by_less_than_the_limit() -> None:
    near = Reading(before=100.0, clock=101.5, after=100.1)
    here = Reading(before=100.0, clock=100.0, after=100.1)

    assert "2 nodes agree" in judge_clocks({"a": here, "b": near})


def test_a_clock_that_is_ahead_is_named() -> None:
    here = Reading(before=100.0, clock=100.0, after=100.1)
    ahead = Reading(before=100.0, clock=105.0, after=100.1)

    with pytest.raises(CheckFailed, match=r"clock of b is 4\.9 s ahead of a's"):
        judge_clocks({"a": here, "b": ahead})


def test_a_slow_answer_is_not_taken_for_skew() -> None:
    here = Reading(before=100.0, clock=100.0, after=100.1)
    slow = Reading(before=100.0, clock=105.0, after=106.0)

    assert judge_clocks({"a": here, "b": slow})


@pytest.mark.parametrize(
    ("gres", "count"),
    [("", 0), ("gpu", 1), ("gpu:2", 2), ("gpu:fake:2(S:0-1)", 2), ("gpu:a:1,gpu:b:2,mps:9", 3)],
)
def test_gpus_are_counted_in_the_words_of_slurm(gres: str, count: int) -> None:
    assert gpu_count(gres) == count


def test_sinfo_names_a_node_once_for_each_partition() -> None:
    text = "n1|idle|2|1000|gpu:fake:2(S:0)|24.11.5\nn1|idle|2|1000|(null)|24.11.5\n"

    assert list(read_nodes(text)) == ["n1"]


def test_a_node_as_the_file_says_is_evidence() -> None:
    found = read_nodes("n1|idle|2|1000|gpu:fake:2|24.11.5")

    assert judge_nodes(CLUSTER, found) == "n1 idle, with the resources of blue.yaml"


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        ("n1|drained|2|1000|gpu:2|24", "n1 is drained"),
        ("n1|idle*|2|1000|gpu:2|24", r"n1 is idle\*"),
        ("n1|idle|4|1000|gpu:2|24", "4 CPUs instead of 2"),
        ("n1|idle|2|900|gpu:2|24", "900 MiB instead of 1000"),
        ("n1|idle|2|1000|(null)|24", "0 GPUs instead of 2"),
        ("n2|idle|2|1000|gpu:2|24", "n1 is not known to Slurm"),
    ],
)
def test_a_node_that_is_not_as_the_file_says_fails(seen: str, message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        judge_nodes(CLUSTER, read_nodes(seen))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"allocated": 1, "given": [0, 1], "taken": [0, 1]}, "was bound to 2"),
        ({"allocated": 1, "given": [0], "taken": [0, 1]}, "moved to 2"),
    ],
)
def test_cores_beyond_the_allocation_fail(found: dict[str, object], message: str) -> None:
    with pytest.raises(CheckFailed, match=message):
        judge_cores(found, COMPUTE)


def test_copies_that_differ_or_lack_are_named() -> None:
    def held(digest: str | None) -> dict[str, object]:
        return {"images": {"x/y": {"found": digest}} if digest else {}}

    with pytest.raises(CheckFailed, match="x/y differs: a 1111, b 2222"):
        judge_copies({"a": held("1111"), "b": held("2222")})
    with pytest.raises(CheckFailed, match="x/y differs: a 1111, b none"):
        judge_copies({"a": held("1111"), "b": held(None)})
    with pytest.raises(CheckSkipped):
        judge_copies({"a": held(None), "b": held(None)})


def outcome(error: Exception | None) -> tuple[Status, str]:
    def function(_: Probe) -> str:
        if error:
            raise error
        return "seen"

    check = Check(suite="s", name="n", phase=Phase.DEPLOYMENT, summary="", function=function)
    with Ssh(CLUSTER, RecordingRunner()) as ssh:
        result = run_check(check, Probe(ssh, seconds=5))
    return result.status, result.message


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (None, Status.PASSED, "seen"),
        (CheckFailed("bad"), Status.FAILED, "bad"),
        (CheckSkipped("cannot"), Status.SKIPPED, "cannot"),
        (StepFailed("node down", details="a\nwhy"), Status.FAILED, "node down: why"),
        (KeyError("x"), Status.FAILED, "the check broke: KeyError: 'x'"),
    ],
)
def test_every_check_has_an_outcome(error: Exception | None, status: Status, message: str) -> None:
    assert outcome(error) == (status, message)


def test_a_check_whose_time_is_over_can_do_nothing_more() -> None:
    with Ssh(CLUSTER, RecordingRunner()) as ssh:
        probe = Probe(ssh, seconds=-60)

        with pytest.raises(CheckFailed, match="did not end"):
            probe.run(COMPUTE, ["true"])


def test_checks_come_phase_by_phase() -> None:
    phases = [check.phase for check in known()]

    assert phases == sorted(phases, key=list(Phase).index)
    assert set(phases) == set(Phase)


def test_suites_and_checks_are_chosen_by_name() -> None:
    def names(*, suites: tuple[str, ...] = (), checks: tuple[str, ...] = ()) -> list[str]:
        return [check.key for check in select(known(), suites, checks)]

    assert names(suites=("mpi-job",)) == ["mpi-job.four-ranks-on-two-nodes"]
    assert names(checks=("copies-equal",)) == ["registry.copies-equal"]
    assert names(checks=("registry.copies-equal",)) == ["registry.copies-equal"]
    assert len(names()) == len(known())


@pytest.mark.parametrize(
    ("suites", "checks", "message"),
    [
        (("cgroup-isolaton",), (), "Did you mean cgroup-isolation"),
        ((), ("copies-equl",), "Did you mean copies-equal"),
    ],
)
def test_an_unknown_name_gets_the_nearest(
    suites: tuple[str, ...], checks: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        select(known(), suites, checks)


def test_every_check_is_listed_with_what_it_says() -> None:
    listed = {f"{suite}.{name}" for suite, items in listing().items() for name, _ in items}

    assert listed == {check.key for check in known()}
    assert all(summary for items in listing().values() for _, summary in items)


def test_a_cluster_with_too_few_nodes_is_no_place_for_a_check() -> None:
    with Ssh(CLUSTER, RecordingRunner()) as ssh:
        probe = Probe(ssh, seconds=5)

        probe.need_nodes(1)
        with pytest.raises(CheckSkipped, match="fewer than 2 compute nodes"):
            probe.need_nodes(2)


def test_a_cluster_without_a_job_user_cannot_be_looked_at_as_one() -> None:
    with Ssh(replace(CLUSTER, job_user=""), RecordingRunner()) as ssh, pytest.raises(CheckSkipped):
        _ = Probe(ssh, seconds=5).job_user


def test_the_next_command_is_the_end_of_what_is_said_of_a_node_that_cannot_be_talked_to() -> None:
    said = "node-1: sudo asks admin for a password; add --ask-become-pass"
    fault = Fault.SUDO_ASKS
    error = SshFailed(said, fault=fault, node="node-1", details="sudo: a password is required")
    assert one_line(error) == said


PARTLY = replace(
    CLUSTER, nodes=(COMPUTE,), left_out=(CLUSTER.nodes[0], replace(COMPUTE, name="n2", gpus=0))
)
NO_COMPUTE = replace(CLUSTER, nodes=CLUSTER.nodes[:1], left_out=(COMPUTE,))


def statuses(cluster: Cluster) -> dict[str, tuple[Status, str]]:
    """How every check ends where no command is answered."""
    found = {}
    for check in known():
        with Ssh(cluster, RecordingRunner({("ssh",): answer(returncode=255)})) as ssh:
            result = run_check(check, Probe(ssh, seconds=5))
        found[check.name] = (result.status, result.message)
        assert result.left_out == tuple(node.name for node in cluster.left_out)
    return found


@pytest.mark.parametrize(
    ("check", "what"),
    [
        ("clocks-agree", "2 nodes"),
        ("munge-credentials-cross-nodes", "2 nodes"),
        ("copies-equal", "2 nodes"),
        ("pmix-fence-spans-nodes", "2 compute nodes"),
        ("four-ranks-on-two-nodes", "2 compute nodes"),
        ("one-model-on-two-nodes", "2 compute nodes"),
    ],
)
def test_what_needs_two_nodes_is_skipped_on_one(check: str, what: str) -> None:
    found = statuses(PARTLY)

    assert found[check] == (
        Status.SKIPPED,
        f"it needs {what}, and --node and --without leave 1",
    )
    assert found["nodes-answer"][0] is Status.FAILED  # it is looked at, and does not answer


def test_without_a_compute_node_no_job_is_run() -> None:
    jobs = {
        *("nodes-registered", "counts-match", "one-gpu-is-one-device", "memory-is-limited"),
        *("cores-are-limited", "allocated-gpu-opens", "other-gpus-stay-closed"),
        "too-many-gpus-are-refused",
    }
    told = "it needs 1 compute nodes, and --node and --without leave 0"
    found = statuses(NO_COMPUTE)

    assert {name for name in jobs if found[name] != (Status.SKIPPED, told)} == set()


def test_the_result_names_the_nodes_that_were_not_checked() -> None:
    with Ssh(PARTLY, RecordingRunner()) as ssh:
        check = Check(
            suite="s", name="n", phase=Phase.DEPLOYMENT, summary="", function=lambda _: "x"
        )
        result = run_check(check, Probe(ssh, seconds=5))

    assert report_checks.checks([result]).splitlines()[-1] == (
        "not checked, by --node or --without: c, n2"
    )
    assert "not checked" not in report_checks.checks([replace(result, left_out=())])


def test_an_image_is_found_without_the_controller() -> None:
    class Holding(Probe):
        def __init__(self) -> None:
            pass

        cluster = PARTLY

        def holdings(self, *, read: bool = False) -> dict[str, dict[str, object]]:
            entry = {"name": "hello-mpi", "path": PATH, "found": "a"}
            return {"n1": {"images": {"x": entry}}}

        def run(self, node: Node, argv: Argv, **_: object) -> Result:
            return answer("/real\n")

    assert deployed(Holding(), "hello-mpi") == (PATH, "/real")
