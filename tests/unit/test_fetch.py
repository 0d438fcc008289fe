from __future__ import annotations

import pytest

from sifline.stages import fetch


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("docker://ubuntu:22.04", "ubuntu-22.04"),
        ("docker://ubuntu", "ubuntu"),
        ("docker://ubuntu:latest", "ubuntu"),
        ("docker://localhost:5000/acme/base", "base"),
        ("docker://localhost:5000/acme/base:1@sha256:0123", "base-1"),
        ("/some/where/x.tar", "x"),
        ("x.tar.gz", "x"),
        ("oci-archive:/some/where/x.tgz", "x"),
        ("docker-archive:x", "x"),
        ("docker-daemon:ubuntu:22.04", "ubuntu-22.04"),
        ("docker-daemon:localhost:5000/acme/base:latest", "base"),
    ],
)
def test_a_sif_is_called_as_its_source(source: str, name: str) -> None:
    assert fetch.is_image(source)
    assert fetch.name_of(source) == name


@pytest.mark.parametrize("source", ["x.def", "x.def.j2", "x", "http://x", "ubuntu:22.04"])
def test_what_is_no_image_elsewhere(source: str) -> None:
    assert not fetch.is_image(source)
