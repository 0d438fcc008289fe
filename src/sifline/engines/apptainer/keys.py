"""The user's keyring, and signing and verifying SIFs with its keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sifline.engines.apptainer import signatures
from sifline.engines.apptainer.program import APPTAINER, NAMES, Apptainer
from sifline.engines.apptainer.signatures import Key
from sifline.engines.apptainer.toolbox import seen
from sifline.errors import MissingError
from sifline.machine.process import Result
from sifline.model import Bind

# Files of a keyring: public keys, and secret keys.
PUBLIC_RING, SECRET_RING = "pgp-public", "pgp-secret"
# Apptainer demands a keyring with its own modes that it can write to, so it gets a copy.
_WITH_PUBLIC_KEYS = """
mkdir -m 700 /tmp/keys
test ! -e "$0" || cp "$0" /tmp/keys/
APPTAINER_KEYSDIR=/tmp/keys exec apptainer "$@"
"""


class Keyring:
    """The user's Apptainer keys; signs and verifies SIFs with them."""

    def __init__(self, apptainer: Apptainer) -> None:
        self._apptainer = apptainer

    @cached_property
    def folder(self) -> Path:
        """Return the folder of the user's keyring, where Apptainer itself looks for it."""
        program = self._apptainer.name
        for name in dict.fromkeys((program, *NAMES)):
            if named := os.environ.get(f"{name.upper()}_KEYSDIR"):
                return Path(named).absolute()
        try:
            return Path.home() / f".{program}" / "keys"
        except RuntimeError:
            raise MissingError(
                "no home folder to keep keys in; set APPTAINER_KEYSDIR to a folder"
            ) from None

    def secret_keys(self) -> tuple[Key, ...]:
        """Return the keys that the user can sign with."""
        if not os.access(self.folder / SECRET_RING, os.R_OK):
            return ()
        return signatures.keys(self._with_keys(["key", "list", "--secret"]).stdout)

    def sign(self, sif: Path, key: Key, *, passphrase: str = "", purpose: str = "") -> Result:
        """Sign every object of ``sif``, in place; a failure raises no error.

        The passphrase goes through standard input: a command line can be read by everyone.
        """
        return self._with_keys(
            ["sign", "--keyidx", str(key.index), str(sif)],
            binds=[seen(sif, writable=True)],
            input=f"{passphrase}\n",
            hide=[passphrase] if passphrase else [],
            check=False,
            purpose=purpose,
        )

    def verify(self, sif: Path, *, online: bool = False, purpose: str = "") -> Result:
        """Return the result of ``apptainer verify --json``; a failure raises no error.

        :param online: ask a key server for keys that the keyring lacks.
        """
        words = ["verify", "--json", *([] if online else ["--local"]), str(sif)]
        if self._apptainer.native:
            return self._apptainer.run([APPTAINER, *words], env=self._env(), check=False)
        # Verifying needs no secret keys, and would write to an incomplete keyring.
        ring = self.folder / PUBLIC_RING
        return self._apptainer.toolbox.run(
            ["sh", "-c", _WITH_PUBLIC_KEYS, str(ring), *words],
            binds=[*([seen(ring)] if os.access(ring, os.R_OK) else []), seen(sif)],
            network=online,
            purpose=purpose,
            check=False,
        )

    def import_key(self, file: Path, *, passphrase: str) -> Result:
        """Import a secret key into the keyring; a failure raises no error."""
        return self._with_keys(
            ["key", "import", str(file)],
            binds=[seen(file)],
            input=f"{passphrase}\n",
            hide=[passphrase] if passphrase else [],
            check=False,
        )

    def attach_key(
        self, words: Sequence[str], *, binds: Sequence[Bind], terminal: bool, online: bool
    ) -> int:
        """Run ``apptainer key`` on the user's own terminal; return its exit status.

        :raises MissingError: if there is no Apptainer.
        """
        apptainer = self._apptainer
        # Otherwise docker's own message about a missing toolbox would appear on the terminal.
        _ = apptainer.version
        env, ring = self._env(), self._bind()
        if apptainer.native:
            return apptainer.runner.attach([apptainer.native, "key", *words], env=env)
        extra = ["--interactive", *(["--tty"] if terminal else [])]
        extra += [] if online else ["--network", "none"]
        argv = apptainer.toolbox.argv(
            [APPTAINER, "key", *words], binds=[ring, *binds], env=env, extra=extra
        )
        return apptainer.runner.attach(argv)

    def _with_keys(
        self, words: Sequence[str], *, binds: Sequence[Bind] = (), **options: Any
    ) -> Result:
        """Run Apptainer with the user's own keyring, and without a network."""
        return self._apptainer.run(
            [APPTAINER, *words],
            binds=[self._bind(), *binds],
            env=self._env(),
            network=False,
            **options,
        )

    def _bind(self) -> Bind:
        """Return a writable bind: Apptainer sets modes and creates missing files there."""
        ring = self.folder
        try:
            ring.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MissingError(
                f"the keyring {ring} cannot be created: {error.strerror}; set APPTAINER_KEYSDIR to"
                " another folder"
            ) from None
        return seen(ring, writable=True)

    def _env(self) -> dict[str, str]:
        return {f"{self._apptainer.name.upper()}_KEYSDIR": str(self.folder)}
