"""A test waits for a state, and fails where it does not come: it never waits for a time."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# How long a state may take to come about on a busy machine, in seconds.
PATIENCE = 120


def until(true: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until ``true`` returns something true; fail where it never does, naming ``what``."""
    last = time.monotonic() + seconds
    while not true():
        if time.monotonic() > last:
            pytest.fail(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.01)


@contextmanager
def ended_within(process: subprocess.Popen[Any], seconds: float = PATIENCE) -> Iterator[None]:
    """Fail where the block, which waits for the end of a process, takes longer than that."""
    alarm = threading.Timer(seconds, process.kill)
    alarm.start()
    try:
        yield
        assert alarm.is_alive(), f"it did not end within {seconds:g} s"
    finally:
        alarm.cancel()
