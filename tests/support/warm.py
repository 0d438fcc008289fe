"""Python programs run in forks of an interpreter that has imported what they need.

Each is a process of its own, in its own folder, with its own variables and exit status, as after
``python -m`` or ``python -c``; but the half second that the imports take is spent once.
Processes that get signals, or are found by their command line, are started as usual.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

# Ends when its standard input does. For each connection it forks a child that waits for the
# program, so that several run at once.
_SERVE = """
import gc, importlib, json, os, pkgutil, runpy, select, signal, socket, sys

listener = socket.socket(fileno=int(sys.argv[1]))
names = sys.argv[2:]
import sifline
for found in pkgutil.walk_packages(sifline.__path__, "sifline."):
    if not found.name.startswith(("sifline.imagetests.suites", "sifline.nodeside")):
        names.append(found.name)
for name in names:
    importlib.import_module(name)
gc.collect()
gc.freeze()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    if 0 in select.select([listener, 0], [], [])[0]:
        os._exit(0)
    connection = listener.accept()[0]
    if os.fork():
        connection.close()
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    received, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while more := connection.recv(1 << 16):
        received += more
    child = os.fork()
    if not child:
        break
    for stream in streams:
        os.close(stream)
    connection.sendall(b"%d\\n" % child)
    connection.sendall(b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os._exit(0)
connection.close()
listener.close()
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
job = json.loads(received)
kind, what, *words = job["words"]
os.chdir(job["folder"])
os.environ.clear()
os.environ.update(job["env"])
sys.argv = [kind, *words]
sys.path[0] = job["folder"] if kind == "-m" else ""
if kind == "-m":
    runpy.run_module(what, run_name="__main__", alter_sys=True)
else:
    exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
"""
# What invoke and a bill of materials need beside sifline's own modules.
_IMPORTED = ("invoke.main", "jinja2", "yaml", "jsonschema", "cyclonedx.validation.json")


def run(
    words: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    input: str = "",
    timeout: float,
) -> subprocess.CompletedProcess[str]:
    """Run ``python`` with ``words``, that begin with -m or -c.

    :raises subprocess.TimeoutExpired: after ``timeout`` seconds, when it was killed.
    """
    job = {"words": words, "folder": str(cwd), "env": dict(os.environ if env is None else env)}
    with ExitStack() as stack:
        streams = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        streams[0].write(input.encode())
        streams[0].seek(0)
        connection = stack.enter_context(socket.socket(socket.AF_UNIX))
        connection.connect(_served())
        socket.send_fds(connection, [b"{"], [file.fileno() for file in streams])
        connection.sendall(json.dumps(job).encode()[1:])
        connection.shutdown(socket.SHUT_WR)
        answers = stack.enter_context(connection.makefile("r"))
        process = int(answers.readline())
        connection.settimeout(timeout)
        try:
            status = int(answers.readline())
        except TimeoutError:
            os.kill(process, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(words), timeout) from None
        said = [_text(file.fileno()) for file in streams[1:]]
    return subprocess.CompletedProcess(["python", *words], status, *said)


def _text(file: int) -> str:
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(os.dup(file), encoding="utf-8") as stream:
        return stream.read()


@functools.cache
def _served() -> str:
    """Start the interpreter; return the address of its socket, which no file system holds."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen(64)
        number = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(number), *_IMPORTED],
            pass_fds=(number,),
            stdin=subprocess.PIPE,
        )
        # It ends when this process does, however that is; waiting for it is for a quiet end.
        atexit.register(process.communicate)
        address = listener.getsockname()
    return os.fsdecode(address)
