"""The ways in which SSH to a node can fail, and what to do about each."""

from __future__ import annotations

import os
import re
import shlex
import stat
from enum import Enum
from pathlib import Path

from sifline.errors import StepFailed
from sifline.machine.process import Result
from sifline.model import Cluster, Node, SshAccess

DEFAULT_PORT = 22
# Modes that let others than the owner use a file.
OTHERS = 0o077


class Fault(str, Enum):
    """Why a command could not be run on a node."""

    UNREACHABLE = "unreachable"
    UNKNOWN_KEY = "unknown host key"
    CHANGED_KEY = "changed host key"
    DENIED = "permission denied"
    CLOSED = "closed before the login"
    NO_KEY = "no private key"
    LOST = "connection lost"
    NOT_RUN = "command not run"
    SUDO_ASKS = "sudo asks for a password"
    SUDO_REFUSED = "refused by sudo"


FAULTS: tuple[tuple[re.Pattern[str], Fault], ...] = (
    (re.compile(r"REMOTE HOST IDENTIFICATION HAS CHANGED"), Fault.CHANGED_KEY),
    (re.compile(r"No \S+ host key is known|Host key verification failed"), Fault.UNKNOWN_KEY),
    (re.compile(r"Permission denied|Too many authentication failures"), Fault.DENIED),
    # sshd accepts the connection and closes it: too many at once, or an address that it penalises.
    (
        re.compile(
            r"kex_exchange_identification: .*Connection (closed|reset)|Not allowed at this"
        ),
        Fault.CLOSED,
    ),
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
    """A command could not be run on a node; ``fault`` is the reason."""

    def __init__(self, message: str, *, fault: Fault, node: str, details: str = "") -> None:
        super().__init__(message, details=details)
        self.fault = fault
        self.node = node


def failure(cluster: Cluster, node: Node, fault: Fault, result: Result) -> SshFailed:
    """Return the error for ``node``, given the output on the way to it."""
    # A login shell may print its refusal on either stream; ssh and sudo print errors on one.
    said = result.tail() if fault is Fault.NOT_RUN else result.stderr
    return SshFailed(
        explain(cluster, node, fault, said),
        fault=fault,
        node=node.name,
        details=result.tail(),
    )


def classify(stderr: str) -> Fault | None:
    """Return the fault that ssh reports in ``stderr``; None if the text is not from ssh."""
    return next((fault for pattern, fault in FAULTS if pattern.search(stderr)), None)


def explain(cluster: Cluster, node: Node, fault: Fault, stderr: str = "") -> str:
    """Return the error message: the node, the fault, the next command."""
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
        given = f" -i {shlex.quote(str(access.identity_file))}" if access.identity_file else ""
        return (
            f"{where}: login as {access.user}{key} was refused; see the ssh section of "
            f"{cluster.source}, or: ssh-copy-id{given}{port} {access.user}@{host}"
        )
    if fault in (Fault.NOT_RUN, Fault.SUDO_ASKS, Fault.SUDO_REFUSED):
        login = login_command(access, host, "-t")
        return f"{where}: {_explain_refusal(access, fault, stderr, login)}"
    others = {
        Fault.LOST: f": the connection broke off or hangs; try: {login}",
        Fault.NO_KEY: f": {stderr}; or correct identity_file in the ssh section of"
        f" {cluster.source}",
        Fault.CLOSED: ": sshd closed the connection before the login; after failed logins it"
        " refuses an address for a while (PerSourcePenalties), or it has too many connections"
        f" (MaxStartups): wait a minute, then try: {login}",
    }
    if fault in others:
        return f"{where}{others[fault]}"
    return (
        f"{where} does not answer: {_last_line(stderr)}; is it up, and its address right in "
        f"{cluster.source}? try: {login}"
    )


def key_fault(path: Path | None) -> str:
    """Return why ssh could not use the private key at ``path``; "" if it could.

    A login without it would fail, and cost this machine a penalty at the node.
    """
    if path is None:
        return ""
    try:
        with path.open("rb"):
            found = path.stat()
    except OSError as error:
        return f"the private key {path} cannot be read: {error.strerror}; restore it"
    if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & OTHERS:
        return (
            f"ssh ignores the private key {path}, because others may use it (mode"
            f" {stat.S_IMODE(found.st_mode):04o}): run chmod 600 {shlex.quote(str(path))}"
        )
    return ""


def login_command(access: SshAccess, host: str, *flags: str) -> str:
    """Return the command with which a user can log in to ``host``, with the cluster's key."""
    known = str(access.known_hosts or "")
    known = f'"{known}"' if " " in known else known  # ssh would split the list at spaces
    options = [
        *(["-i", str(access.identity_file)] if access.identity_file else []),
        *(["-p", str(access.port)] if access.port != DEFAULT_PORT else []),
        *(["-o", f"UserKnownHostsFile={known}"] if known else []),
    ]
    return shlex.join(["ssh", *options, *flags, f"{access.user}@{host}"])


def _explain_refusal(access: SshAccess, fault: Fault, said: str, login: str) -> str:
    """Return why a node that accepts the login does not run the command, and the next command."""
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
    """Return sudo's own last message, or else the last line."""
    own = re.findall(r"sudo: .*", stderr)
    return _last_line("\n".join(own) or stderr)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
