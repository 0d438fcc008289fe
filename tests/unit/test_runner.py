"""The runner: real processes, their output, their end."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from subprocess import PIPE, Popen

import pytest

from sifline.errors import MissingError, StepFailed
from sifline.machine import process as module
from sifline.machine.process import CommandFailed, Interrupted, ProcessRunner
from tests.support import processes
from tests.support.waiting import PATIENCE, ended_within, until


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
        runner.run(["sleep", "600"], timeout=0.2, check=False)

    assert time.monotonic() - started < PATIENCE  # and not the ten minutes


def test_input_is_handed_over(runner: ProcessRunner) -> None:
    result = runner.run(python("print(input())"), input="hello\n")

    assert result.stdout == "hello\n"


def test_large_output_on_both_streams_does_not_block(runner: ProcessRunner) -> None:
    code = "import sys; sys.stderr.write('e' * 10**6); sys.stdout.write('o' * 10**6)"

    result = runner.run(python(code), timeout=PATIENCE)

    assert (len(result.stdout), len(result.stderr)) == (10**6, 10**6)


def test_lines_and_log_hold_what_was_printed(runner: ProcessRunner, tmp_path: Path) -> None:
    lines: list[str] = []

    runner.run(
        python("print('one'); print('two')"), on_line=lines.append, log=tmp_path / "l" / "x"
    )

    assert lines == ["one", "two"]
    command, *rest = logged(tmp_path / "l" / "x")
    assert command.startswith("+ ")
    assert rest == ["one", "two"]


def test_what_a_log_gets_is_shown_and_what_programs_read_is_not(tmp_path: Path) -> None:
    shown = list[str]()
    runner = ProcessRunner(output=shown.append, hide=["word"])

    runner.run(["echo", "data"])
    runner.run(["echo", "a word"], log=tmp_path / "log")

    assert shown == ["a ***"]


def logged(path: Path) -> list[str]:
    """The lines of a log; each has the time in front, with its offset."""
    lines = [line.partition(" ") for line in path.read_text().splitlines()]
    times = [datetime.strptime(time, "%Y-%m-%dT%H:%M:%S%z") for time, *_ in lines]
    assert all(abs((datetime.now(timezone.utc) - time).total_seconds()) < 600 for time in times)
    return [text for *_, text in lines]


def test_what_a_command_started_ends_with_it(runner: ProcessRunner) -> None:
    pids = list[str]()
    argv = ["sh", "-c", "sh -c 'echo $$; exec sleep 600' & wait"]

    # A machine may be too busy to start both before their time is up.
    for seconds in (0.2, 2, 20):
        with pytest.raises(CommandFailed, match="did not end within"):
            runner.run(argv, timeout=seconds, on_line=pids.append)
        if pids:
            break

    assert len(pids) == 1
    until(lambda: not runs(pids[0]), "the end of what the command started")


def test_a_command_that_hangs_up_its_group_does_not_end_us(runner: ProcessRunner) -> None:
    result = runner.run(python("import os; os.killpg(0, 1)"), check=False)

    assert result.returncode == -1


class Worker(threading.Thread):
    """Does something in a thread and keeps how it ended."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.ended: BaseException | None = None
        self._work = work
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.ended = error


def started(runner: ProcessRunner, code: str = "pass") -> tuple[Worker, str]:
    """A thread that waits for a long command, and the command's process id."""
    said, pids = threading.Event(), list[str]()

    def hear(line: str) -> None:
        pids.append(line)
        said.set()

    code = f"import os, signal, time; {code}; print(os.getpid(), flush=True); time.sleep(600)"
    worker = Worker(lambda: runner.run(python(code), on_line=hear))
    assert said.wait(PATIENCE)
    return worker, pids[0]


def test_stop_ends_the_commands_of_all_threads(runner: ProcessRunner) -> None:
    running = [started(runner) for _ in range(3)]

    runner.stop()

    for worker, _ in running:
        worker.join(PATIENCE)
    assert [type(worker.ended) for worker, _ in running] == [Interrupted] * 3
    assert [pid for _, pid in running if Path("/proc", pid).exists()] == []


