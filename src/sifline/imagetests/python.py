"""Helpers for tests of images with Python: run programs, list the installed packages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sifline.imagetests import Container, Ran

# Loads the modules, says so by its end, and goes on in the background: each connection hands over
# a program, its output and its error output, and gets the exit status of a child that ran it.
_SERVE = """
import importlib, os, socket, sys
place, *names = sys.argv[1:]
ready, said = os.pipe()
if os.fork():
    os.close(said)
    os._exit(0 if os.read(ready, 1) else 1)
os.setsid()
for name in names:
    importlib.import_module(name)
listener = socket.socket(socket.AF_UNIX)
listener.bind(place)
listener.listen()
nothing = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
    os.dup2(nothing, stream)
os.write(said, b"1")
os.close(said)
while True:
    connection = listener.accept()[0]
    source, streams, _, _ = socket.recv_fds(connection, 1 << 16, 2)
    while more := connection.recv(1 << 16):
        source += more
    child = os.fork()
    if not child:
        break
    for stream in streams:
        os.close(stream)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(b"%d" % (status if status >= 0 else 128 - status))
    connection.close()
for number, stream in enumerate(streams, start=1):
    os.dup2(stream, number)
    os.close(stream)
connection.close()
listener.close()
sys.argv = ["-c"]
exec(source, {"__name__": "__main__"})
"""
_ASK = """
import socket, sys
place, source = sys.argv[1:]
connection = socket.socket(socket.AF_UNIX)
connection.connect(place)
socket.send_fds(connection, [source.encode()], [1, 2])
connection.shutdown(socket.SHUT_WR)
sys.exit(int(connection.recv(16)))
"""
# Of each container: what its interpreters have loaded, with what variables, and their sockets.
_serving = WeakKeyDictionary[Container, dict[tuple[object, ...], str]]()


def python(
    container: Container,
    source: str,
    *,
    env: Mapping[str, str] | None = None,
    loaded: Sequence[str] = (),
) -> Ran:
    """Run a short Python program in the image.

    :param loaded: modules that take seconds to import. Where the container is kept they are
        imported once, with that ``env``, and each program runs in a fork of that interpreter.
    """
    if not loaded or not container.kept:
        return container.run(["python3", "-c", source], env=env)
    places = _serving.setdefault(container, {})
    key = (*loaded, *sorted((env or {}).items()))
    if key not in places:
        place = f"/tmp/sifline-python-{uuid4().hex}"  # noqa: S108 - a name nobody can guess
        started = container.run(["python3", "-c", _SERVE, place, *loaded], env=env)
        if started.returncode != 0:
            return started
        places[key] = place
    return container.run(["python3", "-S", "-c", _ASK, places[key], source])


def printed(ran: Ran) -> Any:
    """Return the JSON in the last line of a program's output; its status must be 0."""
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def installed(container: Container) -> dict[str, str]:
    """Return the versions of all packages that the image's Python finds."""
    found = printed(
        python(
            container,
            "import importlib.metadata as m, json\n"
            "print(json.dumps([[d.metadata['Name'], d.version] for d in m.distributions()]))",
        )
    )
    return {canonicalize_name(name): version for name, version in found}


def locked(container: Container, locks: Iterable[Path]) -> dict[str, str]:
    """Return the versions of all packages in lock files, for the image's Python."""
    version = printed(
        python(container, "import json, platform\nprint(json.dumps(platform.python_version()))")
    )
    here = {"python_full_version": version, "python_version": version.rpartition(".")[0]}
    wanted = dict[str, str]()
    for lock in locks:
        for line in lock.read_text(encoding="utf-8").splitlines():
            entry = Requirement(line.rstrip("\\ ")) if re.match(r"\w", line) else None
            if entry and (not entry.marker or entry.marker.evaluate(here)):
                wanted[canonicalize_name(entry.name)] = str(entry.specifier).removeprefix("==")
    return wanted
