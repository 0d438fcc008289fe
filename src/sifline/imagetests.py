"""The pytest plugin of image tests: one ``container`` fixture for Docker images and for SIFs.

It does nothing where its options are not given, so that other projects do not notice it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

RUNTIMES = ("docker", "apptainer")
LABEL_TEST = "sifline.test"
# A container whose test run was killed is gone after this many seconds.
LIFETIME = 3600
# What Debian and its children trust of their own.
DISTRIBUTION_CERTIFICATES = Path("/usr/share/ca-certificates")

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that was run inside the image."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Container(Protocol):
    """What image tests get: the image, ready to run commands in."""

    name: str
    runtime: str
    gpus: int

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> Ran:
        """Run ``argv`` to its end, whatever its exit status is."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; prefixed, because every project's pytest sees this plugin."""
    group = parser.getgroup("sifline", "images under test")
    group.addoption("--sifline-runtime", choices=RUNTIMES, help="what runs the image")
    group.addoption("--sifline-image", metavar="NAME", help="the image's name")
    group.addoption("--sifline-ref", metavar="TAG-OR-ID", help="the image in the Docker engine")
    group.addoption("--sifline-sif", metavar="PATH", help="the SIF, for apptainer")
    group.addoption("--sifline-smoke", metavar="JSON", default="[]", help="smoke commands")
    group.addoption("--sifline-budget", metavar="BYTES", type=int, default=0, help="of the SIF")
    group.addoption("--sifline-image-size", metavar="BYTES", type=int, default=0, help="in Docker")


def run_file(
    container: Container,
    source: str,
    argv: Sequence[str],
    *,
    name: str,
    env: Mapping[str, str] | None = None,
) -> Ran:
    """Write ``source`` to the file ``name`` and run ``argv`` with that name behind it.

    In a folder of its own, which is gone afterwards: all tests of a run share Docker's container.
    """
    script = (
        'folder="$(mktemp -d)" && cd "$folder" && printf "%s" "$1" > "$2" || exit 125\n'
        'name="$2"; shift 2; "$@" "$name"; status=$?; cd / && rm -r "$folder"; exit $status'
    )
    return container.run(["sh", "-c", script, "sh", source, name, *argv], env=env)


@pytest.fixture(scope="session")
def gpus(container: Container) -> int:
    """How many NVIDIA GPUs the container has; a test that asks is skipped where there is none."""
    if not host_gpus():
        pytest.skip("this host has no NVIDIA GPU (no /dev/nvidia0)")
    if not container.gpus:
        pytest.skip("the engine cannot hand in GPUs: NVIDIA's container toolkit is missing")
    return container.gpus


def host_gpus() -> int:
    """Return how many NVIDIA GPUs this host has a driver for."""
    from sifline.stages.shell import Caller

    return Caller.here().gpus or 0


@pytest.fixture(scope="session")
def container(request: pytest.FixtureRequest) -> Iterator[Container]:
    """The image under test."""
    config = request.config
    runtime = config.getoption("--sifline-runtime")
    name = config.getoption("--sifline-image") or ""
    if runtime == "docker":
        with _docker(name, config.getoption("--sifline-ref")) as made:
            yield made
    elif runtime == "apptainer":
        yield _SifContainer(name, Path(config.getoption("--sifline-sif")))
    else:
        raise pytest.UsageError("image tests need --sifline-runtime; run invoke test.NAME")


@pytest.fixture(scope="session")
def private_certificates() -> frozenset[str]:
    """What the build host trusts beyond its distribution, such as a proxy's certificate.

    Build steps are handed these as a secret; finding one in an image means that it leaked.
    """
    from sifline.stages.build import CA_BUNDLES

    named = os.environ.get("SSL_CERT_FILE")
    bundles = [path for path in (*([Path(named)] if named else []), *CA_BUNDLES) if path.is_file()]
    known = [path.read_text(errors="replace") for path in DISTRIBUTION_CERTIFICATES.rglob("*.crt")]
    if not bundles or not known:
        pytest.skip("the certificates of this host's distribution cannot be told from its own")
    private = read_certificates(bundles[0].read_text(errors="replace")) - read_certificates(
        "\n".join(known)
    )
    if not private:
        pytest.skip("this host trusts no certificate beyond those of its distribution")
    return private


