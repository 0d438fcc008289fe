"""The same container by every road: what a conversion makes against Apptainer's own build."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sifline import records, sif
from sifline.adapters.apptainer import TOOLBOX_RIGHTS
from sifline.model import SifOptions
from sifline.stages import convert

from . import archives, squash
from .conftest import docker
from .samples import REFUSED, SAMPLES, Sample
from .squash import TOOLBOX, Difference
from .test_convert import built, context

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="owners, devices and capabilities can be unpacked by root alone"
)

CREATED = 1_709_210_096  # archives.CREATED in seconds
SQUASHFS_TIMES = 2**32


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


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A difference that has to be, and why."""

    reason: str
    fits: Callable[[Difference, Roads], bool]


# The only list of what may differ in the file systems.
ALLOWED = (
    Allowed(
        reason="Where /etc/hosts or /etc/resolv.conf is a symbolic link, Apptainer empties what it"
        " points at: by accident, for an absolute link it is a file of the machine that builds."
        " Ours leaves the link and the file alone.",
        fits=lambda found, roads: (
            roads.name == "shadowed-by-links"
            and roads.method == "stream"
            and found.path in (b"etc/hosts.real", b"run/resolv.conf")
        ),
    ),
    Allowed(
        reason="What Apptainer writes has the time of its build. Ours has the image's own time,"
        " or that of the folder in the image, so that the bytes are the same on another day.",
        fits=lambda found, roads: (
            found.attribute == "mtime"
            and roads.is_now(found.expected)
            and (
                found.actual in (CREATED, roads.time(found.path))
                or (roads.method == "apptainer" and roads.is_now(found.actual))
            )
        ),
    ),
    Allowed(
        reason="A folder that no layer has an entry for gets the time at which the engine unpacked"
        " it, which is another on each machine. So a folder's time is never after the image's.",
        fits=lambda found, roads: (
            found.attribute == "mtime"
            and found.kind == "folder"
            and roads.time(found.path) > CREATED
            and found.values == (roads.time(found.path) % SQUASHFS_TIMES, CREATED)
        ),
    ),
    Allowed(
        reason="Such a folder is made by Apptainer with its umask 0002, by the engine with 0022.",
        fits=lambda found, roads: (
            found.path not in roads.declared
            and any(name.startswith(found.path + b"/") for name in roads.declared)
            and found.attribute == "mode"
            and found.values == ("0775", "0755")
        ),
    ),
    Allowed(
        reason="An engine forgets what a layer says of the top folder, see `docker run IMAGE stat"
        " /`. That of nearly all images is 0755, or 0555, which Apptainer makes 0755.",
        fits=lambda found, _: (
            found.path == b""
            and (found.attribute, found.actual)
            in (("mode", "0755"), ("uid", 0), ("gid", 0), ("xattrs", ()))
        ),
    ),
    Allowed(
        reason="squashfs holds 32 bits of a time: one before 1970 becomes one after 2038 with"
        " Apptainer. The engine makes it 1970, except for links.",
        fits=lambda found, roads: (
            found.attribute == "mtime"
            and roads.time(found.path) < 0
            and found.values == (roads.time(found.path) % SQUASHFS_TIMES, 0)
        ),
    ),
    Allowed(
        reason="trusted.* is seen by root of the machine alone, not by root in a container.",
        fits=lambda found, _: (
            found.attribute == "xattrs"
            and found.actual == tuple(x for x in found.expected if not x[0].startswith("trusted."))
        ),
    ),
    Allowed(
        reason="mksquashfs makes two links of one symbolic link with two names.",
        fits=lambda found, _: (
            (found.kind, found.attribute) == ("symbolic link", "linked")
            and found.expected == found.path
        ),
    ),
    Allowed(
        reason="They say where the image came from, and our labels; see DESCRIPTION.",
        fits=lambda found, _: (
            found.path in (b".singularity.d/Singularity", b".singularity.d/labels.json")
            and found.attribute in ("size", "content")
        ),
    ),
)

# And in what the SIFs say of themselves: labels, and what else has a name.
SCHEMA, DEFINITION = "org.label-schema.", "org.label-schema.usage.singularity.deffile."
DESCRIPTION = {
    f"{SCHEMA}build-date": "the image's own, for the same bytes on another day",
    f"{DEFINITION}bootstrap": "Apptainer got the image's settings from a folder, not the engine",
    f"{DEFINITION}from": "so it is that folder's name",
    "deffile": "the same two, and our labels",
    "sifline.json": "where the SIF came from",
}


# The two roads


