"""The same container by every road: what a conversion makes against Apptainer's own build."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from sifline.contents import environment
from sifline.contents.build_context import file_digest
from sifline.engines.apptainer.toolbox import TOOLBOX
from sifline.engines.docker import image_files
from sifline.engines.docker.images import Docker
from sifline.formats import sif
from sifline.machine.process import ProcessRunner
from tests.support import archives, squash
from tests.support.archives import folder, hard, item, soft
from tests.support.engine import docker, make
from tests.support.roads import Roads, both, build, convert_by, loaded, together
from tests.support.samples import REFUSED, SAMPLES, Sample
from tests.support.squash import Difference
from tests.support.toolbox import PREFIX

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="owners, devices and capabilities can be unpacked by root alone"
)

# An engine that builds gives up at what rootless builders write.
STREAMING = [
    name for name, sample in SAMPLES.items() if sample.road == "stream" and name != "rootless"
]
CREATED = 1_709_210_096  # archives.CREATED in seconds
SQUASHFS_TIMES = 2**32
# In the year 2300: later than the nanoseconds that Docker counts.
FAR = 10_413_792_000
# With the line at its end, more than the eleven octal digits of a ustar header can say.
LARGE = 8 << 30
# A program of the toolbox makes a file on an image that has no programs.
LARGE_FILE = f"""
FROM {TOOLBOX} AS tools
FROM scratch
RUN --mount=type=bind,from=tools,source=/usr,target=/usr \\
    --mount=type=bind,from=tools,source=/usr/lib,target=/lib \\
    --mount=type=bind,from=tools,source=/usr/lib64,target=/lib64 \\
    ["/usr/bin/bash", "-c", "/usr/bin/truncate --size {LARGE} /large && echo end >> /large"]
