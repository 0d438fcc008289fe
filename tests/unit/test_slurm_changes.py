"""Which jobs feel a new slurm.conf, from what scontrol and squeue of Slurm 24.11 print."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sifline.formats.node_lists import fold_in_order

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "ansible" / "roles" / "slurm-controller"


def loaded() -> ModuleType:
    path = ROOT / "ansible" / "filter_plugins" / "sifline_jobs.py"
    spec = importlib.util.spec_from_file_location("sifline_jobs", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look for their annotations.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


jobs = loaded()
COLUMNS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["slurm_controller_columns"]

NODE = (
    "NodeName={name} Arch=x86_64 CoresPerSocket=1 CPUAlloc=1 CPUEfctv=2 CPUTot=2 CPULoad=5.63"
    " AvailableFeatures=(null) Gres={gres} NodeAddr=192.0.2.1{name[1]} NodeHostName={name}"
    " OS=Linux 6.18 #1 SMP RealMemory=2048 State={state} ThreadsPerCore=1 Partitions=debug,long "
    " CfgTRES=cpu=2,mem=2G,billing=2,gres/gpu=2 AllocTRES=cpu=1"
)
PARTITION = (
    "PartitionName={name} AllowGroups=ALL Default=YES DefaultTime=NONE MaxNodes=UNLIMITED"
    " MaxTime={time} NodeSets=ALL Nodes=n[1-3] State=UP TotalCPUs=6"
)
SEEN = (
    "ClusterName=hpc",
    NODE.format(name="n1", gres="(null)", state="IDLE"),
    NODE.format(name="n2", gres="gpu:2(S:0)", state="MIXED"),
    NODE.format(name="n3", gres="gpu:a100:1,gpu:h100:2(S:0-1)", state="IDLE+DRAIN"),
    PARTITION.format(name="debug", time="1-00:00:00"),
    PARTITION.format(name="long", time="UNLIMITED"),
)
CONF = """\
NodeName=n1 NodeAddr=192.0.2.11 CPUs=2 RealMemory=2048 State=UNKNOWN
NodeName=n2 NodeAddr=192.0.2.12 CPUs=2 RealMemory=2048 Gres=gpu:2 State=UNKNOWN
NodeName=n3 CPUs=2 RealMemory=2048 Gres=gpu:a100:1,gpu:h100:2 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=24:00:00 State=UP
PartitionName=long Nodes=n[1-2],n3 Default=NO MaxTime=UNLIMITED State=UP
"""


def job(number: str, state: str = "RUNNING", **cells: str) -> str:
    """A line of squeue."""
    usual = {"JobArrayID": number, "UserName": "alice", "State": state, "Partition": "debug"}
    usual |= {"Requeue": "1", "TimeLimit": "1-00:00:00", "tres-per-node": "N/A"}
    named = {"nodes": "NodeList", "asks": "ReqNodes", "part": "Partition", "requeue": "Requeue"}
    named |= {"time": "TimeLimit", "tres": "tres-alloc", "per_job": "tres-per-job"}
    given = usual | {named[name]: value for name, value in cells.items()}
    return "".join(f"{given.get(column, '')}|" for column in COLUMNS)


def felt(conf: str, *queue: str) -> dict[str, tuple[str, str, str]]:
    changes = jobs.slurm_changes(SEEN, conf)
    found = jobs.slurm_jobs(queue, COLUMNS, changes)
    return {item["id"]: (item["where"], item["why"], item["becomes"]) for item in found}


def without(name: str) -> str:
    return "".join(line for line in CONF.splitlines(True) if f"Name={name} " not in line)


def test_no_change_is_felt() -> None:
    changes = jobs.slurm_changes(SEEN, CONF)
    assert changes.pop("drained") == ["n3"]
    assert not any(changes.values())


def test_jobs_of_a_node_that_leaves_fail_and_those_that_wait_for_it() -> None:
    found = felt(
        without("n2"),
        job("1", nodes="n[1-2]"),
        job("2", nodes="n3"),
        job("3_[4-9]", "PENDING", asks="n2"),
        job("4", "PENDING"),
    )
    assert found == {
        "1": ("n2", "leaves the cluster", "fails"),
        "3_[4-9]": ("n2", "leaves the cluster", "fails"),
    }
    assert jobs.slurm_changes(SEEN, without("n2"))["leaving"] == {"n2": "192.0.2.12"}


def test_a_job_that_waits_for_a_leaving_node_by_name_never_ends_by_itself() -> None:
    changes = jobs.slurm_changes(SEEN, without("n2"))
    lines = (job("1", nodes="n2"), job("2", "PENDING", asks="n2"))
    found = jobs.slurm_jobs(lines, COLUMNS, changes)
    assert [item["can_end"] for item in found] == [True, False]


@pytest.mark.parametrize("cpus", [1, 3])
def test_other_cpus_stop_what_runs_there(cpus: int) -> None:
    conf = CONF.replace("n2 NodeAddr=192.0.2.12 CPUs=2", f"n2 NodeAddr=192.0.2.12 CPUs={cpus}")
    lines = job("1", nodes="n2"), job("2", nodes="n2", requeue="0"), job("3", nodes="n1")
    found = felt(conf, *lines)
    why = f"goes from 2 to {cpus} cpus"
    assert found == {"1": ("n2", why, "queued again"), "2": ("n2", why, "fails")}


GPUS = {
    "fewer": ("gpu:2", "gpu:1", True),
    "none": (" Gres=gpu:2", "", True),
    "more": ("gpu:2", "gpu:4", False),
    "a type for those without": ("gpu:2", "gpu:a100:2", False),
    "fewer of one type": ("gpu:a100:1,gpu:h100:2", "gpu:a100:2,gpu:h100:1", True),
    "another type": ("gpu:a100:1,gpu:h100:2", "gpu:l40:1,gpu:h100:2", True),
}


@pytest.mark.parametrize(("old", "new", "ends"), GPUS.values(), ids=GPUS)
def test_fewer_gpus_stop_the_jobs_that_hold_some(old: str, new: str, ends: bool) -> None:
    node = "n3" if "a100" in old else "n2"
    found = felt(
        CONF.replace(old, new),
        job("1", nodes=node, tres="cpu=1,gres/gpu=1"),
        job("2", nodes=node, tres="cpu=1"),
        job("3", nodes=node, per_job="gres/gpu:1"),
        job("4", nodes="n1", tres="cpu=1,gres/gpu=1"),
    )
    assert set(found) == ({"1", "3"} if ends else set())


def test_jobs_of_a_partition_that_goes_fail_but_for_those_that_have_another() -> None:
    found = felt(
        without("long"),
        job("1", nodes="n1", part="long"),
        job("2", "PENDING", part="long"),
        job("3", "PENDING", part="debug,long"),
        job("4", nodes="n1"),
    )
    assert found == dict.fromkeys("12", ("partition long", "goes", "fails"))


def test_what_waits_and_does_not_fit_any_more_stays_in_the_queue() -> None:
    conf = CONF.replace("Nodes=n[1-2],n3", "Nodes=n[1-2]").replace("24:00:00", "12:00:00")
    found = felt(
        conf,
        job("1", "PENDING", part="long", asks="n3"),
        job("2", nodes="n3", part="long"),
        job("3", "PENDING", time="13:00:00"),
        job("4", "PENDING", time="11:00:00"),
        job("5", nodes="n1", time="13:00:00"),
    )
    assert {number: cells[2] for number, cells in found.items()} == {
        "1": "stays queued",
        "3": "stays queued",
    }


def test_a_refusal_names_each_change_with_its_jobs_and_no_more_than_ten() -> None:
    conf = without("n2").replace("CPUs=2 RealMemory=2048 Gres=gpu:a100", "CPUs=4 Gres=gpu:a100")
    changes = jobs.slurm_changes(SEEN, conf)
    lines = [job(str(number), nodes="n2") for number in range(13)] + [job("99", nodes="n3")]
    said = jobs.slurm_refusal(jobs.slurm_jobs(lines, COLUMNS, changes))
    assert said.startswith("n2 leaves the cluster, which would end 0 of alice, 1 of alice")
    assert "9 of alice and 3 others; n3 goes from 2 to 4 cpus, which would end 99 of alice" in said


TIMES = {"30": 30, "30:15": 30, "2:00:00": 120, "1-00:00:00": 1440, "2-3": 3060, "1-1:30": 1530}


@pytest.mark.parametrize(("text", "minutes"), [*TIMES.items(), ("UNLIMITED", None), ("", None)])
def test_times(text: str, minutes: int | None) -> None:
    assert jobs.minutes(text) == minutes


def test_lists_of_nodes() -> None:
    assert jobs.expand("n[08-10,12],gpu-1,a[1-2]b[3-4]") == [
        *("n08", "n09", "n10", "n12", "gpu-1"),
        *("a1b3", "a1b4", "a2b3", "a2b4"),
    ]
    assert jobs.expand("(null)") == []


@given(st.lists(st.text(alphabet="NodeName=[]-|,:()01 ngpuGres/", max_size=60), max_size=6))
def test_no_output_breaks_it(lines: list[str]) -> None:
    changes: dict[str, Any] = jobs.slurm_changes([*SEEN, *lines], CONF)
    jobs.slurm_refusal(jobs.slurm_jobs(lines, COLUMNS, changes))


@given(st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,3}[0-9]{0,4}", fullmatch=True), max_size=20))
def test_lists_that_the_roles_fold_are_expanded_again(names: list[str]) -> None:
    assert jobs.expand(fold_in_order(names)) == names


def test_nodes_that_share_a_line_are_each_compared() -> None:
    text = "NodeName=n[1-2],n4 NodeAddr=192.0.2.[11-13] CPUs=2 RealMemory=2048 Gres=gpu:2\n"
    seen = [NODE.format(name=name, gres="gpu:2", state="IDLE") for name in ("n1", "n2", "n3")]
    changes = jobs.slurm_changes(seen, f"{text}PartitionName=debug Nodes=ALL\n")
    assert changes["nodes"] == {"n3": "leaves the cluster"}
