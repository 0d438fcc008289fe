"""SIFs of registries, archives and definition files: of what is no image here, on real engines."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest
import zstandard

from sifline.formats import oci_layout
from sifline.machine import records
from tests.support import archives, processes, squash
from tests.support.archives import item
from tests.support.engine import Project, docker, make
from tests.support.recipes import SHELL, TRIXIE
from tests.support.registry import Base
from tests.support.toolbox import toolbox

# Those that need a registry are the others.
OF_ARCHIVES = pytest.mark.xdist_group("test_sources.py archives")
DEFINITION = """Bootstrap: {{ bootstrap }}
From: {{ source }}

%files
    motd /etc/motd

%labels
{% for key, value in labels.items() if key.startswith("org.example.") %}
    {{ key }}.twice {{ value }}
{% endfor %}

%post
    id --user > /etc/who
    chown 7:7 /etc/who

%environment
    export GREETING="{{ environment.GREETING }} again"
"""
ALONE = """Bootstrap: docker-archive
From: base.tar

%labels
    called {{ name }}
"""


@pytest.fixture
def base(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    made = Base(registry, tmp_path_factory.mktemp("base"))
    # The engine may hold what others pushed, under whatever name, and would not pull it.
    made.push(f"first {made.name}")
    yield made
    docker("image", "rm", "--force", made.name, check=False)


def converted(project: Project, *words: str) -> str:
    """Convert a source; return what was said of the SIF."""
    done = project.invoke("convert", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def planned(project: Project, *words: str) -> dict[str, Any]:
    """What a dry run says of a source."""
    done = project.invoke("--dry", "convert", *words, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def refused(project: Project, *words: str, status: int = 2) -> str:
    """The one line that counts of a refusal; nothing is made then."""
    done = project.invoke("convert", *words)
    assert done.returncode == status, done
    assert not list((project.root / "build").glob("sif/*"))
    return done.stderr.splitlines()[-1]


def info(project: Project, name: str) -> dict[str, Any]:
    done = project.invoke("info", f"build/sif/{name}.sif", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["images"][0]["sif"])


def held(*own: str) -> set[str]:
    """What the engine holds of a test's own, by id, and every name of it.

    :param own: ids and names of images that no other test has. What sifline calls an image while
        it converts is one more name of one of these ids.
    """
    shown = ("--format", "{{.ID}} {{.Repository}}:{{.Tag}}@{{.Digest}}")
    listed = docker("image", "ls", "--all", "--digests", "--no-trunc", *shown).stdout
    return {line for line in listed.splitlines() if any(text in line for text in own)}


def of(base: Base) -> set[str]:
    return held(base.repository, *base.ids)


def inside(project: Project, name: str, *command: str) -> str:
    """Run a command in a SIF."""
    from sifline.engines.apptainer.program import Apptainer
    from sifline.engines.apptainer.sif import Sifs
    from sifline.machine.process import ProcessRunner

    return Sifs(Apptainer(ProcessRunner())).exec(sif_of(project, name), command).stdout


def sif_of(project: Project, name: str) -> Path:
    return project.root / "build" / "sif" / f"{name}.sif"


def file_of(project: Project, name: str, file: str) -> str:
    """Return the content of a file of a SIF."""
    path = sif_of(project, name)
    return squash.content(path, squash.offset(path), file).decode()


def saved(folder: Path, *tags: str) -> Path:
    path = folder / "base.tar"
    docker("save", "--output", str(path), *tags)
    return path


# Registries


def test_an_image_of_a_registry(project: Project, base: Base) -> None:
    before, name = of(base), f"{project.prefix}-a"
    words = ("--source", f"docker://{base.name}", "--sif-name", name)
    would = planned(project, *words)
    assert (would["needed"], would["reason"]) == (True, "there is no SIF")
    assert of(base) == before
    assert not sif_of(project, name).exists()

    said = converted(project, *words)

    assert name in said
    assert of(base) == before
    would = planned(project, *words)
    assert (would["needed"], would["path"]) == (False, str(sif_of(project, name)))
    found = info(project, name)
    digest = (
        docker("buildx", "imagetools", "inspect", base.name).stdout.split("Digest:")[1].split()[0]
    )
    assert found["provenance"]["source"] == f"docker://{base.name}@{digest}"
    assert found["labels"]["org.sifline.source"] == f"docker://{base.name}@{digest}"
    assert found["provenance"]["conversion"]["method"] == "stream"
    again = converted(project, "--source", f"docker://{base.name}", "--sif-name", name)
    assert "up to date" in again
    base.push(f"second {base.name}")
    assert planned(project, *words)["needed"] is True
    later = converted(project, *words)
    assert "up to date" not in later
    assert info(project, name)["image_digest"] != found["image_digest"]


def test_what_a_conversion_could_leave_is_seen(project: Project, base: Base) -> None:
    left = ("sifline-source", "sifline-convert")
    found = [of(base)]
    docker("pull", base.name)
    found.append(of(base))
    for name in left:
        docker("tag", base.name, f"{name}:{project.prefix}")
        found.append(of(base))
    docker("image", "rm", base.name, *(f"{name}:{project.prefix}" for name in left))

    assert found[0] == set()
    assert found[0] < found[1] < found[2] < found[3]
    assert of(base) == set()


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A conversion of an image that the engine had, without a name for the SIF."""

    base: Base
    before: set[str]
    after: set[str]
    said: str


