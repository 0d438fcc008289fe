"""A Ctrl-C at the moment in which something is started."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

from sifline.machine.interrupts import each, submit, undisturbed
from sifline.machine.process import ProcessRunner


def test_an_interruption_waits_for_the_end_of_the_block() -> None:
    reached = list[str]()

    def interrupted() -> None:
        with undisturbed():
            signal.raise_signal(signal.SIGINT)
            reached.append("the end")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == ["the end"]


def test_the_handlers_are_the_same_afterwards() -> None:
    came = list[int]()

    def handler(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with undisturbed():
            signal.raise_signal(signal.SIGTERM)
            assert came == []
        assert came == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_signal_while_the_handlers_are_put_back_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C is pressed twice, and SIGTERM has to count afterwards."""
    came, put = list[int](), signal.signal
    before = put(signal.SIGTERM, lambda number, _: came.append(number))

    def interrupted(number: int, handler: object) -> object:
        found = put(number, handler)  # type: ignore[arg-type]
        if number == signal.SIGINT and handler is signal.default_int_handler:
            monkeypatch.setattr(signal, "signal", put)
            signal.raise_signal(signal.SIGINT)
        return found

    try:
        monkeypatch.setattr(signal, "signal", interrupted)
        with pytest.raises(KeyboardInterrupt), undisturbed():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert came == [signal.SIGTERM]
    finally:
        monkeypatch.undo()
        put(signal.SIGTERM, before)


def test_another_thread_may_hold_it_as_well() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: undisturbed().__enter__()).exception() is None


@pytest.fixture
def _interrupted_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the main thread when a thread of it runs and it does not know of that yet."""
    start = threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        start(self)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(threading.Thread, "start", interrupted)


@pytest.mark.usefixtures("_interrupted_start")
def test_a_pool_waits_for_the_thread_that_was_starting() -> None:
    done = list[str]()
    may_end = threading.Event()

    def work(item: str) -> None:
        may_end.wait(10)
        done.append(item)

    def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            try:
                submit(pool, work, ["network"])
            finally:
                may_end.set()

    with pytest.raises(KeyboardInterrupt):
        run()
    assert done == ["network"]


@pytest.mark.usefixtures("_interrupted_start")
def test_what_a_virtual_cluster_starts_is_known_when_it_is_interrupted() -> None:
    done = list[int]()

    def work(item: int) -> None:
        # Long enough for one that does not wait to be seen to come out before.
        subprocess.run(["sleep", "0.3"], check=True)
        done.append(item)

    with pytest.raises(KeyboardInterrupt):
        each([1], work)
    assert done == [1]


Act = Callable[[ProcessRunner, list[str]], object]


@pytest.mark.parametrize("act", [ProcessRunner.run, ProcessRunner.attach])
def test_a_process_that_was_starting_is_ended(act: Act, monkeypatch: pytest.MonkeyPatch) -> None:
    popen, started = subprocess.Popen, list[subprocess.Popen[str]]()

    def interrupted(*args: object, **options: object) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = popen(*args, **options)  # type: ignore[call-overload]
        started.append(process)
        signal.raise_signal(signal.SIGINT)
        return process

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        act(ProcessRunner(), ["sleep", "60"])
    assert [process.poll() for process in started] == [-signal.SIGTERM]
