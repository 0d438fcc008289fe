"""Skips that nobody expects fail a run; those that are expected are counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import ROOT
from tests.support.skips import FACTS, LIST, Skip, judge, read_junit, read_list

ENTRIES = read_list(
    """
skip = [
    {reason = "no GPU( here)?", when = "no GPU"},
    {reason = "by design", when = "always"},
]
"""
)
NO_FACT = dict.fromkeys(FACTS, False) | {"always": True}


def skip(reason: str) -> Skip:
    return Skip(test="test_x", reason=reason)


def test_an_expected_skip_is_counted_by_its_reason() -> None:
    found = judge([skip("by design"), skip("by design")], ENTRIES, facts=NO_FACT)

    assert (found.expected, found.unexpected) == ({"by design": 2}, ())


def test_a_reason_that_no_entry_has_is_unexpected() -> None:
    found = judge([skip("by design, today")], ENTRIES, facts=NO_FACT)

    assert found.unexpected == (skip("by design, today"),)


@pytest.mark.parametrize(("fact", "unexpected"), [(True, 0), (False, 1)])
def test_a_reason_counts_only_where_its_fact_holds(fact: bool, unexpected: int) -> None:
    found = judge([skip("no GPU here")], ENTRIES, facts={**NO_FACT, "no GPU": fact})

    assert len(found.unexpected) == unexpected


@pytest.mark.parametrize("entry", ['{reason = "x", when = "never"}', '{reason = "x"}'])
def test_an_entry_with_an_unknown_fact_or_none_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="entry 1: takes reason and when"):
        read_list(f"skip = [{entry}]")


def test_the_list_of_this_checkout_is_read() -> None:
    assert read_list(LIST.read_text(encoding="utf-8"))


def test_skips_are_read_out_of_a_junit_file() -> None:
    text = """<testsuites><testsuite>
    <testcase name="test_a"/>
    <testcase name="test_b"><skipped type="pytest.skip" message="by design"/></testcase>
    <testcase name="test_c"><skipped type="pytest.xfail" message="a bug"/></testcase>
    </testsuite></testsuites>"""

    assert [*read_junit(text, "x.docker")] == [Skip(test="x.docker: test_b", reason="by design")]


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    ("reason", "status"),
    [("no reason that is listed", 1), ("inside a SIF nobody becomes root", 0)],
)
def test_a_run_with_an_unexpected_skip_fails(
    tmp_path: Path, reason: str, status: int, workers: str
) -> None:
    (tmp_path / "test_it.py").write_text(
        f"import pytest\n\ndef test_a():\n    pytest.skip({reason!r})\n\ndef test_b():\n    pass\n"
    )
    (tmp_path / "conftest.py").write_text(
        "from tests.support.skips import Plugin\n\n"
        "def pytest_configure(config):\n"
        "    if not hasattr(config, 'workerinput'):\n"
        "        config.pluginmanager.register(Plugin())\n"
    )

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", workers, "--rootdir", tmp_path, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == status, done.stdout
    assert ("NOT in tests/expected-skips.toml" in done.stdout) == bool(status)
    assert reason in done.stdout


@pytest.mark.parametrize(
    ("reason", "status"), [("never heard of", 1), ("the image has no python3", 0)]
)
def test_the_program_fails_for_a_skip_of_an_image_s_test(
    tmp_path: Path, reason: str, status: int
) -> None:
    (tmp_path / "x.test-docker.xml").write_text(
        f'<testsuite><testcase name="test_b"><skipped message="{reason}"/></testcase></testsuite>'
    )

    done = subprocess.run(
        [sys.executable, "-m", "tests.support.skips", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, reason in done.stdout) == (status, True)


def test_the_program_fails_where_there_is_no_report(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.skips", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, "holds no JUnit file" in done.stderr) == (1, True)
