"""What users trip over when an image runs as a SIF: each difference, and the switch that ends it.

The page is docs/explanation/docker-and-sif.md; a difference that is gone fails here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sifline.adapters.apptainer import TOOLBOX_RIGHTS
from tests.support.engine import Project, docker
from tests.support.recipes import PYTHON
from tests.support.squash import TOOLBOX

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
    """One image in the engine, and as a SIF."""

    def __init__(self, project: Project, name: str) -> None:
        self._project, self._name = project, name
        self.sif = project.root / "build" / "sif" / f"{name}.sif"

    def docker(self, *words: str, options: tuple[str, ...] = ()) -> str:
        """Run it in Docker."""
        return docker("run", "--rm", *options, f"sifline/{self._name}", *words).stdout.strip()

    def apptainer(self, verb: str, *words: str, options: tuple[str, ...] = ()) -> str:
        """Run the SIF as a user of a cluster does, with Apptainer as it is."""
        done = self.tried(verb, *words, options=options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def tried(
        self, verb: str, *words: str, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        volume = f"{self.sif}:/image.sif:ro"
        argv = ["docker", "run", "--rm", "--volume", volume, *TOOLBOX_RIGHTS, TOOLBOX]
        argv += ["as-user", "1000:1000", "bash", "-c", CALLER, "bash"]
        return subprocess.run(
            [*argv, verb, *options, "/image.sif", *words],
            capture_output=True,
            text=True,
            check=False,
        )

    def shell(self, *words: str, sif: bool) -> str:
        """Run it as `invoke shell` does."""
        flags = ["--sif"] if sif else []
        done = subprocess.run(
            [sys.executable, "-m", "invoke", f"shell.{self._name}", *flags, "--", *words],
            cwd=self._project.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    project = Project(tmp_path_factory.mktemp("project"))
    name = project.image("both", DOCKERFILE)
    done = project.invoke(f"convert.{name}")
    assert done.returncode == 0, done.stderr
    yield Both(project, name)
    project.invoke(f"clean.{name}")


def test_the_working_directory(both: Both) -> None:
    assert both.docker(options=("--entrypoint", "pwd")) == "/work"
    assert both.apptainer("exec", "pwd") == "/home/1000"
    assert both.apptainer("exec", "pwd", options=("--cwd", "/work")) == "/work"
    assert both.shell("pwd", sif=True) == "/work"


def test_the_home_folder(both: Both) -> None:
    look = ("sh", "-c", "ls ~")
    assert "of-the-host" in both.apptainer("exec", *look)
    for options in (NO_HOME, ("--contain",)):
        done = both.tried("exec", *look, options=options)
        assert "of-the-host" not in done.stdout
    assert "of-the-host" not in both.shell(*look, sif=True)


def test_packages_below_the_home_folder(both: Both) -> None:
    assert both.apptainer("exec", *PACKAGE) == ""
    for options in (NO_HOME, ("--contain",), ("--env", "PYTHONNOUSERSITE=1")):
        done = both.tried("exec", *PACKAGE, options=options)
        assert "No module named 'of_home'" in done.stderr, options


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
    assert "Read-only file system" in both.tried("exec", *write).stderr
    done = docker(
        *("run", "--rm", "--read-only", *as_root, f"sifline/{both.sif.stem}", *write[1:]),
        check=False,
    )
    assert "Read-only file system" in done.stderr
    own = ("--writable-tmpfs", "--fakeroot")
    assert both.apptainer("exec", *write, options=own) == "written"


def test_the_folder_for_temporary_files(both: Both) -> None:
    look = ("ls", "/tmp")
    assert "of-the-host" in both.apptainer("exec", *look)
    assert both.apptainer("exec", *look, options=("--contain",)) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="the caller is compared with root")
def test_invoke_shell_is_the_same_but_for_the_user(both: Both) -> None:
    for sif, user in ((False, "1234"), (True, "0")):
        said = both.shell("sh", "-c", 'pwd; echo "$GREETING"; id -u', sif=sif)
        assert said == f"/work\nimage\n{user}"
