"""The user's keyring, and signing and verifying SIFs with its keys."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from sifline.engines.apptainer import signatures
from sifline.engines.apptainer.program import APPTAINER, NAMES, Apptainer, file_bind
from sifline.engines.apptainer.signatures import Key
from sifline.errors import MissingError
from sifline.machine.process import Result
from sifline.model import Bind

# Of a keyring: the keys of others and one's own, and those to sign with.
PUBLIC_RING, SECRET_RING = "pgp-public", "pgp-secret"
# Apptainer insists on a keyring of its own modes that it can write to: it gets a copy.
_WITH_PUBLIC_KEYS = """
mkdir -m 700 /tmp/keys
test ! -e "$0" || cp "$0" /tmp/keys/
APPTAINER_KEYSDIR=/tmp/keys exec apptainer "$@"
"""


class Keyring:
    """The keys that Apptainer finds for this user; signs and verifies SIFs with them."""

    def __init__(self, apptainer: Apptainer) -> None:
        self._apptainer = apptainer

    @cached_property
    def folder(self) -> Path:
        """The folder of the user's keys, where the program itself looks for them."""
        program = Path(self._apptainer.native or APPTAINER).name
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
        """Add a signature of every object to ``sif``, in place; nothing is raised where it fails.

        The passphrase goes through standard input: a command line can be read by everyone.
        """
        return self._with_keys(
            ["sign", "--keyidx", str(key.index), str(sif)],
            binds=[Bind(source=sif, target=str(sif), writable=True)],
            input=f"{passphrase}\n",
            hide=[passphrase] if passphrase else [],
            check=False,
            purpose=purpose,
        )

    def verify(self, sif: Path, *, online: bool = False, purpose: str = "") -> Result:
        """Return what ``apptainer verify --json`` says; nothing is raised where it refuses.

        :param online: ask a key server for keys that the keyring does not hold.
        """
        words = ["verify", "--json", *([] if online else ["--local"]), str(sif)]
        if self._apptainer.native:
            return self._apptainer.run(words, env=self._env(), check=False)
        # Secret keys are none of its business, and it would write to a keyring that lacks some.
        ring = self.folder / PUBLIC_RING
        return self._apptainer.run(
            ["-c", _WITH_PUBLIC_KEYS, str(ring), *words],
            program="sh",
            binds=[*([file_bind(ring)] if os.access(ring, os.R_OK) else []), file_bind(sif)],
            network=online,
            purpose=purpose,
            check=False,
        )

    def import_key(self, file: Path, *, passphrase: str) -> Result:
        """Take a secret key into the keyring; nothing is raised where that fails."""
        return self._with_keys(
            ["key", "import", str(file)],
            binds=[file_bind(file)],
            input=f"{passphrase}\n",
            hide=[passphrase] if passphrase else [],
            check=False,
        )

    def attach_key(
        self, words: Sequence[str], *, binds: Sequence[Bind], terminal: bool, online: bool
    ) -> int:
        """Run ``apptainer key`` on the user's own terminal; return its exit status.

        :raises MissingError: where there is no Apptainer.
        """
        _ = (
            self._apptainer.version
        )  # the terminal would show what docker says of a missing toolbox
        env = self._env()
        extra = ["--interactive", *(["--tty"] if terminal else [])]
        extra += [] if online else ["--network", "none"]
        argv = self._apptainer.argv(
            ["key", *words], binds=[self._bind(), *binds], env=env, extra=extra
        )
        return self._apptainer.runner.attach(argv, env=env if self._apptainer.native else None)

    def _with_keys(
        self, words: Sequence[str], *, binds: Sequence[Bind] = (), **options: Any
    ) -> Result:
        """Run Apptainer with the user's own keyring, and without a network."""
        return self._apptainer.run(
            words,
            binds=[self._bind(), *binds],
            env=self._env(),
            network=False,
            **options,
        )

    def _bind(self) -> Bind:
        """Writable: Apptainer insists on the modes of folder and files, and makes missing ones."""
        ring = self.folder
        try:
            ring.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise MissingError(
                f"the keyring {ring} cannot be made: {error.strerror}; set APPTAINER_KEYSDIR to"
                " another folder"
            ) from None
        return Bind(source=ring, target=str(ring), writable=True)

    def _env(self) -> dict[str, str]:
        return {
            f"{Path(self._apptainer.native or APPTAINER).name.upper()}_KEYSDIR": str(self.folder)
        }
