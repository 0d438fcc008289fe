"""One run at a time for a cluster, from whichever machine: a lock on its controller.

The lock is held by a program on the controller (``nodeside/turn.py``), over an SSH connection of
its own. It ends with this process, however that ends; after a lost connection, two minutes later.
"""

from __future__ import annotations

import os
import queue
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files

from sifline.engines.ssh.answers import BEGIN, MARK
from sifline.engines.ssh.connections import CONNECT_SECONDS, Connections
from sifline.engines.ssh.faults import login_command
from sifline.errors import StepFailed
from sifline.machine.caller import caller
from sifline.machine.context import Context
from sifline.machine.process import Beside
from sifline.model import Cluster

FILE = "/run/sifline-provision.lock"
BEAT_SECONDS = 10.0
LOOK_SECONDS = 0.5
# A login and sudo, and then the start of Python, on a controller that is busy.
LOGIN_SECONDS = CONNECT_SECONDS + 15.0
START_SECONDS = 60.0
HELD, BUSY = "held", "busy "
FOREVER = float("inf")


@contextmanager
def turn(cluster: Cluster, context: Context) -> Iterator[None]:
    """Hold the lock of ``cluster`` while the block runs; wait for who has it, and name them.

    If the controller cannot be reached, or refuses the login or sudo, the block runs all the same:
    it meets the same fault, and tells it as it tells those of other nodes.

    :raises StepFailed: if the lock cannot be taken there, or the connection breaks off before.
    """
    connections = Connections(cluster, context.runner)
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    argv = _argv(cluster, connections, holder(context))
    try:
        with context.runner.beside(argv, on_line=said.put) as process:
            if cluster.ssh.become_password:
                process.write(f"{cluster.ssh.become_password}\n")
            begun = threading.Event()
            with _beating(process, begun):
                held = _wait(cluster, context, process, said, begun)
                yield
                if held and process.ended:
                    context.progress(
                        f"the connection to {cluster.controller.name} broke off: another run may"
                        " have begun meanwhile"
                    )
    finally:
        connections.close()


def holder(context: Context) -> str:
    """Return who runs this, for those who wait: user, machine, process, checkout and time."""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return f"{caller()} (process {os.getpid()}, {context.workspace.root}, since {when})"


def _argv(cluster: Cluster, connections: Connections, who: str) -> list[str]:
    node = cluster.controller
    become = [] if cluster.ssh.user == "root" else ["sudo", "-n", "--"]
    if become and cluster.ssh.become_password:
        # Where sudo does not ask for it, the program reads it as a sign of life.
        become = ["sudo", "-k", "-S", "--prompt=", "--"]
    source = files("sifline.nodeside").joinpath("turn.py").read_text("utf-8")
    words = ["sh", "-c", BEGIN, MARK, "python3", "-c", source, FILE, who]
    return [
        *connections.ssh(node),
        connections.target(node),
        shlex.join([*become, *words]),
    ]


def _wait(
    cluster: Cluster,
    context: Context,
    process: Beside,
    said: queue.SimpleQueue[str],
    begun: threading.Event,
) -> bool:
    """Wait for the lock; return False if the controller runs nothing, else set ``begun``.

    :raises StepFailed: if it begins, but does not give the lock.
    """
    others, last = [""], time.monotonic() + LOGIN_SECONDS
    while (line := _next(process, said, context, last)) is not None:
        if line == MARK:
            begun.set()
            last = time.monotonic() + START_SECONDS
        elif begun.is_set() and line == HELD:
            return True
        elif begun.is_set() and line.startswith(BUSY):
            last = FOREVER
            context.progress(f"waiting for {line.removeprefix(BUSY)}, who provisions this cluster")
        elif line.strip():
            others.append(line.strip())
    if not begun.is_set():
        return False
    node = cluster.controller
    login = login_command(cluster.ssh, node.address or node.name)
    raise StepFailed(
        f"{node.name}: the lock {FILE}, which keeps other runs away, cannot be taken:"
        f" {others[-1] or 'it does not answer'}; look there: {login}"
    )


def _next(
    process: Beside, said: queue.SimpleQueue[str], context: Context, last: float
) -> str | None:
    """Return the next line; None if the process ended, or said nothing until the time ``last``."""
    while True:
        with suppress(queue.Empty):
            return said.get(timeout=LOOK_SECONDS)
        context.runner.check()
        if process.ended or time.monotonic() > last:
            return None


@contextmanager
def _beating(process: Beside, begun: threading.Event) -> Iterator[None]:
    """Give a sign of life every ten seconds while the block runs, once the program began.

    Before, sudo might read it as another password, and lock the account after three of them.
    """
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_SECONDS) and (not begun.is_set() or process.write("\n")):
            pass

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(LOOK_SECONDS)
