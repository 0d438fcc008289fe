"""Image tests end with the run that started them, also where Python is a wrapper."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CHILD = """
import os, sys, time
from sifline.imagetests.plugin import _end_with
parent, last = int(sys.argv[1]), time.monotonic() + 120
while sys.argv[2] == "orphan" and os.getppid() == parent and time.monotonic() < last:
    time.sleep(0.01)
try:
    _end_with(parent)
    print("goes on")
except KeyboardInterrupt:
    print("ends")
"""
DIRECT = ("sh", "-c", 'exec "$@"', "sh")
WRAPPED = ("sh", "-c", '"$@"; exit $?', "sh")
TWICE = (*WRAPPED, *WRAPPED)


def said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=150)
    return done.stdout.strip()


@pytest.mark.parametrize("wrapper", [(), DIRECT, WRAPPED, TWICE])
def test_tests_go_on_while_their_run_does_whatever_is_between(wrapper: tuple[str, ...]) -> None:
    child = (sys.executable, "-c", CHILD, str(os.getpid()), "child")

    assert said(*wrapper, *child) == "goes on"


def test_tests_end_whose_run_was_killed_before_they_could_hear_of_it() -> None:
    script = '"$1" -c "$2" $$ orphan &'

    assert said("sh", "-c", script, "sh", sys.executable, CHILD) == "ends"
