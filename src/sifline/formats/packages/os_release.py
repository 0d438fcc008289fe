"""The distribution of an image. Format: os-release(5)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

OS_RELEASE = ("etc/os-release", "usr/lib/os-release")

_ID = re.compile(r"[a-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Fields of os-release: ``debian``, ``12``, ``Debian GNU/Linux 12 (bookworm)``."""

    id: str = ""
    version: str = ""
    name: str = ""


def distribution(files: Mapping[str, bytes]) -> Distribution:
    """Return the distribution; the version of testing, which has none, is its code name."""
    content = next((files[path] for path in OS_RELEASE if path in files), b"")
    values = {}
    for line in content.decode("utf-8", "replace").splitlines():
        key, _, value = line.strip().partition("=")
        values[key] = _unquoted(value)
    identity = values.get("ID", "").lower()
    return Distribution(
        id=identity if _ID.fullmatch(identity) else "",
        version=values.get("VERSION_ID") or values.get("VERSION_CODENAME", ""),
        name=values.get("PRETTY_NAME") or values.get("NAME", ""),
    )


def _unquoted(value: str) -> str:
    """Return a value of os-release without its quotes."""
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value.strip("'\"")
