"""What is found in real images and SIFs, against what the programs in them say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from sifline.contents import sbom
from sifline.contents.comparison import Change, Contents
from sifline.errors import StepFailed
from sifline.formats import sif, squashfs
from sifline.stages import convert, inventory
from tests.support.contexts import context_of
from tests.support.conversion import at_work, built
from tests.support.engine import CA_BUNDLE, docker
from tests.support.recipes import PYTHON

# The odd names: no UTF-8, wildcards, a newline in a folder that holds no package.
NEXT = r"""
FROM {tag}
RUN printf 'Name: Some_Thing\nVersion: 1.1\n' > /site/Some_Thing-1.0.dist-info/METADATA \
    && rm --recursive /site/old.egg-info \
    && mkdir --parents "$(printf '/odd/\377')/a-1.dist-info" '/odd/[a]*?/b.dist-info' \
    && printf 'Name: a\nVersion: 1\n' > "$(printf '/odd/\377')/a-1.dist-info/METADATA" \
    && printf 'Name: b\nVersion: 1\n' > '/odd/[a]*?/b.dist-info/METADATA' \
    && chmod 0 '/odd/[a]*?/b.dist-info' '/odd/[a]*?/b.dist-info/METADATA' \
    && mkdir /odd/hard.dist-info /odd/soft.dist-info /odd/broken.dist-info /odd/out.dist-info \
    && ln /site/Some_Thing-1.0.dist-info/METADATA /odd/hard.dist-info/METADATA \
    && ln --symbolic ../hard.dist-info/METADATA /odd/soft.dist-info/METADATA \
    && ln --symbolic ../../../etc/shadow /odd/out.dist-info/METADATA \
    && printf 'nothing' > /odd/broken.dist-info/METADATA \
    && mkdir --parents /make/DEBIAN /make/etc \
    && printf 'Package: mine\nVersion: 1:3~a\nArchitecture: all\nMaintainer: me\n' \
        > /make/DEBIAN/control \
    && echo 'Description: x' >> /make/DEBIAN/control \
    && echo /etc/mine > /make/DEBIAN/conffiles && touch /make/etc/mine \
    && dpkg-deb --build /make /mine.deb && dpkg --install /mine.deb \
    && dpkg --remove python3-six && dpkg --remove --force-all login
ENV SETTING=three
LABEL org.example.gone="" org.example.new="1"
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["true"]
USER 7
WORKDIR /site
VOLUME /odd
"""
ODD = ["odd/broken.dist-info/METADATA", "odd/out.dist-info/METADATA"]
# No program at all, as in images without a distribution's tools.
BARE = """
FROM scratch
COPY base /var/lib/dpkg/status.d/base
"""
# What Python itself finds, asked inside.
ASK = """
import importlib.metadata as m, json
print(json.dumps([[d.name, d.version, str(d.locate_file(""))] for d in m.distributions()]))
"""
# Looks at an image, and stops where its file system comes out of the engine.
PROGRAM = """
import sys
from pathlib import Path
from sifline.contents import excerpt
from sifline.stages import inventory
from tests.support.contexts import context_of
def wait(*_, **options):
    print("reading", flush=True)
    sys.stdin.read()
