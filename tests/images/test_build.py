"""Building with the real engine: what is up to date, what fails, what an interruption leaves."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from sifline.engines.docker.engine import builder
from sifline.engines.docker.images import Docker
from sifline.engines.mmdebstrap import Mmdebstrap
from sifline.errors import StepFailed
from sifline.formats.dockerfile.stages import Dockerfile
from sifline.machine.process import ProcessRunner
from sifline.model import Prepare
from tests.support.engine import Project, docker
from tests.support.waiting import until

# With the registry in front it is a foreign image to these projects; the engine holds it.
BASE = "docker.io/sifline/debian-trixie"
SMALL = "FROM scratch\nCOPY file /file\n"
# What it prints stands nowhere in the line of the step. It would outlive any patience.
SLOW = f"FROM {BASE}\nRUN echo $((6 * 7)) steps && sleep 600 # {{}}\n"

# Each makes small images of its own.
pytestmark = pytest.mark.spread


def states(project: Project, name: str) -> list[str]:
    """Build and say what was done to each image of the chain."""
    done = project.invoke(f"build.{name}")
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()[1:]
    return ["up to date" if "up to date" in row else "built" for row in rows]


def test_the_second_build_does_nothing(project: Project) -> None:
    name = project.image("a", SMALL, file="x")

    assert states(project, name) == ["built"]
    assert states(project, name) == ["up to date"]


def test_a_touch_is_no_change_but_new_content_is(project: Project) -> None:
    name = project.image("a", SMALL, file="x")
    states(project, name)

    os.utime(project.root / "images" / name / "file", (1, 1))
    assert states(project, name) == ["up to date"]
    (project.root / "images" / name / "file").write_text("y")
    assert states(project, name) == ["built"]


def test_a_named_context_reaches_the_build_and_leaves_no_image(project: Project) -> None:
    """Whether the engine's BuildKit knows such contexts, or gets each as an image."""
    shared = project.root / "shared"
    (shared / "sub").mkdir(parents=True)
    (shared / "sub" / "kept").write_text("kept")
    (shared / "left-out").write_text("x")
    (shared / ".dockerignore").write_text("left-out\n")
    look = "RUN --mount=from=shared,target=/s cat /s/sub/kept && test ! -e /s/left-out"
    text = f"FROM {BASE}\n{look}\nCOPY --from=shared sub/kept /kept\n"
    name = project.image("a", text, **{"image.toml": '[contexts]\nshared = "../../shared"\n'})
    # A run of another checkout that was killed may have left some.
    before = contexts()

    assert states(project, name) == ["built"]
    assert states(project, name) == ["up to date"]
    assert docker("run", "--rm", f"sifline/{name}", "cat", "/kept").stdout == "kept"
    (shared / "sub" / "kept").write_text("other")
    assert states(project, name) == ["built"]
    # Other tests may build with such contexts meanwhile.
    until(lambda: contexts() <= before, "the end of its images", seconds=600)


def contexts() -> set[str]:
    """The images of named contexts that the engine has."""
    return set(docker("image", "ls", "--quiet", "sifline-context").stdout.split())


def test_an_image_removed_from_the_engine_is_noticed(project: Project) -> None:
    name = project.image("a", SMALL, file="x")
    states(project, name)
    docker("image", "rm", f"sifline/{name}")

    assert f"its tag sifline/{name}:latest is gone" in project.invoke("status").stdout
    assert states(project, name) == ["built"]
    docker("image", "rm", "--force", str((project.inspect(name) or {})["Id"]))
    assert "not built" in project.invoke("status").stdout
    assert states(project, name) == ["built"]


def test_an_image_of_the_tag_that_somebody_else_made_is_not_taken_for_ours(
    project: Project,
) -> None:
    name = project.image("a", SMALL, file="x")
    docker("tag", "sifline/debian-trixie:latest", f"sifline/{name}:latest")

    assert states(project, name) == ["built"]


def test_a_changed_parent_rebuilds_its_child(project: Project) -> None:
    parent = project.image("parent", SMALL, file="x")
    child = project.image("child", f"FROM sifline/{parent}\nCOPY own /own\n", own="y")
    assert states(project, child) == ["built", "built"]

    (project.root / "images" / parent / "file").write_text("new")

    assert states(project, child) == ["built", "built"]
    assert states(project, child) == ["up to date", "up to date"]


def test_a_failing_step_is_named_with_the_end_of_its_log(project: Project) -> None:
    name = project.image("a", f"FROM {BASE}\nRUN seq 100 && echo cause && exit 7\n")

    done = project.invoke(f"build.{name}")

    *details, message = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert done.returncode == 1
    assert message.startswith(f"error: building {name} failed at [2/2] RUN seq 100")
    assert any("exit code: 7" in line for line in details)
    assert any(line.endswith("cause") for line in details)
    assert len(details) <= 20
    assert project.inspect(name) is None


@pytest.mark.parametrize("number", [1, 2, 15], ids=["SIGHUP", "SIGINT", "SIGTERM"])
def test_an_interrupted_build_says_so_and_leaves_nothing(project: Project, number: int) -> None:
    # The engine would join one step of two builds.
    name = project.image("a", SLOW.format(project.prefix))
    log = project.root / "build" / "logs" / f"{name}.build.log"

    status, printed = project.interrupt(
        *(f"build.{name}",),
        when="[2/2] RUN",
        number=number,
        seen=lambda: "42 steps" in log.read_text(),
    )

    assert status == 130
    assert printed.splitlines()[-1].startswith("error: interrupted")
    assert project.inspect(name) is None
    project.image("a", SMALL, file="x")
    assert states(project, name) == ["built"]