@pytest.fixture(scope="module")
def kept(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    base = Base(registry, tmp_path_factory.mktemp("kept-base"))
    base.push(f"kept {base.name}")
    docker("pull", base.name)
    docker("tag", base.name, f"{base.name}-mine")
    before = of(base)
    said = converted(Project(tmp_path_factory.mktemp("kept")), "--source", f"docker://{base.name}")
    yield Kept(base=base, before=before, after=of(base), said=said)
    docker("image", "rm", "--force", base.name, f"{base.name}-mine")


def test_what_the_engine_had_stays_under_all_its_names(kept: Kept) -> None:
    assert len(kept.before) > 1
    assert kept.after == kept.before


def test_a_name_is_made_of_the_reference(kept: Kept) -> None:
    last = kept.base.name.rpartition("/")[2].replace(":", "-")
    assert f"{last}.sif" in kept.said


def test_a_registry_that_knows_nothing_of_it(project: Project, registry: str) -> None:
    said = refused(project, "--source", f"docker://{registry}/acme/none:1", status=1)

    assert f"cannot resolve {registry}/acme/none:1" in said


def test_an_offline_site_takes_only_what_the_engine_has(project: Project, base: Base) -> None:
    project.site("away", "offline = true\n")
    words = ("--source", f"docker://{base.name}", "--site", "away")

    assert "the site is offline" in refused(project, *words, status=3)
    docker("pull", base.name)
    assert f"{project.prefix}-b" in converted(project, *words, "--sif-name", f"{project.prefix}-b")


STEPS = ("pulling", "reading the image", "verifying")


def at_work(project: Project, base: Base) -> bool:
    """Tell whether a docker command runs for a conversion of the project."""
    own = (os.fsencode(project.root), base.repository.encode())
    return any(
        command.startswith(b"docker\0") and any(text in command for text in own)
        for _, command in processes.read_all("cmdline")
    )


def test_a_killed_run_leaves_nothing_that_the_next_one_does_not_remove(
    project: Project, base: Base
) -> None:
    before, words = of(base), ("--source", f"docker://{base.name}")
    left = list[set[str]]()
    for when in STEPS:
        status, _ = project.interrupt(
            *("convert", *words, "--force"),
            when=when,
            number=signal.SIGKILL,
            seen=lambda: at_work(project, base),
        )
        assert status == -signal.SIGKILL
        left.append(of(base) - before)
    converted(project, *words, "--force")

    assert all(left[1:])  # the first may not have pulled it yet
    assert of(base) == before
    assert [path.suffix for path in (project.root / "build" / "sif").iterdir()] == [".sif"]


def test_what_a_killed_run_left_goes_even_where_there_is_nothing_to_convert(
    project: Project, base: Base
) -> None:
    before, name = of(base), f"{project.prefix}-a"
    words = ("--source", f"docker://{base.name}", "--sif-name", name)
    converted(project, *words)
    assert of(base) == before
    # As if it was killed between its SIF and its last command.
    docker("pull", base.name)
    image = docker("image", "inspect", "--format", "{{.Id}}", base.name).stdout.strip()
    left = [f"sifline-source:{project.prefix}", base.name]
    docker("tag", base.name, left[0])
    note = project.root / "build" / "records" / name / "fetch.json"
    records.write(note, {"image_id": image, "names": left, "brought": True})

    assert "up to date" in converted(project, *words)

    assert of(base) == before
    assert not note.exists()


def test_an_interrupted_run_has_taken_away_what_it_fetched(project: Project, base: Base) -> None:
    before, words = of(base), ("--source", f"docker://{base.name}")
    for when in STEPS:
        status, _ = project.interrupt(
            *("convert", *words, "--force"), when=when, seen=lambda: at_work(project, base)
        )
        assert status == 130
        assert of(base) == before


def test_the_image_for_this_platform_is_taken_from_an_index(
    project: Project, registry: str, base: Base
) -> None:
    repository = base.name.removeprefix(f"{registry}/").rpartition(":")[0]
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    place = f"http://{registry}/v2/{repository}/manifests"

    def entry(machine: str) -> dict[str, object]:
        with urlopen(Request(f"{place}/1", headers={"Accept": kind})) as answer:  # noqa: S310
            digest, size = answer.headers["Docker-Content-Digest"], len(answer.read())
        platform = {"os": "linux", "architecture": machine}
        return {"mediaType": kind, "digest": digest, "size": size, "platform": platform}

    entries = [entry("amd64")]
    base.push(f"second {base.name}")
    entries = [entry("arm64"), *entries]
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": entries,
    }
    content = json.dumps(index).encode()
    headers = {"Content-Type": str(index["mediaType"])}
    urlopen(Request(f"{place}/all", content, headers, method="PUT")).close()  # noqa: S310
    before, name = of(base), f"{project.prefix}-a"

    source = f"docker://{base.name.rpartition(':')[0]}:all"
    converted(project, "--source", source, "--sif-name", name)

    assert of(base) == before
    told = info(project, name)["provenance"]["source"]
    assert told == f"{source}@sha256:{hashlib.sha256(content).hexdigest()}"
    assert file_of(project, name, "content") == f"first {base.name}"


