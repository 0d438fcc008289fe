"""The pytest plugin of image tests: one ``container`` fixture for Docker images and for SIFs.

It does nothing where its options are not given, so that other projects do not notice it.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

import pytest

from sifline.machine import process_table
from sifline.machine.certificates import bundle as bundle_of_host
from sifline.machine.interrupts import undisturbed

if TYPE_CHECKING:
    from docker.types import DeviceRequest

    from sifline.engines.apptainer.sif import Run
    from sifline.machine.process import Result, Runner

RUNTIMES = ("docker", "apptainer")
LABEL_TEST = "sifline.test"
# What the JUnit file says of a test: whose folder has it, and why one of style did not pass.
FROM, WARNING = "sifline-from", "sifline-warning"
STYLE = "style"
# A container whose test run was killed is gone after this many seconds.
LIFETIME = 3600
# Nobody's number on a host; no file of an image is theirs.
ORDINARY_USER = (54321, 54321)
# What Debian and its children trust of their own.
DISTRIBUTION_CERTIFICATES = Path("/usr/share/ca-certificates")

# Of prctl(2): which signal to get when the parent dies.
_PARENT_DEATH_SIGNAL = 1
_BEGIN = "-----BEGIN CERTIFICATE-----"
# First which files hold one, on all cores and byte by byte: it is read of a SIF, too.
_CERTIFICATES = """
find "$@" \\( -path /proc -o -path /sys -o -path /dev \\) -prune -o -type f -print0 |
    LC_ALL=C xargs -0 -r -n 500 -P "$(nproc)" grep -s -Z -F -l -a --line-buffered -e "$0" -- |
    xargs -0 -r grep -s -a -h -A 99 -e "$0" --
"""
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that was run inside the image."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Container(Protocol):
    """The image under test, in which tests run commands: in Docker or as a SIF."""

    name: str
    runtime: str
    gpus: int
    # Why there are none.
    no_gpus: str
    # Whether a process outlives the command that started it, until the tests end.
    kept: bool

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
    group.addoption("--sifline-label", metavar="KEY=VALUE", help="of containers of this run")
    group.addoption("--sifline-parent", metavar="PID", type=int, help="whose end ends the run")
    group.addoption("--sifline-gpu", action="store_true", help="without a GPU, fail")
    group.addoption("--sifline-smoke", metavar="JSON", default="[]", help="smoke commands")
    group.addoption("--sifline-skip", metavar="JSON", default="{}", help="reasons by test")
    group.addoption("--sifline-budget", metavar="BYTES", type=int, default=0, help="of the SIF")
    group.addoption("--sifline-image-size", metavar="BYTES", type=int, default=0, help="in Docker")


class _Whole:
    """Hooks of pytest that fail a run which ends before its last test."""

    def __init__(self) -> None:
        self._cut = False

    def pytest_keyboard_interrupt(self) -> None:
        """Note that the run was interrupted, or ended by pytest.exit."""
        self._cut = True

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Set the exit status of such a run."""
        if self._cut:
            session.exitstatus = pytest.ExitCode.INTERRUPTED


class _Told:
    """Hooks of pytest that skip what image.toml skips, and make failures of style warnings."""

    def __init__(self, skipped: Mapping[str, str]) -> None:
        self._skipped = skipped

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note whose folder has each test, and skip those that image.toml names."""
        for item in items:
            item.user_properties.append((FROM, origin(item.path)))
            name = getattr(item, "originalname", "") or item.name
            if name in self._skipped:
                item.add_marker(pytest.mark.skip(reason=f"{name}: {self._skipped[name]}"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Count a failed test of style as expected: it is told, and does not fail the run."""
        report = yield
        if report.when == "call" and report.failed and item.get_closest_marker(STYLE):
            assert call.excinfo is not None
            why = (str(call.excinfo.value).splitlines() or [call.excinfo.typename])[0]
            item.user_properties.append((WARNING, why))
            report.outcome, report.wasxfail = "skipped", f"style: {why}"
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.CollectReport | pytest.TestReport
    ) -> tuple[str, str, str] | None:
        """Call it a warning where its name is printed."""
        style = getattr(report, "wasxfail", "").startswith(f"{STYLE}: ")
        return (STYLE, "w", "WARNING") if style and report.when == "call" else None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print what did not hold, as pytest does of failures."""
        for report in terminalreporter.getreports(STYLE):
            terminalreporter.write_sep("_", f"warning: {report.nodeid}")
            terminalreporter.write_line(report.longreprtext)


def origin(path: Path) -> str:
    """Return the image whose folder ``tests`` holds the file; "" for a test of sifline's own."""
    suites = Path(__file__).parent
    folders = () if path.is_relative_to(suites) else path.parents
    return next((folder.parent.name for folder in folders if folder.name == "tests"), "")


