"""NVIDIA GPUs of this machine, by the devices that the driver made."""

from __future__ import annotations

import shutil
from pathlib import Path

DEVICES = Path("/dev")
# The driver's own device; those of the GPUs have a number behind the name.
DRIVER = "nvidiactl"
# Programs of NVIDIA's container toolkit, with which the Docker engine gives GPUs to containers.
TOOLKIT = ("nvidia-container-runtime", "nvidia-container-runtime-hook", "nvidia-ctk")


def here() -> int:
    """Return the number of NVIDIA GPUs."""
    return len([*DEVICES.glob("nvidia[0-9]*")]) if (DEVICES / DRIVER).exists() else 0


def means() -> list[str]:
    """Return the number of GPUs and the programs of the container toolkit that are installed.

    They decide which tests of GPUs can run: where one was added, images are tested again.
    """
    found = here()
    return [str(found), *(tool for tool in TOOLKIT if found and shutil.which(tool))]
