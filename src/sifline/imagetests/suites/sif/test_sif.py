"""Tests that every SIF passes: it is whole, read-only, labelled, and behaves like its image."""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

import pytest

from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.formats import sif as siffile
from sifline.formats.platforms import MACHINES
from sifline.imagetests import Container, by_each_user
from sifline.machine.process import ProcessRunner

MOST = 1.1
# What every SIF has besides, however small its image is; in bytes.
OWN = 1 << 20
HOST_LIBRARIES = ":/.singularity.d/libs"
# As execvp(3) looks for it: what a shell has built in is no program.
RUNNABLE = """
case $1 in */*) test -f "$1" && test -x "$1"; exit;; esac
IFS=:
for folder in $PATH; do
    if test -f "$folder/$1" && test -x "$folder/$1"; then exit 0; fi
done
exit 1
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    by_each_user(metafunc)


@pytest.fixture(scope="module")
def file(request: pytest.FixtureRequest) -> siffile.SifFile:
    return siffile.read(Path(request.config.getoption("--sifline-sif")))


@pytest.fixture(scope="module")
def config(file: siffile.SifFile) -> dict[str, Any]:
    """The image's configuration; a SIF that Apptainer made by a definition file has none."""
    found = siffile.configuration(file)
    if found is None:
        pytest.skip("the SIF holds no image's configuration: a definition file made it")
    return found


@pytest.fixture(scope="module")
def shell(container: Container) -> Container:
    """The SIF; tests that need a shell in it are skipped where it has none."""
    ran = container.run(["/bin/sh", "-c", "exit 0"])
    if re.search(r"/bin/sh\b.*no such file", ran.stderr):
        pytest.skip("the image has no /bin/sh")
    assert ran.returncode == 0, ran.stderr
    return container


# Format and inspection


def test_it_is_for_the_machines_of_this_architecture(file: siffile.SifFile) -> None:
    machine = MACHINES.get(platform.machine(), platform.machine())
    assert file.architecture == machine.partition("/")[0]


def test_apptainer_lists_a_file_system_in_it(file: siffile.SifFile) -> None:
    listed = Sifs(Apptainer(ProcessRunner())).list_objects(file.path)
    assert "FS (Squashfs/*System/" in listed


def test_it_says_where_it_came_from(file: siffile.SifFile) -> None:
    told = siffile.labels(file)
    # The SIF of another source is named by that; its copies (--output) as their user likes.
    name = told.get("org.sifline.name")
    assert name
    assert name == file.path.stem or "org.sifline.source" in told
    # An image of ours, or else a registry, an archive or a definition file.
    marks = ("org.sifline.image-digest", "org.sifline.source", "org.sifline.image-id")
    assert any(map(told.get, marks))  # the last one is of SIFs made before there were digests


def test_apptainer_tells_the_labels_of_the_image(
    file: siffile.SifFile, config: dict[str, Any]
) -> None:
    inspected = Sifs(Apptainer(ProcessRunner())).inspect(file.path)["labels"]
    own = config.get("Labels") or {}
    assert {name: inspected.get(name) for name in own} == own


# Execution


def test_a_commands_status_comes_back(shell: Container) -> None:
    assert [shell.run(["/bin/sh", "-c", f"exit {code}"]).returncode for code in (0, 7)] == [0, 7]


def test_both_outputs_come_back_apart(shell: Container) -> None:
    ran = shell.run(["/bin/sh", "-c", "echo out; echo err >&2"])
    assert (ran.stdout, ran.stderr.splitlines()[-1:]) == ("out\n", ["err"])


def test_arguments_arrive_as_they_are(shell: Container) -> None:
    words = ["a b", "$HOME", "*", "", "quote'd", "-x"]
    ran = shell.run(["/bin/sh", "-c", 'printf "%s\\n" "$@"', "sh", *words])
    assert ran.stdout.split("\n")[:-1] == words


def test_a_command_that_is_not_there_fails(container: Container) -> None:
    assert container.run(["/no/such/command"]).returncode != 0