def pytest_configure(config: pytest.Config) -> None:
    """Set up the handling of signals and early ends, if these are tests of images."""
    config.addinivalue_line("markers", f"{STYLE}: of tests of images: a failure is a warning")
    if config.getoption("--sifline-runtime"):
        config.pluginmanager.register(_Whole())
        config.pluginmanager.register(_Told(json.loads(config.getoption("--sifline-skip"))))
        # By itself it would end the process at once, and leave the container.
        signal.signal(signal.SIGTERM, _interrupt)
        if parent := config.getoption("--sifline-parent"):
            _end_with(parent)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _end_with(parent: int) -> None:
    """Interrupt this run when the process ``parent``, which started it, is killed.

    Where Python is a wrapper that forks, that one's end counts: it tells of no other.
    """
    import ctypes

    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if parent not in _ancestors():
        raise KeyboardInterrupt  # it was killed before


def _ancestors() -> Iterator[int]:
    """Yield the process ids of the parent, its parent and so on."""
    pid = os.getppid()
    with suppress(OSError):  # gone, or hidden: those of other users may be
        while pid:
            yield pid
            pid = process_table.parent(pid)


def run_file(
    container: Container,
    source: str,
    argv: Sequence[str],
    *,
    name: str,
    env: Mapping[str, str] | None = None,
) -> Ran:
    """Write ``source`` to the file ``name`` in the container and run ``argv name`` there.

    In a folder of its own, which is gone afterwards: all tests of a run share Docker's container.
    """
    script = (
        'folder="$(mktemp -d)" && cd "$folder" && printf "%s" "$1" > "$2" || exit 125\n'
        'name="$2"; shift 2; "$@" "$name"; status=$?; cd / && rm -r "$folder"; exit $status'
    )
    return container.run(["sh", "-c", script, "sh", source, name, *argv], env=env)


def run_as_root(container: Container, argv: Sequence[str]) -> Ran:
    """Run ``argv`` as root in a Docker image; in a SIF as the caller, root or not."""
    return container.run(argv, user="0" if container.runtime == "docker" else None)


@pytest.fixture(scope="session")
def gpus(request: pytest.FixtureRequest, container: Container) -> int:
    """The number of NVIDIA GPUs in the container; a test that asks is skipped where it is 0.

    Where the run demands a GPU, the test fails instead.
    """
    if not container.gpus and request.config.getoption("--sifline-gpu"):
        pytest.fail(f"--gpu demands a GPU: {container.no_gpus}", pytrace=False)
    if not container.gpus:
        pytest.skip(container.no_gpus)
    return container.gpus


def host_gpus() -> tuple[int, str]:
    """Return how many NVIDIA GPUs this host has a driver for, and why where there are none."""
    from sifline.machine.gpus import here

    found = here()
    return found, "" if found else "this host has no NVIDIA GPU (no /dev/nvidia0)"


