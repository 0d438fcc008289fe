"""The script that sets an image's ENV in a SIF, and the comparison with the actual variables.

Apptainer 1.4 writes this script with Go's quoting, which a shell reads differently: see
``insertEnv`` in ``internal/pkg/build/sources/conveyorPacker_oci.go`` of its source. What Apptainer
does to variables when it starts a container is in ``internal/pkg/util/fs/files/action_script.sh``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

SCRIPT = ".singularity.d/env/10-docker2singularity.sh"
MODE = 0o755
# Variables to which Apptainer adds missing folders, and those of --nv.
_ADDED_TO = ("PATH", "LD_LIBRARY_PATH")
# Variables set by the shell in which Apptainer reads the script, and by Apptainer itself.
_SHELL = re.compile(r"UID|EUID|GID|PPID|IFS|OPTIND|RANDOM|LINENO|DIRSTACK")
_APPTAINER = re.compile(r"HOME|PWD|PROMPT_COMMAND|SINGULARITY_.*|APPTAINER_.*")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
# Characters that every shell, and Go, leaves alone between double quotes.
_PLAIN = re.compile(r"[ !#%&'()*+,./0-9:;<=>?@A-Z\[\]^_a-z|~-]*")
# A variable of every Apptainer container, so its presence shows that env printed the text.
_MARKS = {"APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"}


def variables(env: Sequence[str]) -> dict[str, str]:
    """Return the variables that an image's ENV sets, as Docker reads it."""
    pairs = (entry.partition("=") for entry in env)
    return {name: value for name, equals, value in pairs if equals and name}


def impossible(env: Sequence[str]) -> tuple[str, ...]:
    """Return the names of variables that no shell can set, and so no SIF can have."""
    return tuple(name for name in variables(env) if not _NAME.fullmatch(name))


def script(env: Sequence[str]) -> bytes:
    """Return the script that sets the variables of an image's ENV that are not set already.

    Apptainer's own lines are kept if they are right, whichever release writes them.
    """
    found = variables(env)
    lines = [_line(name, value) for name, value in found.items() if _NAME.fullmatch(name)]
    return "".join(["#!/bin/sh\n", *lines]).encode("utf-8", "surrogateescape")


def _line(name: str, value: str) -> str:
    plain = _PLAIN.fullmatch(value) and not _SHELL.fullmatch(name)
    if name == "PATH":
        return f'export PATH="{value}"\n' if plain else f"export PATH={_quoted(value)}\n"
    if plain:
        return f'export {name}="${{{name}:-"{value}"}}"\n'
    return f'test -n "${{{name}:-}}" || {name}={_quoted(value)}\nexport {name}\n'


def _quoted(value: str) -> str:
    """Return a value as one word of a shell."""
    # Apptainer's shell turns \r\n into \n, even between quotes, and keeps \' in an assignment.
    return "'" + value.replace("'", "'\"'\"'").replace("\r\n", "\r''\n") + "'"


def printed(text: str) -> Mapping[str, str] | None:
    """Return the output of ``env -0`` in a SIF; None if another program printed it."""
    found = variables(text.split("\0"))
    return found if _MARKS & found.keys() else None


def differing(env: Sequence[str], found: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of an image's variables that differ in a SIF, except Apptainer's own.

    :param found: the result of ``printed``; line ends may differ.
    """
    wanted = {key: value for key, value in variables(env).items() if _NAME.fullmatch(key)}
    return tuple(
        name
        for name, value in wanted.items()
        if not (_SHELL.fullmatch(name) or _APPTAINER.fullmatch(name))
        and not _arrived(name, value, found.get(name, ""))
    )


def _arrived(name: str, value: str, found: str) -> bool:
    # Apptainer removes an empty variable if the caller has one of that name.
    expected, got = ("\n".join(text.splitlines()) for text in (value, found))
    return got.startswith(expected) if name in _ADDED_TO else got == expected
