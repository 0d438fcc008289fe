"""What is told to take space in an image whose every byte is known, and in its SIF."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Project, docker

# The image holds no program: it borrows those of another while it is built.
FUNCTIONS = r"""
borrowed() {
    local program=$1
    shift
    /tools/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path /tools/lib/x86_64-linux-gnu \
        "/tools/usr/bin/$program" "$@"
}
for program in head ln mkdir rm tr truncate; do
    eval "$program() { borrowed $program \"\$@\"; }"
done
# write FILE LETTER BYTES
write() { head -c "$3" /dev/zero | tr '\0' "$2" > "$1"; }
"""
DOCKERFILE = r"""
FROM docker.io/sifline/debian-bookworm AS tools
COPY functions /
FROM scratch
SHELL ["/tools/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", \
    "--library-path", "/tools/lib/x86_64-linux-gnu", \
    "/tools/usr/bin/bash", "-o", "errexit", "-c"]
RUN --mount=from=tools,target=/tools . /tools/functions; \
    mkdir /known /known/all /known/all/deep /gone /kept /same /links /opaque; \
    write /known/all/deep/a a 3000000; \
    write /known/all/b b 300000; \
    write /known/c c 450000; \
    write /gone/one d 4000000; \
    write /gone/two e 1500000; \
    write /kept/replaced f 2500000; \
    write /same/first g 2000000; \
    write /same/small h 999999; \
    write /links/a i 1200000; \
    ln /links/a /links/b; \
    ln /links/a /known/also; \
    write /links/x j 700000; \
    ln /links/x /links/y; \
    truncate --size 6000000 /sparse; \
    write /opaque/old k 800000
RUN --mount=from=tools,target=/tools . /tools/functions; \
    rm -r /gone /links/x /opaque /kept/replaced; \
    mkdir /opaque; \
    write /opaque/new l 300000; \
    write /kept/replaced m 2600000
RUN --mount=from=tools,target=/tools . /tools/functions; \
    mkdir /other; \
    write /other/second g 2000000; \
    write /other/small h 999999; \
    write /other/same-size n 2000000
RUN --mount=from=tools,target=/tools . /tools/functions; rm /same/small
CMD ["none"]
"""
LAYERS = [
    3000000
    + 300000
    + 450000
    + 4000000
    + 1500000
    + 2500000
    + 2000000
    + 999999
    + 1200000
    + 700000
    # the sparse file and the one that goes
    + 6000000
    + 800000,
    300000 + 2600000,
    2000000 + 999999 + 2000000,
    0,
]
HIDDEN = {
    "/gone": (5500000, False),
    "/kept/replaced": (2500000, True),
    "/same/small": (999999, False),
    "/opaque": (800000, True),
}
# A file of several names counts at the first of them, /known/also; /known/all is nearly all deep.
FOLDERS = {
    "/known": 4950000,
    "/known/all/deep": 3000000,
    "/other": 4999999,
    "/kept": 2600000,
    "/same": 2000000,
    "/links": 700000,
    "/opaque": 300000,
}
TOTAL = sum(LAYERS) - sum(size for size, _ in HIDDEN.values())


class Image:
    """The image in the engine, and its SIF."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.name = project.image("sizes", DOCKERFILE, functions=FUNCTIONS)
        (project.root / "images" / self.name / "image.toml").write_text('size-budget = "1MB"\n')
        made = project.invoke(f"convert.{self.name}")
        assert made.returncode == 0, made.stderr
        self.sif = project.root / "build" / "sif" / f"{self.name}.sif"

    def told(self, *words: str, before: tuple[str, ...] = ()) -> dict[str, Any]:
        """What is told of the image, or of what is named."""
        argv = [*before, sys.executable, "-m", "invoke", *(words or (f"sizes.{self.name}",))]
        done = subprocess.run(
            [*argv, "--json"],
            cwd=self.project.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout)["images"][0])


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    made = Image(Project(tmp_path_factory.mktemp("project")))
    yield made
    made.project.invoke(f"clean.{made.name}", "--yes")


@pytest.fixture(scope="module")
def of_image(image: Image) -> dict[str, Any]:
    return image.told()


@pytest.fixture(scope="module")
def of_sif(image: Image) -> dict[str, Any]:
    return image.told("sizes", str(image.sif))


@pytest.fixture(scope="module")
def of_layers(of_image: dict[str, Any]) -> dict[str, Any]:
    if os.geteuid() != 0:
        pytest.skip("layers can be read by root alone")
    return of_image


