"""The scheduler: which job runs when, beside which, and what a failure leaves."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sifline.errors import MissingError, SiflineError, StepFailed, UsageError
from sifline.machine import schedule
from sifline.machine.facts import Machine
from sifline.machine.schedule import Job, Outcome, State
from tests.support.waiting import PATIENCE, ended_within, until

GIB = 1 << 30


class Free:
    """A machine that has so much left."""

    def __init__(self, *, memory: int = 1000 * GIB, disk: int = 1000 * GIB) -> None:
        self.memory = memory
        self.disk = disk

    def free_memory(self) -> int:
        return self.memory

    def free_disk(self) -> int:
        return self.disk


class Book:
    """Writes down what started and ended, in order, and how many ran at most."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.running = self.most = 0
        self._lock = threading.Lock()

    def job(
        self,
        key: str,
        *needs: str,
        error: Exception | None = None,
        lasts: Callable[[], object] | None = None,
        memory: int = 0,
        disk: int = 0,
    ) -> Job:
        """Return a job that lasts until ``lasts`` returns something true, and raises ``error``."""

        def action() -> None:
            self._note("start", key, 1)
            if lasts:
                until(lasts, f"the end of {key}")
            self._note("end", key, -1)
            if error:
                raise error

        return Job(key=key, needs=needs, action=action, memory=memory, disk=disk)

    def _note(self, event: str, key: str, more: int) -> None:
        with self._lock:
            self.events.append((event, key))
            self.running += more
            self.most = max(self.most, self.running)

    def over(self, key: str) -> Callable[[], bool]:
        """Return whether a job ended, and the scheduler can know of it: its thread is gone."""
        return lambda: (
            ("end", key) in self.events
            and not any(thread.name == key for thread in threading.enumerate())
        )

    @property
    def started(self) -> list[str]:
        return [key for event, key in self.events if event == "start"]


def run(
    jobs: Sequence[Job],
    *,
    workers: int = 2,
    keep_going: bool = False,
    resources: schedule.Resources | None = None,
    on_wait: Callable[[str], None] = lambda text: None,
    stop: Callable[[], None] = lambda: None,
) -> dict[str, Outcome]:
    return schedule.run(
        jobs,
        workers=workers,
        keep_going=keep_going,
        resources=resources or Free(),
        on_wait=on_wait,
        stop=stop,
    )


def broken(key: str) -> StepFailed:
    return StepFailed(f"{key} is broken")


def states(outcomes: Mapping[str, Outcome]) -> dict[str, State]:
    return {key: outcome.state for key, outcome in outcomes.items()}


def test_what_is_needed_ends_before_what_needs_it_starts() -> None:
    book = Book()

    # When the last one starts, the one before it was passed by, for the want of what still runs.
    run(
        [
            book.job("top"),
            book.job("left", "top", lasts=lambda: "last" in book.started),
            book.job("right", "top"),
            book.job("bottom", "left", "right"),
            book.job("last", "right"),
        ]
    )

    assert book.events[:2] == [("start", "top"), ("end", "top")]
    assert book.started[-2:] == ["last", "bottom"]
    assert book.events.index(("end", "left")) < book.events.index(("start", "bottom"))


def test_one_worker_follows_the_given_order() -> None:
    book = Book()

    run([book.job("a"), book.job("c"), book.job("b", "a"), book.job("d", "c", "b")], workers=1)

    assert book.started == ["a", "c", "b", "d"]


def test_what_a_job_left_is_there_for_what_needs_it() -> None:
    left = dict[str, int]()

    run(
        [
            Job(key="b", needs=("a",), action=lambda: left.update(b=left["a"] + 1)),
            Job(key="a", action=lambda: left.update(a=1)),
        ]
    )

    assert left == {"a": 1, "b": 2}


def test_outcomes_come_in_the_order_of_the_jobs() -> None:
    book = Book()

    outcomes = run([book.job("slow", lasts=book.over("quick")), book.job("quick")])

    assert book.events[-1] == ("end", "slow")
    assert list(outcomes) == ["slow", "quick"]


