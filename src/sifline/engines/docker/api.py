"""The API of a local Docker engine: HTTP on its socket, without the docker command."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any, cast


class Answer(HTTPResponse):
    """An HTTP response without a buffer, so that its body can also be read from ``connection``."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = sock.makefile("rb", buffering=0)  # type: ignore[assignment]
        self.connection = sock

    def _safe_read(self, amt: int) -> bytes:
        """Read ``amt`` bytes of the body, which without a buffer may come in pieces."""
        found = b""
        while len(found) < amt and (more := self.fp.read(amt - len(found))):
            found += more
        if len(found) < amt:
            raise IncompleteRead(found, amt - len(found))
        return found

    def close(self) -> None:
        """Close the connection, even if the body was not read to the end."""
        super().close()
        self.connection.close()


class _Connection(HTTPConnection):
    """HTTP 1.0 on a Unix socket: no chunks, and the engine closes the connection at the end."""

    _http_vsn, _http_vsn_str = 10, "HTTP/1.0"
    response_class = Answer

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(local: Path, path: str, timeout: float) -> Answer:
    """Return the engine's response to GET ``path``; the caller closes it.

    :param timeout: longest silence of the engine, in seconds.
    :raises OSError: if no engine answers.
    :raises ValueError: with the engine's message, if it refuses the request.
    """
    connection = _Connection(local, timeout)
    try:
        with _broken_off():
            connection.request("GET", path, headers={"Host": "docker"})
            answer = cast(Answer, connection.getresponse())
            if answer.status != HTTPStatus.OK:
                said = answer.read().decode(errors="replace").strip()
                raise ValueError(f"{answer.status} {answer.reason}: {said}")
    except BaseException:
        connection.close()
        raise
    return answer


def ask(local: Path, path: str, timeout: float) -> Any:
    """Return the JSON of the engine's response to GET ``path``; raises what ``get`` raises."""
    with closing(get(local, path, timeout)) as answer, _broken_off():
        return json.loads(answer.read())


@contextmanager
def _broken_off() -> Iterator[None]:
    try:
        yield
    except HTTPException as error:
        raise OSError(f"the engine's answer broke off: {error!r}") from None
