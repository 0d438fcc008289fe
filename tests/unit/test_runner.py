"""The runner: real processes, their output, their end."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from sifline.errors import MissingError
from sifline.runner import CommandFailed, ProcessRunner


@pytest.fixture
def runner() -> ProcessRunner:
    return ProcessRunner()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_both_streams_and_the_status_come_back(runner: ProcessRunner) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"

    result = runner.run(python(code), check=False)

    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 3)


def test_words_reach_the_program_unchanged(runner: ProcessRunner) -> None:
    words = ["a b", "$HOME", "*", "'\"", ""]

    result = runner.run([*python("import sys; print(sys.argv[1:])"), *words])

    assert result.stdout == f"{words}\n"


def test_a_failure_raises_with_the_end_of_the_output(runner: ProcessRunner) -> None:
    with pytest.raises(CommandFailed) as error:
        runner.run(python("print('\\n'.join(map(str, range(100)))); raise SystemExit(1)"))

    assert error.value.details.splitlines()[-1] == "99"
    assert len(error.value.details.splitlines()) == 20


def test_a_missing_program_is_named(runner: ProcessRunner) -> None:
    with pytest.raises(MissingError, match="no-such-program is not installed"):
        runner.run(["no-such-program"])


def test_a_process_is_ended_when_its_time_is_up(runner: ProcessRunner) -> None:
    started = time.monotonic()

    with pytest.raises(CommandFailed, match="did not end within"):
        runner.run(python("import time; time.sleep(60)"), timeout=0.5, check=False)

    assert time.monotonic() - started < 20


def test_input_is_handed_over(runner: ProcessRunner) -> None:
    result = runner.run(python("print(input())"), input="hello\n")

    assert result.stdout == "hello\n"


def test_large_output_on_both_streams_does_not_block(runner: ProcessRunner) -> None:
    code = "import sys; sys.stderr.write('e' * 10**6); sys.stdout.write('o' * 10**6)"

    result = runner.run(python(code), timeout=30)

    assert (len(result.stdout), len(result.stderr)) == (10**6, 10**6)


def test_lines_and_log_hold_what_was_printed(runner: ProcessRunner, tmp_path: Path) -> None:
    lines: list[str] = []

    runner.run(
        python("print('one'); print('two')"), on_line=lines.append, log=tmp_path / "l" / "x"
    )

    assert lines == ["one", "two"]
    assert (tmp_path / "l" / "x").read_text().splitlines()[1:] == ["one", "two"]


def test_what_a_command_started_ends_with_it(runner: ProcessRunner, tmp_path: Path) -> None:
    child = "import time; time.sleep(1.5); open('late', 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"

    with pytest.raises(CommandFailed, match="did not end within"):
        runner.run(python(code), timeout=0.7, cwd=tmp_path)

    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


def test_a_command_that_hangs_up_its_group_does_not_end_us(runner: ProcessRunner) -> None:
    result = runner.run(python("import os; os.killpg(0, 1)"), check=False)

    assert result.returncode == -1
