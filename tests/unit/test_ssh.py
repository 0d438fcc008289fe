from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

import pytest

from sifline.engines.ssh import connections
from sifline.engines.ssh.answers import BEGIN, BEGIN_AT_HOME, MARK
from sifline.engines.ssh.faults import Fault, SshFailed, classify, key_fault
from sifline.engines.ssh.nodes import Ssh
from sifline.machine.process import CommandFailed, ProcessRunner, Result
from sifline.model import Cluster, Node, Partition, Role, SshAccess
from tests.support.recording import RecordingRunner, answer
from tests.support.remote import begun, install

NODE = Node(name="compute-01", role=Role.COMPUTE, address="192.0.2.11")
CLUSTER = Cluster(
    name="blue",
    nodes=(Node(name="controller", role=Role.CONTROLLER, address="192.0.2.10"), NODE),
    ssh=SshAccess(user="admin", identity_file=Path("/k/key"), known_hosts=Path("/k/known hosts")),
    partitions=(Partition(name="main"),),
    source=Path("clusters/blue.yaml"),
)
# What a person has to say as well to get to its nodes.
LOGIN = """-i /k/key -o 'UserKnownHostsFile="/k/known hosts"'"""


@pytest.fixture(autouse=True)
def key_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The private key of the cluster, which no test reads."""
    monkeypatch.setattr(connections, "key_fault", lambda _: "")


REFUSED = "ssh: connect to host 192.0.2.11 port 22: Connection refused"
UNKNOWN = (
    "No ED25519 host key is known for 192.0.2.11 and you have requested strict checking.\n"
    "Host key verification failed."
)
CHANGED = (
    "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed."
)
PENALISED = "kex_exchange_identification: Connection closed by remote host"
DENIED = "admin@192.0.2.11: Permission denied (publickey)."


def runner_that(*results: Result | Exception) -> RecordingRunner:
    """Connect at once, then give ``results`` one after the other."""
    return RecordingRunner({("ssh",): [answer(), *results], ("rsync",): answer()})


def remote_words(runner: RecordingRunner) -> list[str]:
    return shlex.split(runner.argvs[-1][-1])


def options(argv: tuple[str, ...]) -> dict[str, str]:
    pairs = [word for flag, word in pairwise(argv) if flag == "-o"]
    return dict(pair.split("=", 1) for pair in pairs)


@pytest.mark.parametrize(
    ("stderr", "fault"),
    [
        (REFUSED, Fault.UNREACHABLE),
        ("ssh: connect to host x port 22: No route to host", Fault.UNREACHABLE),
        ("ssh: Could not resolve hostname x: Name or service not known", Fault.UNREACHABLE),
        ("Connection timed out during banner exchange", Fault.UNREACHABLE),
        ("kex_exchange_identification: Connection reset by peer", Fault.CLOSED),
        ("kex_exchange_identification: Connection closed by remote host", Fault.CLOSED),
        ("kex_exchange_identification: read: Connection reset by peer", Fault.CLOSED),
        (UNKNOWN, Fault.UNKNOWN_KEY),
        (CHANGED, Fault.CHANGED_KEY),
        (DENIED, Fault.DENIED),
        ("python3: command not found", None),
        ("", None),
    ],
)
def test_the_complaints_of_ssh_are_told_apart(stderr: str, fault: Fault | None) -> None:
    assert classify(stderr) is fault


@pytest.mark.parametrize(
    ("stderr", "next_command"),
    [
        (REFUSED, f"try: ssh {LOGIN} admin@192.0.2.11"),
        (UNKNOWN, "ssh-keyscan 192.0.2.11 >> /k/known hosts"),
        (CHANGED, "ssh-keygen -R 192.0.2.11"),
        (DENIED, "ssh-copy-id -i /k/key admin@192.0.2.11"),
        (
            PENALISED,
            f"(PerSourcePenalties), or it has too many connections (MaxStartups): wait a"
            f" minute, then try: ssh {LOGIN} admin@192.0.2.11",
        ),
    ],
)
def test_each_failure_names_the_node_and_the_next_command(stderr: str, next_command: str) -> None:
    runner = RecordingRunner({("ssh",): answer(stderr=stderr, returncode=255)})

    with Ssh(CLUSTER, runner) as ssh, pytest.raises(SshFailed) as caught:
        ssh.run(NODE, ["true"])

    assert caught.value.message.startswith("compute-01 (192.0.2.11)")
    assert next_command in caught.value.message
    assert caught.value.node == "compute-01"


def test_a_key_that_ssh_could_not_use_is_named_and_no_login_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "key_fault", key_fault)
    key = tmp_path / "id key"
    cluster = replace(CLUSTER, ssh=replace(CLUSTER.ssh, identity_file=key))
    runner = RecordingRunner({("ssh",): [answer(), begun("")]})

    def complaint() -> str:
        with Ssh(cluster, runner) as ssh, pytest.raises(SshFailed) as caught:
            ssh.run(NODE, ["true"])
        assert caught.value.fault is Fault.NO_KEY
        return caught.value.message

    source = "or correct identity_file in the ssh section of clusters/blue.yaml"
    assert complaint() == (
        f"compute-01 (192.0.2.11): the private key {key} cannot be read: No such file or"
        f" directory; restore it; {source}"
    )
    key.write_text("a key")
    key.chmod(0o644)
    assert complaint() == (
        f"compute-01 (192.0.2.11): ssh ignores the private key {key}, because others may use it"
        f" (mode 0644): run chmod 600 '{key}'; {source}"
    )
    assert runner.calls == []
    key.chmod(0o600)
    with Ssh(cluster, runner) as ssh:
        assert ssh.run(NODE, ["true"]).ok


def test_a_node_that_does_not_answer_is_asked_once() -> None:
    runner = RecordingRunner({("ssh",): answer(stderr=REFUSED, returncode=255)})

    with Ssh(CLUSTER, runner) as ssh:
        for _ in range(2):
            with pytest.raises(SshFailed):
                ssh.run(NODE, ["true"])

    assert len(runner.calls) == 1


def test_words_arrive_as_they_were_given() -> None:
    runner = runner_that(begun("x"))
    words = ["echo", "a b", "'\"", "$HOME;`id`", "line\nbreak", "", "*"]

    with Ssh(CLUSTER, runner) as ssh:
        ssh.run(NODE, words)
        sent = remote_words(runner)

    assert sent == ["timeout", "--kill-after=5", "60", "sh", "-c", BEGIN, MARK, *words]


def test_host_keys_are_checked_and_nothing_is_asked() -> None:
    runner = runner_that(begun())

    with Ssh(CLUSTER, runner) as ssh:
        ssh.run(NODE, ["true"])
        found = [options(argv) for argv in runner.argvs]

    for given in found:
        assert given["StrictHostKeyChecking"] == "yes"
        assert given["BatchMode"] == "yes"
        assert given["UserKnownHostsFile"] == '"/k/known hosts"'
        assert given["IdentitiesOnly"] == "yes"


def test_the_users_own_known_hosts_are_used_where_the_cluster_has_none() -> None:
    runner = runner_that(begun())
    cluster = replace(CLUSTER, ssh=SshAccess(user="admin"))

    with Ssh(cluster, runner) as ssh:
        ssh.run(NODE, ["true"])
        given = options(runner.argvs[0])

    assert "UserKnownHostsFile" not in given
    assert given["StrictHostKeyChecking"] == "yes"


def test_one_connection_serves_all_commands_and_is_closed() -> None:
    runner = runner_that(begun())

    with Ssh(CLUSTER, runner) as ssh:
        ssh.run(NODE, ["true"])
        ssh.run(NODE, ["true"])
    masters = [options(argv)["ControlMaster"] for argv in runner.argvs]

    assert masters == ["yes", "no", "no", "no"]
    assert runner.argvs[-1][-3:-1] == ("-O", "exit")


def test_the_socket_stays_below_the_limit_of_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    runner = runner_that(begun())

    with Ssh(CLUSTER, runner) as ssh:
        ssh.run(NODE, ["true"])
        path = options(runner.argvs[0])["ControlPath"]
        stood = Path(path).parent.is_dir()

    assert len(path) + 17 < 108
    assert stood
    assert not Path(path).parent.exists()


def test_another_users_command_runs_from_that_ones_home() -> None:
    runner = runner_that(begun())

    with Ssh(CLUSTER, runner) as ssh:
        ssh.run(NODE, ["id"], user="alice")
        sent = remote_words(runner)

    assert sent[:6] == ["sudo", "-n", "-H", "-u", "alice", "--"]
    assert sent[-5:] == ["sh", "-c", BEGIN_AT_HOME, MARK, "id"]


def test_root_needs_no_sudo() -> None:
    runner = runner_that(begun())
    cluster = replace(CLUSTER, ssh=SshAccess(user="root"))

    with Ssh(cluster, runner) as ssh:
        ssh.run(NODE, ["id"], sudo=True)
        sent = remote_words(runner)

    assert "sudo" not in sent


def test_a_command_that_fails_is_not_a_connection_that_fails() -> None:
    runner = runner_that(begun(stderr="Permission denied", returncode=1))

    with Ssh(CLUSTER, runner) as ssh, pytest.raises(CommandFailed, match="compute-01: cat ended"):
        ssh.run(NODE, ["cat", "/etc/shadow"])


def test_a_command_without_an_end_is_named() -> None:
    runner = runner_that(begun(returncode=124))

    with Ssh(CLUSTER, runner) as ssh, pytest.raises(CommandFailed, match="did not end within 7 s"):
        ssh.run(NODE, ["sleep", "99"], timeout=7, check=False)


def test_the_errors_of_single_nodes_do_not_stop_the_others() -> None:
    def work(node: Node) -> str:
        if node is NODE:
            raise CommandFailed("compute-01: broken", answer(returncode=1))
        return node.name

    with Ssh(CLUSTER, RecordingRunner()) as ssh:
        done, failed = ssh.each(CLUSTER.nodes, work)

    assert done == {"controller": "controller"}
    assert [error.message for error in failed.values()] == ["compute-01: broken"]


def test_a_file_is_sent_over_the_connection_that_stands() -> None:
    runner = runner_that(begun())

    with Ssh(CLUSTER, runner) as ssh:
        ssh.send(NODE, Path("/x/a b.sif"), PurePosixPath("/r/a b.sif"), sudo=True)
        argv = next(argv for argv in runner.argvs if argv[0] == "rsync")
    given = dict(
        word.split("=", 1) for word in argv if word.startswith(("--rsh=", "--rsync-path="))
    )

    assert argv[-3:] == ("--", "/x/a b.sif", "admin@192.0.2.11:/r/a b.sif")
    assert shlex.split(given["--rsync-path"])[-4:] == ["sudo", "-n", "--", "rsync"]
    assert "--protect-args" in argv
    used, opened = options(tuple(shlex.split(given["--rsh"]))), options(runner.argvs[0])
    assert used["ControlPath"] == opened["ControlPath"]


def test_an_ipv6_address_is_bracketed_for_rsync_alone() -> None:
    node = replace(NODE, address="2001:db8::1")
    cluster = replace(CLUSTER, nodes=(CLUSTER.nodes[0], node))
    runner = runner_that(begun())

    with Ssh(cluster, runner) as ssh:
        ssh.send(node, Path("/x"), PurePosixPath("/y"))
        connect, send = runner.argvs[:2]

    assert connect[-1] == "admin@2001:db8::1"
    assert send[-1] == "admin@[2001:db8::1]:/y"


@pytest.mark.parametrize(
    ("returncode", "stderr", "fault"),
    [(255, REFUSED, Fault.UNREACHABLE), (30, "io timeout after 120 seconds", Fault.LOST)],
)
def test_a_transfer_that_breaks_off_is_a_connection_that_fails(
    returncode: int, stderr: str, fault: Fault
) -> None:
    runner = RecordingRunner(
        {("ssh",): answer(), ("rsync",): answer(stderr=stderr, returncode=returncode)}
    )

    with Ssh(CLUSTER, runner) as ssh, pytest.raises(SshFailed) as caught:
        ssh.send(NODE, Path("/x"), PurePosixPath("/y"))

    assert caught.value.fault is fault


def test_an_rsync_that_fails_gives_its_first_complaint() -> None:
    stderr = "rsync: mkdir failed: No space left on device (28)\nrsync error: code 11"
    runner = RecordingRunner(
        {("ssh",): answer(), ("rsync",): answer(stderr=stderr, returncode=11)}
    )

    with Ssh(CLUSTER, runner) as ssh, pytest.raises(CommandFailed, match="No space left"):
        ssh.send(NODE, Path("/x"), PurePosixPath("/y"))


# Login shells that talk and a sudo that asks, on this machine: the shell and rsync are real.

GREETINGS = {
    "a greeting": "echo Welcome to the cluster",
    "on standard error": "echo Loading module openmpi/4.1 >&2",
    "without a line break": "printf 'Welcome '; printf 'Loading ' >&2",
    "a trace of each command": "set -x",
    "what looks like an answer": """echo '{"error": "none"}'""",
    "bytes that are no text": r"printf '\\377\\000\\n'",
}


@pytest.fixture(params=list(GREETINGS.values()), ids=list(GREETINGS))
def talking(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ssh]:
    """A node whose login shell says something first."""
    monkeypatch.setenv("PATH", install(tmp_path, greeting=request.param)["PATH"])
    with Ssh(CLUSTER, ProcessRunner()) as ssh:
        yield ssh


def test_what_a_login_shell_prints_is_no_part_of_the_answer(talking: Ssh) -> None:
    script = 'cat; echo "$1" >&2; exit 3'
    result = talking.run(NODE, ["sh", "-c", script, "sh", "it's"], input="fed", check=False)

    assert (result.returncode, result.stdout) == (3, "fed")
    # A shell that traces its commands says so before the last one begins.
    assert result.stderr == "it's\n"


def test_a_file_arrives_through_a_login_shell_that_prints(talking: Ssh, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    (tmp_path / "sent file").write_bytes(content)

    talking.send(NODE, tmp_path / "sent file", PurePosixPath(tmp_path / "got it's"), sudo=True)

    assert (tmp_path / "got it's").read_bytes() == content


def refused(tmp_path: Path, cluster: Cluster = CLUSTER, **given: str) -> SshFailed:
    """What is said of a node that does not run a command as root."""
    runner = ProcessRunner()
    search = install(tmp_path, **given)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", search["PATH"])
        with Ssh(cluster, runner) as ssh, pytest.raises(SshFailed) as caught:
            ssh.run(NODE, ["true"], sudo=True, check=False)
    return caught.value


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        ("echo This account is currently not available.; exit 1", "currently not available."),
        ("echo quota exceeded >&2; exit 0", "quota exceeded"),
        ("exit 0", "no reason given"),
        ("PATH=/nowhere", "sudo: .*not found"),
    ],
)
def test_a_login_shell_that_runs_nothing_is_named_with_its_words(
    tmp_path: Path, greeting: str, said: str
) -> None:
    error = refused(tmp_path, greeting=greeting)
    assert error.fault is Fault.NOT_RUN
    assert re.search(f"login shell of admin did not run the command: .*{said}", error.message)
    assert error.message.endswith(f"try: ssh {LOGIN} -t admin@192.0.2.11 true")


@pytest.mark.parametrize(
    ("refusal", "fault", "said"),
    [
        ("a password is required", Fault.SUDO_ASKS, "add --ask-become-pass"),
        ("interactive authentication is required", Fault.SUDO_ASKS, "add --ask-become-pass"),
        (
            "you must have a tty to run sudo",
            Fault.SUDO_REFUSED,
            "must have a tty to run sudo; try",
        ),
    ],
)
def test_a_sudo_that_runs_nothing_is_named_with_its_reason(
    tmp_path: Path, refusal: str, fault: Fault, said: str
) -> None:
    error = refused(tmp_path, wants="secret", refusal=refusal, greeting="echo Welcome >&2")
    assert (error.fault, said in error.message) == (fault, True), error.message


def test_a_sudo_that_speaks_another_language_is_understood(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    install(tmp_path / "real", wants="secret")
    translated = (
        '[ "$LC_ALL" = C ] || { echo "sudo: es wird ein Passwort gebraucht" >&2; exit 1; }\n'
        f'exec {tmp_path}/real/sudo "$@"'
    )
    install(tmp_path)
    (tmp_path / "sudo").write_text(f"#!/bin/bash\n{translated}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        patch.delenv("LC_ALL", raising=False)
        with Ssh(CLUSTER, ProcessRunner()) as ssh, pytest.raises(SshFailed) as caught:
            ssh.run(NODE, ["true"], sudo=True)
    assert caught.value.fault is Fault.SUDO_ASKS


def with_password(word: str) -> Cluster:
    return replace(CLUSTER, ssh=replace(CLUSTER.ssh, become_password=word))


@pytest.mark.parametrize("asks", ["s3cret 'x", ""], ids=["it asks", "it does not ask"])
def test_the_password_reaches_sudo_and_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    monkeypatch.setenv("PATH", install(tmp_path, wants=asks)["PATH"])
    (tmp_path / "sent").write_text("content")
    cluster = with_password("s3cret 'x")

    with Ssh(cluster, ProcessRunner()) as ssh:
        rooted = ssh.run(NODE, ["cat"], sudo=True, input="fed")
        others = ssh.run(NODE, ["cat"], user="alice", input="fed too")
        ssh.send(NODE, tmp_path / "sent", PurePosixPath(tmp_path / "got"), sudo=True)

    assert (rooted.stdout, others.stdout) == ("fed", "fed too")
    assert (tmp_path / "got").read_text() == "content"
    assert "s3cret" not in (tmp_path / "sudo.log").read_text()
    assert "s3cret" not in repr(cluster)


def test_a_wrong_password_is_tried_once_for_each_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", install(tmp_path, wants="right")["PATH"])

    with Ssh(with_password("wrong"), ProcessRunner()) as ssh:
        for _ in range(3):
            with pytest.raises(SshFailed, match="did not take the password of admin: sudo: 1 inc"):
                ssh.run(NODE, ["true"], sudo=True)

    assert (tmp_path / "sudo.log").read_text().splitlines() == ["-n -- true", "-k -S -- true"]


def test_work_that_breaks_on_one_node_leaves_the_connections_open() -> None:
    runner = runner_that(begun())

    with Ssh(CLUSTER, runner) as ssh:
        with pytest.raises(ValueError, match="odd"):
            ssh.each(CLUSTER.nodes, lambda node: float("odd"))
        ssh.run(NODE, ["true"])
