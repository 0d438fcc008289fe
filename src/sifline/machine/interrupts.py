"""Delay Ctrl-C while a process, a container or a thread is being started.

A process exists before its starter has its handle: interrupted in between, the starter could
neither end it nor wait for it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORKERS = 8
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay signals such as Ctrl-C until the end of the block; keep such blocks short.

    A handler, not a mask: started processes would inherit a mask, and another thread could still
    take the signal. Handlers run in the main thread only, so blocks in other threads are
    undisturbed anyway.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    held = True

    def later(number: int, frame: FrameType | None) -> None:
        if held:
            came.append((number, frame))
        else:  # a second signal came while the handlers were restored
            handlers[signal.Signals(number)](number, frame)

    before = {number: signal.getsignal(number) for number in SIGNALS}
    handlers = {number: handler for number, handler in before.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, later)
        yield
    finally:
        held = False
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            first, frame = came[0]
            handlers[signal.Signals(first)](first, frame)


def submit(pool: Executor, work: Callable[[T], R], items: Iterable[T]) -> list[Future[R]]:
    """Submit ``work`` for all ``items`` to ``pool``, uninterrupted; return the futures.

    A ``ThreadPoolExecutor`` that is interrupted while it starts a thread forgets that thread.
    """
    with undisturbed():
        return [pool.submit(work, item) for item in items]


def each(items: Iterable[T], work: Callable[[T], R], *, workers: int = WORKERS) -> list[R]:
    """Call ``work`` for all ``items`` in parallel; return the results in their order.

    After a failure or an interruption it starts no more, and waits for those that run.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            return [future.result() for future in submit(pool, work, items)]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