def test_independent_jobs_run_side_by_side() -> None:
    both = threading.Barrier(2, timeout=PATIENCE)

    outcomes = run([Job(key=key, action=both.wait) for key in "ab"])

    assert states(outcomes) == {"a": State.DONE, "b": State.DONE}


def test_never_more_run_than_there_are_workers() -> None:
    book = Book()
    three = threading.Barrier(3, timeout=PATIENCE)

    def meet() -> bool:
        three.wait()
        time.sleep(0.01)  # in which a fourth would start
        return True

    run([book.job(str(number), lasts=meet) for number in range(12)], workers=3)

    assert book.most == 3


def test_a_failure_starts_nothing_else_but_what_runs_ends_in_peace() -> None:
    book = Book()
    jobs = [
        book.job("bad", error=broken("bad")),
        book.job("beside", lasts=book.over("bad")),
        book.job("next"),
    ]

    outcomes = run(jobs)

    assert states(outcomes) == {
        "bad": State.FAILED,
        "beside": State.DONE,
        "next": State.CANCELLED,
    }


def test_keep_going_leaves_out_only_what_needs_the_failed_one() -> None:
    book = Book()

    outcomes = run(
        [book.job("bad", error=broken("bad")), book.job("child", "bad"), book.job("other")],
        keep_going=True,
    )

    assert states(outcomes) == {
        "bad": State.FAILED,
        "child": State.BLOCKED,
        "other": State.DONE,
    }


@pytest.mark.parametrize("keep_going", [True, False])
def test_a_blocked_chain_names_the_one_that_failed(keep_going: bool) -> None:
    book = Book()

    outcomes = run(
        [
            book.job("bad", error=broken("bad")),
            book.job("child", "bad"),
            book.job("grandchild", "child"),
        ],
        keep_going=keep_going,
    )

    assert [outcomes[key].because for key in ("child", "grandchild")] == ["bad", "bad"]


def test_the_error_of_a_failure_is_kept() -> None:
    error = run([Book().job("bad", error=broken("bad"))])["bad"].error

    assert error is not None
    assert error.message == "bad is broken"


@pytest.mark.parametrize(
    "jobs",
    [
        [Job(key="a", needs=("b",), action=list)],
        [Job(key="a", needs=("b",), action=list), Job(key="b", needs=("a",), action=list)],
        [Job(key="a", action=list), Job(key="a", action=list)],
    ],
    ids=["unknown", "circle", "twice"],
)
def test_impossible_needs_are_refused(jobs: list[Job]) -> None:
    with pytest.raises(ValueError, match="a"):
        run(jobs)


def test_a_bug_is_raised_after_the_others_ended() -> None:
    book = Book()

    with pytest.raises(ZeroDivisionError):
        run(
            [
                book.job("bug", error=ZeroDivisionError()),
                book.job("beside", lasts=book.over("bug")),
                book.job("next"),
            ],
            keep_going=True,
        )

    assert book.events[-1] == ("end", "beside")
    assert "next" not in book.started


@pytest.mark.parametrize(
    ("what", "memory", "disk"), [("memory", 3 * GIB, 0), ("disk", 0, 3 * GIB)]
)
def test_what_finds_too_little_left_waits_and_then_runs(
    what: str, memory: int, disk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "LOOK_SECONDS", 0.01)
    book, told = Book(), list[str]()
    jobs = [
        book.job(key, lasts=lambda: told and book.most > 1, memory=memory, disk=disk)
        for key in "abc"
    ]

    run(jobs, workers=3, resources=Free(memory=7 * GIB, disk=7 * GIB), on_wait=told.append)

    assert book.most == 2
    assert len(told) == 1
    assert told[0].startswith(f"c waits for {what}: ")


def test_what_claims_nothing_waits_for_nothing() -> None:
    book = Book()

    def together() -> bool:
        return book.most == 3

    large = book.job("large", lasts=together, memory=9 * GIB, disk=9 * GIB)

    run(
        [large, book.job("a", lasts=together), book.job("b", lasts=together)],
        workers=3,
        resources=Free(memory=0, disk=0),
    )

    assert book.most == 3


