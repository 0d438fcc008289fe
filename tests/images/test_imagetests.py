"""The tests of images turn red when what they promise is broken, on the real engine."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.engines.docker.images import Docker
from sifline.errors import StepFailed
from sifline.imagetests.plugin import LABEL_TEST, engine_gpus, host_gpus
from sifline.machine import gpus
from sifline.machine.process import ProcessRunner
from sifline.model import BuiltImage, Image, TestReport
from sifline.stages import convert, imagetest
from tests.support.contexts import context_of
from tests.support.conversion import built
from tests.support.engine import Project, docker, make
from tests.support.recipes import TINY
from tests.support.waiting import until
from tests.support.way import Way

IMAGES = Path(__file__).parents[2] / "images"
TRIXIE = "sifline/debian-trixie"
Run = Callable[[str], TestReport]
LEAKED = "test_no_certificate_of_the_build_host_leaked"
# Keeps a SIF open until somebody closes its standard input.
OPENING = """
import sys
from pathlib import Path
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.machine.process import ProcessRunner
path, label = sys.argv[1:]
with Sifs(Apptainer(ProcessRunner())).opened(Path(path), label=label) as run:
    print(run(["/usr/bin/true"]).returncode, flush=True)
    sys.stdin.read()
"""

SAID = """
def test_what_is_said_is_heard(container):
    assert container.run(["echo", "said"]).stdout == "said\\n"
