"""What the suite for every SIF asks in a container, asked of a shell here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sifline.formats import sif
from sifline.imagetests.suites.sif.test_sif import RUNNABLE
from sifline.imagetests.suites.sif.test_sif import (
    test_it_says_where_it_came_from as says_where_it_came_from,
)
from tests.support.sif_files import SQUASHFS, labels_object, write


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a program, a file that is none, and a folder."""
    for name, mode in (("program", 0o755), ("text", 0o644)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("program", True),
        ("./program", True),
        # A shell has it built in, and it is a program as well; the next is the shell's alone.
        ("echo", True),
        ("eval", False),
        ("text", False),
        ("./text", False),
        ("folder", False),
        ("missing", False),
        ("/no/such", False),
    ],
)
def test_a_command_can_be_run_where_execvp_finds_it(
    runs: Path, word: str, *, expected: bool
) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", RUNNABLE, "sh", word],
        cwd=runs,
        env={"PATH": f"/no/such:{runs}:/usr/bin:/bin"},
        check=False,
    )
    assert (done.returncode == 0) == expected


@pytest.mark.parametrize(
    ("labels", "sound"),
    [
        ({"name": "x", "image-digest": "d"}, True),
        ({"name": "y", "image-digest": "d"}, False),
        ({"name": "y", "source": "docker-daemon:y:1"}, True),
        ({"source": "docker-daemon:y:1"}, False),
        ({"name": "x"}, False),
    ],
    ids=["an image", "a renamed image", "a copy of another source", "no name", "no origin"],
)
def test_the_name_of_a_sif_is_that_of_its_image(
    tmp_path: Path, labels: dict[str, str], *, sound: bool
) -> None:
    held = {f"org.sifline.{key}": value for key, value in labels.items()}
    file = sif.read(write(tmp_path / "x.sif", [labels_object(held), SQUASHFS]))
    if sound:
        says_where_it_came_from(file)
        return
    with pytest.raises(AssertionError):
        says_where_it_came_from(file)
