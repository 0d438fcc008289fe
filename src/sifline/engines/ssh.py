"""The nodes of a cluster over the system's OpenSSH and rsync, one connection for each node."""

from __future__ import annotations

import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TypeVar

from sifline.errors import SiflineError, StepFailed
from sifline.machine.interrupts import submit
from sifline.machine.process import CommandFailed, Result, Runner
from sifline.machine.streams import Argv, OnLine
from sifline.model import Cluster, Node, SshAccess

T = TypeVar("T")

DEFAULT_PORT = 22
CONNECT_SECONDS = 10
PERSIST_SECONDS = 60
# A node that did not answer is not asked again for so long: each time costs the time-out.
DOWN_SECONDS = 30
PARALLEL = 8

# How long a transfer may stand still before it counts as broken; it may last for ever.
STALLED_SECONDS = 120

# A socket's path ends at 108 bytes, and ssh appends 17 while it makes one.
LONGEST_SOCKET_FOLDER = 80

SSH_FAILED = 255
TIMED_OUT = 124
NOT_FOUND = 127

# ssh's own status, and rsync's for "time-out in data send/receive" and "waiting for connection".
RSYNC_CONNECTION_FAILED = (SSH_FAILED, 30, 35)

# A line before the answer of a command, on both streams. Whatever stands in front of it comes from
# the login shell (a greeting, a message of `module load`) or from sudo; without it, the command
# was not run.
MARK = "=== sifline: the answer begins here ==="
BEGIN = r'printf "\n%s\n" "$0"; printf "\n%s\n" "$0" >&2; exec "$@"'
# From the user's home, as after a login; `sudo --login` would take line breaks out of arguments.
BEGIN_AT_HOME = BEGIN.replace("exec", 'cd "$HOME" && exec')

# Stands between rsync and ssh, and passes on what comes behind the mark: rsync takes any other
# word for a broken protocol. With a password, that goes ahead of all that rsync sends. bash reads
# a pipe byte by byte, so nothing behind the line is lost.
TO_RSYNC = 'while IFS= read -r line; do [ "$line" != "$0" ] || exec cat; done'
RSYNC_SHELL = f'set -o pipefail; "$@" | {{ {TO_RSYNC}; }}'
BECOME_VARIABLE = "SIFLINE_BECOME"
# Not a pipe: bash would wait for cat, and cat for rsync, which waits for bash.
PASSWORD_FIRST = f'< <(printf "%s\\n" "${BECOME_VARIABLE}"; exec cat)'
RSYNC_SHELL_SUDO = RSYNC_SHELL.replace('"$@"', f'"$@" {PASSWORD_FIRST}')


class Fault(str, Enum):
    """Why a node could not be talked to."""

    UNREACHABLE = "unreachable"
    UNKNOWN_KEY = "unknown host key"
    CHANGED_KEY = "changed host key"
    DENIED = "permission denied"
    LOST = "connection lost"
    NOT_RUN = "command not run"
    SUDO_ASKS = "sudo asks for a password"
    SUDO_REFUSED = "refused by sudo"


