"""Another way to the engine's socket, on which a test can do what a bad day does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sifline.engines.docker.engine import SOCKET


class Way:
    """A way to the engine's socket that ends for good when it is cut, as if the engine stopped.

    With ``hold_seconds`` the first words of each answer wait for that long, and arrive together
    with all that the engine said meanwhile, as on a busy machine.
    """

    def __init__(self, place: Path, *, hold_seconds: float = 0) -> None:
        self._hold_seconds = hold_seconds
        self._ends = list[socket.socket]()
        self._listener = socket.socket(socket.AF_UNIX)
        self._place, self._threads = place, list[threading.Thread]()
        self._listener.bind(str(place))
        self._listener.listen(64)
        self._do(self._serve)

    def _do(self, work: Callable[..., None], *words: Any) -> None:
        thread = threading.Thread(target=work, args=words, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Cut it, and keep nothing."""
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for end in (self._listener, *self._ends):
            end.close()

    def cut(self) -> None:
        """End what is open, and let nothing in again."""
        self._place.unlink(missing_ok=True)
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(str(SOCKET))
                self._ends += [client, engine]
                asked = threading.Event()
                self._do(self._ask, client, engine, asked)
                self._do(self._answer, engine, client, asked)

    @staticmethod
    def _ask(client: socket.socket, engine: socket.socket, asked: threading.Event) -> None:
        with suppress(OSError):
            while received := client.recv(1 << 16):
                asked.set()
                engine.sendall(received)
            engine.shutdown(socket.SHUT_WR)

    def _answer(
        self, engine: socket.socket, client: socket.socket, asked: threading.Event
    ) -> None:
        with suppress(OSError):
            while engine.recv(1, socket.MSG_PEEK):
                if asked.is_set():
                    time.sleep(self._hold_seconds)
                    asked.clear()
                client.sendall(engine.recv(1 << 16))
            client.shutdown(socket.SHUT_WR)
