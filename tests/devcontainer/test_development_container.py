"""The development container: what its user may do in it, and what works there.

It is built from an image of this repository, as at a site without a hub, and works on a clone of
this checkout. The images that ``invoke make`` builds there are the engine's, as those of any
checkout, and stay.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import devcontainer
from tests.support.devcontainer import SOCKET, Development, development
from tests.support.engine import docker, need_image
from tests.support.waiting import PATIENCE, until

# One place for each user: what a killed run left there, the next one removes. Not below root's
# home, which the container has too, and closed to others.
PLACE = Path(f"/var/tmp/sifline-devcontainer-{os.getuid()}")
# Making an environment, and the unit tests, on a busy machine.
LONG = 2400
ONCE = ["--rm", "--pull=never"]


@pytest.fixture(scope="module")
def container() -> Iterator[Development]:
    need_image(devcontainer.BASE)
    with development(PLACE) as started:
        yield started


@pytest.fixture(scope="module")
def prepared(container: Development) -> Development:
    """The container after the command that editors run when they have created it."""
    done = container.run(container.settings.post_create, seconds=LONG)
    assert done.returncode == 0, done.stdout
    return container


def inspect(name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(docker("inspect", name).stdout)
    return found[0]


# Who works in it, with which rights


def test_commands_run_as_an_ordinary_user_of_the_socket_s_group(container: Development) -> None:
    done = container.run("id -u; id -G; id -un; grep CapEff /proc/self/status")

    uid, groups, name, capabilities = done.stdout.splitlines()
    assert (int(uid), name) == (container.uid, "developer")
    assert str(Path(SOCKET).stat().st_gid) in groups.split()
    assert int(capabilities.split()[1], 16) == 0


def test_its_user_speaks_to_the_engine_of_the_host(container: Development) -> None:
    done = container.run("docker info --format {{.ID}} && docker buildx version")

    ours = docker("info", "--format", "{{.ID}}").stdout
    assert (done.returncode, done.stdout.startswith(ours)) == (0, True), done.stdout


def test_a_user_outside_of_the_group_gets_no_answer(container: Development) -> None:
    done = container.run("docker version", user="nobody")

    assert done.returncode == 1
    assert "permission denied" in done.stdout


def test_the_user_becomes_root_by_no_program(container: Development) -> None:
    done = container.run("command -v sudo pkexec doas")

    assert (done.returncode, done.stdout) == (1, "")


def test_nothing_is_mounted_but_the_clone_the_socket_and_the_site_s_settings(
    container: Development,
) -> None:
    clone = str(container.workspace)
    mounts = {item["Destination"]: item for item in inspect(container.name)["Mounts"]}

    assert mounts.keys() - {"/etc/pip.conf", devcontainer.CA_BUNDLE} == {clone, SOCKET}
    assert mounts[clone]["Source"] == clone
    assert [name for name, item in mounts.items() if item["RW"]] == [clone, SOCKET]


def test_it_is_not_privileged_and_has_no_further_capability(container: Development) -> None:
    host = inspect(container.name)["HostConfig"]

    assert (host["Privileged"], host["CapAdd"] or []) == (False, [])


def test_files_written_in_it_belong_to_its_user_on_the_host(container: Development) -> None:
    container.run("touch written")

    assert (container.workspace / "written").stat().st_uid == container.uid
    (container.workspace / "written").unlink()


def test_no_source_and_no_certificate_of_the_build_stays_in_the_image(
    container: Development,
) -> None:
    find = "find /run/secrets /etc/apt/preferences.d /etc/apt/sources.list.d -type f"
    ours = "cat /etc/ssl/certs/ca-certificates.crt"
    left, trusted = (
        docker("run", *ONCE, "--entrypoint=sh", container.image, "-c", script).stdout
        for script in (find, ours)
    )

    assert left == ""
    packaged = "update-ca-certificates >&2; cat /etc/ssl/certs/ca-certificates.crt"
    again = docker("run", *ONCE, "--entrypoint=sh", container.image, "-c", packaged).stdout
    assert trusted == again


# The rights are the least that do


USES = {
    "seccomp": "unshare --user true",
    "systempaths": "unshare --user --map-root-user --pid --fork --mount-proc true",
}


@pytest.mark.parametrize("right", USES)
def test_without_a_right_what_it_is_for_fails(container: Development, right: str) -> None:
    options = container.settings.run_options()
    less = [option for option in options if f"={right}=" not in option]
    assert len(less) == len(options) - 1
    name = devcontainer.start(PLACE, container.image, less)

    done = docker("exec", "--user=developer", name, "sh", "-c", USES[right], check=False)

    docker("rm", "--force", name)
    assert "Operation not permitted" in done.stderr or "Too revealing" in done.stderr, done
    assert container.run(USES[right]).returncode == 0


@pytest.mark.parametrize("needed", [SOCKET, "/dev/fuse"])
def test_without_socket_or_device_it_says_what_to_start_it_with(
    container: Development, needed: str
) -> None:
    options = [option for option in container.settings.run_options() if needed not in option]

    done = docker("run", *ONCE, *options, container.image, check=False)

    assert done.returncode == 3
    assert done.stderr.startswith("entrypoint: there is no ")
    assert needed in done.stderr


def test_nodes_in_networks_of_their_own_are_reached_over_the_host_s_network(
    container: Development,
) -> None:
    network = f"sifline-devcontainer-test-{os.getpid()}"
    label = devcontainer.label_of(PLACE)
    docker("network", "create", "--label", label, network)
    serve = ("--entrypoint=python3", container.image, "-m", "http.server", "8000")
    try:
        node = docker("run", *ONCE, "--detach", "--label", label, "--network", network, *serve)
        found = inspect(node.stdout.strip())["NetworkSettings"]["Networks"]
        address = found[network]["IPAddress"]
        ask = f"import socket; socket.create_connection(({address!r}, 8000), 5)"
        until(lambda: container.run(f'python3 -c "{ask}"').returncode == 0, "an answer")
        bridge = ("--network=bridge", "--entrypoint=python3", container.image, "-c", ask)
        assert docker("run", *ONCE, *bridge, check=False).returncode == 1
    finally:
        docker("rm", "--force", node.stdout.strip())
        docker("network", "rm", network)


def test_its_user_has_subordinate_ids_as_mmdebstrap_needs_them(container: Development) -> None:
    tried = "unshare --map-auto --map-root-user --mount --pid --fork --mount-proc"

    done = container.run(f"{tried} sh -c 'touch /tmp/x && chown 1:1 /tmp/x && stat -c %u /tmp/x'")

    assert done.stdout == "1\n"


# What works there


@pytest.mark.long
def test_bootstrap_finds_nothing_missing_and_makes_the_environment(prepared: Development) -> None:
    done = prepared.run("scripts/bootstrap --no-install nox --version")

    assert done.returncode == 0, done.stdout
    assert "missing" not in done.stdout


def test_an_image_is_made_and_its_sif_runs(prepared: Development) -> None:
    made = prepared.run("scripts/bootstrap --no-install invoke make.hello-mpi", seconds=LONG)
    assert made.returncode == 0, made.stdout
    sif = prepared.workspace / "build" / "sif" / "hello-mpi.sif"
    assert sif.stat().st_uid == prepared.uid

    done = prepared.run("apptainer exec --containall build/sif/hello-mpi.sif cat /etc/os-release")

    assert (done.returncode, "VERSION_CODENAME=bookworm" in done.stdout) == (0, True), done.stdout


def test_the_sessions_of_code_pass(prepared: Development) -> None:
    done = prepared.run("scripts/bootstrap --no-install nox -s lint tests", seconds=LONG)

    assert done.returncode == 0, done.stdout[-8000:]


# Nothing of it stays


HOLD = """
import sys, time
from pathlib import Path
from tests.support.devcontainer import development
with development(Path(sys.argv[1])):
    print("it runs", flush=True)
    time.sleep(600)
