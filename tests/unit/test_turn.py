"""One run at a time for a cluster: the lock on its controller, which these tests play."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.engines.ssh import turn as turns
from sifline.engines.ssh.turn import holder, turn
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.machine.process import ProcessRunner
from sifline.model import Cluster, Node, Progress, Role, SshAccess
from sifline.nodeside import turn as program
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer
from tests.support.remote import begun, install
from tests.support.waiting import until

SOURCE = Path(program.__file__)
CLUSTER = Cluster(
    name="tiny",
    nodes=(Node(name="head", role=Role.CONTROLLER), Node(name="n1", role=Role.COMPUTE)),
    ssh=SshAccess(user="admin"),
    partitions=(),
    source=Path("clusters/tiny.yaml"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Progress], Context]:
    """A way to this machine as the controller, with a lock of its own."""
    for name, value in install(tmp_path, greeting="echo Welcome").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(turns, "FILE", str(tmp_path / "lock"))
    return lambda told: context_of(tmp_path, ProcessRunner(), progress=told)


def hold(file: Path, who: str) -> subprocess.Popen[str]:
    """Start a holder of the lock, as another machine would."""
    words = [sys.executable, str(SOURCE), str(file), who]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def is_free(file: Path) -> bool:
    done = subprocess.run(["flock", "--nonblock", str(file), "true"], check=False)
    return done.returncode == 0


def test_the_lock_is_held_while_the_block_runs(
    here: Callable[[Progress], Context], tmp_path: Path
) -> None:
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)

    context = here(tell)
    with turn(CLUSTER, context):
        assert not is_free(tmp_path / "lock")
        text = (tmp_path / "lock").read_text()
    until(lambda: is_free(tmp_path / "lock"), "the lock")
    assert re.fullmatch(rf"\S+@\S+ \(process {os.getpid()}, {tmp_path}, since \S+ \S+ UTC\)", text)
    assert told == []


def locked(folder: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> bool:
    """Whether the lock is held by a cluster with this password of sudo, which is ``secret``."""
    monkeypatch.setenv("PATH", install(folder, wants="secret")["PATH"])
    monkeypatch.setattr(turns, "FILE", str(folder / "lock"))
    access = replace(CLUSTER.ssh, become_password=word)
    with turn(replace(CLUSTER, ssh=access), context_of(folder)):
        return not is_free(folder / "lock")


@pytest.mark.parametrize(("word", "held"), [("secret", True), ("wrong", False)])
def test_sudo_gets_its_password_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, *, held: bool
) -> None:
    assert locked(tmp_path, monkeypatch, word) is held
    assert (tmp_path / "sudo.log").read_text().count("-k -S --prompt= --") == 1


def test_a_sudo_that_asks_again_gets_no_other_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of them lock an account."""
    install(tmp_path)
    heard = tmp_path / "heard"
    (tmp_path / "sudo").write_text(f"#!/bin/sh\nexec cat > {heard}\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(turns, "LOGIN_SECONDS", 1.0)
    monkeypatch.setattr(turns, "BEAT_SECONDS", 0.1)
    word = "wrong"
    access = replace(CLUSTER.ssh, become_password=word)
    with turn(replace(CLUSTER, ssh=access), context_of(tmp_path)):
        pass
    assert heard.read_text() == f"{word}\n"


def test_a_controller_that_is_busy_gets_its_time(
    here: Callable[[Progress], Context], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python3"
    slow.write_text(f'#!/bin/sh\nsleep 2\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    monkeypatch.setattr(turns, "LOGIN_SECONDS", 1.0)
    with turn(CLUSTER, here(lambda text: None)):
        assert not is_free(tmp_path / "lock")


def test_the_second_run_names_the_first_and_waits_for_its_end_however_that_comes(
    here: Callable[[Progress], Context], tmp_path: Path
) -> None:
    told, entered = list[str](), threading.Event()

    def tell(text: str) -> None:
        told.append(text)

    def second() -> None:
        with turn(CLUSTER, here(tell)):
            entered.set()

    thread = threading.Thread(target=second)
    with hold(tmp_path / "lock", "ada@laptop (process 7)") as first:
        thread.start()
        try:
            until(lambda: told != [], "the name")
            assert told == ["waiting for ada@laptop (process 7), who provisions this cluster"]
            assert not entered.is_set()
        finally:
            first.send_signal(signal.SIGKILL)
    thread.join(timeout=30)
    assert entered.is_set()


def test_the_end_of_the_caller_frees_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with hold(file, "ada") as process:
        assert not is_free(file)
        assert process.stdin
        process.stdin.close()
        assert process.wait(timeout=10) == 0
    assert is_free(file)


def test_a_caller_that_falls_silent_loses_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    monkeypatch.setattr(program, "SILENT_SECONDS", 0.3)
    kept = os.dup(0)
    os.dup2(read, 0)
    try:
        os.write(write, b"\n")
        # Nobody closes the pipe, and nobody writes to it any more.
        assert program.main([str(tmp_path / "lock"), "ada"]) == 0
    finally:
        os.dup2(kept, 0)
        for descriptor in (read, write, kept):
            os.close(descriptor)


@pytest.mark.parametrize(
    "said",
    [
        answer(stderr="ssh: connect to host head port 22: Connection refused", returncode=255),
        answer("Welcome", stderr="sudo: a password is required", returncode=1),
    ],
)
def test_a_controller_that_cannot_be_asked_is_left_to_the_playbooks(
    tmp_path: Path, said: object
) -> None:
    context = context_of(tmp_path, RecordingRunner({("ssh",): said}))  # type: ignore[dict-item]
    with turn(CLUSTER, context):
        pass


def test_a_lock_that_cannot_be_taken_is_told_with_node_and_cause(tmp_path: Path) -> None:
    said = begun(stderr="OSError: [Errno 30] Read-only file system: '/run/x'", returncode=1)
    context = context_of(tmp_path, RecordingRunner({("ssh",): said}))
    with pytest.raises(StepFailed) as caught, turn(CLUSTER, context):
        pass
    assert re.match(
        r"head: the lock \S+, which keeps .* Read-only file system: '/run/x'; look there: ssh ",
        caught.value.message,
    )


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "lock").symlink_to(target)
    words = [sys.executable, str(SOURCE), str(tmp_path / "lock"), "ada"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode
    assert target.read_text() == "precious"


@given(st.text())
def test_what_another_wrote_does_nothing_to_a_terminal(text: str) -> None:
    shown = program.printable(text)
    assert shown.isprintable()
    assert len(shown) <= program.LONGEST


def test_who_waits_is_told_user_machine_process_and_checkout(tmp_path: Path) -> None:
    assert str(tmp_path) in holder(context_of(tmp_path, RecordingRunner()))
