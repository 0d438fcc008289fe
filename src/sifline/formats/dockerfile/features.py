"""Features of Dockerfiles that older BuildKits refuse, or silently ignore.

The numbers are BuildKit's tags; BuildKit 0.N supports the Dockerfile frontend 1.(N-6). Docker
20.10 has BuildKit 0.8, which ignores a non-numeric ``--chmod`` and variables in ``--mount``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sifline.model import Feature

HERE_DOCUMENT = 10
# The argument that holds the requested target stage.
TARGET_STAGE = "TARGETSTAGE"
_TARGET_STAGE = 17
_FLAGS = {
    ("RUN", "network"): 9,
    ("ADD", "link"): 10,
    ("COPY", "link"): 10,
    ("ADD", "checksum"): 12,
    ("ADD", "keep-git-dir"): 12,
    ("HEALTHCHECK", "start-interval"): 12,
    ("ADD", "unpack"): 23,
    ("ADD", "exclude"): 25,
    ("COPY", "exclude"): 25,
    ("COPY", "parents"): 26,
    ("RUN", "security"): 26,
}
_CHMOD_VARIABLE, _CHMOD_SYMBOLIC = 16, 20
_MOUNT_VARIABLE = 9
_MOUNT_KEYS = {"size": 10, "env": 16}
# The first release of Docker with at least this BuildKit.
_DOCKERS = {9: "23.0", 10: "23.0", 12: "25.0"}


def of_flag(
    verb: str, name: str, value: str, fields: Mapping[str, str], line: int
) -> Iterator[Feature]:
    """Yield the features that a flag of an instruction needs.

    :param fields: the fields of ``value``, if it is a mount.
    """
    if least := _FLAGS.get((verb, name)):
        yield Feature(what=f"{verb} --{name}", line=line, buildkit=least)
    if name == "chmod" and not re.fullmatch("[0-7]*", value):
        least = _CHMOD_VARIABLE if "$" in value else _CHMOD_SYMBOLIC
        yield Feature(what=f"{verb} --chmod={value}", line=line, buildkit=least)
    if (verb, name) == ("RUN", "mount"):
        if "$" in value:
            yield Feature(what="a variable in RUN --mount", line=line, buildkit=_MOUNT_VARIABLE)
        for key in sorted(_MOUNT_KEYS.keys() & fields):
            yield Feature(what=f"RUN --mount=…,{key}=", line=line, buildkit=_MOUNT_KEYS[key])


def of_base(text: str, line: int) -> Iterator[Feature]:
    """Yield the features that an image name in FROM needs."""
    if re.search(rf"\$\{{?{TARGET_STAGE}\b", text):
        yield Feature(what=f"FROM {text}", line=line, buildkit=_TARGET_STAGE)


def here_document(line: int) -> Feature:
    """Return the feature that a here-document needs."""
    return Feature(what="a here-document", line=line, buildkit=HERE_DOCUMENT)


def release(least: int) -> str:
    """Return the required BuildKit, 0.``least``, in words."""
    docker = f" (Docker {_DOCKERS[least]})" if least in _DOCKERS else ""
    return f"BuildKit 0.{least}{docker} or newer"
