"""Jobs that need each other, run side by side as far as workers, memory and disk allow."""

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

# How often a job that waits for memory or disk is looked at again: others use the machine, too.
# A Ctrl-C just before Python waits is heard only after the wait: it must be short in any case.
LOOK_SECONDS = 0.5
# How long what was interrupted may clean up, beside the time in which its process is ended. A
# thread that hears nothing must not hang us.
GRACE_SECONDS = process.GRACE_SECONDS + 20.0
# How much of each log's end is told where several steps failed.
TAIL_LINES = 5
KINDS = {kind.exit_code: kind for kind in (StepFailed, UsageError, MissingError)}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, the keys of the jobs that it needs, and what it claims: bytes, cores.

    A job that claims no cores mostly waits, or uses as many as it likes.
    """

    key: str
    # Keeps its result itself, where those that need it find it: they start after it has ended.
    action: Callable[[], object]
    needs: tuple[str, ...] = ()
    memory: int = 0
    disk: int = 0
    cores: int = 0


class State(str, Enum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"  # something it needs failed
    CANCELLED = "cancelled"  # not started, because something else failed


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
    """What the machine has left, in bytes."""

    def free_memory(self) -> int:
        """Return the memory that a new process may take."""

    def free_disk(self) -> int:
        """Return the room on the fullest disk in use."""


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
    """Run ``jobs``, at most ``workers`` at a time; return what became of each, in their order.

    Of the jobs that may start, the first in the given order does. A failure blocks what
    needs it; without ``keep_going`` nothing else starts either, and what runs ends in peace.

    :param cores: how many there are to be claimed; 0 for as many as anybody claims.
    :param on_wait: is told why a job waits for memory or disk, once.
    :param stop: ends what the jobs wait for; called when Ctrl-C interrupts.
    :raises ValueError: where jobs need what is no job, or each other in a circle, and where
        there is no worker.
    :raises BaseException: what a job raised beside a SiflineError, after the others ended.
    """
    limits = _Limits(workers=workers, cores=cores or sys.maxsize, keep_going=keep_going)
    return _Run(jobs, limits, resources, on_wait).run(stop)


def failure(outcomes: Mapping[str, Outcome]) -> SiflineError | None:
    """Return one error for all that failed, and what was not done for it; None without one."""
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
    """The state of one run; only the thread that called ``run`` touches it."""

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
        """Start what may start; say whether anything did."""
        before = len(self._running)
        for job in tuple(self._pending.values()):
            if len(self._running) >= self._limits.workers or self._halted:
                break
            if not all(self._done(key) for key in job.needs) or self._lacks_cores(job):
                continue
            if self._running and not self._fits(job):
                break  # the next may be smaller, but then this one might wait to the end
            self._launch(job)
        return len(self._running) > before

    @property
    def _halted(self) -> bool:
        return self._fault is not None or (self._failed and not self._limits.keep_going)

    def _done(self, key: str) -> bool:
        return key in self._outcomes and self._outcomes[key].state is State.DONE

    def _lacks_cores(self, job: Job) -> bool:
        """Whether running jobs leave too few cores for this one; without a claim it may start."""
        claimed = sum(item.cores for item in self._running.values())
        return bool(job.cores and claimed and job.cores + claimed > self._limits.cores)

    def _fits(self, job: Job) -> bool:
        """Whether memory and disk suffice for the job and for all that running jobs claim.

        How much of its claim a running job has taken already is not known, so it counts
        twice: rather one job less at a time than one too many.
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
        # A daemon: a thread that hears no interruption must not keep the program from ending.
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
        """Wait at most ``seconds`` for a job to end, and note how it did."""
        try:
            outcome, fault = self._ended.get(timeout=seconds)
        except Empty:
            return
        del self._running[outcome.key]
        self._outcomes[outcome.key] = outcome
        self._failed = self._failed or outcome.state is State.FAILED
        self._fault = self._fault or fault

    def _wind_up(self, stop: Callable[[], None]) -> None:
        """Stop the running jobs and wait while they clean up; a second Ctrl-C stops that, too.

        :raises KeyboardInterrupt: where not everything was cleaned up.
        """
        # From the moment that they hear of it: some have cleaned up before ``stop`` returns.
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
    """Return the keys in an order in which jobs follow what they need.

    :raises ValueError: where that is not possible.
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
