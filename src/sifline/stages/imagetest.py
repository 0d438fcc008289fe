"""Image tests: runs pytest in a process of its own, on an image or on a SIF."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

from sifline.errors import MissingError, StepFailed, UsageError, did_you_mean
from sifline.machine.context import Context
from sifline.machine.process import Result
from sifline.model import (
    BuiltImage,
    FoundSif,
    Image,
    Progress,
    SifFile,
    TestReport,
)
from sifline.model.image import SETTINGS

# pytest's exit statuses: https://docs.pytest.org/en/stable/reference/exit-codes.html
PASSED, FAILED, NONE_COLLECTED = 0, 1, 5
UNLINKED = "unrecognized arguments: --sifline"
NAMED_FAILURES = 5
# Of what pytest says of one failed test, the last lines, which have the assertion.
SHOWN_LINES = 15
APPTAINER = "apptainer"
SUITES = Path(str(resources.files("sifline") / "imagetests" / "suites"))
# The tests that every SIF must pass.
EVERY_SIF = SUITES / "sif"
# The tests that --gpu adds.
A_GPU = SUITES / "gpu"
EVERY_SUITE = (EVERY_SIF, A_GPU, SUITES / "smoke")
# A parameter in a test's name may contain spaces.
ENDED = re.compile(r"::(?P<name>.+) (?P<status>PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS|WARNING)\b")
FINE = frozenset({"PASSED", "SKIPPED", "XFAIL", "WARNING"})
# What the plugin notes of a test in the JUnit file; it is imported by pytest alone.
FROM, WARNING = "sifline-from", "sifline-warning"
# Elements of a JUnit file: an assertion did not hold; a fixture or the end of a test failed.
FAULTS = ("failure", "error")
# File names of tests, as pytest has them.
TESTS = ("test_*.py", "*_test.py")


@dataclass(frozen=True, kw_only=True)
class Missed:
    """A test that did not pass; ``origin`` is the image whose folder has it, "" for sifline's.

    ``said`` is what pytest says of its failure, in lines.
    """

    name: str
    origin: str = ""
    why: str = ""
    said: str = field(default="", compare=False)


class TestsFailed(StepFailed):
    """Tests failed; not that they could not be run."""

    __test__ = False  # pytest would take the name for a test class


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results in the JUnit file of one run; ``warned`` are tests of style."""

    passed: int
    failed: tuple[Missed, ...]
    skipped: tuple[str, ...]
    seconds: float
    warned: tuple[Missed, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Promises:
    """What sifline's own tests expect of an image; sizes in bytes, 0 if there is none.

    ``gpu``: a GPU is required: without one, tests fail that would be skipped. ``skip`` has the
    reasons of tests that are not run.
    """

    smoke: tuple[tuple[str, ...], ...] = ()
    budget: int = 0
    image_size: int = 0
    gpu: bool = False
    skip: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """Return the options that pass them to pytest."""
        return [
            *("--sifline-smoke", json.dumps(self.smoke)),
            *("--sifline-budget", str(self.budget)),
            *("--sifline-image-size", str(self.image_size)),
            *(["--sifline-gpu"] if self.gpu else []),
            *(["--sifline-skip", json.dumps(dict(self.skip))] if self.skip else []),
        ]


NOTHING_PROMISED = Promises()


def suites(image: Image, *, runtime: str) -> list[Path]:
    """Return the folders of sifline's own tests that apply to the image."""
    return [
        *([EVERY_SIF] if runtime == APPTAINER else []),
        *([SUITES / "smoke"] if image.smoke else []),
    ]


def need_known(image: Image, folders: Sequence[Path]) -> None:
    """Refuse an image that skips a test which is in none of ``folders``.

    :raises UsageError: with the nearest names.
    """
    known = {name for folder in folders for name in _names(folder) if name.startswith("test")}
    for name, _ in image.skip:
        if name not in known:
            raise UsageError(
                f"{image.folder / SETTINGS}: tests.skip.{name}: {image.name} has no such test,"
                f" of its own or inherited.{did_you_mean(name, known)}"
            )


def _names(folder: Path) -> Iterator[str]:
    """Yield the names of the test functions below a folder; they are read, not run."""
    for path in (path for pattern in TESTS for path in folder.rglob(pattern)):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # pytest reports it when it runs them
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name


def test_file(file: FoundSif, context: Context, *, gpu: bool, label: str) -> TestReport:
    """Run the tests of every SIF on a file that sifline did not make.

    :param gpu: whether a GPU is demanded.
    :raises StepFailed: naming the tests that failed.
    """
    return imagetest(
        file,
        [*([A_GPU] if gpu else []), EVERY_SIF],
        context,
        runtime=APPTAINER,
        promises=Promises(gpu=gpu),
        label=label,
        kind="file",
    )


def imagetest(
    subject: BuiltImage | SifFile,
    test_folders: Sequence[Path],
    context: Context,
    *,
    runtime: str,
    promises: Promises = NOTHING_PROMISED,
    label: str = "",
    kind: str = "",
) -> TestReport:
    """Run the tests in ``test_folders``, of the image and its parents, on ``subject``.

    Without folders nothing is run, and the report is empty.

    :param label: label of the containers, ``key=value``.
    :param kind: part of the names of report and log, in place of the runtime: a SIF file of others
        may have the name of an image.
    :raises StepFailed: naming the tests that failed, or if the folders contain none.
    """
    name = subject.name if isinstance(subject, SifFile) else subject.image.name
    if not test_folders:
        return TestReport(name=name, runtime=runtime, passed=0, failed=0, skipped=0, seconds=0.0)
    for folder in test_folders:
        if not any(found for pattern in TESTS for found in folder.rglob(pattern)):
            raise _holds_none(name, folder)
    space = context.workspace
    junit = space.build / "reports" / f"{name}.test-{kind or runtime}.xml"
    log = space.logs / f"{name}.test-{kind or runtime}.log"
    junit.parent.mkdir(parents=True, exist_ok=True)
    for old in (junit, log):
        old.unlink(missing_ok=True)
    result = context.runner.run(
        [
            *argv(subject, name, test_folders, runtime, junit),
            *promises.words,
            *("--sifline-parent", str(os.getpid())),
            *(["--sifline-label", label] if label else []),
        ],
        check=False,
        cwd=space.root,
        # testcontainers' reaper would be pulled from a hub; the containers end without it. Byte
        # code in the test folders would count as a change of the tests. The caller's own pytest
        # options, such as --collect-only, do not apply.
        env={
            "TESTCONTAINERS_RYUK_DISABLED": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "",
        },
        log=log,
        on_line=lambda line: _tell(line, context.progress),
    )
    outcome = judge(name, result, junit, log)
    return TestReport(
        name=name,
        runtime=runtime,
        passed=outcome.passed,
        failed=0,
        skipped=len(outcome.skipped),
        seconds=outcome.seconds,
        skip_reasons=tuple(dict.fromkeys(outcome.skipped)),
        warnings=tuple(f"{_whose(item, name)}: {item.why}" for item in outcome.warned),
    )


def argv(
    subject: BuiltImage | SifFile, name: str, folders: Sequence[Path], runtime: str, junit: Path
) -> list[str]:
    """Return the pytest command line; the pytest settings of the checkout do not apply."""
    if isinstance(subject, SifFile):
        where = ["--sifline-sif", str(subject.path)]
    else:
        where = ["--sifline-ref", subject.image_id]
    return [
        *(sys.executable, "-m", "pytest", "--verbose"),
        # Readers of a failure look for the assertion, not for the plugin's objects.
        "--tb=short",
        *("-c", os.devnull, "--rootdir", str(folders[-1].parent.parent)),
        # Two images may both have a test_image.py.
        *("--import-mode", "importlib", "-p", "no:cacheprovider"),
        *("--sifline-runtime", runtime, "--sifline-image", name, *where),
        *("--junit-xml", str(junit)),
        *map(str, folders),
    ]


def judge(name: str, result: Result, junit: Path, log: Path) -> Outcome:
    """Return the results of the tests.

    :raises StepFailed: if a test failed, or none was run or skipped.
    """
    if result.returncode == NONE_COLLECTED:
        raise _holds_none(name)
    if UNLINKED in result.stdout + result.stderr:
        raise MissingError(
            f"testing {name}: this Python environment has not the pytest plugin of this version"
            " of sifline; run scripts/bootstrap, or install sifline anew"
        )
    if result.returncode not in (PASSED, FAILED) or not junit.is_file():
        # pytest marks the lines of an error so, such as that of a test that cannot be read.
        why = re.findall(r"^E +(\S.*)", result.stdout, re.MULTILINE)
        raise StepFailed(
            f"testing {name}: pytest ended with status {result.returncode}"
            f"{f': {why[-1]}' if why else ''}; the whole log is {log}",
            details=_without_passed(result),
        )
    outcome = read_junit(junit.read_text(encoding="utf-8"))
    if outcome.failed or result.returncode == FAILED:
        more = len(outcome.failed) - NAMED_FAILURES
        first = [_whose(item, name) for item in outcome.failed[:NAMED_FAILURES]]
        raise TestsFailed(
            f"testing {name}: {len(outcome.failed)} failed: {', '.join(first)}"
            f"{f' and {more} more' if more > 0 else ''}; the whole log is {log}"
            f"{_way_out(name, outcome.failed)}",
            details=_excerpt(outcome.failed, name) or result.tail(),
        )
    return outcome


def _excerpt(failed: Sequence[Missed], name: str) -> str:
    """Return what pytest says of each of the first failed tests; "" if it says nothing.

    Not the end of its output: before the failures that has the tests which passed.
    """
    lines = list[str]()
    for item in failed[:NAMED_FAILURES]:
        said = item.said.strip("\n").splitlines()
        if said:
            cut = ["    …"] if len(said) > SHOWN_LINES else []
            lines += [f"{_whose(item, name)} failed:", *cut]
            lines += [f"    {line}" for line in said[-SHOWN_LINES:]]
    return "\n".join(lines)


def _without_passed(result: Result) -> str:
    """Return the end of pytest's output without the tests that passed or were skipped."""
    lines = result.tail().splitlines()
    ended = {line: ENDED.search(line) for line in lines}
    fine = {line for line, match in ended.items() if match and match["status"] in FINE}
    return "\n".join(line for line in lines if line not in fine).strip("\n")


def _whose(item: Missed, name: str) -> str:
    """A test, and where it comes from if that is not the image ``name`` itself."""
    inherited = item.origin and item.origin != name
    return f"{item.name} (inherited from {item.origin})" if inherited else item.name


def _way_out(name: str, failed: Sequence[Missed]) -> str:
    """How image.toml opts out of tests that others wrote; "" where they are the image's own."""
    item = next((item for item in failed if item.origin and item.origin != name), None)
    if not item:
        return ""
    test = item.name.partition("[")[0]
    return (
        f'; if {name} shall not keep it: [tests.skip] {test} = "WHY" in images/{name}/{SETTINGS}'
    )


def read_junit(text: str) -> Outcome:
    """Read a JUnit file written by pytest."""
    root = ElementTree.fromstring(text)  # noqa: S314 - written by our own process
    counts = Counter[str]()
    failed, skipped, warned = list[Missed](), list[str](), list[Missed]()
    for case in root.iter("testcase"):
        reason = case.find("skipped")
        told = {item.get("name"): item.get("value", "") for item in case.iter("property")}
        item = Missed(
            name=case.get("name", "?"), origin=told.get(FROM, ""), why=told.get(WARNING, "")
        )
        fault = next((found for kind in FAULTS if (found := case.find(kind)) is not None), None)
        if fault is not None:
            failed.append(replace(item, said=fault.text or ""))
        elif WARNING in told:
            warned.append(item)
        elif reason is not None:
            skipped.append(reason.get("message") or "no reason given")
        else:
            counts["passed"] += 1
    return Outcome(
        passed=counts["passed"],
        failed=tuple(dict.fromkeys(failed)),
        skipped=tuple(skipped),
        seconds=sum(float(suite.get("time", 0)) for suite in root.iter("testsuite")),
        warned=tuple(warned),
    )


def _tell(line: str, progress: Progress) -> None:
    """Report a test's name and result, without its path and the percentage."""
    if match := ENDED.search(line):
        progress(f"{match['name']}: {match['status'].lower()}")


def _holds_none(name: str, folder: Path | None = None) -> StepFailed:
    which = f"{folder}" if folder else "its tests folder"
    return StepFailed(f"testing {name}: {which} holds no test; add test_*.py or remove the folder")