excerpt.of_tar = wait
inventory.look(sys.argv[1], context_of(Path(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Tags, by what they hold."""
    folder, number = tmp_path_factory.mktemp("inventory"), uuid4().hex[:8]
    tags = {name: f"sifline-test-{name}-{number}" for name in ("python", "next", "bare")}
    recipes = {"python": PYTHON, "next": NEXT.replace("{tag}", tags["python"]), "bare": BARE}
    try:
        for name, recipe in recipes.items():
            place = folder / name
            place.mkdir()
            (place / "Dockerfile").write_text(recipe)
            (place / "base").write_text("Package: base-files\nVersion: 12\nArchitecture: amd64\n")
            secret = f"id=ca-certificates,src={CA_BUNDLE}"
            docker("buildx", "build", "--secret", secret, "--tag", tags[name], str(place))
        yield tags
    finally:
        docker("image", "rm", "--force", *tags.values(), check=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def found(images: dict[str, str], root: Path) -> dict[str, Contents]:
    """What was found in each image."""
    return {name: inventory.look(tag, context_of(root)) for name, tag in images.items()}


@pytest.fixture(scope="module")
def sifs(images: dict[str, str], root: Path) -> dict[str, Path]:
    return {
        name: convert.convert(built(name, tag), context_of(root)).path
        for name, tag in images.items()
    }


@pytest.fixture(scope="module")
def containers(images: dict[str, str]) -> Iterator[dict[str, str]]:
    """Containers to ask the programs of the images in, which end by themselves at last."""
    # Python looks at its working directory as well.
    options = ["--detach", "--rm", "--network", "none", "--user", "0", "--workdir", "/"]
    options += ["--label", "sifline.test=1", "--entrypoint", "sleep"]
    made = {name: docker("run", *options, images[name], "3600") for name in ("python", "next")}
    numbers = {name: done.stdout.strip() for name, done in made.items()}
    yield numbers
    docker("rm", "--force", *numbers.values())


def asked(container: str, *argv: str) -> str:
    return docker("exec", container, *argv).stdout


@pytest.mark.parametrize("name", ["python", "next"])
def test_debian_packages_are_those_that_dpkg_lists(
    containers: dict[str, str], found: dict[str, Contents], name: str
) -> None:
    show = "--showformat=${db:Status-Status} ${Package} ${Version} ${Architecture}\n"
    lines = asked(containers[name], "dpkg-query", "--show", show).splitlines()
    truth = [line.split()[1:] for line in lines if line.startswith("installed ")]
    assert len(truth) < len(lines) or name == "python"  # one was removed, its settings stay
    assert truth == [
        [item.name, item.version, item.architecture]
        for item in found[name].found.packages
        if item.kind == "deb"
    ]


@pytest.mark.parametrize("name", ["python", "next"])
def test_python_packages_are_those_that_python_finds(
    containers: dict[str, str], found: dict[str, Contents], name: str
) -> None:
    truth = {
        (item[0].lower().replace("_", "-"), item[1], item[2].strip("/"))
        for item in json.loads(asked(containers[name], "python3", "-c", ASK))
    }
    places = {place for _, _, place in truth}
    assert len(truth) > 1
    assert truth == {
        (item.name, item.version, item.place)
        for item in found[name].found.packages
        if item.kind == "python" and item.place in places
    }


@pytest.mark.parametrize("name", ["python", "next", "bare"])
def test_sif_holds_what_its_image_holds(
    found: dict[str, Contents], sifs: dict[str, Path], root: Path, name: str
) -> None:
    read = inventory.look(sifs[name], context_of(root))
    assert read.found == found[name].found
    assert read.settings == found[name].settings
    assert (read.image_digest, read.architecture) == (found[name].image_digest, "amd64")


def test_odd_names_and_links_are_read_and_odd_files_are_told(found: dict[str, Contents]) -> None:
    python = {
        (item.name, item.place)
        for item in found["next"].found.packages
        if item.kind == "python" and item.place.startswith("odd")
    }
    assert python == {("a", "odd/\\xff"), ("b", "odd/[a]*?"), ("some-thing", "odd")}
    assert list(found["next"].found.broken) == ODD


def test_image_without_any_program_is_read(found: dict[str, Contents]) -> None:
    assert [item.name for item in found["bare"].found.packages] == ["base-files"]


def test_difference_of_two_images_is_what_the_second_dockerfile_does(
    images: dict[str, str], root: Path
) -> None:
    differs = inventory.diff(images["python"], images["next"], context_of(root))
    assert [item.name for item in differs.added] == ["mine", "a", "b"]
    assert {item.name for item in differs.removed} == {"login", "python3-six", "six", "old"}
    assert [(item.name, item.before, item.after) for item in differs.changed] == [
        ("some-thing", ("1.0",), ("1.1", "1.1"))
    ]
    assert differs.environment == (
        Change(name="SETTING", before="one 'and' \"two\"", after="three"),
    )
    assert differs.labels == (
        Change(name="org.example.gone", before="soon", after=""),
        Change(name="org.example.new", before=None, after="1"),
    )
    assert differs.start == (
        Change(name="cmd", before="python3", after="true"),
        Change(name="entrypoint", before=None, after="/bin/sh -c"),
        Change(name="user", before=None, after="7"),
        Change(name="workdir", before=None, after="/site"),
    )


def test_image_and_its_sif_do_not_differ(
    images: dict[str, str], sifs: dict[str, Path], root: Path
) -> None:
    found = inventory.diff(images["next"], sifs["next"], context_of(root))
    # A difference would make it False: all is the same but for what nobody can read in either.
    assert found.same is None
    assert found.broken == ("odd/broken.dist-info/METADATA", "odd/out.dist-info/METADATA")


def test_bill_of_a_sif_is_the_same_every_time_and_valid(
    sifs: dict[str, Path], root: Path, tmp_path: Path
) -> None:
    first = inventory.write_sbom(sifs["python"], context_of(root))
    again = inventory.write_sbom(sifs["python"], context_of(tmp_path), target=tmp_path / "again")
    assert first.path == root / "build" / "sbom" / "python.sif.cdx.json"
    assert first.path.read_bytes() == again.path.read_bytes()
    text = first.path.read_text()
    sbom.check(text)
    with pytest.raises(StepFailed, match="no valid CycloneDX"):
        sbom.check(text.replace('"type": "library"', '"type": "libary"', 1))


def test_bill_of_an_image_names_its_packages(
    images: dict[str, str], containers: dict[str, str], root: Path
) -> None:
    path = inventory.write_sbom(images["python"], context_of(root)).path
    names = {item.get("purl") for item in json.loads(path.read_text())["components"]}
    name, show = "base-files", "--showformat=${Version}"
    version = asked(containers["python"], "dpkg-query", "--show", show, name).replace("+", "%2B")
    assert f"pkg:deb/debian/{name}@{version}?arch=amd64&distro=debian-12" in names
    assert "pkg:pypi/some-thing@1.0" in names


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.9), (0.9, 1.0)], ids=["files", "tables"])
def test_damaged_sif_is_refused(
    sifs: dict[str, Path], tmp_path: Path, start: float, end: float
) -> None:
    path = tmp_path / "x.sif"
    content = bytearray(sifs["python"].read_bytes())
    system = sif.system(sif.read(sifs["python"]))
    begin, size = system.offset + squashfs.HEAD, system.size - squashfs.HEAD
    damage = slice(begin + int(start * size), begin + int(end * size))
    content[damage] = b"\xff" * len(content[damage])
    path.write_bytes(content)
    with pytest.raises(StepFailed, match="its file system cannot be read"):
        inventory.look(path, context_of(tmp_path))
    assert list((tmp_path / "build" / "tmp").iterdir()) == []


def test_what_a_killed_run_leaves_goes_with_the_next(
    images: dict[str, str], tmp_path: Path
) -> None:
    argv = [sys.executable, "-c", PROGRAM, images["bare"], str(tmp_path)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"reading\n"
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert len(at_work(tmp_path)) == 1

    inventory.look(images["bare"], context_of(tmp_path))

    assert at_work(tmp_path) == []
    assert list((tmp_path / "build" / "tmp").iterdir()) == []
