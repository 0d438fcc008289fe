"""Expected skips: a test that is skipped for any other reason fails the run.

``tests/expected-skips.toml`` lists the reasons, and what of the environment each goes with. As a
program it reads JUnit files: ``python -m tests.support.skips FOLDER``.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tomli

LIST = Path(__file__).parents[1] / "expected-skips.toml"


@dataclass(frozen=True, kw_only=True)
class Skip:
    """A test that was skipped, and its reason."""

    test: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Expected:
    """An entry of the list: a reason as a regular expression, and the fact it goes with."""

    reason: re.Pattern[str]
    when: str


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Skips by the entry that expects them, and those that none does."""

    expected: Mapping[str, int]
    unexpected: tuple[Skip, ...]

    def lines(self) -> Iterator[str]:
        """Yield the summary."""
        for reason, count in self.expected.items():
            yield f"{count} expected: {reason}"
        for skip in self.unexpected:
            yield f"NOT in tests/{LIST.name}: {skip.test}: {skip.reason}"


def _has_gpu() -> bool:
    return Path("/dev/nvidia0").exists()


# What an entry's ``when`` may name.
FACTS: Mapping[str, Callable[[], bool]] = {
    "always": lambda: True,
    "no GPU": lambda: not _has_gpu(),
    "GPU": _has_gpu,
    "not root": lambda: os.geteuid() != 0,
    "native Apptainer": lambda: any(map(shutil.which, ("apptainer", "singularity"))),
    "no Graphviz": lambda: not shutil.which("dot"),
    "no Packer": lambda: not shutil.which("packer"),
    "no swap": lambda: len(Path("/proc/swaps").read_text().splitlines()) == 1,
    "SIFLINE_BIG=no": lambda: os.environ.get("SIFLINE_BIG") == "no",
}


def read_list(text: str) -> tuple[Expected, ...]:
    """Return the entries of a list of expected skips.

    :raises ValueError: for an unknown key or fact.
    """
    entries = []
    for number, entry in enumerate(tomli.loads(text)["skip"], start=1):
        if set(entry) != {"reason", "when"} or entry["when"] not in FACTS:
            raise ValueError(f"entry {number}: takes reason and when, one of {', '.join(FACTS)}")
        entries.append(Expected(reason=re.compile(entry["reason"]), when=entry["when"]))
    return tuple(entries)


def judge(
    skips: Iterable[Skip], expected: Iterable[Expected], *, facts: Mapping[str, bool]
) -> Judgement:
    """Tell the skips that are expected where ``facts`` hold from the others."""
    counts, others = Counter[str](), list[Skip]()
    here = [entry for entry in expected if facts[entry.when]]
    for skip in skips:
        if any(entry.reason.fullmatch(skip.reason) for entry in here):
            counts[skip.reason] += 1
        else:
            others.append(skip)
    return Judgement(expected=counts, unexpected=tuple(others))


def judge_here(skips: Iterable[Skip]) -> Judgement:
    """Judge skips by the list of this checkout and the facts of this machine."""
    expected = read_list(LIST.read_text(encoding="utf-8"))
    return judge(skips, expected, facts={name: is_so() for name, is_so in FACTS.items()})


def read_junit(text: str, name: str) -> Iterator[Skip]:
    """Yield the skips in a JUnit file of pytest's."""
    for case in ElementTree.fromstring(text).iter("testcase"):  # noqa: S314 - our own file
        found = case.find("skipped")
        if found is not None and found.get("type") != "pytest.xfail":
            yield Skip(test=f"{name}: {case.get('name')}", reason=found.get("message") or "")


class Plugin:
    """Collects the skips of a run of pytest, and fails it for those that are not expected."""

    def __init__(self) -> None:
        self._skips: list[Skip] = []
        self._judgement = Judgement(expected={}, unexpected=())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a test that was skipped."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._remember(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember a module that was skipped as a whole."""
        if report.skipped:
            self._remember(report)

    def _remember(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self._skips.append(Skip(test=report.nodeid, reason=said.removeprefix("Skipped: ")))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run where a skip is not expected."""
        self._judgement = judge_here(self._skips)
        if self._judgement.unexpected and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Count the skips."""
        if self._skips:
            terminalreporter.section(f"skips: {len(self._skips)}")
        for line in self._judgement.lines():
            terminalreporter.write_line(line)


def main(folder: Path) -> int:
    """Judge the skips in the JUnit files of ``folder``; return the exit status."""
    files = sorted(folder.glob("*.xml"))
    if not files:
        print(f"{folder}: holds no JUnit file", file=sys.stderr)  # noqa: T201
        return 1
    skips = [skip for file in files for skip in read_junit(file.read_text("utf-8"), file.stem)]
    found = judge_here(skips)
    print(f"== skips in the tests of images: {len(skips)}, in {len(files)} runs ==")  # noqa: T201
    for line in found.lines():
        print(line)  # noqa: T201
    return 1 if found.unexpected else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
