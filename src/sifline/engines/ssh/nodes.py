"""Runs commands on the nodes of a cluster, and sends files to them."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TypeVar

from sifline.engines.ssh.answers import (
    BECOME_VARIABLE,
    BEGIN,
    BEGIN_AT_HOME,
    MARK,
    RSYNC_SHELL,
    RSYNC_SHELL_SUDO,
    behind_mark,
)
from sifline.engines.ssh.connections import CONNECT_SECONDS, Connections
from sifline.engines.ssh.faults import ASKS_PASSWORD, Fault, SshFailed, classify, failure
from sifline.errors import SiflineError
from sifline.machine.interrupts import submit
from sifline.machine.process import CommandFailed, Result, Runner
from sifline.machine.streams import Argv, OnLine
from sifline.model import Cluster, Node

T = TypeVar("T")

PARALLEL = 8
# Seconds without progress after which a transfer counts as failed; its duration is unlimited.
STALLED_SECONDS = 120
SSH_FAILED = 255
TIMED_OUT = 124
NOT_FOUND = 127
# ssh's own status, and rsync's for "time-out in data send/receive" and "waiting for connection".
RSYNC_CONNECTION_FAILED = (SSH_FAILED, 30, 35)


class Ssh:
    """Runs commands on the nodes of ``cluster`` and sends files there.

    The first command to a node opens its connection, and later ones share it. Use it as a
    context manager: leaving it closes the connections.
    """

    def __init__(self, cluster: Cluster, runner: Runner, *, parallel: int = PARALLEL) -> None:
        self.cluster = cluster
        self._runner = runner
        self._parallel = parallel
        self._connections = Connections(cluster, runner)
        self._locks = {node.name: threading.Lock() for node in cluster.whole}
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
        """Close all open connections; no new ones can be opened."""
        self._connections.close()

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
        """Run ``argv`` on ``node``: as root with ``sudo``, or as ``user`` in that user's home.

        The result contains the output of the command, without that of a login shell or sudo. After
        ``timeout`` seconds the command is ended on the node itself.

        :raises SshFailed: if the node cannot be reached, or does not run the command.
        :raises CommandFailed: after the time limit; with ``check``, for any status but 0.
        """
        self._connections.open(node)
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
        receiver: Argv | None = None,
        on_line: OnLine | None = None,
    ) -> None:
        """Copy the file ``path`` to ``remote_path`` on ``node``; resume an interrupted copy.

        The file at ``remote_path`` is written in place, so it must not be in use. ``on_line`` gets
        rsync's progress lines.

        :param receiver: the command that receives it on the node instead of rsync, as whoever it
            becomes. It sees rsync's arguments, so a plain path is needed, which passes a shell.
        :raises SshFailed: if the node cannot be reached.
        :raises CommandFailed: if rsync fails, or makes no progress for two minutes.
        """
        self._connections.open(node)
        become = self._become(node, sudo=sudo and not receiver)
        shell = RSYNC_SHELL_SUDO if "-S" in become else RSYNC_SHELL
        there = receiver or [*become, "rsync"]
        target = f"{self._connections.target(node, brackets=True)}:{remote_path}"
        argv = [
            "rsync",
            "--inplace",
            "--no-inc-recursive",
            "--info=progress2",
            "--no-protect-args" if receiver else "--protect-args",
            f"--timeout={STALLED_SECONDS}",
            # rsync splits this itself, and understands the quotes of a shell.
            f"--rsh={shlex.join(['bash', '-c', shell, MARK, *self._connections.ssh(node)])}",
            f"--rsync-path={shlex.join(['sh', '-c', BEGIN, MARK, *there])}",
            "--",
            str(path.absolute()),
            target,
        ]
        secret = {BECOME_VARIABLE: self.cluster.ssh.become_password} if "-S" in become else None
        result = self._runner.run(argv, check=False, on_line=on_line, env=secret)
        if result.ok:
            return
        if result.returncode in RSYNC_CONNECTION_FAILED:
            self._connections.lost(node)
            raise failure(self.cluster, node, classify(result.stderr) or Fault.LOST, result)
        raise CommandFailed(
            f"{node.name}: rsync ended with status {result.returncode}: "
            f"{behind_mark(result.stderr).strip().partition(chr(10))[0]}",
            result,
        )

    def each(
        self, nodes: Sequence[Node], work: Callable[[Node], T]
    ) -> tuple[dict[str, T], dict[str, SiflineError]]:
        """Call ``work`` for all ``nodes`` in parallel; return results and errors by node."""
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
                    # After Ctrl-C: without their connections the other calls end as well.
                    self.close()
                raise
        return done, failed

    @property
    def _is_root(self) -> bool:
        return self.cluster.ssh.user == "root"

    def _become(self, node: Node, *, sudo: bool, user: str | None = None) -> list[str]:
        """Return the words before a command that run it as root or ``user``; none to stay."""
        if user is not None and user != self.cluster.ssh.user:
            who = ["-H", "-u", user]
        elif user is None and sudo and not self._is_root:
            who = []
        else:
            return []
        return ["sudo", *(["-k", "-S"] if self._asks(node, who) else ["-n"]), *who, "--"]

    def _asks(self, node: Node, who: Sequence[str]) -> bool:
        """Return whether sudo asks for the given password; it is tried once per node.

        A wrong password, tried again for each command, would lock the account.
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
        return True if given.ok else failure(self.cluster, node, Fault.SUDO_REFUSED, given)

    def _answer(self, node: Node, result: Result, become: Sequence[str]) -> Result:
        """Return ``result`` without the text printed before the command began.

        :raises SshFailed: if it did not begin.
        """
        _, begun, stdout = result.stdout.partition(f"\n{MARK}\n")
        if begun:
            return replace(result, stdout=stdout, stderr=behind_mark(result.stderr))
        fault = classify(result.stderr) if result.returncode == SSH_FAILED else None
        if fault:
            self._connections.lost(node)
        elif become and "sudo: " in result.stderr and result.returncode != NOT_FOUND:
            fault, result = self._why_sudo(node, result, become)
        raise failure(self.cluster, node, fault or Fault.NOT_RUN, result)

    def _why_sudo(self, node: Node, result: Result, become: Sequence[str]) -> tuple[Fault, Result]:
        """Run sudo once more for its message in English instead of the node's language."""
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
                [*self._connections.ssh(node), self._connections.target(node), shlex.join(words)],
                check=False,
                input=input,
                timeout=timeout + CONNECT_SECONDS,
            )
        except CommandFailed as error:
            self._connections.lost(node)
            raise failure(self.cluster, node, Fault.LOST, error.result) from None
