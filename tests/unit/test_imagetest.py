from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sifline.errors import MissingError, StepFailed, UsageError
from sifline.machine.context import Context
from sifline.model import Image, Sif, Workspace
from sifline.stages import imagetest
from sifline.stages.imagetest import Missed, Promises
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

JUNIT = """<testsuites><testsuite time="1.5">
<testcase name="test_a"/>
<testcase name="test_b"><properties><property name="sifline-from" value="base"/></properties>
<failure message="no"/></testcase>
<testcase name="test_c"><error message="no"/></testcase>
<testcase name="test_d"><skipped message="no GPU"/></testcase>
<testcase name="test_e"><properties><property name="sifline-from" value="x"/>
<property name="sifline-warning" value="too large"/></properties>
<skipped type="pytest.xfail" message="style: too large"/></testcase>
</testsuite></testsuites>"""
SUBJECT = Sif(name="x", path=Path("/s/x.sif"), sha256="0", size=1)
LOG = Path("x.log")


def test_junit_is_counted() -> None:
    found = imagetest.read_junit(JUNIT)
    assert found == imagetest.Outcome(
        passed=1,
        failed=(Missed(name="test_b", origin="base"), Missed(name="test_c")),
        skipped=("no GPU",),
        seconds=1.5,
        warned=(Missed(name="test_e", origin="x", why="too large"),),
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
    with pytest.raises(StepFailed) as failure:
        imagetest.judge("x", answer(returncode=1), junit, LOG)
    assert failure.value.message == (
        "testing x: 2 failed: test_b (inherited from base), test_c; the whole log is x.log; if x"
        ' shall not keep it: [tests.skip] test_b = "WHY" in images/x/image.toml'
    )


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


def test_tests_that_cannot_be_read_are_told_with_their_own_error(tmp_path: Path) -> None:
    printed = (
        "E     File \"t.py\", line 2\nE   SyntaxError: '(' was never closed\n=== 1 error ===\n"
    )

    with pytest.raises(StepFailed, match=r"status 2: SyntaxError: '\(' was never closed; the who"):
        imagetest.judge("x", answer(printed, returncode=2), tmp_path / "j.xml", LOG)


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
        ("a/test_x.py::test_d WARNING (style: x) [ 9%]", ["test_d: warning"]),
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


STYLE = """
import pytest
@pytest.mark.style
def test_small(): assert 3 < 2, "too large"
@pytest.mark.style
def test_tidy(): pass
@pytest.fixture
def gone(): raise RuntimeError
@pytest.mark.style
def test_not_looked_at(gone): pass
"""


def folder_of(image: str, source: str, root: Path) -> Path:
    """A folder of tests as an image has it."""
    folder = root / image / "tests"
    folder.mkdir(parents=True)
    (folder / "test_it.py").write_text(source)
    return folder


def test_a_failed_test_of_style_is_a_warning_which_the_log_explains(tmp_path: Path) -> None:
    source = STYLE.replace("(gone)", "()")
    folders = [folder_of("base", source, tmp_path), folder_of("x", GOOD, tmp_path)]
    report = imagetest.imagetest(SUBJECT, folders, context_of(tmp_path), runtime="apptainer")
    log = (tmp_path / "build" / "logs" / "x.test-apptainer.log").read_text()

    assert (report.passed, report.failed, report.skipped) == (3, 0, 0)
    assert report.warnings == ("test_small (inherited from base): too large",)
    assert report.summary == "3 passed, 0 skipped, 1 warning"
    assert "test_small WARNING" in log
    assert "assert 3 < 2" in log


def test_a_test_of_style_that_could_not_look_is_a_failure(tmp_path: Path) -> None:
    folder = folder_of("x", STYLE, tmp_path)
    with pytest.raises(StepFailed, match="1 failed: test_not_looked_at;"):
        imagetest.imagetest(SUBJECT, [folder], context_of(tmp_path), runtime="apptainer")


def test_a_failure_says_from_which_image_it_was_inherited_and_the_way_out(tmp_path: Path) -> None:
    bad = "import pytest\n@pytest.mark.parametrize('n', [1, 2])\ndef test_bad(n): assert n == 1\n"
    folders = [folder_of("base", bad, tmp_path), folder_of("x", GOOD, tmp_path)]
    with pytest.raises(StepFailed) as failure:
        imagetest.imagetest(SUBJECT, folders, context_of(tmp_path), runtime="apptainer")
    assert "1 failed: test_bad[2] (inherited from base); the whole log" in failure.value.message
    assert '[tests.skip] test_bad = "WHY" in images/x/image.toml' in failure.value.message


def test_a_test_that_is_skipped_is_counted_with_its_reason(tmp_path: Path) -> None:
    folder = folder_of("x", f"{GOOD}def test_bad(): assert 0\n", tmp_path)
    report = imagetest.imagetest(
        SUBJECT,
        [folder],
        context_of(tmp_path),
        runtime="apptainer",
        promises=Promises(skip={"test_bad": "not kept here"}),
    )
    assert (report.passed, report.skipped) == (1, 1)
    assert report.skip_reasons == ("test_bad: not kept here",)


def test_a_test_that_an_image_skips_has_to_be_there(tmp_path: Path) -> None:
    folders = [folder_of("base", "class Test:\n def test_apt_is_clean(self): pass\n", tmp_path)]
    image = Image(name="x", folder=tmp_path / "x", tag="", skip=(("test_apt_is_clean", "why"),))
    wrong = replace(image, skip=(("test_apt_is_claen", "why"),))

    imagetest.need_known(image, folders)
    with pytest.raises(UsageError) as failure:
        imagetest.need_known(wrong, folders)
    assert failure.value.message == (
        f"{tmp_path}/x/image.toml: tests.skip.test_apt_is_claen: x has no such test, of its own or"
        " inherited. Did you mean test_apt_is_clean?"
    )


# Most tests pass, and one says much.
MANY = """
import pytest
@pytest.mark.parametrize("number", range(30))
def test_fine(number): pass
def test_version(): assert "12.1" == "13.0"
def test_long(): raise ValueError("\\n".join(map(str, range(40))))
@pytest.fixture
def gone(): raise RuntimeError("no folder")
def test_last(gone): pass
"""


def test_the_details_of_a_failure_are_those_of_the_failed_tests_alone(tmp_path: Path) -> None:
    folder = folder_of("base", MANY, tmp_path)
    with pytest.raises(StepFailed) as failure:
        imagetest.imagetest(SUBJECT, [folder], context_of(tmp_path), runtime="apptainer")
    lines = failure.value.details.splitlines()

    heads = [line for line in lines if not line.startswith("    ")]
    assert heads == [
        f"{name} (inherited from base) failed:"
        for name in ("test_version", "test_long", "test_last")
    ]
    assert lines[2].split() == ["def", "test_version():", "assert", '"12.1"', "==", '"13.0"']
    assert "    E   AssertionError: assert '12.1' == '13.0'" in lines
    assert lines[lines.index(heads[1]) + 1 : lines.index(heads[1]) + 3] == ["    …", "    E   25"]
    assert "    E   RuntimeError: no folder" in lines


def test_the_end_of_a_run_that_broke_off_is_shown_without_what_passed(tmp_path: Path) -> None:
    folder = folder_of("x", MANY + "def test_end(): pytest.exit('enough', 3)\n", tmp_path)
    (folder / "test_a.py").write_text(GOOD * 3)
    with pytest.raises(StepFailed) as failure:
        imagetest.imagetest(SUBJECT, [folder], context_of(tmp_path), runtime="apptainer")

    assert "PASSED" not in failure.value.details
    assert "enough" in failure.value.details
