from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sifline.errors import MissingError, StepFailed
from sifline.machine.context import Context
from sifline.model import Image, Sif, Workspace
from sifline.stages import imagetest
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

JUNIT = """<testsuites><testsuite time="1.5">
<testcase name="test_a"/>
<testcase name="test_b"><failure message="no"/></testcase>
<testcase name="test_c"><error message="no"/></testcase>
<testcase name="test_d"><skipped message="no GPU"/></testcase>
</testsuite></testsuites>"""
SUBJECT = Sif(name="x", path=Path("/s/x.sif"), sha256="0", size=1)
LOG = Path("x.log")


def test_junit_is_counted() -> None:
    found = imagetest.read_junit(JUNIT)
    assert found == imagetest.Outcome(
        passed=1, failed=("test_b", "test_c"), skipped=("no GPU",), seconds=1.5
    )


def test_an_environment_that_was_not_installed_anew_is_told_how(tmp_path: Path) -> None:
    said = answer(
        returncode=4, stderr="__main__.py: error: unrecognized arguments: --sifline-runtime docker"
    )
    with pytest.raises(MissingError, match="run scripts/bootstrap"):
        imagetest.judge("x", said, tmp_path / "j.xml", LOG)


def test_failed_tests_are_named(tmp_path: Path) -> None:
    junit = tmp_path / "j.xml"
    junit.write_text(JUNIT)
    with pytest.raises(StepFailed, match=r"testing x: 2 failed: test_b, test_c; the whole log"):
        imagetest.judge("x", answer(returncode=1), junit, LOG)


def test_failures_in_the_file_count_whatever_the_status_says(tmp_path: Path) -> None:
    junit = tmp_path / "j.xml"
    junit.write_text(JUNIT)
    with pytest.raises(StepFailed, match="2 failed"):
        imagetest.judge("x", answer(returncode=0), junit, LOG)


def test_folder_without_tests_fails(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="holds no test"):
        imagetest.judge("x", answer(returncode=5), tmp_path / "j.xml", LOG)


@pytest.mark.parametrize("status", [0, 2, 3, 4])
def test_run_without_a_report_fails(tmp_path: Path, status: int) -> None:
    with pytest.raises(StepFailed, match=f"pytest ended with status {status}"):
        imagetest.judge("x", answer(returncode=status), tmp_path / "j.xml", LOG)


def test_image_without_tests_runs_nothing_and_counts_nothing(tmp_path: Path) -> None:
    here = context_of(tmp_path, RecordingRunner())
    report = imagetest.imagetest(SUBJECT, [], here, runtime="apptainer")
    assert (report.passed, report.failed, report.skipped) == (0, 0, 0)


def test_report_of_an_earlier_run_is_not_taken_for_this_one(tmp_path: Path) -> None:
    here = Context(
        workspace=Workspace(root=tmp_path),
        runner=RecordingRunner({(): answer(returncode=0)}),
        progress=lambda _: None,
    )
    tests = tmp_path / "i" / "x" / "tests"
    tests.mkdir(parents=True)
    (tests / "test_x.py").touch()
    old = tmp_path / "build" / "reports" / "x.test-apptainer.xml"
    old.parent.mkdir(parents=True)
    old.write_text('<testsuites><testsuite time="1"><testcase name="a"/></testsuite></testsuites>')
    with pytest.raises(StepFailed, match="pytest ended with status 0"):
        imagetest.imagetest(SUBJECT, [tests], here, runtime="apptainer")


def test_a_folder_whose_files_pytest_would_not_take_is_a_failure(tmp_path: Path) -> None:
    """Beside other folders that hold some nobody would notice."""
    here = context_of(tmp_path, RecordingRunner())
    (tmp_path / "check_x.py").touch()
    with pytest.raises(StepFailed, match="holds no test"):
        imagetest.imagetest(SUBJECT, [tmp_path], here, runtime="apptainer")


def test_all_folders_and_the_sif_are_handed_over() -> None:
    folders = [Path("/i/base/tests"), Path("/i/x/tests")]
    argv = imagetest.argv(SUBJECT, "x", folders, "apptainer", Path("/j.xml"))
    assert argv[-2:] == ["/i/base/tests", "/i/x/tests"]
    assert argv[argv.index("--sifline-sif") + 1] == "/s/x.sif"
    assert argv[argv.index("--sifline-runtime") + 1] == "apptainer"


def test_every_sif_is_held_to_tests_of_our_own_and_an_image_to_its_smoke_commands() -> None:
    plain = Image(name="x", folder=Path("/i/x"), tag="")
    smoky = replace(plain, smoke=(("true",),))

    def names(image: Image, runtime: str) -> list[str]:
        return [path.name for path in imagetest.suites(image, runtime=runtime)]

    assert (names(plain, "docker"), names(plain, "apptainer")) == ([], ["sif"])
    assert (names(smoky, "docker"), names(smoky, "apptainer")) == (["smoke"], ["sif", "smoke"])
    assert all(path.is_dir() for path in imagetest.suites(smoky, runtime="apptainer"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a/test_x.py::test_b PASSED   [ 50%]", ["test_b: passed"]),
        ("a/test_x.py::test_s[ls 'a b'] FAILED [ 5%]", ["test_s[ls 'a b']: failed"]),
        ("a/test_x.py::test_c SKIPPED (no GPU) [ 9%]", ["test_c: skipped"]),
        ("collected 5 items", []),
        ("a/test_x.py::test_b ", []),
    ],
)
def test_progress_names_a_test_whole_and_how_it_ended(line: str, told: list[str]) -> None:
    said = list[str]()

    def progress(text: str) -> None:
        said.append(text)

    imagetest._tell(line, progress)
    assert said == told


def test_what_an_image_promises_is_handed_over() -> None:
    promises = imagetest.Promises(smoke=(("ls", "a b"),), budget=5, image_size=7)
    assert promises.words == [
        *("--sifline-smoke", '[["ls", "a b"]]'),
        *("--sifline-budget", "5", "--sifline-image-size", "7"),
    ]


# Tests that need no image, run by pytest itself.
ENDS = {
    "pytest.exit": "import pytest\ndef test_a(): pytest.exit('enough', returncode=0)\n",
    "pytest.exit, 1": "import pytest\ndef test_a(): pytest.exit('enough', returncode=1)\n",
    "while it is read": "import pytest\npytest.exit('enough', returncode=0)\n",
    "interrupted": "def test_a(): raise KeyboardInterrupt\n",
    "the process": "import os\ndef test_a(): os._exit(0)\n",
}
GOOD = "def test_good(): pass\n"


@pytest.mark.parametrize("source", ENDS.values(), ids=ENDS)
def test_a_run_that_ends_before_its_last_test_has_not_passed(tmp_path: Path, source: str) -> None:
    folder = tmp_path / "x" / "tests"
    folder.mkdir(parents=True)
    (folder / "test_good.py").write_text(GOOD)
    (folder / "test_later.py").write_text(source)
    with pytest.raises(StepFailed, match="testing x: "):
        imagetest.imagetest(SUBJECT, [folder], context_of(tmp_path), runtime="apptainer")


def test_what_the_caller_wants_of_his_own_pytest_is_not_for_the_tests_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x" / "tests"
    folder.mkdir(parents=True)
    (folder / "test_good.py").write_text(GOOD)
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    report = imagetest.imagetest(SUBJECT, [folder], context_of(tmp_path), runtime="apptainer")
    assert report.passed == 1