# Archives


@pytest.fixture(scope="module")
def two_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Tags of two images in the engine, the first with a file /x; both have an id of their own."""
    tags = list[str]()
    for name in ("x", "y"):
        folder = tmp_path_factory.mktemp(name)
        (folder / name).write_text(f"{name} {uuid4().hex}")
        recipe = f"FROM scratch\nCOPY {name} /\n"
        tags.append(make(folder, f"sifline-test-sources-{uuid4().hex[:8]}", recipe))
    yield tags[0], tags[1]
    docker("image", "rm", "--force", *tags)


def id_of(tag: str) -> str:
    return docker("image", "inspect", "--format", "{{.Id}}", tag).stdout.strip()


def test_an_archive_of_the_engine(project: Project, base: Base, tmp_path: Path) -> None:
    docker("pull", base.name)
    file = saved(tmp_path, base.name)
    docker("image", "rm", base.name, check=True)
    # By now its name belongs to another image, which keeps it.
    docker("tag", TRIXIE, base.name)
    before = of(base)

    converted(project, "--source", str(file), "--sif-name", f"{project.prefix}-a")

    assert len(before) == 1
    assert of(base) == before
    assert (
        info(project, f"{project.prefix}-a")["provenance"]["source"] == f"archive of {base.name}"
    )


@OF_ARCHIVES
def test_an_image_of_the_engine_without_a_name_is_left_there(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    (tmp_path / "file").write_text(uuid4().hex)
    docker("buildx", "build", "--iidfile", str(tmp_path / "id"), str(tmp_path))
    image = (tmp_path / "id").read_text()
    try:
        file, before = saved(tmp_path, image), held(image)

        converted(project, "--source", str(file), "--sif-name", f"{project.prefix}-a")

        assert len(before) == 1
        assert held(image) == before
    finally:
        docker("image", "rm", image)


@OF_ARCHIVES
def test_an_archive_gives_the_bytes_that_the_image_gives(
    project: Project, two_images: tuple[str, str], tmp_path: Path
) -> None:
    file = saved(tmp_path, two_images[0])
    layout, oci, packed = (tmp_path / name for name in ("layout", "oci.tar", "zstd.tar"))
    oci_layout.from_archive(file, layout)
    with tarfile.open(oci, "w:gz") as tar:
        tar.add(layout, arcname=".")
    pack_layers(layout)
    with tarfile.open(packed, "w") as tar:
        tar.add(layout, arcname=".")

    bytes_ = set()
    for number, source in enumerate((file, oci, packed)):
        sif_name = f"{project.prefix}-s{number}"
        words = ("--source", f"oci-archive:{source}" if number else str(source))
        converted(project, *words, "--sif-name", sif_name)
        assert file_of(project, sif_name, "x").startswith("x ")
        bytes_.add(info(project, sif_name)["image_digest"])
    assert len(bytes_) == 1


def pack_layers(layout: Path) -> None:
    """Compress the layers of a layout with zstd, as newer builders do."""

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    def put(content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        blob(digest).write_bytes(content)
        return {"digest": digest, "size": len(content)}

    index = json.loads((layout / "index.json").read_text())
    (entry,) = index["manifests"]
    manifest = json.loads(blob(entry["digest"]).read_text())
    for layer in manifest["layers"]:
        layer.update(put(zstandard.compress(blob(layer["digest"]).read_bytes())))
        layer["mediaType"] += "+zstd"
    entry |= put(json.dumps(manifest).encode())
    (layout / "index.json").write_text(json.dumps(index))


@OF_ARCHIVES
@pytest.mark.parametrize("what", ["nothing", "text", "truncated", "two", "missing layer"])
def test_what_is_no_archive_of_one_image(
    project: Project, two_images: tuple[str, str], tmp_path: Path, what: str
) -> None:
    file = saved(tmp_path, *two_images[: 2 if what == "two" else 1])
    if what == "nothing":
        file.unlink()
    elif what == "text":
        file.write_text("no archive")
    elif what == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif what == "missing layer":
        without_layers(file)

    assert "base.tar: " in refused(project, "--source", str(file))


def without_layers(file: Path) -> None:
    with tarfile.open(file) as tar:
        kept = [(info, tar.extractfile(info)) for info in tar if info.name.endswith(".json")]
        with tarfile.open(file.with_suffix(".less"), "w") as less:
            for info, content in kept:
                less.addfile(info, content)
    file.with_suffix(".less").replace(file)


@OF_ARCHIVES
def test_an_archive_whose_layer_is_another_is_refused(project: Project, tmp_path: Path) -> None:
    # Of a layer that the engine knows it reads nothing.
    unknown = uuid4().hex.encode() * 1000
    file, tag = tmp_path / "base.tar", f"{project.prefix}-x:1"
    with file.open("wb") as stream:
        archives.archive(stream, tag, [archives.layer([item("file", content=unknown)])], {})
    file.write_bytes(file.read_bytes().replace(unknown, unknown[::-1]))
    with tarfile.open(file) as tar:
        config = tar.extractfile("config.json")
        assert config is not None
        image = f"sha256:{hashlib.sha256(config.read()).hexdigest()}"

    done = project.invoke("convert", "--source", str(file))

    assert done.returncode == 1
    assert "does not take the image" in done.stderr
    assert held(image, project.prefix) == set()


# Definition files


@OF_ARCHIVES
def test_a_definition_file_without_an_image(
    project: Project, two_images: tuple[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "some where"
    folder.mkdir()
    saved(folder, two_images[0])
    (folder / "alone.def.j2").write_text(ALONE)

    converted(
        project, "--source", str(folder / "alone.def.j2"), "--sif-name", f"{project.prefix}-d"
    )

    found = info(project, f"{project.prefix}-d")
    assert found["labels"]["called"] == f"{project.prefix}-d"
    assert found["labels"]["org.sifline.name"] == f"{project.prefix}-d"
    assert found["provenance"]["conversion"]["method"] == "definition"
    assert file_of(project, f"{project.prefix}-d", "x").startswith("x ")


@pytest.mark.spread
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("From: {{ source }}\n", "'source' is undefined"),
        ("From: {{ name \n", "line 1"),
        ("From: {{ ''.__class__.__mro__ }}\n", "unsafe"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_template_that_cannot_be_rendered(
    project: Project, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "x.def.j2").write_text(text)

    line = refused(project, "--source", str(tmp_path / "x.def.j2"))

    assert said in line
    assert "x.def.j2" in line


@pytest.mark.spread
def test_an_image_made_by_a_definition_file(project: Project) -> None:
    name = project.image(
        "a",
        f'{SHELL}ENV GREETING=hello JSON=\'{{"a": "b"}}\'\nLABEL org.example.kind=test\n',
        **{
            "site.def.j2": DEFINITION,
            "motd": "welcome\n",
            "image.toml": '[convert]\ndefinition = "site.def.j2"\n',
        },
    )

    converted_once = project.invoke(f"convert.{name}")

    assert converted_once.returncode == 0, converted_once.stderr
    look = """cat /etc/motd; echo $GREETING; echo "$JSON"
    cat /etc/who; stat --format='%u %g' /etc/who"""
    *printed, who = inside(project, name, "sh", "-c", look).splitlines()
    assert printed == ["welcome", "hello again", '{"a": "b"}', "0"]
    assert who == "7 7" or os.geteuid() == 0  # seen through a namespace of root alone
    found = info(project, name)
    assert found["labels"]["org.example.kind.twice"] == "test"
    assert found["labels"]["org.sifline.name"] == name
    assert "up to date" in project.invoke(f"convert.{name}").stdout
    (project.root / "images" / name / "site.def.j2").write_text(DEFINITION + "    export MORE=1\n")
    assert "up to date" not in project.invoke(f"convert.{name}").stdout
    assert inside(project, name, "sh", "-c", "echo $MORE") == "1\n"
    assert project.invoke(f"convert.{name}", "--method", "stream", "--force").returncode == 2


@OF_ARCHIVES
@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_a_definition_file_on_a_sif_with_devices(
    project: Project, with_devices: Path, tmp_path: Path, *, absolute: bool
) -> None:
    sif, definition = with_devices, tmp_path / "local.def"
    if not absolute:
        sif = Path(sif.name)
        (tmp_path / sif).hardlink_to(with_devices)
    definition.write_text(f"Bootstrap: localimage\nFrom: {sif}\n%labels\n    more yes\n")

    converted(project, "--source", str(definition), "--sif-name", f"{project.prefix}-l")

    made, name = sif_of(project, f"{project.prefix}-l"), f"{project.prefix}-l"
    assert file_of(project, name, "kept") == "content"
    assert info(project, name)["labels"]["more"] == "yes"
    assert (devices(with_devices), devices(made)) == (2, 0)


@pytest.fixture(scope="module")
def with_devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SIF of ours that holds device nodes, as that of a root file system does."""
    project = Project(tmp_path_factory.mktemp("devices"))
    entries = [
        archives.folder("dev"),
        item("dev/null", tarfile.CHRTYPE, device=(1, 3)),
        item("dev/loop0", tarfile.BLKTYPE, device=(7, 0)),
        item("kept", content=b"content"),
    ]
    with (project.root / "devices.tar").open("wb") as stream:
        archives.archive(stream, f"{project.prefix}-d", [archives.layer(entries)], {})
    converted(project, "--source", "devices.tar", "--sif-name", "devices")
    return sif_of(project, "devices")