def test_with_nothing_running_a_job_starts_whatever_is_free() -> None:
    book = Book()

    outcomes = run([book.job(key, memory=GIB) for key in "ab"], resources=Free(memory=0))

    assert states(outcomes) == {"a": State.DONE, "b": State.DONE}
    assert book.most == 1


def test_who_waits_is_not_overtaken_by_smaller_ones() -> None:
    book, told = Book(), list[str]()

    run(
        [
            book.job("a", lasts=lambda: told, memory=GIB),
            book.job("large", memory=9 * GIB),
            book.job("z"),
        ],
        resources=Free(memory=2 * GIB),
        on_wait=told.append,
    )

    assert book.started == ["a", "large", "z"]


def test_memory_that_others_give_back_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "LOOK_SECONDS", 0.01)
    machine = Free(memory=0)
    both = threading.Barrier(2, timeout=PATIENCE)

    def give_back(_: str) -> None:
        machine.memory = 9 * GIB

    outcomes = run(
        [Job(key=key, action=both.wait, memory=GIB) for key in "ab"],
        resources=machine,
        on_wait=give_back,
    )

    assert states(outcomes) == {"a": State.DONE, "b": State.DONE}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[int, tuple[int, ...]], frozenset[int]]:
    """Up to nine jobs, each with what it needs of the ones before, and those that fail."""
    size = draw(st.integers(min_value=1, max_value=9))
    needs = {
        number: tuple(draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else ())
        for number in range(size)
    }
    return needs, draw(st.frozensets(st.integers(0, size - 1), max_size=3))


@settings(max_examples=150)
@given(graph=graphs(), workers=st.integers(1, 4), shuffled=st.randoms(use_true_random=False))
def test_a_job_runs_iff_nothing_it_stands_on_failed(
    graph: tuple[dict[int, tuple[int, ...]], frozenset[int]], workers: int, shuffled: Any
) -> None:
    needs, failing = graph
    sound: dict[int, bool] = {}
    for number, wanted in needs.items():
        sound[number] = all(sound[item] and item not in failing for item in wanted)
    book = Book()
    jobs = [
        book.job(
            str(number),
            *map(str, wanted),
            error=broken(str(number)) if number in failing else None,
        )
        for number, wanted in needs.items()
    ]
    shuffled.shuffle(jobs)

    outcomes = run(jobs, workers=workers, keep_going=True)

    assert sorted(book.started) == [str(number) for number, ran in sound.items() if ran]
    assert {key: out.state for key, out in outcomes.items()} == {
        str(number): (State.FAILED if number in failing else State.DONE) if ran else State.BLOCKED
        for number, ran in sound.items()
    }
    assert all(
        book.events.index(("end", str(need))) < book.events.index(("start", str(number)))
        for number, ran in sound.items()
        if ran
        for need in needs[number]
    )
    assert book.most <= workers


INTERRUPTED = """
import sys, threading, time
from sifline.machine import schedule
from sifline.machine.facts import Machine
from sifline.machine.process import ProcessRunner

class Clock:
    # By which the time that is given for it is over when all that hear have cleaned up; where all
    # hear, their threads still need a moment to end.
    @staticmethod
    def monotonic():
        return time.monotonic() + 1000 * (sys.argv[1:] == ["deaf"] and said.count("cleaned") == 2)

runner = ProcessRunner()
said = []
schedule.GRACE_SECONDS, schedule.time = 500, Clock

def say(text):
    said.append(text)
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()

def action():
    try:
        runner.run(["sh", "-c", "echo $$; exec sleep 600"], on_line=say)
    finally:
        runner.run(["sh", "-c", "echo cleaned"], on_line=say)

def deaf():
    say("deaf")
    time.sleep(600)

def stop():
    runner.stop()
    # So it may be on a busy machine: all have cleaned up before this returns.
    while said.count("cleaned") < 2:
        time.sleep(0.01)

jobs = [schedule.Job(key=str(n), action=action) for n in range(2)]
jobs += [schedule.Job(key="deaf", action=deaf)] * (sys.argv[1] == "deaf")
jobs += [schedule.Job(key="next", action=lambda: say("next"))]
try:
    schedule.run(jobs, workers=len(jobs) - 1, keep_going=True, resources=Machine([]),
                 on_wait=print, stop=stop)
except KeyboardInterrupt as error:
    # By this the task knows that it must not say that everything was cleaned up.
    say("cut-short" if isinstance(error.__context__, KeyboardInterrupt) else "interrupted")
"""


