from __future__ import annotations

import pytest

from sifline.errors import MissingError
from sifline.machine.process import CommandFailed
from tests.support.recording import RecordingRunner, answer


def test_the_longest_prefix_answers() -> None:
    runner = RecordingRunner({("docker",): answer("any"), ("docker", "info"): answer("info")})

    assert runner.run(["docker", "info", "--json"]).stdout == "info"
    assert runner.run(["docker", "ps"]).stdout == "any"
    assert runner.argvs == [("docker", "info", "--json"), ("docker", "ps")]


def test_a_list_is_used_up_from_the_front_and_its_last_entry_stays() -> None:
    runner = RecordingRunner({("a",): [answer("1"), answer("2")]})

    assert [runner.run(["a"]).stdout for _ in range(3)] == ["1", "2", "2"]


def test_a_failing_answer_raises_only_where_the_caller_checks() -> None:
    runner = RecordingRunner({("a",): answer(stderr="no", returncode=4)})

    assert runner.run(["a"], check=False).returncode == 4
    with pytest.raises(CommandFailed, match="status 4"):
        runner.run(["a"])


def test_a_command_without_an_answer_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="no answer for: rm -r x"):
        RecordingRunner().run(["rm", "-r", "x"])


def test_a_tool_that_is_not_there_is_missing_as_in_the_real_runner() -> None:
    runner = RecordingRunner({("rsync",): answer()}, tools={"ssh"})

    assert runner.which("ssh") == "/usr/bin/ssh"
    assert runner.which("rsync") is None
    with pytest.raises(MissingError, match="rsync"):
        runner.run(["rsync"])
