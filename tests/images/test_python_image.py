"""The Python image as a person starts it: its entrypoint, and its ordinary user."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engine import docker, need_image

IMAGE = "sifline/python-mpi4.1"

pytestmark = pytest.mark.spread


@pytest.fixture(autouse=True, scope="module")
def _image() -> None:
    need_image(IMAGE)


def run(*words: str, options: tuple[str, ...] = ()) -> list[str]:
    """Run ``words`` as the image starts them; return the lines they print."""
    argv = ["run", "--rm", "--pull=never", "--network=none", *options, IMAGE]
    return docker(*argv, *words).stdout.splitlines()


def test_a_user_that_it_does_not_know_has_a_name_and_a_home() -> None:
    source = (
        "import getpass, os; open(os.path.expanduser('~/x'), 'w');"
        " print(getpass.getuser(), os.environ['HOME'])"
    )
    options = ("--user=12345:23456", "--read-only", "--tmpfs=/tmp")
    assert run("python3", "-c", source, options=options) == ["uid12345 /tmp/home-12345"]


def test_its_own_user_can_write_to_its_home_and_where_it_starts() -> None:
    assert run("sh", "-c", "touch ~/x x && stat --format=%U,%n ~/x x; pwd") == [
        "user,/home/user/x",
        "user,x",
        "/workspace",
    ]


def test_what_is_made_in_a_folder_of_the_host_is_the_callers(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    run("touch", "made", options=("--user=12345:23456", f"--volume={tmp_path}:/workspace"))
    made = (tmp_path / "made").stat()
    assert (made.st_uid, made.st_gid) == (12345, 23456)
