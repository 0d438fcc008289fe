"""The Docker engine: whether it answers, and starting it."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
import time
from pathlib import Path

from bootstrapping.commands import LOGS, Stop, as_root, ask_password, do, quiet, say, tail, which

ENGINE_SECONDS = 60
DEFAULT_ENGINE = "unix:///var/run/docker.sock"


def engine_address() -> str:
    """Return where the engine is to be found."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_ENGINE


def ask_engine() -> str:
    """Return whether the engine "answers", is "silent", or the socket is "denied" to us.

    The socket is asked directly, which takes 2 ms where the client takes 50; the client is
    asked for what only it can reach (contexts, other hosts).
    """
    host = engine_address()
    if host.startswith("unix://"):
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(host[len("unix://") :])
                connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
                if b" 200 " in connection.recv(64):
                    return "answers"
        except PermissionError:
            return "denied"
        except OSError:
            pass
    client = which("docker")
    asked = [client or "", "version", "--format", "{{.Server.Version}}"]
    return "answers" if client and quiet(asked) else "silent"


def ready_engine(may_install: bool) -> None:
    """Start the engine where it is silent; stop where we may not speak to it."""
    if ask_engine() == "silent":
        if not may_install:
            raise Stop("no Docker engine answers; without --no-install it is started", 3)
        start_engine()
    if ask_engine() == "denied":
        user = who()
        raise Stop(
            f"no permission on the engine's socket: sudo usermod --append --groups docker {user}, "
            "then log in again",
            3,
        )


def start_engine() -> None:
    """Start the engine by the service manager, else by hand; return when it answers."""
    log = LOGS / "dockerd.log"
    process = None
    ask_password()
    if Path("/run/systemd/system").is_dir():
        say("starting the Docker engine (systemctl start docker)")
        do(as_root(["systemctl", "enable", "--now", "docker"]), "dockerd.log")
    else:
        say("starting the Docker engine (dockerd; its log: build/logs/dockerd.log)")
        LOGS.mkdir(parents=True, exist_ok=True)
        background = [] if os.geteuid() == 0 else ["sudo", "--background", "setsid"]
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [*background, which("dockerd") or "dockerd"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=not background,
            )
    started = time.monotonic()
    while ask_engine() == "silent":
        seconds = time.monotonic() - started
        ended = process is not None and process.poll()
        if ended or seconds > ENGINE_SECONDS:
            how = f"ended with status {ended}" if ended else f"is silent after {seconds:.0f} s"
            raise Stop(f"the Docker engine {how}; its log says why: {log}", details=tail(log))
        time.sleep(0.25)
    say(f"the engine answers after {time.monotonic() - started:.1f} s")


def who() -> str:
    """Return the user's name, or the number of one that the machine does not know."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
