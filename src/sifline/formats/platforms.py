"""Platforms in the words of docker: ``linux/amd64``."""

from __future__ import annotations

# What docker calls a machine, by the words of uname.
MACHINES = {
    "x86_64": "amd64",
    "i686": "386",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
}
