"""NVIDIA GPUs of this machine, found by their device nodes."""

from __future__ import annotations

import shutil
from pathlib import Path

DEVICES = Path("/dev")
# The driver's control device; GPUs have a number after the name.
DRIVER = "nvidiactl"
# Programs of NVIDIA's container toolkit, with which Docker gives GPUs to containers.
TOOLKIT = ("nvidia-container-runtime", "nvidia-container-runtime-hook", "nvidia-ctk")


def here() -> int:
    """Return the number of NVIDIA GPUs."""
    return len([*DEVICES.glob("nvidia[0-9]*")]) if (DEVICES / DRIVER).exists() else 0


def means() -> list[str]:
    """Return the number of GPUs and the installed programs of the container toolkit.

    They decide which GPU tests can run: after a change, images are tested again.
    """
    found = here()
    return [str(found), *(tool for tool in TOOLKIT if found and shutil.which(tool))]
