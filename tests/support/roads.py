"""Two roads from an image to a SIF: Apptainer's own, which is the reference, and ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sifline.machine import records
from sifline.machine.process import ProcessRunner, Result
from sifline.machine.streams import Argv
from sifline.model import SifOptions
from sifline.stages import convert

from . import archives
from .contexts import context_of
from .conversion import built
from .engine import docker
from .samples import Sample
from .toolbox import PREFIX, toolbox


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A SIF of ours: the method that was taken, and the seconds in which it was made.

    ``mounted`` is whether its files were read from the engine's layers, past the engine; ``notes``
    and ``verified`` are what the conversion told and remembers.
    """

    path: Path
    method: str
    mounted: bool
    during: range
    notes: tuple[str, ...]
    verified: str


@dataclass(frozen=True, kw_only=True)
class Roads:
    """One image, which the engine holds as ``tag``, and two SIFs of it.

    Times are in seconds; ``declared`` is what the image's layers say.
    """

    name: str
    tag: str
    reference: Path
    reference_made: range
    ours: Converted
    declared: Mapping[bytes, tarfile.TarInfo]

    def time(self, path: bytes) -> int:
        return int(self.declared[path].mtime) if path in self.declared else 0


class _Watching(ProcessRunner):
    """A runner that sees whether the engine's layers are mounted for the squashfs."""

    mounted = False

    def run(self, argv: Argv, **options: Any) -> Result:
        if "sqfstar" in argv:
            self.mounted = any(word.startswith("/layers/") for word in argv)
        return super().run(argv, **options)


def together(kind: str, names: Iterable[str]) -> list[Any]:
    """Return parameters such that one worker has all tests of a name, which it converts once."""
    return [pytest.param(name, marks=pytest.mark.xdist_group(f"{kind}-{name}")) for name in names]


@contextmanager
def loaded(name: str, sample: Sample) -> Iterator[str]:
    """Yield the tag of a sample in the engine, which no other run has."""
    tag = f"{PREFIX}{name}-{uuid4().hex[:8]}"
    archives.load(tag, [*map(archives.layer, sample.layers)], sample.config)
    try:
        yield tag
    finally:
        docker("image", "rm", "--force", tag)


def build(tag: str, target: Path) -> subprocess.CompletedProcess[bytes]:
    """Let Apptainer make its own SIF of an image of the engine: ``target``."""
    with toolbox().place(on_disk=True) as folder:
        made = folder / target.name
        words = ("build", "--disable-cache", made.name, f"docker-daemon:{tag}:latest")
        env = {"APPTAINER_TMPDIR": str(folder)}
        done = toolbox().run("apptainer", *words, folder=folder, env=env)
        if done.returncode == 0:
            shutil.move(made, target)
    return done


def convert_by(method: str, name: str, tag: str, folder: Path) -> Converted:
    """Make ours."""
    runner, began = _Watching(), int(time.time())
    here, image = context_of(folder, runner), built(name, tag)
    chosen = replace(image.image, sif=SifOptions(method=method))
    made = convert.convert(replace(image, image=chosen), here)
    record = records.read(here.workspace.record(name, "convert")) or {}
    return Converted(
        path=made.path,
        method=record["method"],
        mounted=runner.mounted,
        during=range(began, int(time.time()) + 1),
        notes=made.notes,
        verified=record["verified"],
    )


@contextmanager
def both(name: str, sample: Sample, folder: Path, *, method: str = "") -> Iterator[Roads]:
    """Go both roads; the image and what they lead to are gone afterwards."""
    folder.mkdir(exist_ok=True)
    reference = folder / "reference.sif"
    try:
        with loaded(name, sample) as tag:
            began = int(time.time())
            done = build(tag, reference)
            assert done.returncode == 0, done.stderr.decode(errors="replace")
            during = range(began, int(time.time()) + 1)
            ours = convert_by(method, name, tag, folder / "ours")
            entries = (entry.info for layer in sample.layers for entry in layer)
            yield Roads(
                name=name,
                tag=tag,
                reference=reference,
                reference_made=during,
                ours=ours,
                declared={os.fsencode(info.name.removeprefix("./")): info for info in entries},
            )
    finally:
        shutil.rmtree(folder)