@pytest.fixture(scope="module")
def of_stream(image: Image) -> dict[str, Any]:
    """What root is told without the right to see what layers delete."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or not setpriv:
        pytest.skip("takes root, and setpriv to give a right away")
    return image.told(before=(setpriv, "--bounding-set=-sys_admin"))


def folders(found: dict[str, Any]) -> dict[str, int]:
    """Without what a SIF adds."""
    added = "/.singularity.d"
    listed = {item["path"]: item["size"] for item in found["folders"]}
    return {path: size for path, size in listed.items() if not path.startswith(added)}


def test_layers_have_their_size_and_add_up_to_that_of_the_image(
    image: Image, of_layers: dict[str, Any]
) -> None:
    assert [layer["size"] for layer in of_layers["layers"]] == LAYERS
    assert all(layer["instruction"].startswith("RUN /tools/") for layer in of_layers["layers"])
    assert of_layers["image"] == sum(LAYERS)
    size = docker("image", "inspect", "--format", "{{.Size}}", f"sifline/{image.name}").stdout
    assert of_layers["image"] == int(size)


def test_bytes_that_later_layers_delete_or_replace_are_found(of_layers: dict[str, Any]) -> None:
    found = {item["path"]: (item["size"], item["replaced"]) for item in of_layers["hidden"]}
    assert found == HIDDEN
    assert [item["size"] for item in of_layers["hidden"]] == sorted(
        (size for size, _ in HIDDEN.values()), reverse=True
    )
    assert of_layers["buried"] == of_layers["image"] - of_layers["total"]


@pytest.mark.parametrize("road", ["of_layers", "of_stream"])
def test_folders_and_copies_are_the_same_on_either_road(
    road: str, request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue(road)
    assert folders(found) == FOLDERS
    assert found["total"] == TOTAL
    assert found["files"] == 12
    assert found["copies"] == [
        {"size": 2000000, "waste": 2000000, "paths": ["/other/second", "/same/first"]}
    ]
    assert found["wasted"] == 2000000


def test_who_cannot_see_what_layers_delete_is_told_so(of_stream: dict[str, Any]) -> None:
    assert of_stream["hidden"] is None
    assert of_stream["unknown"] == {"hidden": "only root sees what layers delete; run it as root"}
    assert [layer["size"] for layer in of_stream["layers"]] == LAYERS


def test_the_total_is_that_of_what_docker_exports(
    image: Image, of_layers: dict[str, Any], tmp_path: Path
) -> None:
    made = docker("create", f"sifline/{image.name}").stdout.strip()
    try:
        docker("export", "--output", str(tmp_path / "tar"), made)
    finally:
        docker("rm", made)
    with tarfile.open(tmp_path / "tar") as tar:
        assert of_layers["total"] == sum(entry.size for entry in tar if entry.isreg())


def test_folders_of_the_sif_count_a_file_under_each_of_its_names(
    image: Image, of_sif: dict[str, Any]
) -> None:
    found = of_sif
    assert folders(found) == {**FOLDERS, "/links": 700000 + 2 * 1200000}
    assert found["sif"] == image.sif.stat().st_size
    assert found["image"] is None
    assert found["copies"] is None
    assert found["hidden"] is None
    assert set(found["unknown"]) == {"copies", "hidden"}
    assert "each of its names" in found["notes"][0]


def test_the_sif_is_measured_by_image_and_budget(image: Image, of_image: dict[str, Any]) -> None:
    found, size = of_image, image.sif.stat().st_size
    assert (found["sif"], found["budget"], found["notes"]) == (size, 1000000, [])
    shown = image.project.invoke(f"sizes.{image.name}").stdout.splitlines()
    assert shown[0] == (
        f"{image.name}: Docker image 31.3 MB; SIF {size / 1e6:.1f} MB,"
        f" {100 * size / sum(LAYERS):.0f} % of the image,"
        f" {100 * size / 1e6:.0f} % of its budget of 1.0 MB"
    )


def test_a_sif_of_another_image_is_told(image: Image, tmp_path: Path) -> None:
    project = Project(tmp_path, prefix=image.project.prefix)
    same = project.image("sizes", DOCKERFILE, functions=FUNCTIONS)
    assert same == image.name
    path = project.root / "build" / "sif" / f"{same}.sif"
    assert image.project.invoke(f"sizes.{same}").returncode == 0
    path.parent.mkdir(parents=True)
    shutil.copy(image.sif, path)

    done = project.invoke(f"sizes.{same}")

    assert (
        "note: the SIF is out of date: no record of its conversion; run invoke convert."
        in done.stdout
    )
    assert "no budget" in done.stdout


def test_an_image_that_is_not_built_is_named(image: Image, tmp_path: Path) -> None:
    project = Project(tmp_path, prefix=image.project.prefix)
    project.image("sizes", DOCKERFILE, functions=FUNCTIONS)
    other = project.image("other", "FROM scratch\n")

    alone, every = project.invoke(f"sizes.{other}"), project.invoke("sizes", "--all")

    assert alone.returncode == 3
    assert f"the engine holds no {other} yet; run invoke build.{other}" in alone.stderr
    assert every.returncode == 0
    assert f"{other} is left out: the engine holds no {other} yet" in every.stderr
    assert f"{image.name}: Docker image 31.3 MB; no SIF yet" in every.stdout


@pytest.mark.usefixtures("of_image", "of_sif")
def test_looking_leaves_nothing_behind(image: Image) -> None:
    assert list((image.project.root / "build" / "tmp").iterdir()) == []
    listed = docker("ps", "--all", "--quiet", "--filter", f"ancestor=sifline/{image.name}").stdout
    assert listed == ""