def devices(path: Path) -> int:
    """How many device nodes a SIF holds."""
    with toolbox().place() as folder:
        copy = shutil.copyfile(path, folder / "sif")
        listed = toolbox().output(
            "unsquashfs", "-lln", "-offset", str(squash.offset(path)), str(copy)
        )
    return sum(line.startswith((b"c", b"b")) for line in listed.splitlines())


@OF_ARCHIVES
def test_an_archive_takes_no_room_of_the_engine_afterwards(
    project: Project, tmp_path: Path
) -> None:
    file, size, name = tmp_path / "base.tar", 40_000_000, uuid4().hex
    tag = f"{project.prefix}-x"
    with file.open("wb") as stream:
        entry = item(name, content=os.urandom(size))
        archives.archive(stream, tag, [archives.layer([entry])], {})
    root = Path(docker("info", "--format", "{{.DockerRootDir}}").stdout.strip(), "overlay2")
    if not os.access(root, os.R_OK):
        pytest.skip("the engine's folder can be read by root alone, or is elsewhere")
    docker("load", "--input", str(file))
    there = sizes(root, name)
    docker("image", "rm", f"{tag}:latest")
    before = sizes(root, name)

    converted(project, "--source", str(file), "--sif-name", f"{project.prefix}-a")

    assert (there, before) == ([size], [])  # what is left can be found
    assert sizes(root, name) == []


