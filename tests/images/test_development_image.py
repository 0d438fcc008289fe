"""The development image of PyTorch as a site finds it in its engine: its label."""

from __future__ import annotations

import os

import pytest

from tests.support.engine import docker, need_image

IMAGE = "sifline/pytorch-cuda12.1-mpi4.1-devel"


@pytest.mark.spread
def test_the_label_names_the_toolkit_that_is_in_the_image() -> None:
    if os.environ.get("SIFLINE_BIG") == "no":
        pytest.skip("SIFLINE_BIG=no: the development image of PyTorch is not made")
    need_image(IMAGE)
    label = '{{index .Config.Labels "cuda-toolkit"}}'
    said = docker("image", "inspect", "--format", label, IMAGE).stdout.strip()
    found = docker("run", "--rm", "--pull=never", "--network=none", IMAGE, "nvcc", "--version")
    assert f"release {said.rpartition('.')[0]}," in found.stdout