def certificates(container: Container, *folders: str) -> frozenset[str]:
    """Return every certificate in any file below ``folders`` of the image."""
    found = container.run(
        [
            *("grep", "--recursive", "--no-messages", "--text", "--no-filename"),
            *("--exclude-dir=proc", "--exclude-dir=sys", "--exclude-dir=dev"),
            *("--after-context=99", "--regexp=-----BEGIN CERTIFICATE-----", "--", *folders),
        ]
    )
    return read_certificates(found.stdout)


def read_certificates(text: str) -> frozenset[str]:
    """Return the certificates in ``text``: their base64 without its line breaks."""
    return frozenset("".join(body.split()) for body in _PEM.findall(text))


def _engine_gpus() -> int:
    """Return how many GPUs the engine can hand in: all of the host's, or none."""
    found = host_gpus()
    if not found:
        return 0
    import docker

    client = docker.from_env()
    try:
        return found if "nvidia" in client.info().get("Runtimes", {}) else 0
    finally:
        client.close()


@contextmanager
def _docker(name: str, image: str) -> Iterator[Container]:
    """Start a container that sleeps, read-only as a SIF is; its image needs a ``sleep``."""
    from docker.errors import APIError
    from docker.types import DeviceRequest, Mount
    from testcontainers.core.container import DockerContainer

    gpus = _engine_gpus()
    devices = [DeviceRequest(count=-1, capabilities=[["gpu"]])] if gpus else []
    sleeper = DockerContainer(
        image,
        command=str(LIFETIME),
        entrypoint=["sleep"],
        auto_remove=True,
        device_requests=devices,
        init=False,
        labels={LABEL_TEST: name},
        # An anonymous volume starts with what the image holds there; a tmpfs would hide it.
        mounts=[Mount("/tmp", None)],  # noqa: S108
        read_only=True,
    )
    try:
        sleeper.start()
    except APIError as error:
        pytest.fail(f"{name}: no container can be started of {image}: {error.explanation}")
    try:
        yield _DockerContainer(name, sleeper, gpus)
    finally:
        # The engine removes it, too: whoever comes second has nothing to do.
        with suppress(APIError):
            sleeper.stop()


class _DockerContainer:
    """An image in the Docker engine."""

    runtime = "docker"

    def __init__(self, name: str, sleeper: DockerContainer, gpus: int) -> None:
        self.name, self.gpus = name, gpus
        self._container: Any = sleeper.get_wrapped_container()

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> Ran:
        """Run ``argv``; a command that does not exist ends with 126 or 127."""
        status, (out, err) = self._container.exec_run(
            list(argv),
            demux=True,
            environment=dict(env or {}),
            user=user or "",
            workdir=workdir,
        )
        return Ran(
            argv=tuple(argv),
            returncode=status,
            stdout=(out or b"").decode("utf-8", "replace"),
            stderr=(err or b"").decode("utf-8", "replace"),
        )


class _SifContainer:
    """A SIF; each command runs in a container of its own as the caller, in WORKDIR as Docker's."""

    runtime = "apptainer"

    def __init__(self, name: str, sif: Path) -> None:
        from sifline import sif as siffile
        from sifline.adapters.apptainer import Apptainer
        from sifline.runner import ProcessRunner

        self.name = name
        self._sif = sif
        self._workdir = siffile.workdir(siffile.read(sif))
        self._apptainer = Apptainer(ProcessRunner())
        self.gpus = host_gpus() if self._apptainer.native else _engine_gpus()

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> Ran:
        """Run ``argv``; a command that does not exist ends with 255."""
        if user is not None:
            pytest.skip("Apptainer runs commands as the caller, not as another user")
        result = self._apptainer.exec(
            self._sif,
            argv,
            env=env,
            workdir=workdir or self._workdir,
            gpus=self.gpus > 0,
            check=False,
        )
        return Ran(
            argv=tuple(argv),
            returncode=result.returncode,
            stdout=result.stdout,
            stderr=result.stderr,
        )