@contextmanager
def loaded(name: str, sample: Sample) -> Iterator[str]:
    """An image of the engine."""
    tag = f"sifline-test-{name}-{os.getpid()}"
    archives.load(tag, [archives.layer(entries) for entries in sample.layers], sample.config)
    try:
        yield tag
    finally:
        docker("image", "rm", "--force", tag)


def apptainer(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Apptainer in the toolbox, which sees ``folder`` as /work and the engine."""
    argv = ["docker", "run", "--rm", "--network", "none", *TOOLBOX_RIGHTS]
    argv += ["--volume", "/var/run/docker.sock:/var/run/docker.sock"]
    argv += ["--volume", f"{folder}:/work", "--workdir", "/work"]
    argv += ["--env", "APPTAINER_TMPDIR=/work"]
    return subprocess.run(
        [*argv, TOOLBOX, "apptainer", *words], capture_output=True, text=True, check=False
    )


def build(tag: str, folder: Path) -> Path:
    """Make the reference."""
    made = folder / "reference.sif"
    done = apptainer(folder, "build", "--disable-cache", made.name, f"docker-daemon:{tag}:latest")
    assert done.returncode == 0, done.stderr
    return made


def convert_by(method: str, name: str, tag: str, folder: Path) -> tuple[Path, str]:
    """Make ours; return it with the method that was taken."""
    here, image = context(folder), built(name, tag)
    chosen = replace(image.image, sif=SifOptions(method=method))
    made = convert.convert(replace(image, image=chosen), here)
    record = records.read(here.workspace.record(name, "convert")) or {}
    return made.path, record["method"]


@contextmanager
def both(name: str, sample: Sample, folder: Path, method: str = "") -> Iterator[Roads]:
    """Go both roads; what they lead to is gone afterwards."""
    try:
        with loaded(name, sample) as tag:
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


def unexpected(roads: Roads) -> str:
    """Tell what differs in the file systems and may not, a line for each; "" is the verdict."""
    read = [squash.read(path, squash.offset(path)) for path in (roads.reference, roads.ours)]
    found = squash.differences(*read)
    wrong = [one for one in found if not any(rule.fits(one, roads) for rule in ALLOWED)]
    return "\n".join(map(str, wrong))


@pytest.fixture(scope="module", params=SAMPLES)
def roads(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Roads]:
    name = request.param
    with both(name, SAMPLES[name], tmp_path_factory.mktemp(name)) as found:
        yield found


def test_every_entry_is_the_same(roads: Roads) -> None:
    assert unexpected(roads) == ""


def test_what_the_sif_says_of_itself_is_the_same(roads: Roads) -> None:
    expected, actual = described(roads.reference), described(roads.ours)
    assert actual == expected


def test_the_fast_road_is_taken_wherever_it_leads_there(roads: Roads) -> None:
    assert roads.method == SAMPLES[roads.name].road


@pytest.mark.parametrize("name", ["layers", "names", "shadowed", "xattrs"])
def test_the_ordinary_road_leads_there_too(name: str, tmp_path: Path) -> None:
    with both(name, SAMPLES[name], tmp_path / "work", method="apptainer") as roads:
        assert unexpected(roads) == ""


@pytest.mark.parametrize("name", REFUSED)
def test_what_apptainer_refuses_is_converted(name: str, tmp_path: Path) -> None:
    sample, says = REFUSED[name]
    with loaded(name, sample) as tag:
        done = apptainer(tmp_path, "build", "reference.sif", f"docker-daemon:{tag}:latest")
        ours, _ = convert_by("", name, tag, tmp_path)

    assert says in done.stderr
    found = squash.read(ours, squash.offset(ours))
    links = [entry.info for layer in sample.layers for entry in layer if entry.info.issym()]
    expected = {link.name: link.linkname for link in links}
    assert {name: os.fsdecode(found[os.fsencode(name)].target) for name in expected} == expected


# What SIFs say of themselves


def described(path: Path) -> dict[str, Any]:
    """Return the objects of a SIF but its file system, without what may differ."""
    found: dict[str, Any] = {"objects": []}
    for part in sif.parts(sif.read(path)):
        if part.name not in DESCRIPTION and part.kind != sif.Kind.DEFINITION:
            found["objects"].append((part.kind, part.name))
            found[part.name] = json.loads(part.content)
    attributes = found[sif.LABELS_OBJECT]["data"]["attributes"]
    attributes["labels"] = same(attributes["labels"])
    return {**found, sif.LABELS_OBJECT: {**found[sif.LABELS_OBJECT], "data": same(attributes)}}


def same(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what may differ."""
    return {
        key: value
        for key, value in values.items()
        if key not in DESCRIPTION and not key.startswith("org.sifline.")
    }
