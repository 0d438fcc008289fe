"""Images of the engine as the stages hand them on, and what conversions leave behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sifline.engines.docker.engine import LABEL_PURPOSE
from sifline.engines.docker.images import Docker
from sifline.machine.process import ProcessRunner
from sifline.model import BuiltImage, Image, SifOptions, Workspace

from . import processes
from .engine import docker


def built(name: str, tag: str, **options: Any) -> BuiltImage:
    entry = Docker(ProcessRunner()).images([f"{tag}:latest"])[f"{tag}:latest"]
    return BuiltImage(
        image=Image(name=name, folder=Path(name), tag=f"{tag}:latest", sif=SifOptions(**options)),
        image_id=entry.image_id,
        fingerprint="f" * 64,
        size=entry.size,
        reused=True,
    )


def at_work(root: Path) -> list[str]:
    """The containers that convert in this workspace."""
    listed = docker("ps", "--all", "--format", f'{{{{.ID}}}} {{{{.Label "{LABEL_PURPOSE}"}}}}')
    pairs = (line.partition(" ") for line in listed.stdout.splitlines())
    return [number for number, _, purpose in pairs if Path(purpose).is_relative_to(root)]


def converting(root: Path, *programs: str) -> Iterator[int]:
    """Yield the processes of these programs in containers that have folders of a workspace."""
    # Field 4: what of its file system is mounted. There "/tmp/x" is "/x" where /tmp is mounted.
    place = "/".join(root.parts[-3:])
    for pid, command in processes.read_all("cmdline"):
        if os.fsdecode(command.partition(b"\0")[0]).rpartition("/")[2] in programs:
            with suppress(OSError):  # it ended
                mounts = Path("/proc", str(pid), "mountinfo").read_text()
                if any(f"{place}/" in f"{line.split()[3]}/" for line in mounts.splitlines()):
                    yield pid


def left_over(root: Path) -> list[Path]:
    """Everything besides SIFs under their own names, records, logs and locks."""
    space = Workspace(root=root)
    hidden = [path for path in space.sifs.iterdir() if path.name.startswith(".")]
    # Unlike rglob, it goes on where somebody removes what it just found.
    walk = os.walk(space.build / "tmp")
    return hidden + [Path(folder, name) for folder, _, names in walk for name in names]
