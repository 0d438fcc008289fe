"""Runs jobs that depend on each other in parallel, as far as workers, memory and disk allow.

One module, because starting, waiting and stopping share the state of one run.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from graphlib import TopologicalSorter
from queue import Empty, SimpleQueue
from typing import Protocol

from sifline.errors import MissingError, SiflineError, StepFailed, UsageError
from sifline.machine import process

# Seconds between two checks of a job that waits for memory or disk, which others use, too. Python
# notices a Ctrl-C just before the wait only after it, so it must be short.
LOOK_SECONDS = 0.5
# Seconds that interrupted jobs may clean up, beyond the time in which processes are ended. A
# thread that does not react must not block us.
GRACE_SECONDS = process.GRACE_SECONDS + 20.0
# Last lines of each log to print if several steps failed.
TAIL_LINES = 5
KINDS = {kind.exit_code: kind for kind in (StepFailed, UsageError, MissingError)}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, the keys of the jobs that it needs, and its claims: bytes, cores.

    A job without a claim of cores mostly waits, or uses as many as it likes.
    """

    key: str
    # Stores its result itself, where the jobs that need it find it: they start after it ended.
    action: Callable[[], object]
    needs: tuple[str, ...] = ()
    memory: int = 0
    disk: int = 0
    cores: int = 0