def test_where_the_image_starts_is_there(shell: Container, file: siffile.SifFile) -> None:
    ran = shell.run(
        [
            "/bin/sh",
            "-c",
            'cd "$1" && pwd -P && cd - > /dev/null && pwd -P',
            "sh",
            siffile.workdir(file),
        ]
    )
    there, *here = ran.stdout.splitlines()
    assert here == [there], ran.stderr


def test_what_it_starts_with_can_be_run(shell: Container, config: dict[str, Any]) -> None:
    words = config.get("Entrypoint") or config.get("Cmd")
    if not words:
        pytest.skip("the image starts nothing of its own")
    ran = shell.run(["/bin/sh", "-c", RUNNABLE, "sh", words[0]])
    assert ran.returncode == 0, f"{words[0]} is not there, or not for this user: {ran.stderr}"


# File system


def test_nobody_can_write_to_its_system(shell: Container) -> None:
    ran = shell.run(["/bin/sh", "-c", "echo > /here"])
    assert ran.returncode != 0
    assert "Read-only file system" in ran.stderr


def test_temporary_files_can_be_written(shell: Container) -> None:
    script = 'file="/tmp/sifline.$$"; echo here > "$file" && read -r got < "$file"; echo "$got"'
    ran = shell.run(["/bin/sh", "-c", f'{script}; rm -f "$file"'])
    assert ran.stdout == "here\n", ran.stderr


def test_processes_and_devices_are_there(shell: Container) -> None:
    script = 'read -r name < /proc/self/comm && echo "$name" > /dev/null && test -c /dev/urandom'
    assert shell.run(["/bin/sh", "-c", script]).returncode == 0


# Environment


def test_the_images_variables_are_set(shell: Container, config: dict[str, Any]) -> None:
    wanted = dict(line.split("=", 1) for line in config.get("Env") or ())
    script = 'for name in "$@"; do eval "printf \'%s\\0\' \\"\\$$name\\""; done'
    ran = shell.run(["/bin/sh", "-c", script, "sh", *wanted])
    found = dict(zip(wanted, ran.stdout.split("\0")[:-1], strict=True))
    # Apptainer's own: the caller's home, and a folder for libraries of the host.
    for ours in (found, wanted):
        ours.pop("HOME", None)
    if "LD_LIBRARY_PATH" in found:
        found["LD_LIBRARY_PATH"] = found["LD_LIBRARY_PATH"].removesuffix(HOST_LIBRARIES)
    assert found == wanted


def test_it_knows_that_it_runs_in_apptainer(shell: Container, file: siffile.SifFile) -> None:
    ran = shell.run(["/bin/sh", "-c", 'echo "${APPTAINER_CONTAINER:-${SINGULARITY_CONTAINER}}"'])
    assert Path(ran.stdout.strip()).name == file.path.name


# Python


def test_python_finds_its_own_modules_alone(
    shell: Container, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not those that the caller's PYTHONPATH names, nor those in the caller's home."""
    if shell.run(["/bin/sh", "-c", "command -v python3"]).returncode:
        pytest.skip("the image has no python3")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    source = "import json, os, sys; print(json.dumps([sys.path, 2**100]))"
    ran = shell.run(["python3", "-c", source])
    assert ran.returncode == 0, ran.stderr
    assert str(2**100) in ran.stdout
    assert f'"{Path.home()}/' not in ran.stdout
    assert str(tmp_path) not in ran.stdout


# Size


def test_it_keeps_to_its_budget(request: pytest.FixtureRequest, file: siffile.SifFile) -> None:
    budget = request.config.getoption("--sifline-budget")
    if not budget:
        pytest.skip("image.toml sets no size-budget, or only warns about a larger SIF")
    assert file.size <= budget


@pytest.mark.style
def test_it_is_hardly_larger_than_its_image(
    request: pytest.FixtureRequest, file: siffile.SifFile
) -> None:
    size = request.config.getoption("--sifline-image-size")
    if not size:
        pytest.skip("the size of its image is known only if that is one of images/")
    assert file.size <= size * MOST + OWN