def test_stop_kills_what_does_not_listen(
    runner: ProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.2)
    worker, pid = started(runner, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")

    runner.stop()

    # Its thread takes it out of the list of processes.
    worker.join(PATIENCE)
    assert not Path("/proc", pid).exists()


def test_a_thread_between_two_commands_is_interrupted_instead_of_its_next() -> None:
    said = list[str]()
    runner = ProcessRunner(echo=said.append)
    first, stopped = threading.Event(), threading.Event()

    def work() -> None:
        runner.run(["echo", "first"])
        first.set()
        assert stopped.wait(PATIENCE)
        runner.run(["echo", "second"])

    worker = Worker(work)
    assert first.wait(PATIENCE)
    runner.stop()
    stopped.set()
    worker.join(PATIENCE)

    assert type(worker.ended) is Interrupted
    assert said == ["+ echo first"]


def test_an_interrupted_thread_may_still_clean_up(runner: ProcessRunner) -> None:
    cleaned, running = list[str](), threading.Event()

    def work() -> None:
        try:
            argv = ["sh", "-c", "echo running; exec sleep 600"]
            runner.run(argv, on_line=lambda _: running.set())
        finally:
            cleaned.append(runner.run(["echo", "cleaned"]).stdout)

    worker = Worker(work)
    assert running.wait(PATIENCE)
    runner.stop()
    worker.join(PATIENCE)

    assert cleaned == ["cleaned\n"]


def test_the_thread_that_stops_the_others_goes_on(runner: ProcessRunner) -> None:
    runner.stop()

    assert runner.run(["echo", "on"]).stdout == "on\n"


THREE_SLEEPS = """
import sys, threading
from sifline.machine.process import ProcessRunner

runner = ProcessRunner()
say = lambda line: (sys.stdout.write(line + "\\n"), sys.stdout.flush())
sleep = lambda: runner.run(["sh", "-c", "echo $$; sleep 600"], on_line=say)
threads = [threading.Thread(target=sleep) for _ in range(3)]
try:
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(0.1)  # a signal just before a wait without end is heard after it
except KeyboardInterrupt:
    runner.stop()
"""


def test_an_interrupted_program_leaves_nothing_running_behind() -> None:
    command = [sys.executable, "-c", THREE_SLEEPS]
    with Popen(command, stdout=PIPE, stderr=PIPE, text=True) as program:
        assert program.stdout is not None
        pids = [program.stdout.readline().strip() for _ in range(3)]
        assert set(pids) <= groups()
        with ended_within(program):  # they would sleep for longer
            program.send_signal(signal.SIGINT)
            program.wait()

    assert set(pids).isdisjoint(groups())


def groups() -> set[str]:
    """The process groups in which anything still runs."""
    return {group for _, group in running()}


def runs(pid: str) -> bool:
    """Whether a process still runs."""
    return any(number == int(pid) for number, _ in running())


def running() -> Iterator[tuple[int, str]]:
    """Yield the number and the group of each process that is not dead, if not yet buried."""
    for number, stat in processes.read_all("stat"):
        state, _, group = stat.decode(errors="replace").rsplit(")", 1)[1].split()[:3]
        if state != "Z":
            yield number, group


def test_a_log_that_cannot_be_opened_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StepFailed, match=r"the log .* cannot be written: "):
        ProcessRunner().run(["touch", str(tmp_path / "ran")], log=tmp_path / "file" / "log")

    assert not (tmp_path / "ran").exists()


# A limit of the size of files stands for a full disk.
FULL = """
import resource, sys
from pathlib import Path
from sifline.errors import StepFailed
from sifline.machine.process import ProcessRunner
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    ProcessRunner().run(["seq", "1000000"], log=Path(sys.argv[1]), timeout=120)
except StepFailed as error:
    print(error.message)
"""


def test_a_log_on_a_full_disk_does_not_hang_and_is_told(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", FULL, str(tmp_path / "log")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)

    assert done.stdout.startswith(f"the log {tmp_path / 'log'} cannot be written: File too large")
    assert done.stderr == ""


@pytest.mark.parametrize("word", ["x" * 200_000, "a\0b"])
def test_a_word_that_no_command_takes_is_no_traceback(word: str) -> None:
    with pytest.raises(StepFailed, match="cannot run true: "):
        ProcessRunner().run(["true", word])


@pytest.mark.parametrize("how", ["run", "attach"])
def test_what_cannot_be_started_is_told_in_one_line(tmp_path: Path, how: str) -> None:
    start = getattr(ProcessRunner(), how)
    closed = tmp_path / "closed"
    closed.write_text("")
    with pytest.raises(MissingError, match="is not installed"):
        start([str(tmp_path / "none")])
    with pytest.raises(MissingError, match="cannot run"):
        start([str(closed)])
    with pytest.raises(StepFailed, match="very long or odd"):
        start(["true", "x" * (1 << 20)])


def test_one_process_goes_without_variables_but_for_those_that_it_is_given(
    monkeypatch: pytest.MonkeyPatch, runner: ProcessRunner
) -> None:
    monkeypatch.setenv("SIFLINE_A", "a")
    monkeypatch.setenv("SIFLINE_B", "b")
    code = "import os; print(sorted(k for k in os.environ if k.startswith('SIFLINE_')))"
    names = {"SIFLINE_A", "SIFLINE_B"}
    result = runner.run(python(code), env={"SIFLINE_B": "given"}, without=names)
    assert result.stdout == "['SIFLINE_B']\n"
    assert "SIFLINE_A" in runner.run(python(code)).stdout


def test_no_process_gets_the_variables_that_it_shall_be_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIFLINE_A", "a")
    monkeypatch.setenv("SIFLINE_B", "b")
    runner = ProcessRunner(without={"SIFLINE_A", "SIFLINE_C"})

    shown = runner.run(["env"]).stdout.splitlines()
    given = runner.run(["env"], env={"SIFLINE_A": "own"}).stdout.splitlines()

    assert ("SIFLINE_A=a" in shown, "SIFLINE_B=b" in shown) == (False, True)
    assert {"SIFLINE_A=own", "SIFLINE_B=b"} <= set(given)


def test_what_a_runner_hides_is_shown_nowhere_and_left_in_data(tmp_path: Path) -> None:
    lines = list[str]()
    runner = ProcessRunner(hide=["user:word"])
    script = "echo http://user:word@p own; echo user:word >&2; exit 3"

    with pytest.raises(CommandFailed) as caught:
        runner.run(["sh", "-c", script], log=tmp_path / "log", on_line=lines.append, hide=["own"])

    # An image's variables, say, are data: what is shown is another thing.
    assert caught.value.result.stdout == "http://user:word@p ***\n"
    assert caught.value.details.splitlines() == ["http://***@p ***", "***"]
    assert caught.value.result.stderr == "***\n"
    assert set(lines) == {"http://***@p ***", "***"}
    assert set(logged(tmp_path / "log")[1:]) == set(lines)


def test_output_is_read_as_utf_8_whatever_the_locale_is() -> None:
    program = (
        "from sifline.machine.process import ProcessRunner;"
        'print(ascii(ProcessRunner().run(["printf", "\\\\303\\\\244"]).stdout))'
    )
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = ProcessRunner().run([sys.executable, "-c", program], env=plain)
    assert done.stdout == "'\\xe4'\n"
