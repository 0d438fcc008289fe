"""Keys: Apptainer's key commands with the user's keyring, and an import for scripts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sifline.engines.apptainer import signatures
from sifline.engines.apptainer.keys import Keyring
from sifline.engines.apptainer.program import Apptainer
from sifline.errors import StepFailed, UsageError, did_you_mean
from sifline.machine.context import Context
from sifline.machine.passphrase import Passphrase
from sifline.model import Bind

# Verbs of ``apptainer key``, and whether they contact a key server.
VERBS = ("newpair", "import", "export", "list", "remove", "pull", "push", "search")
ONLINE_VERBS = ("pull", "push", "search")
# Options that would do harm or nothing here, each with what to do instead.
_REFUSED = {
    "--password": "a command line can be read by every user; leave it out, and be asked",
    "--keysdir": "set APPTAINER_KEYSDIR instead",
    "--global": "the keyring of all users is not touched from here; use apptainer itself",
}
_SHORT = {"-P": "--password", "-d": "--keysdir", "-g": "--global"}
_HELD_ALREADY = "already belongs to the keyring"


def manage(words: Sequence[str], context: Context) -> int:
    """Run ``apptainer key`` with ``words`` on the user's own terminal; return its exit status.

    :raises UsageError: for words that are not allowed here.
    """
    said, binds = arguments(words)
    return Keyring(Apptainer(context.runner)).attach_key(
        said, binds=binds, terminal=sys.stdin.isatty(), online=said[0] in ONLINE_VERBS
    )


def arguments(words: Sequence[str]) -> tuple[list[str], list[Bind]]:
    """Return ``words`` for ``apptainer key``, and the host's files that it needs.

    :raises UsageError: for a verb or an option that is not allowed here.
    """
    verb = words[0] if words else ""
    if verb not in VERBS:
        near = did_you_mean(verb, VERBS)
        what = f"keys has no command {verb!r}.{near}" if verb else "keys needs a command."
        raise UsageError(f"{what} Say one of {', '.join(VERBS)}, such as: invoke keys -- list")
    for word in words[1:]:
        option = word.partition("=")[0] if word.startswith("--") else _SHORT.get(word[:2], "")
        if option in _REFUSED:
            raise UsageError(f"key {verb} {option}: {_REFUSED[option]}")
    if verb not in ("import", "export") or len(words) == 1 or words[-1].startswith("-"):
        return list(words), []
    file = Path(words[-1]).expanduser().absolute()
    place = _there(file if verb == "import" else file.parent)
    bind = Bind(source=place, target=str(place), writable=verb == "export")
    return [*words[:-1], str(file)], [bind]


def import_secret(file: Path, context: Context, *, passphrase: Passphrase) -> str:
    """Import an exported secret key into the keyring; return Apptainer's message.

    :raises StepFailed: if it fails; a key that is there already is no error.
    """
    place = _there(file.absolute())
    result = Keyring(Apptainer(context.runner)).import_key(place, passphrase=passphrase())
    said = result.tail()
    if not result.ok and _HELD_ALREADY not in said:
        raise StepFailed(
            f"{file}: cannot be imported: {signatures.reason(result)}; see that it is an exported"
            " key, and that the passphrase is its own"
        )
    return said


def _there(path: Path) -> Path:
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder; name one that is there")
    return path
