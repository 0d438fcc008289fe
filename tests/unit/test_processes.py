"""What the kernel tells of other processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sifline.machine import process_table

NAMED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, b") 1 (x", 0, 0, 0)
print(flush=True)
sys.stdin.read()
"""


def test_a_process_whose_name_has_brackets_is_read_right() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", NAMED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert process_table.parent(child.pid) == os.getpid()
        assert int(process_table.begin(child.pid)) >= int(process_table.begin(os.getpid()))
        assert child.stdin is not None
        child.stdin.close()

    with pytest.raises(FileNotFoundError):
        process_table.begin(child.pid)
