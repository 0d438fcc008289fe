"""SIFs of registries, archives and definition files: of what is no image here, on real engines."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from sifline import ocilayout, records
from tests.support import archives, squash
from tests.support.archives import item
from tests.support.engine import Project, docker
from tests.support.registry import Base

# Foreign, since the projects have no folder of that name.
BOOKWORM = "docker.io/sifline/debian-bookworm:latest"
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


def refused(project: Project, *words: str, status: int = 2) -> str:
    """The one line that counts of a refusal; nothing is made then."""
    done = project.invoke("convert", *words)
    assert done.returncode == status, done
    assert not list((project.root / "build").glob("sif/*"))
    return done.stderr.splitlines()[-1]


def info(project: Project, name: str) -> dict[str, Any]:
    done = project.invoke("info", f"build/sif/{name}.sif", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)[0]["sif"])


def everything() -> set[str]:
    """All that the engine holds, by id, and every name of it."""
    shown = ("--format", "{{.ID}} {{.Repository}}:{{.Tag}}@{{.Digest}}")
    return set(
        docker("image", "ls", "--all", "--digests", "--no-trunc", *shown).stdout.splitlines()
    )


def inside(project: Project, name: str, *command: str) -> str:
    """Run a command in a SIF."""
    from sifline.adapters.apptainer import Apptainer
    from sifline.runner import ProcessRunner

    sif = project.root / "build" / "sif" / f"{name}.sif"
    return Apptainer(ProcessRunner()).exec(sif, command).stdout


def saved(folder: Path, tag: str, file: str = "base.tar") -> Path:
    path = folder / file
    docker("save", "--output", str(path), tag)
    return path


# Registries


def test_an_image_of_a_registry(project: Project, base: Base) -> None:
    before, name = everything(), f"{project.prefix}-a"

    said = converted(project, "--source", f"docker://{base.name}", "--sif-name", name)

    assert name in said
    assert everything() == before
    found = info(project, name)
    digest = (
        docker("buildx", "imagetools", "inspect", base.name).stdout.split("Digest:")[1].split()[0]
    )
    assert found["provenance"]["source"] == f"docker://{base.name}@{digest}"
    assert found["labels"]["org.sifline.source"] == f"docker://{base.name}@{digest}"
    assert found["provenance"]["conversion"]["method"] == "stream"
    again = converted(project, "--source", f"docker://{base.name}", "--sif-name", name)
    assert "up to date" in again
    base.push("second")
    later = converted(project, "--source", f"docker://{base.name}", "--sif-name", name)
    assert "up to date" not in later
    assert info(project, name)["image id"] != found["image id"]


def test_what_the_engine_had_stays_under_all_its_names(project: Project, base: Base) -> None:
    docker("pull", base.name)
    docker("tag", base.name, f"{base.name}-mine")
    before = everything()

    converted(project, "--source", f"docker://{base.name}", "--sif-name", f"{project.prefix}-a")

    assert everything() == before
    docker("image", "rm", "--force", f"{base.name}-mine")


def test_a_name_is_made_of_the_reference(project: Project, base: Base) -> None:
    said = converted(project, "--source", f"docker://{base.name}")

    last = base.name.rpartition("/")[2].replace(":", "-")
    assert f"{last}.sif" in said


def test_a_registry_that_knows_nothing_of_it(project: Project, registry: str) -> None:
    said = refused(project, "--source", f"docker://{registry}/acme/none:1", status=1)

    assert f"no registry tells about {registry}/acme/none:1" in said


def test_an_offline_site_takes_only_what_the_engine_has(project: Project, base: Base) -> None:
    project.site("away", "offline = true\n")
    words = ("--source", f"docker://{base.name}", "--site", "away")

    assert "the site is offline" in refused(project, *words, status=3)
    docker("pull", base.name)
    assert f"{project.prefix}-b" in converted(project, *words, "--sif-name", f"{project.prefix}-b")


def test_a_killed_run_leaves_nothing_that_the_next_one_does_not_remove(
    project: Project, base: Base
) -> None:
    before, words = everything(), ("--source", f"docker://{base.name}")
    for when in ("pulling", "looking at the image", "verifying"):

        def kill(process: Any) -> None:
            os.killpg(process.pid, signal.SIGKILL)

        project.disturb("convert", *words, "--force", when=when, act=kill)
    converted(project, *words, "--force")

    assert everything() == before
    assert [path.suffix for path in (project.root / "build" / "sif").iterdir()] == [".sif"]


def test_what_a_killed_run_left_goes_even_where_there_is_nothing_to_convert(
    project: Project, base: Base
) -> None:
    before, name = everything(), f"{project.prefix}-a"
    words = ("--source", f"docker://{base.name}", "--sif-name", name)
    converted(project, *words)
    assert everything() == before
    # As if it was killed between its SIF and its last command.
    docker("pull", base.name)
    image = docker("image", "inspect", "--format", "{{.Id}}", base.name).stdout.strip()
    left = [f"sifline-source:{project.prefix}", base.name]
    docker("tag", base.name, left[0])
    note = project.root / "build" / "records" / name / "fetch.json"
    records.write(note, {"image_id": image, "names": left, "brought": True})

    assert "up to date" in converted(project, *words)

    assert everything() == before
    assert not note.exists()


def test_an_interrupted_run_has_taken_away_what_it_fetched(project: Project, base: Base) -> None:
    before, words = everything(), ("--source", f"docker://{base.name}")
    for when in ("pulling", "looking at the image", "verifying"):
        status, _ = project.interrupt("convert", *words, "--force", when=when)
        # It may be done by then, and Python on its way out, where the signal simply ends it.
        assert status in (0, 130, -signal.SIGINT)
        assert everything() == before


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
    base.push("second")
    entries = [entry("arm64"), *entries]
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": entries,
    }
    content = json.dumps(index).encode()
    headers = {"Content-Type": str(index["mediaType"])}
    urlopen(Request(f"{place}/all", content, headers, method="PUT")).close()  # noqa: S310
    before, name = everything(), f"{project.prefix}-a"

    source = f"docker://{base.name.rpartition(':')[0]}:all"
    converted(project, "--source", source, "--sif-name", name)

    assert everything() == before
    told = info(project, name)["provenance"]["source"]
    assert told == f"{source}@sha256:{hashlib.sha256(content).hexdigest()}"
    sif = project.root / "build" / "sif" / f"{name}.sif"
    assert squash.content(sif, squash.offset(sif), "content").decode() == f"first {base.name}"


# Archives


def test_an_archive_of_the_engine(project: Project, base: Base, tmp_path: Path) -> None:
    docker("pull", base.name)
    file = saved(tmp_path, base.name)
    docker("image", "rm", base.name, check=True)
    # By now its name belongs to another image, which keeps it.
    docker("tag", BOOKWORM, base.name)
    before = everything()

    converted(project, "--source", str(file), "--sif-name", f"{project.prefix}-a")

    assert everything() == before
    assert (
        info(project, f"{project.prefix}-a")["provenance"]["source"] == f"archive of {base.name}"
    )


def test_an_image_of_the_engine_without_a_name_is_left_there(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
    (tmp_path / "file").write_text(uuid4().hex)
    docker("buildx", "build", "--iidfile", str(tmp_path / "id"), str(tmp_path))
    image = (tmp_path / "id").read_text()
    try:
        file, before = saved(tmp_path, image), everything()

        converted(project, "--source", str(file), "--sif-name", f"{project.prefix}-a")

        assert everything() == before
    finally:
        docker("image", "rm", image)


def test_an_archive_gives_the_bytes_that_the_image_gives(project: Project, tmp_path: Path) -> None:
    name = project.image("a", f"FROM {BOOKWORM}\nRUN echo x > /x\n")
    project.build(name)
    file = saved(tmp_path, f"sifline/{name}:latest")
    docker("tag", f"sifline/{name}:latest", f"sifline/{name}:kept")
    layout, oci = tmp_path / "layout", tmp_path / "oci.tar"
    ocilayout.from_archive(file, layout)
    with tarfile.open(oci, "w:gz") as tar:
        tar.add(layout, arcname=".")

    shas = set()
    for number, source in enumerate((str(file), f"oci-archive:{oci}")):
        sif_name = f"{project.prefix}-s{number}"
        converted(project, "--source", source, "--sif-name", sif_name)
        assert inside(project, sif_name, "cat", "/x") == "x\n"
        shas.add(info(project, sif_name)["image id"])
    held = docker("image", "inspect", "--format", "{{.Id}}", f"sifline/{name}:latest").stdout
    assert shas == {held.strip()}


@pytest.mark.parametrize("what", ["nothing", "text", "truncated", "two", "missing layer"])
def test_what_is_no_archive_of_one_image(project: Project, tmp_path: Path, what: str) -> None:
    name = project.image("a", "FROM scratch\nCOPY content /\n", content="x" * 100_000)
    project.build(name)
    file = saved(tmp_path, f"sifline/{name}:latest")
    if what == "nothing":
        file.unlink()
    elif what == "text":
        file.write_text("no archive")
    elif what == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif what == "two":
        docker("save", "--output", str(file), f"sifline/{name}:latest", BOOKWORM)
    else:
        without_layers(file)

    assert "base.tar: " in refused(project, "--source", str(file))


def without_layers(file: Path) -> None:
    with tarfile.open(file) as tar:
        kept = [(info, tar.extractfile(info)) for info in tar if info.name.endswith(".json")]
        with tarfile.open(file.with_suffix(".less"), "w") as less:
            for info, content in kept:
                less.addfile(info, content)
    file.with_suffix(".less").replace(file)


def test_an_archive_whose_layer_is_another_is_refused(project: Project, tmp_path: Path) -> None:
    # Of a layer that the engine knows it reads nothing.
    unknown = uuid4().hex.encode() * 1000
    file = tmp_path / "base.tar"
    with file.open("wb") as stream:
        archives.archive(stream, "x:1", [archives.layer([item("file", content=unknown)])], {})
    file.write_bytes(file.read_bytes().replace(unknown, unknown[::-1]))
    before = everything()

    done = project.invoke("convert", "--source", str(file))

    assert done.returncode == 1
    assert "does not take the image" in done.stderr
    assert everything() == before


# Definition files


def test_a_definition_file_without_an_image(project: Project, tmp_path: Path) -> None:
    folder = tmp_path / "some where"
    folder.mkdir()
    name = project.image("a", f"FROM {BOOKWORM}\nRUN echo x > /x\n")
    project.build(name)
    saved(folder, f"sifline/{name}:latest")
    (folder / "alone.def.j2").write_text(ALONE)

    converted(
        project, "--source", str(folder / "alone.def.j2"), "--sif-name", f"{project.prefix}-d"
    )

    found = info(project, f"{project.prefix}-d")
    assert found["labels"]["called"] == f"{project.prefix}-d"
    assert found["labels"]["org.sifline.name"] == f"{project.prefix}-d"
    assert found["provenance"]["conversion"]["method"] == "definition"
    assert inside(project, f"{project.prefix}-d", "cat", "/x") == "x\n"


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


def test_an_image_made_by_a_definition_file(project: Project) -> None:
    name = project.image(
        "a",
        f"FROM {BOOKWORM}\nENV GREETING=hello\nLABEL org.example.kind=test\n",
        **{
            "site.def.j2": DEFINITION,
            "motd": "welcome\n",
            "image.toml": '[convert]\ndefinition = "site.def.j2"\n',
        },
    )

    converted_once = project.invoke(f"convert.{name}")

    assert converted_once.returncode == 0, converted_once.stderr
    assert inside(project, name, "cat", "/etc/motd") == "welcome\n"
    assert inside(project, name, "sh", "-c", "echo $GREETING") == "hello again\n"
    who = inside(project, name, "stat", "--format=%u %g", "/etc/who").split()
    assert inside(project, name, "cat", "/etc/who") == "0\n"
    assert who == ["7", "7"] or os.geteuid() == 0  # seen through a namespace of root alone
    found = info(project, name)
    assert found["labels"]["org.example.kind.twice"] == "test"
    assert found["labels"]["org.sifline.name"] == name
    assert "up to date" in project.invoke(f"convert.{name}").stdout
    (project.root / "images" / name / "site.def.j2").write_text(DEFINITION + "    export MORE=1\n")
    assert "up to date" not in project.invoke(f"convert.{name}").stdout
    assert inside(project, name, "sh", "-c", "echo $MORE") == "1\n"
    assert project.invoke(f"convert.{name}", "--method", "stream", "--force").returncode == 2


def test_an_archive_takes_no_room_of_the_engine_afterwards(
    project: Project, tmp_path: Path
) -> None:
    file, size = tmp_path / "base.tar", 40_000_000
    with file.open("wb") as stream:
        entry = item("file", content=os.urandom(size))
        archives.archive(stream, "x:1", [archives.layer([entry])], {})
    root = Path(docker("info", "--format", "{{.DockerRootDir}}").stdout.strip(), "overlay2")
    if not os.access(root, os.R_OK):
        pytest.skip("the engine's folder can be read by root alone, or is elsewhere")
    before = {path.name for path in root.iterdir()}

    converted(project, "--source", str(file), "--sif-name", f"{project.prefix}-a")

    grown = [root / name for name in {path.name for path in root.iterdir()} - before]
    sizes = [path.stat().st_size for top in grown for path in top.rglob("*") if path.is_file()]
    assert sum(sizes) < size // 10


# What is asked for


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--source", "x.zip"), "takes docker://REFERENCE"),
        (("--source", "docker://"), "takes docker://REFERENCE"),
        (("--source", "none.def"), "there is no such file"),
        (("--source", "Some File.tar"), "--sif-name"),
        (("--sif-name", "x"), "--sif-name is for --source"),
        (("--source", "a.def", "--sif-name", "../x"), "'../x' is no name for a SIF"),
    ],
)
def test_what_is_no_source(project: Project, words: tuple[str, ...], said: str) -> None:
    (project.root / "a.def").write_text("Bootstrap: scratch\n")

    assert said in refused(project, *words)


def test_the_name_of_an_image_is_taken(project: Project, base: Base) -> None:
    name = project.image("a", "FROM scratch\nCOPY x /\n", x="x")

    line = refused(project, "--source", f"docker://{base.name}", "--sif-name", name)

    assert f"{name} is an image of images/" in line
