"""What an image needs is read from its files: the same of the image and of its SIF."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest

from sifline.model import Workspace
from tests.support.command import ROOT, invoke
from tests.support.engine import docker

NAME = "hello-mpi"


def compat(*words: str) -> tuple[dict[str, Any], str]:
    done = invoke("--verbose", *words)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["images"]
    return found, done.stderr


# What programs in the image and its package database say, a line each.
ASK = """
getconf GNU_LIBC_VERSION
ompi_info --version | head --lines 1
dpkg-query --show --showformat='${Version}\n' libpmix2
"""


@pytest.fixture(scope="module")
def asked() -> list[str]:
    options = ("--rm", "--network", "none", "--entrypoint", "sh")
    return docker("run", *options, f"sifline/{NAME}", "-ec", ASK).stdout.splitlines()


@pytest.fixture(scope="module")
def first() -> tuple[dict[str, Any], str]:
    """What the image needs, and what is printed meanwhile, where it was not read before."""
    image = docker("image", "inspect", "--format", "{{.Id}}", f"sifline/{NAME}").stdout.strip()
    Workspace(root=ROOT).needs(image).unlink(missing_ok=True)
    return compat(f"compat.{NAME}", "--json")


@pytest.fixture(scope="module")
def of_image(first: tuple[dict[str, Any], str]) -> dict[str, Any]:
    return first[0]


def test_it_tells_what_the_programs_in_the_image_tell(
    of_image: dict[str, Any], asked: list[str]
) -> None:
    libc = asked[0].split()[1]
    mpi = asked[1].split()[2].removeprefix("v")
    assert of_image["libc"] == f"glibc {libc}"
    assert of_image["mpi"] == [f"Open MPI {mpi}"]


def test_pmix_is_that_of_its_package(of_image: dict[str, Any], asked: list[str]) -> None:
    package = asked[2]
    told = of_image["pmix"]
    assert isinstance(told, list)
    # The library tells the candidate for its release that it was made of.
    assert [str(version).partition("rc")[0] for version in told] == [package.partition("-")[0]]


def test_it_has_no_cuda_and_asks_for_no_driver(of_image: dict[str, Any]) -> None:
    assert (of_image["cuda"], of_image["least_driver"], of_image["frameworks"]) == ([], "", {})


def test_the_sif_says_the_same(of_image: dict[str, Any]) -> None:
    assert compat(f"compat.{NAME}", "--sif", "--json")[0] == of_image
    assert compat("compat", f"build/sif/{NAME}.sif", "--json")[0] == of_image


def test_an_image_is_read_once(first: tuple[dict[str, Any], str]) -> None:
    found, said = first
    again, said_again = compat(f"compat.{NAME}", "--json")
    assert again == found
    assert "reading the image's files" in said
    assert "reading the image's files" not in said_again


def test_a_framework_is_told_with_the_cuda_that_it_was_built_for() -> None:
    if os.environ.get("SIFLINE_BIG") == "no":
        pytest.skip("SIFLINE_BIG=no: the image of TensorFlow is not made")
    found, _ = compat("compat", "build/sif/tensorflow2.18-cuda12.5-mpi4.1.sif", "--json")
    assert re.fullmatch(r"2\.18\.\d+ for CUDA 12\.5\.\d+", found["frameworks"]["tensorflow"])
    assert [version.rpartition(".")[0] for version in found["cuda"]] == ["12.5"]
    assert (found["mpi"], found["least_driver"]) == (["Open MPI 4.1.4"], "525.60.13")
