"""References to images, parsed as Docker does: ``[registry/][owner/]name[:tag][@digest]``.

The rules are those of distribution/reference: https://github.com/distribution/reference
"""

from __future__ import annotations

import re

HUB = "docker.io"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_HOST}/)?{_PART}(?:/{_PART})*)"
    r"(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_MAX_NAME = 255


def is_reference(reference: str) -> bool:
    """Return whether an image can have this reference; the beginning of an id is one, too."""
    match = _REFERENCE.fullmatch(reference)
    return match is not None and len(match["name"]) <= _MAX_NAME


def normalise(reference: str) -> str:
    """Return ``reference`` in full: registry, owner and tag spelled out.

    ``ubuntu`` becomes ``docker.io/library/ubuntu:latest``; a tag beside a digest is ignored.
    """
    name, _, digest = reference.partition("@")
    path, tag = split_tag(name)
    first, slash, rest = path.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = HUB, path
    if first in {"index.docker.io", "registry-1.docker.io"}:
        first = HUB
    if first == HUB and "/" not in rest:
        rest = f"library/{rest}"
    return f"{first}/{rest}@{digest}" if digest else f"{first}/{rest}:{tag or 'latest'}"


def split_tag(name: str) -> tuple[str, str]:
    """Return the name without the tag, and the tag; a registry's port is not a tag."""
    head, colon, tag = name.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (name, "")


def last_part(reference: str) -> str:
    """Return the last part of the name: ``base`` of ``ghcr.io/owner/base:1.0@sha256:…``."""
    return split_tag(reference.partition("@")[0])[0].rpartition("/")[2]
