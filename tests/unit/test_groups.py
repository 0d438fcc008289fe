"""Tests that share fixtures meet in one worker of pytest-xdist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.command import ROOT

MODULE = """
import os, pytest

def workers(name):
    print(f"{name} in {os.environ['PYTEST_XDIST_WORKER']}")

@pytest.mark.parametrize("number", range(6))
def test_together(number):
    workers("together")

@pytest.mark.spread
@pytest.mark.parametrize("number", range(6))
def test_spread(number):
    workers(f"spread {number}")
"""


def test_a_module_is_one_group_but_for_what_is_spread(tmp_path: Path) -> None:
    hook = "from tests.conftest import pytest_collection_modifyitems\n"
    (tmp_path / "conftest.py").write_text(hook)
    (tmp_path / "test_it.py").write_text(MODULE)
    words = ["-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "-rP", "-v", "--rootdir"]

    said = subprocess.run(
        [sys.executable, "-m", "pytest", *words, tmp_path, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    together = re.findall(r"^together in (gw\d)$", said, re.MULTILINE)
    assert (len(together), len(set(together))) == (6, 1)
    grouped = re.findall(r"PASSED \S+::test_(\w+)\[\d\](@?)", said)
    assert sorted(grouped) == [("spread", "")] * 6 + [("together", "@")] * 6
