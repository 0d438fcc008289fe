"""Open MPI from a site's own server: taken by its sum, and refused where that is another's."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.support.engine import Project, docker

BASE = Path(__file__).parents[2] / "images" / "base-mpi4.1"
CONTENT = b"not from Debian\n"

pytestmark = pytest.mark.spread


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def end_of_the_engines_network() -> str:
    """This host's address there. Not every engine tells it, but each tells the network's."""
    show = "{{(index .IPAM.Config 0).Subnet}}"
    network = ip_network(docker("network", "inspect", "bridge", "--format", show).stdout.strip())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((str(network[-2]), 9))  # sends nothing: the kernel chooses the road
        host = str(probe.getsockname()[0])
    assert ip_address(host) in network
    return host


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A site's server, as build steps see it: on this host's end of the engine's network."""
    folder = tmp_path / "served"
    folder.mkdir()
    with tarfile.open(folder / "openmpi-4.1.4.tar.bz2", "w:bz2") as tar:
        info = tarfile.TarInfo("openmpi-4.1.4/README")
        info.size = len(CONTENT)
        tar.addfile(info, io.BytesIO(CONTENT))
    host = end_of_the_engines_network()
    with ThreadingHTTPServer((host, 0), partial(Quiet, directory=str(folder))) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://{host}:{made.server_port}"
        made.shutdown()
        thread.join()


@pytest.fixture
def source(project: Project, server: str) -> str:
    """The stage of base-mpi4.1 that gets the source, as an image of its own."""
    text = (BASE / "Dockerfile").read_text().replace(" sifline/", " docker.io/sifline/")
    return project.image(
        "source",
        text,
        **{"cuda.lock": (BASE / "cuda.lock").read_text(), "image.toml": 'target = "source"\n'},
    )


def profile(name: str, server: str, digest: str) -> str:
    return (
        f'[images."{name}".build-args]\n'
        f'OPENMPI_SOURCE = "{server}/openmpi-4.1.4.tar.bz2"\n'
        f'OPENMPI_SHA256 = "{digest}"\n'
    )


def test_a_sites_source_is_taken_where_its_sum_is_right_and_not_else(
    project: Project, source: str, server: str, tmp_path: Path
) -> None:
    archive = (tmp_path / "served" / "openmpi-4.1.4.tar.bz2").read_bytes()
    digest = hashlib.sha256(archive).hexdigest()
    project.site("wrong", profile(source, server, "0" * 64))
    project.site("right", profile(source, server, digest))

    refused = project.invoke(f"build.{source}", "--site", "wrong")
    assert refused.returncode == 1, refused.stderr
    assert "Hash Sum mismatch" in refused.stderr
    assert project.inspect(source) is None

    assert project.invoke(f"build.{source}", "--site", "right").returncode == 0
    assert project.read(source, "source/openmpi/README") == CONTENT.decode()