"""


def left(place: Path) -> list[str]:
    """Return what is there of a container that was started for ``place``."""
    label = f"label={devcontainer.label_of(place)}"
    containers = docker("ps", "--all", "--quiet", "--filter", label).stdout.split()
    image = docker("image", "ls", "--quiet", devcontainer.image_of(place)).stdout.split()
    return [*containers, *image, *(["the folder"] if place.exists() else [])]


def interrupted(place: Path, number: int) -> None:
    """Start a container in a process of its own, and signal that when it runs."""
    path = os.pathsep.join([str(devcontainer.ROOT), str(devcontainer.ROOT / "scripts")])
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "it runs\n"
        assert len(left(place)) == 3
        process.send_signal(number)
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def place() -> Iterator[Path]:
    found = PLACE.with_name(f"{PLACE.name}-{os.getpid()}")
    yield found
    devcontainer.remove(found)
    found.with_suffix(".lock").unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_by_a_run_that_is_interrupted(place: Path, number: int) -> None:
    interrupted(place, number)

    assert left(place) == []


def test_what_a_killed_run_left_is_removed_by_the_next(place: Path) -> None:
    interrupted(place, signal.SIGKILL)
    before = left(place)

    with development(place) as now:
        after = left(place)

    assert len(before) == len(after) == 3
    assert before[0] not in after
    assert now.name.startswith(after[0])
    assert left(place) == []