"""

# Each has an image of its own.
pytestmark = pytest.mark.spread


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a host behind a proxy trusts: the distribution's certificates and one of its own."""
    own = base64.encodebytes(os.urandom(900)).decode()
    path = tmp_path / "bundle.crt"
    system = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    path.write_text(f"{system}-----BEGIN CERTIFICATE-----\n{own}-----END CERTIFICATE-----\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


@pytest.fixture
def run(tmp_path: Path, bundle: Path) -> Iterator[Run]:
    """Build on trixie with the bundle as the secret, and run trixie's tests on the result."""
    tag = f"sifline-test-promises-{uuid4().hex[:8]}:latest"

    def build_and_test(steps: str) -> TestReport:
        (tmp_path / "Dockerfile").write_text(f"FROM {TRIXIE}\n{steps}\n")
        secret = f"id=ca-certificates,src={bundle}"
        labels = ("--label", "sifline.test=1")
        docker("buildx", "build", "--tag", tag, "--secret", secret, *labels, str(tmp_path))
        entry = Docker(ProcessRunner()).images([tag])[tag]
        image = Image(name="promises", folder=tmp_path, tag=tag)
        subject = BuiltImage(
            image=image, image_id=entry.image_id, fingerprint="", size=entry.size, reused=False
        )
        here = context_of(tmp_path)
        folders = [IMAGES / "debian-trixie" / "tests"]
        return imagetest.imagetest(subject, folders, here, runtime="docker")

    yield build_and_test
    docker("image", "rm", "--force", tag)


def failed(error: StepFailed) -> set[str]:
    """The names of the tests that failed, from the one line."""
    names = error.message.partition("failed: ")[2].partition(";")[0]
    return set(names.replace(" (inherited from debian-trixie)", "").split(", "))


def step(command: str) -> str:
    return f"RUN --mount=type=secret,id=ca-certificates,target=/run/secrets/ca {command}"


def containers(label: str) -> list[str]:
    """Return the containers of that label, those that have ended as well."""
    return docker("ps", "--all", "--quiet", "--filter", f"label={label}").stdout.split()


def test_an_engine_that_cannot_hand_in_gpus_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not host_gpus()[0]:
        assert engine_gpus(TRIXIE) == (0, "this host has no NVIDIA GPU (no /dev/nvidia0)")
    if "nvidia" in docker("info", "--format", "{{json .Runtimes}}").stdout:
        pytest.skip("the engine of this host can")
    for name in ("nvidiactl", "nvidia0"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    # A name of its own: others may have containers of that image.
    name = f"sifline-test-gpus-{uuid4().hex[:8]}"
    docker("tag", TRIXIE, name)
    try:
        found, why = engine_gpus(name)
    finally:
        docker("image", "rm", name)
    assert found == 0
    assert why.startswith("the engine cannot hand in GPUs: could not select device driver")
    assert containers(f"{LABEL_TEST}={name}") == []


def test_a_gpu_that_is_demanded_and_not_there_fails(project: Project) -> None:
    name = project.image("gpu", f"FROM docker.io/{TRIXIE}\n")

    done = project.invoke(f"test.{name}", "--gpu")

    if host_gpus()[0]:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1
        assert f"testing {name}: 1 failed: test_a_gpu_is_there" in done.stderr
        assert "--gpu demands a GPU: this host has no NVIDIA GPU" in done.stderr
    assert project.invoke(f"test.{name}").returncode == 0


def test_a_step_that_uses_the_secret_keeps_the_promises(run: Run) -> None:
    report = run(step("grep --count BEGIN /run/secrets/ca > /count"))
    assert (report.failed, report.skipped) == (0, 0)
    assert report.passed > 5


def test_an_ordinary_installation_keeps_the_promises(run: Run) -> None:
    """As Dockerfiles everywhere do it; the mount is for sites with certificates of their own."""
    report = run(
        "RUN --mount=type=secret,id=ca-certificates,mode=0444"
        ",target=/etc/ssl/certs/ca-certificates.crt"
        " apt-get update && apt-get install -y libevent-core-2.1-7t64"
        " && rm -rf /var/lib/apt/lists/*"
    )
    assert (report.failed, report.skipped) == (0, 0)


@pytest.mark.parametrize(
    ("command", "red"),
    [
        ("mkdir /opt/sys && cp /run/secrets/ca /opt/sys/some.where", {LEAKED}),
        ("cp /run/secrets/ca /tmp/ca", {LEAKED}),
        ("mkdir /root/.cache && cp /run/secrets/ca /root/.cache/ca\nUSER 1234", {LEAKED}),
        (
            "cp /run/secrets/ca /etc/ssl/certs/host.crt",
            {LEAKED, "test_the_trust_store_holds_the_distributions_certificates_alone"},
        ),
        (
            "mkdir -p /usr/local/share/ca-certificates && cp /run/secrets/ca"
            " /usr/local/share/ca-certificates/ca.crt && update-ca-certificates",
            {LEAKED, "test_the_trust_store_holds_the_distributions_certificates_alone"},
        ),
    ],
    ids=["anywhere", "tmp", "root's home", "trust store", "installed"],
)
def test_a_leaked_certificate_is_found(run: Run, command: str, red: set[str]) -> None:
    with pytest.raises(StepFailed) as caught:
        run(step(command))
    assert failed(caught.value) == red


def test_leftover_settings_of_the_build_are_found(run: Run) -> None:
    with pytest.raises(StepFailed) as caught:
        run("""RUN echo 'Acquire::https::CAInfo "/x";' > /etc/apt/apt.conf.d/90build""")
    assert failed(caught.value) == {"test_apt_was_left_without_the_settings_of_the_build"}


def test_a_cache_that_apt_left_is_a_warning(run: Run) -> None:
    report = run("RUN touch /var/cache/apt/archives/left.deb")
    (warning,) = report.warnings
    assert warning.startswith("test_apt_left_no_cache (inherited from debian-trixie): ")


def test_lists_that_apt_left_are_a_warning_with_their_size(run: Run) -> None:
    report = run("RUN head -c 2600000 /dev/zero > /var/lib/apt/lists/mirror_main_Packages")
    assert report.warnings == (
        "test_apt_left_no_lists (inherited from debian-trixie): /var/lib/apt/lists holds 3 MB of"
        " package lists; end the RUN that calls apt-get with: && rm -rf /var/lib/apt/lists/*",
    )


def test_an_image_without_sleep_cannot_be_tested_and_says_so(run: Run, tmp_path: Path) -> None:
    with pytest.raises(StepFailed):
        run("RUN rm /usr/bin/sleep")
    (log,) = (tmp_path / "build" / "logs").iterdir()
    assert "promises: no container can be started of sha256:" in log.read_text()


def test_output_that_the_engine_sends_with_its_first_words_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it sends them on a busy machine; what reads only behind the header finds nothing."""
    way = Way(tmp_path / "engine.sock", hold_seconds=0.1)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'engine.sock'}")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(SAID)
    try:
        subject = built("said", TRIXIE)
        report = imagetest.imagetest(
            subject, [tmp_path / "tests"], context_of(tmp_path), runtime="docker"
        )
    finally:
        way.close()
    assert (report.passed, report.failed, report.skipped) == (1, 0, 0)


# SIFs


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """The SIF of an image without a shell: one program and its library."""
    tag = make(tmp_path / "tiny", f"sifline-test-tiny-{uuid4().hex[:8]}", TINY)
    try:
        yield convert.convert(built("tiny", tag), context_of(tmp_path)).path
    finally:
        docker("image", "rm", "--force", tag)


def test_a_sif_without_a_shell_is_opened_and_leaves_no_container(tiny: Path) -> None:
    label = f"sifline.test={uuid4().hex}"
    apptainer = Apptainer(ProcessRunner())

    with Sifs(apptainer).opened(tiny, label=label) as run:
        found = [run([f"/usr/bin/{name}"]).returncode == 0 for name in ("true", "true", "none")]
        kept = len(containers(label))

    assert found == [True, True, False]
    assert kept == (0 if apptainer.native else 1)
    assert containers(label) == []


def test_the_container_of_an_open_sif_ends_by_itself_when_its_caller_was_killed(
    tiny: Path,
) -> None:
    if Apptainer(ProcessRunner()).native:
        pytest.skip("the machine's own Apptainer needs no container")
    label = f"sifline.test={uuid4().hex}"
    argv = [sys.executable, "-c", OPENING, str(tiny), label]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        kept = containers(label)
        process.kill()
    assert (len(kept), process.returncode) == (1, -signal.SIGKILL)
    until(lambda: containers(label) == [], "the end of the container")
