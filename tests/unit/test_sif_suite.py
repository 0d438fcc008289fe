"""The tests that every SIF has to pass fail where a container lies; on a real one they pass."""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sifline import suites
from sifline.imagetests import Ran
from sifline.sif import Kind, SifFile, read
from tests.support.sif_files import write

SUITE = runpy.run_path(str(Path(suites.__file__).parent / "sif" / "test_sif.py"))
FILE = SifFile(
    path=Path("/s/x.sif"),
    version="01",
    architecture="s390x",
    id="",
    created=0,
    size=9,
    objects=(),
)


class Liar:
    """A container in which every command ends so, whatever it is."""

    name, runtime, gpus = "x", "apptainer", 0

    def __init__(self, returncode: int = 0, stdout: str = "", stderr: str = "") -> None:
        self._answer = (returncode, stdout, stderr)

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> Ran:
        code, out, err = self._answer
        return Ran(argv=tuple(argv), returncode=code, stdout=out, stderr=err)


@pytest.mark.parametrize(
    ("test", "answer", "more"),
    [
        ("test_a_commands_status_comes_back", Liar(), {}),
        ("test_both_outputs_come_back_apart", Liar(stdout="out\nerr\n"), {}),
        ("test_arguments_arrive_as_they_are", Liar(stdout="a\nb\n"), {}),
        ("test_a_command_that_is_not_there_fails", Liar(), {}),
        ("test_nobody_can_write_to_its_system", Liar(), {}),
        ("test_nobody_can_write_to_its_system", Liar(1, stderr="Permission denied"), {}),
        ("test_temporary_files_can_be_written", Liar(2, stderr="Read-only file system"), {}),
        ("test_processes_and_devices_are_there", Liar(1), {}),
        (
            "test_the_images_variables_are_set",
            Liar(stdout="other\0"),
            {"config": {"Env": ["GREETING=hello"]}},
        ),
        ("test_it_knows_that_it_runs_in_apptainer", Liar(stdout="\n"), {"file": FILE}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_lie_is_noticed(test: str, answer: Liar, more: dict[str, Any]) -> None:
    wanted = "container" if test == "test_a_command_that_is_not_there_fails" else "shell"
    with pytest.raises(AssertionError):
        SUITE[test](**{wanted: answer}, **more)


@pytest.mark.parametrize("where", ["home", "PYTHONPATH"])
def test_modules_of_the_callers_are_noticed(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"home": Path.home() / "x", "PYTHONPATH": tmp_path}[where]
    answer = Liar(stdout=json.dumps([[str(folder)], 2**100]))
    with pytest.raises(AssertionError):
        SUITE["test_python_finds_its_own_modules_alone"](answer, monkeypatch, tmp_path)


def test_another_place_to_start_in_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.sif", [(int(Kind.PARTITION), "", b"hsqs")])
    with pytest.raises(AssertionError):
        SUITE["test_where_the_image_starts_is_there"](Liar(stdout="/work\n/\n"), read(path))


def test_a_sif_for_another_machine_is_noticed() -> None:
    with pytest.raises(AssertionError):
        SUITE["test_it_is_for_the_machines_of_this_architecture"](FILE)


def test_the_variables_that_apptainer_makes_its_own_are_no_lie() -> None:
    config = {"Env": ["LD_LIBRARY_PATH=/cuda/lib", "HOME=/root", "A=b=c"]}
    answer = Liar(stdout="/cuda/lib:/.singularity.d/libs\0/home/alice\0b=c\0")
    SUITE["test_the_images_variables_are_set"](answer, config)
