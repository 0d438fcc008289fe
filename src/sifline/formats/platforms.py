"""Platforms in docker's notation: ``linux/amd64``."""

from __future__ import annotations

# docker's names of machines, by the names that uname prints.
MACHINES = {
    "x86_64": "amd64",
    "i686": "386",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
}
