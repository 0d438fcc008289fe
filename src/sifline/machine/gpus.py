"""NVIDIA GPUs of this host, as its driver shows them."""

from __future__ import annotations

import shutil
from pathlib import Path

DEVICES = Path("/dev")
# The driver's own device; those of the GPUs have a number behind the name.
DRIVER = "nvidiactl"
# By what the Docker engine hands GPUs in: NVIDIA's container toolkit.
TOOLKIT = ("nvidia-container-runtime", "nvidia-container-runtime-hook", "nvidia-ctk")


def here() -> int:
    """Return how many there are."""
    return len([*DEVICES.glob("nvidia[0-9]*")]) if (DEVICES / DRIVER).exists() else 0


def means() -> list[str]:
    """Return what decides which tests of GPUs can be run here: how many, and what hands them in.

    Where something was added, what passed without it has to be tested again.
    """
    found = here()
    return [str(found), *(tool for tool in TOOLKIT if found and shutil.which(tool))]