@pytest.mark.parametrize(("also", "told"), [("", "interrupted"), ("deaf", "cut-short")])
def test_an_interruption_ends_what_runs_and_lets_it_clean_up(also: str, told: str) -> None:
    with Popen([sys.executable, "-c", INTERRUPTED, also], stdout=PIPE, text=True) as program:
        assert program.stdout is not None
        first = [program.stdout.readline().strip() for _ in range(3 if also else 2)]
        with ended_within(program):  # what they would do takes longer
            program.send_signal(signal.SIGINT)
            rest = program.stdout.read().split()
            program.wait()

    assert rest == ["cleaned", "cleaned", told]
    assert [pid for pid in first if pid != "deaf" and Path("/proc", pid).exists()] == []


def test_one_failure_is_told_as_it_is() -> None:
    outcomes = run([Job(key="a", action=_refuse), Book().job("b")], workers=1)

    error = schedule.failure(outcomes)

    assert error is not None
    assert error is outcomes["a"].error
    assert error.details == "not begun: b"


def _refuse() -> None:
    raise UsageError("a: no such tag")


def test_several_failures_are_one_error_that_names_each() -> None:
    book = Book()
    outcomes = run(
        [
            book.job("a", error=broken("a")),
            book.job("b", error=broken("b")),
            book.job("c", "a"),
            book.job("d"),
        ],
        keep_going=True,
    )

    error = schedule.failure(outcomes)

    assert error is not None
    assert error.message.startswith("2 of 4 steps failed: a, b")
    assert error.details.splitlines() == [
        "a: a is broken",
        "b: b is broken",
        "not done, since a failed: c",
    ]


@pytest.mark.parametrize(
    ("second", "status"), [(UsageError, 2), (MissingError, 1)], ids=["alike", "mixed"]
)
def test_several_failures_keep_the_exit_status_they_share(
    second: type[SiflineError], status: int
) -> None:
    def refuse() -> None:
        raise second("no")

    outcomes = run([Job(key="a", action=_refuse), Job(key="b", action=refuse)], keep_going=True)

    error = schedule.failure(outcomes)

    assert error is not None
    assert error.exit_code == status


def test_without_a_failure_there_is_no_error() -> None:
    assert schedule.failure(run([Book().job("a")])) is None


def machine(root: Path, files: Mapping[str, str]) -> Machine:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Machine([root], root)


MEMINFO = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n"


def test_free_memory_is_what_the_kernel_calls_available(tmp_path: Path) -> None:
    assert machine(tmp_path, {"proc/meminfo": MEMINFO}).free_memory() == 8000 << 10


def test_the_tightest_limit_of_the_control_groups_counts(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "0::/job/step\n",
            "sys/fs/cgroup/job/memory.max": "5000",
            "sys/fs/cgroup/job/memory.current": "3000",
            "sys/fs/cgroup/job/memory.stat": "anon 2000\ninactive_file 700\n",
            "sys/fs/cgroup/job/step/memory.max": "max",
            "sys/fs/cgroup/job/step/memory.current": "3000",
        },
    )

    assert found.free_memory() == 2700


def test_the_older_control_groups_count_where_the_path_is_the_hosts(tmp_path: Path) -> None:
    found = machine(
        tmp_path,
        {
            "proc/meminfo": MEMINFO,
            "proc/self/cgroup": "9:cpu:/x\n4:memory:/docker/0123\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "3000",
        },
    )

    assert found.free_memory() == 1000


def test_free_disk_is_that_of_the_place_where_the_folder_will_be(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)

    found = Machine([tmp_path / "not" / "yet"]).free_disk()

    assert found == pytest.approx(room.f_bavail * room.f_frsize, rel=0.05)