FAULTS: tuple[tuple[re.Pattern[str], Fault], ...] = (
    (re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED"), Fault.CHANGED_KEY),
    (re.compile(r"No \S+ host key is known|Host key verification failed"), Fault.UNKNOWN_KEY),
    (re.compile(r"Permission denied|Too many authentication failures"), Fault.DENIED),
    (
        re.compile(
            r"connect to host|Could not resolve hostname|Connection timed out"
            r"|Connection refused|No route to host|banner exchange"
            r"|Connection (closed|reset) by"
        ),
        Fault.UNREACHABLE,
    ),
)


# sudo, and sudo-rs.
ASKS_PASSWORD = re.compile(r"password is required|authentication is required")


class SshFailed(StepFailed):
    """A node could not be talked to; ``fault`` says in which of the known ways."""

    def __init__(self, message: str, *, fault: Fault, node: str, details: str = "") -> None:
        super().__init__(message, details=details)
        self.fault = fault
        self.node = node


class Ssh:
    """Runs commands on the nodes of ``cluster`` and sends files there.

    The first command to a node opens its connection, and the later ones use it. Use it as
    a context manager: leaving it closes the connections.
    """

    def __init__(self, cluster: Cluster, runner: Runner, *, parallel: int = PARALLEL) -> None:
        self.cluster = cluster
        self._runner = runner
        self._parallel = parallel
        self._sockets = _socket_folder()
        self._locks = {node.name: threading.Lock() for node in cluster.nodes}
        self._open: set[str] = set()
        self._closed = False
        self._down: dict[str, tuple[float, SshFailed]] = {}
        self._asking: dict[tuple[str, ...], bool | SshFailed] = {}

    def __enter__(self) -> Ssh:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that were opened, and open no more."""
        self._closed = True
        for node in self.cluster.nodes:
            if node.name in self._open:
                # A connection that hangs ends by itself after half a minute.
                with suppress(CommandFailed):
                    self._runner.run(
                        [*self._ssh(node), "-O", "exit", self._target(node)],
                        check=False,
                        timeout=5,
                    )
        self._open.clear()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def run(
        self,
        node: Node,
        argv: Argv,
        *,
        sudo: bool = False,
        user: str | None = None,
        input: str | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> Result:
        """Run ``argv`` on ``node``: as root with ``sudo``, or as ``user`` from that one's home.

        The result holds what the command printed, not what a login shell or sudo did before.
        After ``timeout`` seconds the command is ended on the node itself.

        :raises SshFailed: where the node cannot be talked to, or does not run the command.
        :raises CommandFailed: when the time is over; with ``check``, for any status but 0.
        """
        self._connect(node)
        become = self._become(node, sudo=sudo, user=user)
        limit = ["timeout", "--kill-after=5", f"{timeout:g}"]
        script = BEGIN_AT_HOME if user and become else BEGIN
        words = [*become, *limit, "sh", "-c", script, MARK, *argv]
        password = f"{self.cluster.ssh.become_password}\n" if "-S" in become else ""
        fed = f"{password}{input or ''}" if password else input
        result = self._answer(node, self._local(node, words, fed, timeout), become)
        if result.returncode == TIMED_OUT:
            raise CommandFailed(f"{node.name}: {argv[0]} did not end within {timeout:g} s", result)
        if check and not result.ok:
            raise CommandFailed(
                f"{node.name}: {argv[0]} ended with status {result.returncode}", result
            )
        return result

    def send(
        self,
        node: Node,
        path: Path,
        remote_path: PurePosixPath,
        *,
        sudo: bool = False,
        on_line: OnLine | None = None,
    ) -> None:
        """Copy the file ``path`` to ``remote_path`` on ``node``; go on with a broken copy.

        The file at ``remote_path`` is written in place, so it must be one that nobody uses.
        ``on_line`` gets rsync's progress lines.

        :raises SshFailed: where the node cannot be talked to.
        :raises CommandFailed: when rsync fails, or stands still for two minutes.
        """
        self._connect(node)
        become = self._become(node, sudo=sudo)
        shell = RSYNC_SHELL_SUDO if "-S" in become else RSYNC_SHELL
        target = f"{self._target(node, brackets=True)}:{remote_path}"
        argv = [
            "rsync",
            "--inplace",
            "--no-inc-recursive",
            "--info=progress2",
            "--protect-args",
            f"--timeout={STALLED_SECONDS}",
            # rsync splits this itself, and understands the quotes of a shell.
            f"--rsh={shlex.join(['bash', '-c', shell, MARK, *self._ssh(node)])}",
            f"--rsync-path={shlex.join(['sh', '-c', BEGIN, MARK, *become, 'rsync'])}",
            "--",
            str(path.absolute()),
            target,
        ]
        secret = {BECOME_VARIABLE: self.cluster.ssh.become_password} if "-S" in become else None
        result = self._runner.run(argv, check=False, on_line=on_line, env=secret)
        if result.ok:
            return
        if result.returncode in RSYNC_CONNECTION_FAILED:
            self._open.discard(node.name)
            raise self._failure(node, classify(result.stderr) or Fault.LOST, result)
        raise CommandFailed(
            f"{node.name}: rsync ended with status {result.returncode}: "
            f"{_behind_mark(result.stderr).strip().partition(chr(10))[0]}",
            result,
        )

    def each(
        self, nodes: Sequence[Node], work: Callable[[Node], T]
    ) -> tuple[dict[str, T], dict[str, SiflineError]]:
        """Do ``work`` for all ``nodes`` side by side; return results and errors by node."""
        done: dict[str, T] = {}
        failed: dict[str, SiflineError] = {}
        with ThreadPoolExecutor(max_workers=max(1, min(self._parallel, len(nodes)))) as pool:
            try:
                for node, future in zip(nodes, submit(pool, work, nodes), strict=True):
                    try:
                        done[node.name] = future.result()
                    except SiflineError as error:
                        failed[node.name] = error
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, Exception):
                    # After a Ctrl-C: without their connection the others end as well.
                    self.close()
                raise
        return done, failed

    @property
    def _is_root(self) -> bool:
        return self.cluster.ssh.user == "root"

    def _become(self, node: Node, *, sudo: bool, user: str | None = None) -> list[str]:
        """The words in front of a command that make it root's or ``user``'s; none to stay."""
        if user is not None and user != self.cluster.ssh.user:
            who = ["-H", "-u", user]
        elif user is None and sudo and not self._is_root:
            who = []
        else:
            return []
        return ["sudo", *(["-k", "-S"] if self._asks(node, who) else ["-n"]), *who, "--"]

    def _asks(self, node: Node, who: Sequence[str]) -> bool:
        """Whether sudo asks for the password, if there is one; it is tried once on each node.

        A wrong one, tried again for each command, would lock the account.
        """
        if not self.cluster.ssh.become_password:
            return False
        with self._locks[node.name]:
            key = (node.name, *who)
            if key not in self._asking:
                self._asking[key] = self._try_password(node, who)
            found = self._asking[key]
        if isinstance(found, SshFailed):
            raise found
        return found

    def _try_password(self, node: Node, who: Sequence[str]) -> bool | SshFailed:
        words = [*who, "--", "true"]
        if self._local(node, ["sudo", "-n", *words], None, CONNECT_SECONDS).ok:
            return False
        password = f"{self.cluster.ssh.become_password}\n"
        given = self._local(node, ["sudo", "-k", "-S", *words], password, CONNECT_SECONDS)
        return True if given.ok else self._failure(node, Fault.SUDO_REFUSED, given)

    def _answer(self, node: Node, result: Result, become: Sequence[str]) -> Result:
        """``result`` without what was printed before the command began.

        :raises SshFailed: where it did not begin.
        """
        _, begun, stdout = result.stdout.partition(f"\n{MARK}\n")
        if begun:
            return replace(result, stdout=stdout, stderr=_behind_mark(result.stderr))
        fault = classify(result.stderr) if result.returncode == SSH_FAILED else None
        if fault:
            self._open.discard(node.name)
        elif become and "sudo: " in result.stderr and result.returncode != NOT_FOUND:
            fault, result = self._why_sudo(node, result, become)
        raise self._failure(node, fault or Fault.NOT_RUN, result)

    def _why_sudo(self, node: Node, result: Result, become: Sequence[str]) -> tuple[Fault, Result]:
        """Ask sudo once more, for words that are not in the language of the node."""
        if "-n" not in become:
            return Fault.SUDO_REFUSED, result
        words = ["env", "LC_ALL=C", *become, "true"]
        asked = self._local(node, words, None, CONNECT_SECONDS)
        needed = ASKS_PASSWORD.search(asked.stderr)
        return (Fault.SUDO_ASKS if needed else Fault.SUDO_REFUSED), asked

    def _local(self, node: Node, words: Argv, input: str | None, timeout: float) -> Result:
        """Run ``words`` on the node as they are."""
        # The node ends the command itself; this limit is for a node that stopped answering.
        try:
            return self._runner.run(
                [*self._ssh(node), self._target(node), shlex.join(words)],
                check=False,
                input=input,
                timeout=timeout + CONNECT_SECONDS,
            )
        except CommandFailed as error:
            self._open.discard(node.name)
            raise self._failure(node, Fault.LOST, error.result) from None

    def _connect(self, node: Node) -> None:
        with self._locks[node.name]:
            if self._closed:
                raise StepFailed(f"{node.name}: the connections are closed")
            if node.name in self._open:
                return
            self._recall(node)
            result = self._runner.run(
                [*self._ssh(node, master=True), self._target(node)],
                check=False,
                timeout=3 * CONNECT_SECONDS,
            )
            if not result.ok:
                fault = classify(result.stderr) or Fault.LOST
                error = self._failure(node, fault, result)
                self._down[node.name] = time.monotonic(), error
                raise error
            self._open.add(node.name)

    def _recall(self, node: Node) -> None:
        when, error = self._down.get(node.name, (-DOWN_SECONDS, None))
        if error is not None and time.monotonic() - when < DOWN_SECONDS:
            raise error

    def _ssh(self, node: Node, *, master: bool = False) -> list[str]:
        access = self.cluster.ssh
        number = self.cluster.nodes.index(node)
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(CONNECT_SECONDS),
            "ControlMaster": "yes" if master else "no",
            "ControlPath": str(self._sockets / str(number)),
            "LogLevel": "ERROR",
            "ServerAliveCountMax": "3",
            "ServerAliveInterval": "10",
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
        }
        if access.known_hosts is not None:
            options["UserKnownHostsFile"] = f'"{access.known_hosts}"'
            options["GlobalKnownHostsFile"] = "none"
        if access.identity_file is not None:
            options["IdentitiesOnly"] = "yes"
        if master:
            options["ControlPersist"] = str(PERSIST_SECONDS)
        return [
            "ssh",
            "-T",
            *(["-f", "-N"] if master else []),
            *(["-i", str(access.identity_file)] if access.identity_file else []),
            *(["-p", str(access.port)] if access.port != DEFAULT_PORT else []),
            *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
        ]

    def _target(self, node: Node, *, brackets: bool = False) -> str:
        host = node.address or node.name
        if brackets and ":" in host:
            host = f"[{host}]"
        return f"{self.cluster.ssh.user}@{host}"

    def _failure(self, node: Node, fault: Fault, result: Result) -> SshFailed:
        # A shell that says no may say so on either stream; ssh and sudo complain on one.
        said = result.tail() if fault is Fault.NOT_RUN else result.stderr
        return SshFailed(
            explain(self.cluster, node, fault, said),
            fault=fault,
            node=node.name,
            details=result.tail(),
        )


def classify(stderr: str) -> Fault | None:
    """Return what ssh complains about in ``stderr``; None where it is not ssh that complains."""
    return next((fault for pattern, fault in FAULTS if pattern.search(stderr)), None)


def explain(cluster: Cluster, node: Node, fault: Fault, stderr: str = "") -> str:
    """Return the line for a person: which node, what is wrong, the next command."""
    access = cluster.ssh
    host = node.address or node.name
    port = "" if access.port == DEFAULT_PORT else f" -p {access.port}"
    login = login_command(access, host)
    name = host if not port else f"[{host}]:{access.port}"
    known = access.known_hosts or "~/.ssh/known_hosts"
    where = f"{node.name} ({host})"
    if fault is Fault.UNKNOWN_KEY:
        return (
            f"{where}: host key is not in {known}; compare its fingerprint, then: "
            f"ssh-keyscan{port} {host} >> {known}"
        )
    if fault is Fault.CHANGED_KEY:
        return (
            f"{where}: host key differs from the one in {known}; if the host was installed "
            f"anew: ssh-keygen -R {shlex.quote(name)} -f {known}"
        )
    if fault is Fault.DENIED:
        key = f" with {access.identity_file}" if access.identity_file else ""
        return (
            f"{where}: login as {access.user}{key} was refused; see the ssh section of "
            f"{cluster.source}, or: ssh-copy-id{port} {access.user}@{host}"
        )
    if fault in (Fault.NOT_RUN, Fault.SUDO_ASKS, Fault.SUDO_REFUSED):
        login = login_command(access, host, "-t")
        return f"{where}: {_explain_refusal(access, fault, stderr, login)}"
    if fault is Fault.LOST:
        return f"{where}: the connection broke off or hangs; try: {login}"
    return (
        f"{where} does not answer: {_last_line(stderr)}; is it up, and its address right in "
        f"{cluster.source}? try: {login}"
    )


def login_command(access: SshAccess, host: str, *flags: str) -> str:
    """Return how a person gets to ``host``, with the key and the known hosts of the cluster."""
    known = str(access.known_hosts or "")
    known = f'"{known}"' if " " in known else known  # ssh takes several
    options = [
        *(["-i", str(access.identity_file)] if access.identity_file else []),
        *(["-p", str(access.port)] if access.port != DEFAULT_PORT else []),
        *(["-o", f"UserKnownHostsFile={known}"] if known else []),
    ]
    return shlex.join(["ssh", *options, *flags, f"{access.user}@{host}"])


def _explain_refusal(access: SshAccess, fault: Fault, said: str, login: str) -> str:
    """Why a node that lets the user in does not run the command, and the next command."""
    if fault is Fault.SUDO_ASKS:
        return f"sudo asks {access.user} for a password; add --ask-become-pass"
    if fault is Fault.SUDO_REFUSED:
        refused = "did not take the password of" if access.become_password else "refused"
        return f"sudo {refused} {access.user}: {_of_sudo(said)}; try: {login} sudo -v"
    return (
        f"the login shell of {access.user} did not run the command: {_last_line(said)}; "
        f"try: {login} true"
    )


def _of_sudo(stderr: str) -> str:
    """What sudo itself says last, else whatever was said last."""
    own = re.findall(r"sudo: .*", stderr)
    return _last_line("\n".join(own) or stderr)


def _behind_mark(text: str) -> str:
    """What a command itself printed; all, where there is no mark."""
    _, begun, behind = text.partition(f"\n{MARK}\n")
    return behind if begun else text


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def _socket_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="sifline-"))
    if len(str(folder)) <= LONGEST_SOCKET_FOLDER:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="sifline-", dir="/tmp"))
