"""The passphrase of a signing key, from a file, a variable or a prompt; it is never printed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock

from sifline.errors import MissingError, UsageError

# Returns the passphrase; called only if the key has one.
Passphrase = Callable[[], str]


def passphrase_of(
    *, file: Path | None = None, variable: str = "", ask: Passphrase | None = None
) -> Passphrase | None:
    """Return a function that returns the passphrase: from a file, a variable or a prompt.

    File and variable are read at once; the prompt appears once, when the passphrase is needed.

    :raises MissingError: if there is no such file or variable.
    :raises UsageError: if it is not a single line of text.
    """
    if file is None and not variable:
        return _once(ask) if ask else None
    place = f"the file {file}" if file else f"the variable {variable}"
    try:
        found = file.read_bytes() if file else os.environb[os.fsencode(variable)]
    except (OSError, KeyError):
        raise MissingError(
            f"no passphrase: {place} is not there or cannot be read; make it, or name another"
        ) from None
    try:
        text = found.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        # Not the error itself, nor its context: it contains the bytes.
        text = ""
    if not text or "\n" in text:
        raise UsageError(f"{place} has to hold the passphrase as one line of UTF-8 text")
    return lambda: text


def _once(ask: Passphrase) -> Passphrase:
    """Return a function that asks only once: several images may be signed in parallel."""
    lock, held = Lock(), list[str]()

    def answer() -> str:
        with lock:
            if not held:
                held.append(ask())
            return held[0]

    return answer
