"""Bootstrap on a machine with nothing but git and Python: a container of a base image."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

ROOT = Path(__file__).resolve().parents[2]
SOCKET = "/var/run/docker.sock"
CA_BUNDLE = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")
CHECKOUT = "/root/my checkout"
# Where this machine's packages come from, if it says so in its environment.
PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")

# Its helper that removes containers comes from a hub, and the ``with`` block removes ours.
testcontainers_config.ryuk_disabled = True


class CleanMachine:
    """A container in which commands are run in the checkout."""

    def __init__(self, container: DockerContainer) -> None:
        self._container = container

    def run(self, script: str) -> tuple[int, str]:
        """Run a shell script in the checkout; return its status and what it printed."""
        name = str(self._container.get_wrapped_container().id)
        argv = ["bash", "-c", f"cd {CHECKOUT!r} && {{ {script}; }} 2>&1"]
        done = subprocess.run(["docker", "exec", name, *argv], capture_output=True, check=False)
        return done.returncode, done.stdout.decode(errors="replace")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(suite, marks=[pytest.mark.xdist_group(f"a clean {suite}"), pytest.mark.long])
        for suite in ("bookworm", "trixie")
    ],
)
def machine(request: pytest.FixtureRequest) -> Iterator[CleanMachine]:
    """A clean machine of a suite, the checkout in a folder with a space in its name."""
    container = DockerContainer(f"sifline/debian-{request.param}:latest")
    container.with_command("sleep infinity").with_kwargs(
        init=True, labels={"sifline.test": "clean-machine"}
    )
    container.with_volume_mapping(SOCKET, SOCKET, "rw").with_volume_mapping(ROOT, "/src", "ro")
    if CA_BUNDLE.is_file():
        container.with_volume_mapping(CA_BUNDLE, "/ca.crt", "ro")
        container.with_env("SSL_CERT_FILE", "/ca.crt").with_env("PIP_CERT", "/ca.crt")
    for name in PASSED_ON:
        if name in os.environ:
            container.with_env(name, os.environ[name])
    with container:
        started = CleanMachine(container)
        copy_checkout(container)
        status, said = started.run(
            "apt-get update -q && apt-get install -q -y --no-install-recommends git python3"
        )
        assert status == 0, said
        yield started


def copy_checkout(container: DockerContainer) -> None:
    """Copy what git holds or would hold, and nothing that was built on this machine."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    names = b"\0".join(
        name for name in listed.split(b"\0") if (ROOT / os.fsdecode(name)).is_file()
    )
    wrapped = container.get_wrapped_container()
    packed = subprocess.run(
        ["tar", "--create", "--null", "--files-from=-"],
        cwd=ROOT,
        input=names,
        capture_output=True,
        check=True,
    ).stdout
    wrapped.exec_run(["mkdir", CHECKOUT])
    assert wrapped.put_archive(CHECKOUT, packed)


def test_first_nothing_is_there_and_nothing_is_installed_unasked(machine: CleanMachine) -> None:
    status, said = machine.run("scripts/bootstrap --no-install true")

    assert status == 3
    for package in ("docker-buildx", "mmdebstrap", "rsync", "openssh-client", "python3-venv"):
        assert package in said


def test_then_bootstrap_installs_what_is_missing_and_runs_the_command(
    machine: CleanMachine,
) -> None:
    command = "docker version --format 'engine {{.Server.Version}}' && invoke --version; exit 7"

    status, said = machine.run(f'scripts/bootstrap sh -c "docker buildx version && {command}"')

    assert status == 7, said
    assert "rsync: copies images to the nodes" in said
    assert "engine " in said
    assert "Invoke " in said


def test_it_leaves_no_source_or_pin_of_another_suite_behind(machine: CleanMachine) -> None:
    suite = machine.run(". /etc/os-release; printf %s $VERSION_CODENAME")[1]
    sources = "grep -rhoE '^(deb|Suites:) .*' /etc/apt/sources.list*"
    left = machine.run(f"{sources} | grep -v {suite}; find /etc/apt/preferences.d -type f")[1]

    assert left == ""


def test_the_second_run_is_silent_and_does_little(machine: CleanMachine) -> None:
    # How long it takes depends on what else runs here; how much of a processor, hardly.
    timed = "TIMEFORMAT='%U %S'; time timeout 60 scripts/bootstrap --no-install true"

    status, said = machine.run(timed)

    (line,) = said.splitlines()
    assert (status, sum(map(float, line.split())) < 1) == (0, True), said