def sizes(root: Path, name: str) -> list[int]:
    """Return the sizes of the files of that name at the top of the engine's layers."""
    return [path.stat().st_size for path in root.glob(f"*/diff/{name}")]


# Any image of the engine, to a file of one's choice


@OF_ARCHIVES
def test_any_image_of_the_engine(project: Project, two_images: tuple[str, str]) -> None:
    tag, name = two_images[0], f"{project.prefix}-a"
    before = held(tag, id_of(tag))

    converted(project, "--source", f"docker-daemon:{tag}", "--sif-name", name)

    assert held(tag, id_of(tag)) == before
    assert file_of(project, name, "x").startswith("x ")
    assert info(project, name)["provenance"]["source"] == f"docker-daemon:{tag}:latest"


@OF_ARCHIVES
def test_an_image_of_the_engine_by_its_id(project: Project, two_images: tuple[str, str]) -> None:
    tag, name = two_images[0], f"{project.prefix}-a"
    source = f"docker-daemon:{id_of(tag)}"

    first = converted(project, "--source", source, "--sif-name", name)
    again = converted(project, "--source", source, "--sif-name", name)

    assert ("converted" in first, "up to date" in again) == (True, True)
    assert info(project, name)["provenance"]["source"] == f"docker-daemon:{tag}:latest"


