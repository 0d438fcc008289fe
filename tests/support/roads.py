"""Two roads from an image to a SIF: Apptainer's own, which is the reference, and ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sifline import records
from sifline.adapters.apptainer import TOOLBOX_RIGHTS
from sifline.model import SifOptions
from sifline.stages import convert

from . import archives
from .contexts import context_of
from .conversion import built
from .engine import docker
from .samples import Sample
from .squash import TOOLBOX


@dataclass(frozen=True, kw_only=True)
class Roads:
    """One image and two SIFs of it. Times are in seconds; ``declared`` is what its layers say."""

    name: str
    reference: Path
    ours: Path
    method: str
    began: int
    ended: int
    declared: Mapping[bytes, tarfile.TarInfo]

    def time(self, path: bytes) -> int:
        return int(self.declared[path].mtime) if path in self.declared else 0

    def is_now(self, time: int) -> bool:
        return self.began <= time <= self.ended


@contextmanager
def loaded(name: str, sample: Sample, below: Sequence[bytes] = ()) -> Iterator[str]:
    """Yield the tag of a sample in the engine, on top of the layers ``below``."""
    tag = f"sifline-test-{name}-{os.getpid()}"
    layers = [*below, *map(archives.layer, sample.layers)]
    archives.load(tag, layers, sample.config)
    try:
        yield tag
    finally:
        docker("image", "rm", "--force", tag)


def apptainer(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Apptainer in the toolbox, which sees ``folder`` as /work, and the engine."""
    argv = ["docker", "run", "--rm", "--network", "none", *TOOLBOX_RIGHTS]
    for source, target in (("/var/run/docker.sock",) * 2, (folder, "/work")):
        argv += ["--volume", f"{source}:{target}"]
    argv += ["--workdir", "/work", "--env", "APPTAINER_TMPDIR=/work", TOOLBOX, "apptainer"]
    return subprocess.run([*argv, *words], capture_output=True, text=True, check=False)


def build(tag: str, folder: Path) -> Path:
    """Make the reference."""
    made = folder / "reference.sif"
    done = apptainer(folder, "build", "--disable-cache", made.name, f"docker-daemon:{tag}:latest")
    assert done.returncode == 0, done.stderr
    return made


def convert_by(method: str, name: str, tag: str, folder: Path) -> tuple[Path, str]:
    """Make ours; return it with the method that was taken."""
    here, image = context_of(folder), built(name, tag)
    chosen = replace(image.image, sif=SifOptions(method=method))
    made = convert.convert(replace(image, image=chosen), here)
    record = records.read(here.workspace.record(name, "convert")) or {}
    return made.path, record["method"]


@contextmanager
def both(
    name: str, sample: Sample, folder: Path, *, method: str = "", below: Sequence[bytes] = ()
) -> Iterator[Roads]:
    """Go both roads; what they lead to is gone afterwards."""
    folder.mkdir(exist_ok=True)
    try:
        with loaded(name, sample, below) as tag:
            began = int(time.time())
            reference = build(tag, folder)
            ours, taken = convert_by(method, name, tag, folder / "ours")
        entries = (entry.info for layer in sample.layers for entry in layer)
        yield Roads(
            name=name,
            reference=reference,
            ours=ours,
            method=taken,
            began=began,
            ended=int(time.time()),
            declared={os.fsencode(info.name.removeprefix("./")): info for info in entries},
        )
    finally:
        shutil.rmtree(folder)
