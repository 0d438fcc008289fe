"""What ``invoke shell`` promises, of the same image in Docker and as a SIF."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from sifline.engines.apptainer.program import Apptainer
from sifline.machine import gpus
from sifline.machine.process import ProcessRunner
from tests.support import warm
from tests.support.engine import LIMIT, Project, docker
from tests.support.waiting import PATIENCE, ended_within, until

DOCKERFILE = """
FROM docker.io/sifline/debian-trixie
RUN mkdir /work
ENV GREETING=image
WORKDIR /work
USER 1234
ENTRYPOINT ["echo", "entry"]
"""
RUN = """
[run]
shared-memory = "32m"
binds = [
  "{host}/default:/default:ro", "{host}/default:/other", "/no/such/scratch:/scratch",
]
"""
RUNTIMES = pytest.mark.parametrize("sif", [False, True], ids=["docker", "apptainer"])
# Nobody's, on this machine.
OTHER = (4321, 8765)
ODD = ("a,b", 'q"q', "it's", "a b", "b\\s", "$HOME")
VALUE = "a,\"b\" 'c' $(id) `id` $HOME \\ \n\tend"
PASSED_ON = ("LANG", "PATH", "PS1", "TERM", "TMPDIR", "_X", "x")
# What is looked at inside, by name; one container shows all of it.
LOOKS = {
    "start": "pwd; ls file",
    "odd volumes": """
        cd /new; for name in *; do cat "$name/file"; echo made > "$name/made-$RUNTIME"; done
    """,
    "read-only volume": "cat /some/file; (echo x > /some/file) 2>&1",
    "folders of the host": "cat /host/hostname; ls /usr-of-the-host",
    "image.toml": "cat /default/file; ls -d /scratch; touch /default/x 2>&1",
    "flag over image.toml": "cat /other/file",
    "variables": """printf "%s|" "$GREETING" "$ODD" "$OWN" "${EMPTY-none}"; echo""",
    "environment": "env",
    "shared memory": "df --output=size --block-size=1M /dev/shm",
    "input": "cat",
}

without_gpu = pytest.mark.skipif(gpus.here() > 0, reason="this host has an NVIDIA GPU")
with_gpu = pytest.mark.skipif(not gpus.here(), reason="this host has no NVIDIA GPU")


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An image that is built and converted, and folders of the host beside it."""

    project: Project
    name: str
    host: Path

    def tried(
        self,
        *flags: str,
        sif: bool,
        command: Sequence[str] = ("true",),
        env: Mapping[str, str] | None = None,
        input: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Call ``invoke shell`` in the folder of the host."""
        argv = ["--search-root", str(self.project.root), f"shell.{self.name}", *flags]
        done = warm.run(
            ["-m", "invoke", *argv, *(["--sif"] * sif), "--", *command],
            cwd=self.host,
            env={**os.environ, **(env or {})},
            input=input,
            timeout=LIMIT,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def shell(
        self, script: str, *flags: str, sif: bool, env: Mapping[str, str] | None = None
    ) -> str:
        """Run a script inside; return what it printed."""
        done = self.tried(*flags, sif=sif, command=("sh", "-c", script), env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def settings(self, text: str) -> Iterator[None]:
        """Let image.toml say something else while the block runs."""
        path = self.project.root / "images" / self.name / "image.toml"
        before = path.read_text()
        path.write_text(text)
        try:
            yield
        finally:
            path.write_text(before)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one container showed, and what was told about it."""

    looks: Mapping[str, str]
    stderr: str


Look = Callable[[bool], Seen]


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    # Not pytest's own folder: another user has to get there.
    with tempfile.TemporaryDirectory(prefix="sifline-shell-") as folder:
        Path(folder).chmod(0o755)
        host = Path(folder, "host")
        for name in ("default", "home", *ODD):
            (host / name).mkdir(parents=True)
            (host / name / "file").write_text(f"in {name}\n")
        (Path(folder) / "project").mkdir()
        project = Project(Path(folder, "project"))
        name = project.image("shell", DOCKERFILE, **{"image.toml": RUN.format(host=host)})
        done = project.invoke(f"convert.{name}")
        assert done.returncode == 0, done.stderr
        yield Opened(project=project, name=name, host=host)
        project.invoke(f"clean.{name}", "--yes")


@pytest.fixture(scope="module")
def seen(opened: Opened) -> Look:
    """Returns what a container with many flags shows, in Docker or as a SIF."""
    flags = [word for name in ODD for word in ("--volume", f"{name}:/new/{name}")]
    for name in ODD:
        (opened.host / name).chmod(0o777)
    for volume in ("~/file:/some/file:ro", "/etc:/host:ro", f"{opened.host}:/usr-of-the-host:ro"):
        flags += ["--volume", volume]
    flags += ["--volume", "home:/other", "--workdir", "/new/a b"]
    for variable in ("GREETING=told", f"ODD={VALUE}", "OWN", "EMPTY=", "RUNTIME"):
        flags += ["--env", variable]
    for name in PASSED_ON:
        flags += ["--env", f"{name}=/usr/bin"]
    script = "".join(f"echo '== {name}'\n{look}\n" for name, look in LOOKS.items())

    @cache
    def look(sif: bool) -> Seen:
        done = opened.tried(
            *flags,
            sif=sif,
            command=("sh", "-c", script),
            env={
                "OWN": VALUE,
                "EMPTY": "caller",
                "RUNTIME": f"{sif}",
                "HOME": str(opened.host / "home"),
            },
            input="one\ntwo\n",
        )
        _, *parts = re.split(r"^== (.+)\n", done.stdout, flags=re.MULTILINE)
        looks = dict(zip(parts[::2], parts[1::2], strict=True))
        assert [*looks] == [*LOOKS], done.stderr
        return Seen(looks=looks, stderr=done.stderr)

    return look


def running(process: int) -> list[str]:
    """The containers of the shell that this process opened."""
    return docker("ps", "--filter", f"name=^sifline-shell-{process}$", "--quiet").stdout.split()


@RUNTIMES
def test_a_command_whose_reader_goes_leaves_no_container(opened: Opened, sif: bool) -> None:
    argv = ["--search-root", str(opened.project.root), f"shell.{opened.name}", *["--sif"] * sif]
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", *argv, "--", "yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        with ended_within(process):
            assert process.stdout.readline() == "y\n"
            process.stdout.close()
            assert process.wait() != 0

    assert running(process.pid) == []


@RUNTIMES
def test_a_job_without_a_terminal_ends_with_its_caller(opened: Opened, sif: bool) -> None:
    expected = 0 if sif and Apptainer(ProcessRunner()).native else 1
    # It does not listen to what asks it to end.
    script = "trap '' TERM INT; echo started; while true; do sleep 1; done"
    argv = ["--search-root", str(opened.project.root), f"shell.{opened.name}", "--env", "A=b"]
    with subprocess.Popen(
        [sys.executable, "-m", "invoke", *argv, *(["--sif"] * sif), "--", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            # The job may speak before the engine says that its container runs.
            until(lambda: len(running(process.pid)) == expected, "the container of the shell")
            process.terminate()
            assert process.wait(timeout=PATIENCE) != 0
        finally:
            process.kill()

    assert running(process.pid) == []


@RUNTIMES
def test_nothing_but_what_the_image_says_is_there_without_flags(opened: Opened, sif: bool) -> None:
    look = 'pwd; echo "$GREETING"; ls ~ 2>&1 | grep file'

    assert opened.tried(sif=sif, command=("sh", "-c", look)).stdout == "/work\nimage\n"


def test_a_sif_file_is_opened_as_it_is(opened: Opened) -> None:
    path = opened.project.root / "build" / "sif" / f"{opened.name}.sif"
    name = os.path.relpath(path, opened.host)
    words = ["--search-root", str(opened.project.root), "shell", name]
    flags = ["--volume", f"{opened.host}/default:/new:ro", "--env", "OWN=mine"]
    script = 'pwd; cat /new/file; echo "$GREETING $OWN"; exit 7'
    done = warm.run(
        ["-m", "invoke", *words, *flags, "--", "sh", "-c", script], cwd=opened.host, timeout=LIMIT
    )
    assert (done.returncode, done.stdout) == (7, "/work\nin default\nimage mine\n")


def test_what_is_no_sif_is_not_opened(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_text("no SIF")
    done = opened.project.invoke("shell", str(tmp_path / "x.sif"))
    assert done.returncode == 2, done.stderr
    assert "x.sif" in done.stderr.splitlines()[-1]


@RUNTIMES
def test_volumes_with_odd_names_are_there_and_can_be_written(
    opened: Opened, seen: Look, sif: bool
) -> None:
    printed = seen(sif).looks["odd volumes"].splitlines()

    assert sorted(printed) == sorted(f"in {name}" for name in ODD)
    made = [(opened.host / name / f"made-{sif}").read_text() for name in ODD]
    assert made == ["made\n"] * len(ODD)


@RUNTIMES
def test_a_volume_may_be_kept_from_being_written(seen: Look, sif: bool) -> None:
    there, refused = seen(sif).looks["read-only volume"].splitlines()

    assert there == "in home"
    assert "Read-only file system" in refused


@RUNTIMES
def test_folders_of_the_host_do_not_stand_in_for_those_of_the_container(
    seen: Look, sif: bool
) -> None:
    printed = seen(sif).looks["folders of the host"]

    assert printed.startswith(Path("/etc/hostname").read_text())
    assert "default" in printed


@RUNTIMES
def test_the_folders_of_image_toml_are_there(seen: Look, sif: bool) -> None:
    done = seen(sif)

    assert done.looks["image.toml"].splitlines() == [
        "in default",
        "touch: cannot touch '/default/x': Read-only file system",
    ]
    assert "there is no /no/such/scratch on this host, so it is not bound" in done.stderr


@RUNTIMES
def test_a_flag_wins_over_a_folder_of_image_toml(seen: Look, sif: bool) -> None:
    assert seen(sif).looks["flag over image.toml"] == "in home\n"


@RUNTIMES
def test_it_begins_in_the_folder_that_is_asked_for(seen: Look, sif: bool) -> None:
    assert seen(sif).looks["start"] == "/new/a b\nfile\n"


@RUNTIMES
def test_a_variable_wins_over_the_image_and_stays_as_it_is(seen: Look, sif: bool) -> None:
    assert seen(sif).looks["variables"] == f"told|{VALUE}|{VALUE}||\n"


@RUNTIMES
def test_variables_that_runtimes_set_themselves_are_passed_on(seen: Look, sif: bool) -> None:
    wanted = {f"{name}=/usr/bin" for name in PASSED_ON}

    assert wanted <= set(seen(sif).looks["environment"].splitlines())


@RUNTIMES
@pytest.mark.parametrize(
    ("script", "status"), [("exit 7", 7), ("kill -KILL $$", 137), ("kill -ABRT $$", 134)]
)
def test_the_exit_status_is_that_of_the_command(
    opened: Opened, sif: bool, script: str, status: int
) -> None:
    done = opened.tried(sif=sif, command=("sh", "-c", script))

    assert done.returncode == status


@RUNTIMES
def test_the_command_reads_what_comes_in(seen: Look, sif: bool) -> None:
    assert seen(sif).looks["input"] == "one\ntwo\n"


@RUNTIMES
def test_a_person_gets_a_shell_on_a_terminal(opened: Opened, sif: bool) -> None:
    argv = [sys.executable, "-m", "invoke", f"shell.{opened.name}", *(["--sif"] * sif)]
    ours, theirs = pty.openpty()
    os.write(ours, b"test -t 0 && test -t 1 && echo $GREETING-$PWD; exit 3\n")

    done = subprocess.run(
        argv,
        cwd=opened.project.root,
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=LIMIT,
    )
    printed = os.read(ours, 1 << 16).decode()
    os.close(ours)
    os.close(theirs)

    assert "image-/work" in printed
    assert done.returncode == 3


@RUNTIMES
def test_the_home_folder_is_that_of_the_caller(opened: Opened, sif: bool) -> None:
    home = opened.host / "home"

    printed = opened.shell(
        "echo $HOME; pwd; cat ~/file", "--mount-home", sif=sif, env={"HOME": str(home)}
    )

    assert printed == f"{home}\n/work\nin home\n"


@RUNTIMES
def test_what_is_made_at_home_belongs_to_the_caller(opened: Opened, sif: bool) -> None:
    setpriv, socket = shutil.which("setpriv"), Path("/var/run/docker.sock")
    if os.geteuid() != 0 or not setpriv or not socket.exists():
        pytest.skip("takes root, setpriv and the engine's socket to call as another user")
    uid, gid = OTHER
    as_other = [setpriv, f"--reuid={uid}", f"--regid={gid}", f"--groups={socket.stat().st_gid}"]
    if subprocess.run([*as_other, sys.executable, "-c", "import sifline"], check=False).returncode:
        pytest.skip("another user cannot read this Python")
    home = opened.host / "other"
    home.mkdir(exist_ok=True)
    for path in (home, opened.project.root, *opened.project.root.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)

    done = subprocess.run(
        [*as_other, sys.executable, "-m", "invoke", f"shell.{opened.name}", "--mount-home"]
        + ["--sif"] * sif
        + ["--", "sh", "-c", f"echo $HOME $USER $LOGNAME; touch ~/made-{sif}; id -u; id -g"],
        cwd=opened.project.root,
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )

    name = f"uid{uid}"
    assert done.stdout == f"{home} {name} {name}\n{uid}\n{gid}\n", done.stderr
    made = (home / f"made-{sif}").stat()
    assert (made.st_uid, made.st_gid) == OTHER


def test_shared_memory_in_docker_is_as_large_as_image_toml_says(
    seen: Look,
) -> None:
    assert seen(False).looks["shared memory"].split()[-1] == "32"


def test_shared_memory_in_a_sif_may_take_half_of_the_memory(seen: Look) -> None:
    size = seen(True).looks["shared memory"].split()[-1]

    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    assert 0.45 < int(size) / whole < 0.55


@without_gpu
@RUNTIMES
def test_gpus_of_image_toml_are_left_out_where_there_is_no_driver(
    opened: Opened, sif: bool
) -> None:
    with opened.settings('[run]\ngpus = "all"\n'):
        done = opened.tried(sif=sif)
        without = opened.tried("--gpus", "none", sif=sif)

    assert (done.returncode, without.returncode) == (0, 0)
    told = [line for line in done.stderr.splitlines() if "gpus" in line]
    assert told == [
        f"images/{opened.name}/image.toml: run.gpus: all asked for, but this host has no NVIDIA"
        " GPU: none is handed in"
    ]
    assert "gpus" not in without.stderr


@without_gpu
@RUNTIMES
def test_gpus_that_are_asked_for_are_something_missing(opened: Opened, sif: bool) -> None:
    done = opened.tried("--gpus", "2", sif=sif)

    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "this host has no NVIDIA GPU (no /dev/nvidia0)" in line


@with_gpu
@pytest.mark.parametrize("asked", ["all", "1", "device=0", "none"])
def test_docker_hands_in_the_gpus_that_are_asked_for(opened: Opened, asked: str) -> None:
    found = opened.shell("ls /dev | grep '^nvidia[0-9]'; true", "--gpus", asked, sif=False)

    assert len(found.split()) == {"all": gpus.here(), "none": 0}.get(asked, 1)


@with_gpu
@pytest.mark.parametrize(
    ("asked", "visible"), [("all", ""), ("1", "0"), ("device=0", "0"), ("none", None)]
)
def test_a_sif_gets_the_driver_and_shows_the_gpus_that_are_asked_for(
    opened: Opened, asked: str, visible: str | None
) -> None:
    look = 'ls /.singularity.d/libs | grep -c "^libcuda.so"; echo "$CUDA_VISIBLE_DEVICES"'
    count, shown = opened.shell(look, "--gpus", asked, sif=True).split("\n")[:2]

    assert (int(count) > 0, shown) == (visible is not None, visible or "")


@RUNTIMES
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--volume", "none:/d"), "--volume 'none:/d': there is no "),
        (("--gpus", "0"), "--gpus '0': takes all, a number"),
        (("--workdir", "d"), "--workdir 'd': takes an absolute path"),
        (("--env", "NOT_SET_BY_ANYBODY"), "you have no such variable"),
    ],
)
def test_what_cannot_be_used_is_refused(
    opened: Opened, sif: bool, flags: tuple[str, ...], message: str
) -> None:
    done = opened.tried(*flags, sif=sif)

    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert message in line


def test_what_cannot_be_used_is_refused_before_anything_is_built(project: Project) -> None:
    name = project.image("never-built", DOCKERFILE)

    done = project.invoke(f"shell.{name}", "--volume", "none:/d", "--", "true")

    assert done.returncode == 2
    assert project.inspect(name) is None


def test_what_run_says_is_no_reason_to_build_or_convert(opened: Opened) -> None:
    with opened.settings('[run]\nshared-memory = "64m"\n'):
        told = opened.project.invoke(f"status.{opened.name}", "--json").stdout
        size = opened.shell("df --output=size --block-size=1M /dev/shm", sif=False).split()[-1]

    said = json.loads(told)["images"]
    assert [(item["stale"], item["sif"]) for item in said] == [("", "up to date")]
    assert size == "64"