@OF_ARCHIVES
def test_what_the_engine_has_not_is_named(project: Project) -> None:
    line = refused(project, "--source", "docker-daemon:none/such:1", status=3)
    assert "the Docker engine has no image none/such:1; see docker image ls" in line


@OF_ARCHIVES
def test_output_is_a_copy_that_replaces_nothing_of_others(
    project: Project, two_images: tuple[str, str], tmp_path: Path
) -> None:
    output, words = tmp_path / "mine.sif", ("--source", f"docker-daemon:{two_images[0]}")

    said = converted(project, *words, "--output", str(output))
    again = converted(project, *words, "--output", str(output))
    output.write_text("somebody's")
    done = project.invoke("convert", *words, "--output", str(output))

    assert (str(output) in said, "up to date" in again) == (True, True)
    assert (done.returncode, output.read_text()) == (2, "somebody's")
    assert "replace it with --foreign" in done.stderr
    converted(project, *words, "--output", str(output), "--foreign")
    (kept,) = (project.root / "build" / "sif").iterdir()
    assert output.read_bytes() == kept.read_bytes()
    # Under another name it is a copy of the same SIF, which is not made again.
    other = tmp_path / "other.sif"
    assert "converted" in converted(project, *words, "--output", str(other))
    assert list(kept.parent.iterdir()) == [kept]
    assert other.read_bytes() == kept.read_bytes()


@OF_ARCHIVES
def test_output_is_refused_before_anything_is_done(
    project: Project, two_images: tuple[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "no" / "x.sif"
    words = ("--source", f"docker-daemon:{two_images[0]}", "--output", str(output))
    assert "there is no folder" in refused(project, *words)


# What is asked for


@pytest.mark.spread
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--source", "x.zip"), "takes docker-daemon:NAME:TAG, docker://REFERENCE"),
        (("--source", "docker://"), "takes docker-daemon:NAME:TAG, docker://REFERENCE"),
        (("--source", "docker-daemon:"), "takes docker-daemon:NAME:TAG, docker://REFERENCE"),
        (("--source", "docker-daemon:-x", "--sif-name", "x"), "is no reference of an image"),
        (("--output", "x.sif"), "--output is for --source"),
        (("--source", "a.def", "--foreign"), "--foreign is for --output"),
        (("--source", "none.def"), "there is no such file"),
        (("--source", "Some File.tar"), "--sif-name"),
        (("--sif-name", "x"), "--sif-name is for --source"),
        (("--source", "a.def", "--sif-name", "../x"), "'../x' is not a SIF name"),
    ],
)
def test_what_is_no_source(project: Project, words: tuple[str, ...], said: str) -> None:
    (project.root / "a.def").write_text("Bootstrap: scratch\n")

    assert said in refused(project, *words)


@pytest.mark.spread
def test_the_name_of_an_image_is_taken(project: Project) -> None:
    name = project.image("a", "FROM scratch\nCOPY x /\n", x="x")

    line = refused(project, "--source", "docker://localhost/none:1", "--sif-name", name)

    assert f"{name} is an image of images/" in line
