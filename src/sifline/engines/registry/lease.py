"""The lease of an image on the controller: one deployment of it at a time, whoever runs it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from sifline.engines.registry import Registries, RegistryRefused
from sifline.errors import SiflineError
from sifline.machine.streams import OnLine
from sifline.model import Node
from sifline.nodeside.registry import LEASE_SECONDS

RENEW_SECONDS = LEASE_SECONDS / 3
# A killed holder's lease has run out by then.
WAIT_SECONDS = LEASE_SECONDS + 5
ASK_SECONDS = 1.0


class Lease:
    """The right to switch an image, held while in the context; ``number`` goes to each node.

    A thread renews it. The holder is told by ``token``: the next run of a checkout takes over at
    once what a killed run of it had.
    """

    def __init__(
        self,
        registries: Registries,
        controller: Node,
        *,
        category: str,
        name: str,
        token: str,
        who: str,
        above: int,
        progress: OnLine,
    ) -> None:
        self._registries = registries
        self._controller = controller
        self._common = {"category": category, "name": name, "token": token}
        self._meta = json.dumps({"who": who})
        self._above = above
        self._progress = progress
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)
        self.number = 0

    def __enter__(self) -> Lease:
        """Take the lease; wait for one that runs out soon.

        :raises StepFailed: naming who holds it.
        """
        self.number = int(self._taken()["number"])
        self._renewing.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        # A controller that hangs holds up its own thread alone.
        self._renewing.join(RENEW_SECONDS)
        if kind is None or issubclass(kind, Exception):
            try:
                self._ask("release", number=self.number)
            except SiflineError:
                # It runs out by itself.
                self._progress(f"{self._controller.name}: the lease could not be given back")

    def renewed(self) -> str:
        """Renew the lease, and return the controller's time in ISO 8601.

        :raises StepFailed: if somebody else has it by now.
        """
        return str(self._ask("lease", number=self.number, meta=self._meta)["now"])

    def _taken(self) -> Mapping[str, Any]:
        until, told = time.monotonic() + WAIT_SECONDS, False
        while True:
            try:
                return self._ask("lease", above=self._above, meta=self._meta)
            except RegistryRefused as error:
                if error.kind != "leased" or time.monotonic() > until:
                    raise
                if not told:
                    self._progress(f"waiting: {error.message}")
                    told = True
            time.sleep(ASK_SECONDS)

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                self.renewed()
            except RegistryRefused:
                # Whoever switches renews it first, and is told why not.
                return
            except SiflineError:
                # The controller did not answer this time; the lease can be renewed later.
                continue

    def _ask(self, verb: str, **options: str | int) -> Mapping[str, Any]:
        return self._registries.ask(self._controller, verb, **self._common, **options)
