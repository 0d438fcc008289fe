"""What users trip over when an image runs as a SIF: each difference, and the switch that ends it.

The page is docs/explanation/docker-and-sif.md; a difference that is gone fails here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Project, docker
from tests.support.recipes import PYTHON
from tests.support.toolbox import toolbox

DOCKERFILE = (
    PYTHON.replace("FROM sifline/", "FROM docker.io/sifline/")
    + r"""
RUN mkdir /work && echo image > /root/of-the-image
ENV GREETING=image
WORKDIR /work
USER 1234
ENTRYPOINT ["echo", "entry"]
"""
)
# What an ordinary user of a cluster has: a home, a package there, a variable, a place to be in.
CALLER = """
cd ~
packages=.local/lib/python3.11/site-packages
mkdir -p $packages && echo 'told = "of the home"' > $packages/of_home.py
echo host > of-the-host
export GREETING=caller OWN=caller
echo host > /tmp/of-the-host
exec apptainer "$@"
"""
# The folder that one is in comes along by itself, too.
NO_HOME = ("--no-mount", "home,cwd")
PACKAGE = ("python3", "-c", "import of_home")


class Both:
    """One image in the engine, and as a SIF that the toolbox has at ``place``."""

    def __init__(self, project: Project, name: str, place: Path) -> None:
        self._project, self._name, self._place = project, name, place

    def docker(self, *words: str, options: tuple[str, ...] = (), check: bool = True) -> str:
        """Return what it says in Docker, or what Docker says of it."""
        image = f"sifline/{self._name}"
        done = docker("run", "--rm", *options, image, *words, check=check)
        return (done.stdout if check else done.stderr).strip()

    def apptainer(self, verb: str, *words: str, options: tuple[str, ...] = ()) -> str:
        """Run the SIF as a user of a cluster does, with Apptainer as it is."""
        done = self.tried(verb, *words, options=options)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def tried(
        self, verb: str, *words: str, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        user = ("as-user", "1000:1000", "bash", "-c", CALLER, "bash")
        return toolbox().run(*user, verb, *options, str(self._place), *words)

    def shell(self, *words: str, sif: bool) -> str:
        """Run it as `invoke shell` does."""
        flags = ["--sif"] if sif else []
        done = self._project.invoke(f"shell.{self._name}", *flags, "--", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    project = Project(tmp_path_factory.mktemp("project"))
    name = project.image("both", DOCKERFILE)
    done = project.invoke(f"convert.{name}")
    assert done.returncode == 0, done.stderr
    with toolbox().place(on_disk=True) as folder:
        place = folder / "image.sif"
        shutil.copyfile(project.root / "build" / "sif" / f"{name}.sif", place)
        yield Both(project, name, place)
    project.invoke(f"clean.{name}", "--yes")


@pytest.fixture(scope="module")
def shell(both: Both) -> list[str]:
    """What `invoke shell --sif` says of the directory, a variable, the user and the home."""
    look = 'pwd; echo "$GREETING"; id -u; echo home; ls -A ~'
    return both.shell("sh", "-c", look, sif=True).splitlines()


def test_the_working_directory(both: Both, shell: list[str]) -> None:
    assert both.docker(options=("--entrypoint", "pwd")) == "/work"
    assert both.apptainer("exec", "pwd") == "/home/1000"
    assert both.apptainer("exec", "pwd", options=("--cwd", "/work")) == "/work"
    assert shell[0] == "/work"


def test_the_home_folder(both: Both, shell: list[str]) -> None:
    look = ("sh", "-c", "ls ~; echo looked")
    assert "of-the-host" in both.apptainer("exec", *look)
    for options in (NO_HOME, ("--contain",)):
        found = both.apptainer("exec", *look, options=options).splitlines()
        assert "of-the-host" not in found
        assert found[-1] == "looked"
    assert shell[3] == "home"
    assert "of-the-host" not in shell[4:]


def test_packages_below_the_home_folder(both: Both) -> None:
    assert both.apptainer("exec", *PACKAGE) == ""
    for options in (NO_HOME, ("--contain",), ("--env", "PYTHONNOUSERSITE=1")):
        done = both.tried("exec", *PACKAGE, options=options)
        assert b"No module named 'of_home'" in done.stderr, options


def test_the_environment(both: Both) -> None:
    show = ("sh", "-c", 'echo "$GREETING $OWN"')
    assert both.docker(*show[1:], options=("--entrypoint", "sh")) == "image"
    assert both.apptainer("exec", *show) == "image caller"
    assert both.apptainer("exec", *show, options=("--cleanenv",)) == "image"
    own = ("--cleanenv", "--env", "GREETING=told")
    assert both.apptainer("exec", *show, options=own) == "told"


def test_the_user(both: Both) -> None:
    assert both.docker("-u", options=("--entrypoint", "id")) == "1234"
    assert both.docker("-u", options=("--user", "1000", "--entrypoint", "id")) == "1000"
    assert both.apptainer("exec", "id", "-u") == "1000"
    assert both.apptainer("exec", "id", "-u", options=("--fakeroot",)) == "0"


def test_the_entrypoint(both: Both) -> None:
    assert both.docker("one", "two") == "entry one two"
    assert both.apptainer("run", "one", "two") == "entry one two"
    assert both.apptainer("exec", "echo", "one") == "one"


def test_writing_to_the_image(both: Both) -> None:
    write = ("sh", "-c", "touch /opt/x && echo written")
    as_root = ("--user", "0", "--entrypoint", "sh")
    assert both.docker(*write[1:], options=as_root) == "written"
    assert b"Read-only file system" in both.tried("exec", *write).stderr
    read_only = ("--read-only", *as_root)
    said = both.docker(*write[1:], options=read_only, check=False)
    assert "Read-only file system" in said
    own = ("--writable-tmpfs", "--fakeroot")
    assert both.apptainer("exec", *write, options=own) == "written"


def test_the_folder_for_temporary_files(both: Both) -> None:
    look = ("ls", "/tmp")
    assert "of-the-host" in both.apptainer("exec", *look)
    assert both.apptainer("exec", *look, options=("--contain",)) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="the caller is compared with root")
def test_invoke_shell_is_the_same_but_for_the_user(both: Both, shell: list[str]) -> None:
    said = both.shell("sh", "-c", 'pwd; echo "$GREETING"; id -u', sif=False).splitlines()
    assert said == ["/work", "image", "1234"]
    assert shell[:3] == ["/work", "image", "0"]
