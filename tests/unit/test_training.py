"""What the training job has to prove, and what each lie of its processes is called."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sifline.validation.outcome import CheckFailed, cause
from sifline.validation.suites.training_job import Trained, judge, read

SIF = "/opt/containers/ml-frameworks/pytorch.sif"


def process(rank: int) -> Trained:
    return Trained(
        rank=rank,
        size=4,
        host=f"compute-0{rank // 2 + 1}",
        sum=10,
        first=15.0,
        last=5e-13,
        spread=0.0,
        weights=(2.0, -3.0, 0.5),
        bias=0.25,
        torch="2.4.0+cu121",
        container=SIF,
    )


ALL = [process(rank) for rank in range(4)]


def test_four_processes_that_agree_are_the_evidence() -> None:
    assert judge(ALL, (SIF, "/real.sif")) == (
        "4 processes on compute-01, compute-02: loss 15 to 5e-13, the same parameters on all;"
        f" PyTorch 2.4.0+cu121 in {SIF}"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": 1}, "sees 1 processes"),
        ({"sum": 4}, "with the sum 4"),
        ({"spread": 0.5}, "0.5 apart"),
        ({"spread": float("nan")}, "nan apart"),
        ({"last": 14.0}, "went from 15 to 14"),
        ({"last": float("nan")}, "went from 15 to nan"),
        ({"weights": (2.0, -3.0, 0.4)}, "learnt (2.0, -3.0, 0.4)"),
        ({"container": ""}, "runs in no container"),
        ({"rank": 2}, "processes [0, 1, 2, 2]"),
    ],
)
def test_one_process_that_does_not_is_a_failure(change: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckFailed) as failure:
        judge([*ALL[:3], replace(ALL[3], **change)], (SIF,))
    assert says in str(failure.value)


def test_all_on_one_node_is_a_failure() -> None:
    with pytest.raises(CheckFailed, match="all processes ran on one instead of 2 nodes"):
        judge([replace(item, host="one") for item in ALL], (SIF,))


def test_none_is_a_failure() -> None:
    with pytest.raises(CheckFailed, match="instead of 0 to 3"):
        judge([], (SIF,))


def test_lines_are_read_in_any_order_and_others_are_left() -> None:
    lines = [json.dumps(vars(item)) for item in reversed(ALL)]
    assert list(read("\n".join(["a warning", *lines]))) == ALL


@pytest.mark.parametrize("line", ["{", '{"rank": 0}', '{"rank": 0, "weights": 1}'])
def test_a_line_that_is_cut_short_is_a_failure(line: str) -> None:
    with pytest.raises(CheckFailed, match="cannot be read"):
        read(line)


@pytest.mark.parametrize(
    ("stderr", "says"),
    [
        (
            'INFO: gocryptfs not found\nTraceback (most recent call last):\n  File "x"\n'
            "RuntimeError: connect timeout\nsrun: error: compute-01: task 0: Exited\n",
            "RuntimeError: connect timeout",
        ),
        ("srun: error: Unable to allocate\nsrun: more\n", "srun: error: Unable to allocate"),
        (
            "RuntimeError: x\nsrun: error: y\nslurmstepd-n2: error:  mpi/pmix_v5: z\n"
            "slurmstepd: error: *** STEP 4.0 ON n1 CANCELLED ***\n",
            "RuntimeError: x",
        ),
        ("", "it printed nothing"),
    ],
)
def test_what_a_process_says_at_last_is_why_the_job_failed(stderr: str, says: str) -> None:
    assert cause(stderr) == says