"""


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
            and roads.ours.method == "stream"
            and found.path in (b"etc/hosts.real", b"run/resolv.conf")
            and found.attribute in ("mode", "size", "content", "mtime")
            and found.actual not in ("0644", 0)
        ),
    ),
    Allowed(
        reason="What Apptainer writes has the time of its build. Ours has the image's own time,"
        " or that of the folder in the image, so that the bytes are the same on another day.",
        fits=lambda found, roads: (
            found.attribute == "mtime"
            and found.expected in roads.reference_made
            and (
                found.actual in (CREATED, roads.time(found.path))
                or (roads.ours.method == "apptainer" and found.actual in roads.ours.during)
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
        reason="squashfs holds 32 bits of a time: one before 1970 becomes one after 2038 with"
        " Apptainer. Ours is 1970, as many engines make it, whatever the store of this one has.",
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
        reason="With Apptainer 1.4 some values of ENV do not arrive (apptainer#3328)."
        " Ours are those of `docker run IMAGE env`, see test_same_behaviour.py.",
        fits=lambda found, roads: (
            found.path == environment.SCRIPT.encode()
            and roads.name == "values"
            and found.attribute in ("size", "content")
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


def unexpected(roads: Roads) -> str:
    """Tell what differs in the file systems and may not, a line for each; "" is the verdict."""
    both_paths = (roads.reference, roads.ours.path)
    read = [squash.read(path, squash.offset(path)) for path in both_paths]
    found = squash.differences(*read)
    wrong = [one for one in found if not any(rule.fits(one, roads) for rule in ALLOWED)]
    return "\n".join(map(str, wrong))


@pytest.fixture(scope="module", params=together("sample", SAMPLES))
def roads(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Roads]:
    name = request.param
    with both(name, SAMPLES[name], tmp_path_factory.mktemp(name)) as found:
        yield found


def test_every_entry_is_the_same(roads: Roads) -> None:
    assert unexpected(roads) == ""


def test_what_the_sif_says_of_itself_is_the_same(roads: Roads) -> None:
    expected, actual = described(roads.reference), described(roads.ours.path)
    assert actual == expected


def test_the_fast_road_is_taken_wherever_it_leads_there(roads: Roads) -> None:
    assert roads.ours.method == SAMPLES[roads.name].road


@pytest.mark.parametrize("roads", together("sample", STREAMING), indirect=True)
def test_mounted_layers_and_the_engine_give_the_same_bytes(
    roads: Roads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "layers", lambda *_: ())
    handed_out = convert_by("stream", roads.name, roads.tag, tmp_path)

    assert file_digest(roads.ours.path) == file_digest(handed_out.path)
    # GNU tar would make two of a device that has two names.
    assert (roads.ours.mounted, handed_out.mounted) == (roads.name != "links", False)


@pytest.mark.parametrize("roads", together("sample", ["rootless"]), indirect=True)
def test_what_neither_a_mount_nor_the_engine_can_read_is_left_to_apptainer(
    roads: Roads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "layers", lambda *_: ())

    made = convert_by("", roads.name, roads.tag, tmp_path)

    assert made.method == "apptainer"
    (note,) = [note for note in made.notes if not note.startswith("warning: only root can")]
    assert note.startswith("made by Apptainer itself, which takes longer: the engine cannot read")


@pytest.mark.parametrize("roads", together("sample", ["unlike-engines"]), indirect=True)
def test_why_apptainer_is_taken_is_told_in_a_line(roads: Roads) -> None:
    (note,) = [note for note in roads.ours.notes if not note.startswith("warning: only root can")]
    assert "the engine shows /" in note
    assert note.endswith("in another way than the image's layers")


@pytest.mark.spread
def test_other_names_of_an_emptied_file_keep_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Apptainer empties all names of it, by accident.
    hosts, name = item("etc/hosts", content=b"content"), item("etc/hostname", content=b"x")
    entries = [folder("etc"), hosts, hard("etc/hosts.bak", hosts), name, hard("name.bak", name)]
    made = []
    with loaded("hard", Sample(layers=[entries])) as tag:
        made.append(convert_by("stream", "hard", tag, tmp_path / "mounted"))
        monkeypatch.setattr(image_files, "layers", lambda *_: ())
        made.append(convert_by("stream", "hard", tag, tmp_path / "handed-out"))

    for path in (one.path for one in made):
        start = squash.offset(path)
        assert squash.content(path, start, "etc/hosts") == b""
        assert squash.content(path, start, "etc/hosts.bak") == b"content"
        assert squash.content(path, start, "name.bak") == b"x"


@pytest.mark.spread
@pytest.mark.parametrize("name", ["layers", "names", "shadowed", "xattrs"])
def test_the_ordinary_road_leads_there_too(name: str, tmp_path: Path) -> None:
    with both(name, SAMPLES[name], tmp_path / "work", method="apptainer") as roads:
        assert roads.ours.method == "apptainer"
        assert unexpected(roads) == ""


@pytest.mark.spread
@pytest.mark.parametrize("name", REFUSED)
def test_what_apptainer_refuses_is_converted(name: str, tmp_path: Path) -> None:
    sample, says = REFUSED[name]
    with loaded(name, sample) as tag:
        done = build(tag, tmp_path / "reference.sif")
        ours = convert_by("", name, tag, tmp_path).path

    assert done.returncode != 0
    assert says in done.stderr.decode()
    found = squash.read(ours, squash.offset(ours))
    links = [entry.info for layer in sample.layers for entry in layer if entry.info.issym()]
    expected = {link.name: link.linkname for link in links}
    assert {name: os.fsdecode(found[os.fsencode(name)].target) for name in expected} == expected


@pytest.mark.spread
@pytest.mark.long
def test_more_small_files_than_sixteen_bits_count_arrive(tmp_path: Path) -> None:
    # Apptainer takes half a minute for this, so here the layer itself judges.
    folders = [folder(f"many-{number}") for number in range(100)]
    # Of many sizes: squashfs-tools compares a file with all others of its size.
    files = [
        item(
            f"many-{number % 100}/{number}",
            mode=number % 0o1000,
            owner=(number % 1000, number % 77),
            content=b"%d " % number * (number % 199 + 1),
        )
        for number in range(66_000)
    ]
    with loaded("many", Sample(layers=[[*folders, *files]])) as tag:
        ours = convert_by("stream", "many", tag, tmp_path).path

    read = squash.read(ours, squash.offset(ours))
    found = {name: entry for name, entry in read.items() if name.startswith(b"many-")}
    expected = {
        os.fsencode(one.info.name): squash.declared(one.info, one.content)
        for one in (*folders, *files)
    }
    assert squash.differences(expected, found)[:20] == []


@pytest.mark.spread
@pytest.mark.long
def test_a_sparse_file_over_eight_gibibytes_arrives(tmp_path: Path) -> None:
    # Apptainer takes two minutes and 20 GB of disk for this, so here the file itself judges.
    expected = tmp_path / "large"
    with expected.open("wb") as file:
        file.truncate(LARGE)
        file.seek(0, os.SEEK_END)
        file.write(b"end\n")
    tag = make(tmp_path / "recipe", f"{PREFIX}large-{uuid4().hex[:8]}", LARGE_FILE)
    try:
        ours = convert_by("", "large", tag, tmp_path)
    finally:
        docker("image", "rm", "--force", tag)

    found = squash.read(ours.path, squash.offset(ours.path))[b"large"]
    true = squash.entries(tmp_path)[b"large"]
    assert (found.kind, found.size, found.content) == (true.kind, LARGE + 4, true.content)
    assert ours.path.stat().st_size < 1 << 20
    assert ours.method == "stream"


@pytest.mark.spread
def test_an_image_of_another_id_with_the_same_content_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    tag, config = f"{PREFIX}id-{uuid4().hex[:8]}", {"Env": ["A=1"], "Labels": {"a": "b"}}
    layer = archives.layer([folder("d"), item("d/file", content=b"x")])
    made, ids = [], set()
    try:
        for version in ("1", "2"):
            archives.load(tag, [layer], config, docker_version=version)
            ids.add(docker("image", "inspect", "--format", "{{.Id}}", tag).stdout)
            made.append(convert_by("stream", "id", tag, tmp_path / version))
    finally:
        docker("image", "rm", "--force", *(one.strip() for one in ids))

    assert len(ids) == 2
    assert made[0].path.read_bytes() == made[1].path.read_bytes()


@pytest.mark.spread
def test_what_the_engine_s_store_adds_to_the_layers_does_not_get_into_a_sif(
    tmp_path: Path,
) -> None:
    old = item("d/old", content=b"x", mtime=-5)
    entries = [folder("d"), old, soft("link", "nowhere", mtime=-5), item("d/file", content=b"y")]
    entries += [item("d/far", mtime=FAR)]
    with loaded("labels", Sample(layers=[entries])) as tag:
        before = convert_by("stream", "labels", tag, tmp_path / "before")
        own = Docker(ProcessRunner()).inspect(tag)["GraphDriver"]["Data"]["UpperDir"]
        label = b"system_u:object_r:container_ro_file_t:s0"
        for name in ("", "d", "d/file", "d/old"):  # as a host with labels, and a build, leave them
            os.setxattr(Path(own, name), "security.selinux", label)
            os.setxattr(Path(own, name), "user.of.the.build", label)
        # As the engine has them that built the image; one that unpacks it makes 1970 of them.
        for name, time in (("d/old", -5), ("link", -5), ("d/far", FAR)):
            os.utime(Path(own, name), (time, time), follow_symlinks=False)
        after = convert_by("stream", "labels", tag, tmp_path / "after")

    found = squash.read(after.path, squash.offset(after.path))
    assert {entry.xattrs for entry in found.values()} == {()}
    assert {found[name].mtime for name in (b"d/old", b"link", b"d/far")} == {0}
    assert after.path.read_bytes() == before.path.read_bytes()


# What SIFs say of themselves


@pytest.mark.parametrize("roads", together("sample", ["values"]), indirect=True)
def test_the_tree_has_the_labels_and_the_definition_of_the_objects(roads: Roads) -> None:
    for path in (roads.reference, roads.ours.path):
        start, file = squash.offset(path), sif.read(path)
        labels = squash.content(path, start, ".singularity.d/labels.json")
        definition = squash.content(path, start, ".singularity.d/Singularity")
        assert json.loads(labels) == sif.labels(file)
        assert definition == sif.parts(file)[0].content


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