def engine_gpus(image: str, labels: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Return how many GPUs the Docker engine gives a container, all or none, and why if none.

    A container of ``image`` is started to find out.

    :param labels: of that container.
    """
    found, why = host_gpus()
    if not found:
        return 0, why
    import docker
    from docker.errors import APIError

    client = docker.from_env()
    try:
        client.containers.run(
            image,
            ["0"],
            entrypoint=["sleep"],
            auto_remove=True,
            detach=True,
            device_requests=_all_gpus(),
            labels={LABEL_TEST: image, **(labels or {})},
        )
    except APIError as error:
        return 0, f"the engine cannot hand in GPUs: {error.explanation}"
    finally:
        client.close()
    return found, ""


def by_each_user(metafunc: pytest.Metafunc) -> None:
    """Run tests of a SIF once more as an ordinary user, if the caller is root."""
    sif = metafunc.config.getoption("--sifline-runtime") == "apptainer"
    if sif and os.getuid() == 0 and "container" in metafunc.fixturenames:
        users = {"root": None, "user": ORDINARY_USER}
        metafunc.parametrize(
            "container", list(users.values()), ids=list(users), indirect=True, scope="session"
        )


@pytest.fixture(scope="session")
def container(request: pytest.FixtureRequest) -> Iterator[Container]:
    """The image under test; see ``by_each_user``."""
    config = request.config
    user = getattr(request, "param", None)
    runtime = config.getoption("--sifline-runtime")
    name = config.getoption("--sifline-image") or ""
    label = config.getoption("--sifline-label") or f"{LABEL_TEST}={name}"
    if runtime == "docker":
        with _docker(name, config.getoption("--sifline-ref"), label) as made:
            yield made
    elif runtime == "apptainer":
        with _sif(name, Path(config.getoption("--sifline-sif")), label, user) as opened:
            yield opened
    else:
        raise pytest.UsageError("image tests need --sifline-runtime; run invoke test.NAME")


@pytest.fixture(scope="session")
def private_certificates() -> frozenset[str]:
    """What the build host trusts beyond its distribution, such as a proxy's certificate.

    Build steps are handed these as a secret; finding one in an image means that it leaked.
    """
    bundle = bundle_of_host(os.environ)
    known = [path.read_text(errors="replace") for path in DISTRIBUTION_CERTIFICATES.rglob("*.crt")]
    if not bundle or not known:
        pytest.skip("the certificates of this host's distribution cannot be told from its own")
    private = read_certificates(bundle.read_text(errors="replace")) - read_certificates(
        "\n".join(known)
    )
    if not private:
        pytest.skip("this host trusts no certificate beyond those of its distribution")
    return private


def certificates(container: Container, *folders: str) -> frozenset[str]:
    """Return every certificate in any file below ``folders`` of the image."""
    found = run_as_root(container, ["sh", "-c", _CERTIFICATES, _BEGIN, *folders])
    return read_certificates(found.stdout)


def read_certificates(text: str) -> frozenset[str]:
    """Return the certificates in ``text``: their base64 without its line breaks."""
    return frozenset("".join(body.split()) for body in _PEM.findall(text))


def _all_gpus() -> list[DeviceRequest]:
    from docker.types import DeviceRequest

    return [DeviceRequest(count=-1, capabilities=[["gpu"]])]


@contextmanager
def _docker(name: str, image: str, label: str) -> Iterator[Container]:
    """Start a container that sleeps, read-only as a SIF is; its image needs a ``sleep``."""
    from docker.errors import APIError
    from docker.types import Mount
    from testcontainers.core.container import DockerContainer

    from sifline.machine.process import ProcessRunner

    key, _, value = label.partition("=")
    labels = {LABEL_TEST: name, key: value}
    with undisturbed():
        gpus, no_gpus = engine_gpus(image, labels)
    sleeper = DockerContainer(
        image,
        command=str(LIFETIME),
        entrypoint=["sleep"],
        auto_remove=True,
        device_requests=_all_gpus() if gpus else [],
        init=False,
        labels=labels,
        # An anonymous volume starts with what the image holds there; a tmpfs would hide it.
        mounts=[Mount("/tmp", None)],  # noqa: S108
        read_only=True,
    )
    try:
        try:
            with undisturbed():
                sleeper.start()
        except APIError as error:
            pytest.fail(f"{name}: no container can be started of {image}: {error.explanation}")
        kept = str(sleeper.get_wrapped_container().id)
        yield _DockerContainer(name, ProcessRunner(), kept, gpus, no_gpus)
    finally:
        # The engine removes it, too: whoever comes second has nothing to do.
        with suppress(APIError):
            sleeper.stop()


class _DockerContainer:
    """An image in the Docker engine."""

    runtime = "docker"
    kept = True

    def __init__(self, name: str, runner: Runner, kept: str, gpus: int, no_gpus: str) -> None:
        self.name, self.gpus, self.no_gpus = name, gpus, no_gpus
        self._runner, self._id = runner, kept

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> Ran:
        """Run ``argv``; a command that does not exist ends with 126 or 127."""
        # Not by ``exec_run``: it loses what the engine sends together with the answer's header,
        # https://github.com/docker/docker-py/issues/3332
        variables = [word for item in (env or {}).items() for word in ("--env", "=".join(item))]
        options = [
            *variables,
            *(["--user", user] if user else []),
            *(["--workdir", workdir] if workdir else []),
        ]
        result = self._runner.run(["docker", "exec", *options, self._id, *argv], check=False)
        return _ran(argv, result)


@contextmanager
def _sif(
    name: str, path: Path, label: str, user: tuple[int, int] | None = None
) -> Iterator[Container]:
    """Open the SIF, as the caller or as ``user``."""
    from sifline.engines.apptainer.program import Apptainer
    from sifline.engines.apptainer.sif import Sifs
    from sifline.engines.apptainer.toolbox import TOOLBOX
    from sifline.formats import sif as siffile
    from sifline.machine.process import ProcessRunner

    apptainer = Apptainer(ProcessRunner(), user=user)
    if user and apptainer.native:
        pytest.skip(f"root's own {apptainer.native} opens no SIF as another user")
    with ExitStack() as open_:
        with undisturbed():
            gpus, no_gpus = host_gpus() if apptainer.native else engine_gpus(TOOLBOX)
            strict = siffile.system(siffile.read(path)).offset if user else None
            opened = Sifs(apptainer).opened(path, label=label, gpus=gpus > 0, strict=strict)
            run = open_.enter_context(opened)
        workdir = siffile.workdir(siffile.read(path))
        yield _SifContainer(name, run, workdir, gpus, no_gpus, kept=not apptainer.native)


class _SifContainer:
    """A SIF; commands run as the caller, in WORKDIR as Docker's."""

    runtime = "apptainer"

    def __init__(
        self, name: str, run: Run, workdir: str, gpus: int, no_gpus: str, *, kept: bool
    ) -> None:
        self.name, self.gpus, self.no_gpus, self.kept = name, gpus, no_gpus, kept
        self._run, self._workdir = run, workdir

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
        return _ran(argv, self._run(argv, env=env, workdir=workdir or self._workdir))


def _ran(argv: Sequence[str], result: Result) -> Ran:
    return Ran(
        argv=tuple(argv),
        returncode=result.returncode,
        stdout=result.stdout,
        stderr=result.stderr,
    )
