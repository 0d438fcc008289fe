"""Which files of a SIF only root can read or run, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.engines.apptainer.program import Apptainer
from sifline.model import BuiltImage, Image, SifOptions
from sifline.stages.convert import access
from sifline.stages.convert.work import ImageWork
from tests.support import sif_files
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer


def listing(*entries: str) -> access.Closed:
    """Read ``MODE PATH`` as unsquashfs lists them; of a link with its target."""
    lines = [
        "Parallel unsquashfs: Using 2 processors",
        "drwxr-xr-x 0/0 9 2026-01-01 00:00 squashfs-root",
    ]
    for entry in entries:
        mode, path = entry.split(" ", 1)
        size = len(path.partition(" -> ")[2])
        lines.append(f"{mode} 1000/0  {size} 2026-01-01 00:00 squashfs-root{path}")
    return access.read(lines)


@pytest.mark.parametrize(
    ("mode", "closed"),
    [
        ("-rwxr-xr-x", False),
        ("-rw-r--r--", False),
        ("-rwx--x--x", False),  # a program; only a script has to be read
        ("-rwxr-x--t", False),
        ("-rw-------", True),
        ("-rw-r-----", True),
        ("-rwx------", True),
        ("-rwxr--r--", True),
        ("-rwsr-xr--", True),
    ],
)
def test_a_files_mode_decides_whether_users_can_use_it(mode: str, closed: bool) -> None:
    assert listing(f"{mode} /opt/x").files == (["/opt/x"] if closed else [])


def test_a_closed_folder_closes_all_that_is_below_it() -> None:
    found = listing(
        "drwx------ /opt/app",
        "drwxr-xr-x /opt/app/sub",
        "-rw-r--r-- /opt/app/sub/main.py",
        "-rw-r--r-- /opt/application",
        "drwx--x--x /opt/open",
        "-rw-r--r-- /opt/open/known",
    )
    assert found.files == ["/opt/app/sub/main.py"]


def test_what_distributions_close_is_not_told() -> None:
    found = listing(
        "-rw-r----- /etc/shadow",
        "drwx------ /root",
        "-rw-r--r-- /root/.bashrc",
        "-rwxr-xr-x /root/conda/bin/python",
        "drwx------ /var/cache/apt/archives/partial",
    )
    assert found.files == ["/root/conda/bin/python"]


def test_a_usual_folder_closes_nothing_by_itself() -> None:
    found = listing(
        "drwx------ /var/lib/private",
        "-rw-r--r-- /var/lib/private/x/y",
        "drwx------ /var/log/app",
        "drwx------ /srv",
        "-rw------- /srv/a",
    )
    assert found.files == ["/srv/a"]


def test_what_cannot_be_listed_is_told_and_stops_nothing(tmp_path: Path) -> None:
    failed = answer(stderr="FATAL ERROR: Failed to read directory table", returncode=1)
    runner = RecordingRunner({("docker",): failed}, tools={"docker"})
    image = Image(name="x", folder=Path("x"), tag="x", sif=SifOptions())
    work = ImageWork(
        held=BuiltImage(image=image, image_id="i", fingerprint="f", size=1, reused=True),
        context=context_of(tmp_path, runner),
        options=SifOptions(),
        scratch=tmp_path,
        partial=sif_files.write(tmp_path / "x.sif", [sif_files.SQUASHFS]),
        log=tmp_path / "x.log",
    )
    (told,) = access.warnings(work, Apptainer(runner))
    assert told == (
        "warning: which files only root can read or run could not be checked:"
        " FATAL ERROR: Failed to read directory table"
    )


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"Entrypoint": ["/run.sh"]}, "/run.sh (it starts with that), /a"),
        ({"Cmd": ["python", "/opt/app.py"]}, "/opt/app.py (it starts with that), /a, /run.sh"),
        (
            {"Entrypoint": ["tool"], "Env": ["PATH=/nowhere:/bin"]},
            "/bin/tool (it starts with that)",
        ),
        (
            {"Entrypoint": ["./run.sh"], "WorkingDir": "/linked"},
            "/linked/run.sh (it starts with that)",
        ),
        ({}, "/a, /run.sh, /opt/app.py, …"),
    ],
    ids=[
        "entrypoint",
        "a script behind it",
        "found by PATH",
        "relative, behind a link",
        "nothing",
    ],
)
def test_what_the_container_starts_with_comes_first(config: dict[str, object], named: str) -> None:
    closed = listing(
        "-rw------- /a",
        "-rwx------ /run.sh",
        "-rw------- /opt/app.py",
        "lrwxrwxrwx /bin -> usr/bin",
        "-rwx------ /usr/bin/tool",
        "lrwxrwxrwx /linked -> /",
    )
    (text,) = access.told(closed, config)
    assert text.startswith("warning: only root can read or run 4 files of it, ")
    assert f"are not root: {named}" in text


def test_nothing_is_said_where_all_is_open() -> None:
    assert list(access.told(listing("-rw-r--r-- /a"), {"Entrypoint": ["/a"]})) == []


@pytest.mark.parametrize(
    ("workdir", "there"),
    [
        ("", True),
        ("/", True),
        ("/opt/app", True),
        ("/opt/app/", True),
        ("opt/app", True),
        ("/linked/app", True),
        ("/opt/gone", False),
        ("/opt/file", False),
        ("/broken", False),
    ],
)
def test_a_working_directory_that_is_missing_is_named(workdir: str, *, there: bool) -> None:
    found = listing(
        "drwxr-xr-x /opt",
        "drwxr-xr-x /opt/app",
        "-rw-r--r-- /opt/file",
        "lrwxrwxrwx /linked -> opt",
        "lrwxrwxrwx /broken -> gone",
    )
    told = list(access.without_workdir(found, {"WorkingDir": workdir}))
    assert [f"its working directory {workdir} is not" in line for line in told] == [True] * (
        not there
    )