def test_the_hosts_certificates_reach_a_build_step_and_do_not_stay(project: Project) -> None:
    bundle = "/run/secrets/ca-certificates"
    name = project.image(
        "a",
        f"FROM {BASE}\n"
        "RUN --mount=type=secret,id=ca-certificates"
        f" sha256sum {bundle} | cut --delimiter=' ' --fields=1 > /digest\n",
    )

    assert states(project, name) == ["built"]

    show = "cat /digest; find /run -type f"
    seen, *left = docker("run", "--rm", f"sifline/{name}", "sh", "-c", show).stdout.split()
    host = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    assert seen == hashlib.sha256(host.read_bytes()).hexdigest()
    assert not [path for path in left if "ca-certificates" in path]


def test_clean_leaves_what_sifline_did_not_make(project: Project) -> None:
    ours = project.image("ours", SMALL, file="x")
    # A child inherits the labels of its parent, ours included.
    foreign = project.image("foreign", f"FROM {BASE}\nCOPY file /file\n", file="x")
    states(project, ours)
    folder = str(project.root / "images" / foreign)
    docker("build", "--tag", f"sifline/{foreign}:latest", folder)

    done = project.invoke("clean", "--yes", "--all", "--docker")

    # How much that freed, the engine tells of all its images together: not of these alone.
    removed, freed = done.stdout.splitlines()
    assert removed.startswith(f"removed image sifline/{ours}:")
    assert freed.startswith("freed ")
    assert project.inspect(ours) is None
    assert project.inspect(foreign) is not None


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.long
def test_a_prepared_root_file_system_is_bit_identical_when_made_twice(tmp_path: Path) -> None:
    engine, prepare = (
        Mmdebstrap(ProcessRunner()),
        Prepare(suite="trixie", packages=("ca-certificates",)),
    )

    for name in ("one.tar", "two.tar"):
        engine.make(prepare, tmp_path / name, log=tmp_path / "log")

    assert digest_of(tmp_path / "one.tar") == digest_of(tmp_path / "two.tar")
    with tarfile.open(tmp_path / "one.tar") as archive:
        names = archive.getnames()
    # What made it quick stays outside.
    assert [name for name in names if "/dpkg.cfg.d" in name] == ["./etc/dpkg/dpkg.cfg.d"]


@pytest.mark.parametrize("small_disk", ["16m"], indirect=True)
def test_a_full_disk_leaves_no_root_file_system(small_disk: Path, tmp_path: Path) -> None:
    target = small_disk / "rootfs.tar"

    with pytest.raises(StepFailed, match=r"mmdebstrap of trixie failed with \d+ MiB free"):
        Mmdebstrap(ProcessRunner()).make(Prepare(suite="trixie"), target, log=tmp_path / "log")

    assert list(small_disk.iterdir()) == []


UNUSED = "FROM scratch AS unused\n{}\nFROM scratch\nCOPY x /x\n"


@pytest.mark.parametrize(
    "text",
    [
        *(UNUSED.format(f"RUN {text}") for text in ("<<EOF\ntrue\nEOF", "--network=none true")),
        *(UNUSED.format(f"RUN --mount={text} true") for text in ("type=tmpfs,target=/a,size=1m",)),
        *(UNUSED.format(f"{text} x /y") for text in ("COPY --link", "ADD --exclude=a", "ADD")),
        *(f"FROM scratch\nARG M=0751\nCOPY --chmod={mode} x /x\n" for mode in ("0751", "$M")),
        "FROM scratch\nCOPY --chmod=u=rwx,g=rx,o=x x /x\n",
    ],
)
def test_it_is_known_beforehand_what_the_engine_does_not_know(tmp_path: Path, text: str) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    (tmp_path / "x").write_text("x")
    words = (
        "buildx",
        "build",
        "--builder",
        builder(),
        "--output",
        f"type=local,dest={tmp_path}/o",
    )
    done = docker(*words, str(tmp_path), check=False)
    copied = tmp_path / "o" / "x"
    # It may know no better than to pass over what it does not know.
    works = copied.exists() and ("chmod" not in text or copied.stat().st_mode & 0o777 == 0o751)

    version = Docker(ProcessRunner()).buildkit()
    features = Dockerfile.read(tmp_path / "Dockerfile").features

    assert version is not None
    assert works is all(item.buildkit <= version for item in features), done.stderr


def test_a_line_that_the_engine_is_too_old_for_is_refused_before_anything_is_built(
    project: Project,
) -> None:
    knows = (Docker(ProcessRunner()).buildkit() or 0) >= 10
    parent = project.image("parent", SMALL, file="x")
    child = project.image("child", f"FROM sifline/{parent}\nCOPY <<EOF /f\nhi\nEOF\n")

    for words in (("--dry", f"build.{child}"), (f"build.{child}",)):
        done = project.invoke(*words)
        assert done.returncode == (0 if knows else 3)
        told = f"{child}: a here-document in line 2 of its Dockerfile needs" in done.stderr
        assert told is not knows
    assert (project.inspect(parent) is not None) is knows

    first, *rest = project.invoke("build", "--all").stderr.splitlines()
    assert first.startswith(f"[build {child}] will fail: ") is not knows
    assert any(line.startswith(f"[build {parent}] ") for line in rest) is not knows