class State(str, Enum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"  # a job that it needs failed
    CANCELLED = "cancelled"  # not started, because another job failed


NOT_STARTED = (State.BLOCKED, State.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended, with its error; ``because`` names the job that blocked it."""

    key: str
    state: State
    error: SiflineError | None = None
    because: str = ""
    seconds: float = 0.0


class Resources(Protocol):
    """The free resources of the machine, in bytes."""

    def free_memory(self) -> int:
        """Return the memory that a new process may take."""

    def free_disk(self) -> int:
        """Return the free space of the fullest disk in use."""


def run(
    jobs: Sequence[Job],
    *,
    workers: int,
    cores: int = 0,
    keep_going: bool,
    resources: Resources,
    on_wait: Callable[[str], None],
    stop: Callable[[], None],
) -> dict[str, Outcome]:
    """Run ``jobs``, at most ``workers`` at a time; return the outcome of each, in their order.

    Of the jobs that may start, the first in the given order does. A failure blocks the jobs that
    need it; without ``keep_going`` no other job starts either, and running jobs finish.

    :param cores: how many cores can be claimed; 0 for no limit.
    :param on_wait: called once with the reason why a job waits for memory or disk.
    :param stop: ends what the jobs wait for; called when Ctrl-C interrupts.
    :raises ValueError: if jobs need unknown jobs, or each other in a circle, or there is no
        worker.
    :raises BaseException: an error of a job that is no SiflineError, after the others ended.
    """
    limits = _Limits(workers=workers, cores=cores or sys.maxsize, keep_going=keep_going)
    return _Run(jobs, limits, resources, on_wait).run(stop)


def failure(outcomes: Mapping[str, Outcome]) -> SiflineError | None:
    """Return one error for all failed jobs and those that they blocked; None if none failed."""
    failed = {key: item.error for key, item in outcomes.items() if item.error}
    undone = [_undone(item) for item in outcomes.values() if item.state in NOT_STARTED]
    if len(failed) <= 1:
        for error in failed.values():
            error.details = "\n".join([*error.details.splitlines(), *undone])
        return next(iter(failed.values()), None)
    details = [
        f"{key}: {line}"
        for key, error in failed.items()
        for line in (*error.details.splitlines()[-TAIL_LINES:], error.message)
    ]
    codes = {error.exit_code for error in failed.values()}
    kind = KINDS[codes.pop()] if len(codes) == 1 else StepFailed
    return kind(
        f"{len(failed)} of {len(outcomes)} steps failed: {', '.join(failed)}; see the errors"
        " above, each with its log; fix them and run the same again",
        details="\n".join([*details, *undone]),
    )


def _undone(item: Outcome) -> str:
    why = f"not done, since {item.because} failed" if item.because else "not begun"
    return f"{why}: {item.key}"


@dataclass(frozen=True, kw_only=True)
class _Limits:
    workers: int
    cores: int
    keep_going: bool


class _Run:
    """The state of one run; only the thread that called ``run`` uses it."""

    def __init__(
        self,
        jobs: Sequence[Job],
        limits: _Limits,
        resources: Resources,
        on_wait: Callable[[str], None],
    ) -> None:
        if limits.workers < 1:
            raise ValueError(f"{limits.workers} workers do nothing")
        self._order = _order(jobs)
        self._pending = {job.key: job for job in jobs}
        self._keys = tuple(self._pending)
        self._limits = limits
        self._resources = resources
        self._on_wait = on_wait
        self._running: dict[str, Job] = {}
        self._threads: list[threading.Thread] = []
        self._outcomes: dict[str, Outcome] = {}
        self._ended: SimpleQueue[tuple[Outcome, BaseException | None]] = SimpleQueue()
        self._failed = False
        self._fault: BaseException | None = None
        self._waiting: set[str] = set()

    def run(self, stop: Callable[[], None]) -> dict[str, Outcome]:
        try:
            while self._start() or self._running:
                self._take(LOOK_SECONDS)
        except KeyboardInterrupt:
            self._wind_up(stop)
            raise
        if self._fault:
            raise self._fault
        for key in self._order:
            if key in self._pending:
                self._outcomes[key] = self._unstarted(self._pending[key])
        return {key: self._outcomes[key] for key in self._keys}

    def _start(self) -> bool:
        """Start the jobs that may start; return whether any did."""
        before = len(self._running)
        for job in tuple(self._pending.values()):
            if len(self._running) >= self._limits.workers or self._halted:
                break
            if not all(self._done(key) for key in job.needs) or self._lacks_cores(job):
                continue
            if self._running and not self._fits(job):
                break  # a smaller job might start, but then this one might wait to the end
            self._launch(job)
        return len(self._running) > before

    @property
    def _halted(self) -> bool:
        return self._fault is not None or (self._failed and not self._limits.keep_going)

    def _done(self, key: str) -> bool:
        return key in self._outcomes and self._outcomes[key].state is State.DONE

    def _lacks_cores(self, job: Job) -> bool:
        """Return whether running jobs leave too few cores for this one; no claim always fits."""
        claimed = sum(item.cores for item in self._running.values())
        return bool(job.cores and claimed and job.cores + claimed > self._limits.cores)

    def _fits(self, job: Job) -> bool:
        """Return whether memory and disk suffice for the job and for all claims of running jobs.

        It is unknown how much of its claim a running job uses already, so that part counts twice:
        rather one job too few at a time than one too many.
        """
        for what, free in (
            ("memory", self._resources.free_memory),
            ("disk", self._resources.free_disk),
        ):
            claim = getattr(job, what)
            claimed = sum(getattr(item, what) for item in self._running.values())
            if claim and claim + claimed > (left := free()):
                self._tell(job, what, claim, claimed, left)
                return False
        self._waiting.discard(job.key)
        return True

    def _tell(self, job: Job, what: str, claim: int, claimed: int, free: int) -> None:
        if job.key not in self._waiting:
            self._waiting.add(job.key)
            self._on_wait(
                f"{job.key} waits for {what}: it may take {_gib(claim)}, what runs"
                f" ({', '.join(self._running)}) {_gib(claimed)}; {_gib(free)} free"
            )

    def _launch(self, job: Job) -> None:
        self._running[job.key] = self._pending.pop(job.key)
        # A daemon: a thread that ignores the interruption must not keep the program from ending.
        thread = threading.Thread(target=self._work, args=(job,), name=job.key, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, job: Job) -> None:
        """Run the job's action; the body of its thread."""
        started = time.monotonic()
        error, fault, state = None, None, State.DONE
        try:
            job.action()
        except SiflineError as raised:
            error, state = raised, State.FAILED
        except BaseException as raised:
            fault, state = raised, State.CANCELLED
        seconds = time.monotonic() - started
        outcome = Outcome(key=job.key, state=state, error=error, seconds=seconds)
        self._ended.put((outcome, fault))

    def _take(self, seconds: float) -> None:
        """Wait at most ``seconds`` for a job to end, and record its outcome."""
        try:
            outcome, fault = self._ended.get(timeout=seconds)
        except Empty:
            return
        del self._running[outcome.key]
        self._outcomes[outcome.key] = outcome
        self._failed = self._failed or outcome.state is State.FAILED
        self._fault = self._fault or fault

    def _wind_up(self, stop: Callable[[], None]) -> None:
        """Stop the running jobs and wait while they clean up; a second Ctrl-C ends the wait.

        :raises KeyboardInterrupt: if not everything was cleaned up.
        """
        # Counted from the interruption: some have cleaned up before ``stop`` returns.
        last = time.monotonic() + GRACE_SECONDS
        try:
            stop()
            for thread in self._threads:
                if thread.is_alive():
                    thread.join(max(0, last - time.monotonic()))
        except KeyboardInterrupt:
            stop()
            raise
        if any(thread.is_alive() for thread in self._threads):
            raise KeyboardInterrupt

    def _unstarted(self, job: Job) -> Outcome:
        for key in job.needs:
            need = self._outcomes[key]
            if need.state in (State.FAILED, State.BLOCKED):
                because = need.because or key
                return Outcome(key=job.key, state=State.BLOCKED, because=because)
        return Outcome(key=job.key, state=State.CANCELLED)


def _order(jobs: Sequence[Job]) -> tuple[str, ...]:
    """Return the keys in an order in which jobs follow those that they need.

    :raises ValueError: if that is impossible.
    """
    needs = {job.key: job.needs for job in jobs}
    if len(needs) < len(jobs):
        raise ValueError("two jobs have the same key")
    for job in jobs:
        for key in job.needs:
            if key not in needs:
                raise ValueError(f"{job.key} needs {key}, which is no job")
    return tuple(TopologicalSorter(needs).static_order())


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
