"""What a person sees on terminals of 80 and 120 columns, compared with files in snapshots/.

After a change that is meant: ``SIFLINE_SNAPSHOTS=write pytest tests/unit/test_snapshots.py``, then
read what git says of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from sifline.model import (
    Cluster,
    Deployment,
    Node,
    Partition,
    Placement,
    Role,
    Sif,
    SshAccess,
    Workspace,
)
from sifline.pipeline import deployments
from tests.support.fake_engine import fake_engine
from tests.support.invoking import invoke
from tests.support.screens import on_screen

pytestmark = pytest.mark.spread

SNAPSHOTS = Path(__file__).parent / "snapshots"
TASKS = """
from pathlib import Path
from sifline.tasks import namespace
ns = namespace(Path(__file__).parent)
"""
LONG = "pytorch-cuda12.1-mpi4.1"
CLUSTER = Cluster(
    name="lab",
    nodes=(Node(name="controller", role=Role.CONTROLLER),),
    ssh=SshAccess(user="admin"),
    partitions=(Partition(name="main"),),
    source=Path("clusters/lab.yaml"),
)


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkout with a fake engine; its path, which messages name, always has one length."""
    # Not tmp_path: what is shown of a path depends on how long it is.
    folder = Path(tempfile.mkdtemp(prefix="sifline-", dir="/tmp"))
    fake_engine(folder, monkeypatch)
    (folder / "tasks.py").write_text(TASKS)
    add(folder, "debian", description="Debian 13 with the tools of every image")
    add(folder, "hello-mpi", description="A small MPI program: each rank says its host")
    add(folder, LONG, description="PyTorch 2.4 with CUDA 12.1, NCCL and Open MPI 4.1")
    for name in ("debian", "hello-mpi"):
        (folder / "images" / name / "Dockerfile").write_text("FROM scratch\nRUN make --jobs\n")
    yield folder
    shutil.rmtree(folder)


def add(project: Path, name: str, *, description: str) -> Path:
    folder = project / "images" / name
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\nRUN make --jobs\n")
    (folder / "image.toml").write_text(f'description = "{description}"\n')
    return folder


def compare(name: str, columns: int, lines: Sequence[str]) -> None:
    """Fail where the screen is not that of the snapshot; durations and ids are masked."""
    place = SNAPSHOTS / f"{name}-{columns}.txt"
    text = "\n".join(map(masked, lines)) + "\n"
    if os.environ.get("SIFLINE_SNAPSHOTS") == "write":
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    assert text == place.read_text()
    assert max(map(len, lines)) <= columns


def masked(line: str) -> str:
    line = re.sub(r"\d+\.\d s\b", "N.N s", line)
    # Where a row is cut depends on how long the number is.
    line = re.sub(r"process \d+ .*…$", "process N …", line)
    line = re.sub(r"process \d+\b", "process N", line)
    line = re.sub(r"about \d+ min left", "about N min left", line)
    line = re.sub(r"^[⠀-⣿] (\[.*?\]+) \d+ s", r"* \1 N s", line)
    return re.sub(r"\b[0-9a-f]{12}\b", "0123456789ab", line)


def shown(project: Path, columns: int, *words: str, status: int = 0) -> list[str]:
    """All that is on the screen when invoke has ended."""
    with on_screen(project, columns, *words) as here:
        assert here.end() == status, here.lines
        return here.lines


def build(project: Path, *names: str) -> None:
    for name in names:
        done = invoke(project, f"build.{name}")
        assert done.returncode == 0, done.stderr


WIDTHS = (80, 120)


def test_list(project: Path) -> None:
    for columns in WIDTHS:
        compare("list", columns, shown(project, columns, "--list"))
        compare("list-build", columns, shown(project, columns, "--list", "build"))


def test_status_and_plan(project: Path) -> None:
    build(project, "debian", "hello-mpi")
    (project / "images" / "debian" / "Dockerfile").write_text("FROM scratch\nRUN make all\n")
    add(project, "broken", description="x").joinpath("Dockerfile").write_text("FRMO scratch\n")
    deployments.remember_failure("hello-mpi", CLUSTER, "why", Workspace(root=project))

    for columns in WIDTHS:
        compare("status", columns, shown(project, columns, "status", status=1))
        lines = shown(project, columns, "--dry", "build", "--all", status=1)
        compare("plan", columns, lines)


def test_status_of_what_is_deployed(project: Path) -> None:
    longest = "tensorflow2.18-cuda12.5-mpi4.1"
    add(project, longest, description="x")
    build(project, longest, "hello-mpi")
    everywhere, space = replace(CLUSTER, name="virtual"), Workspace(root=project)
    sif = Sif(name=longest, path=space.sif(longest), sha256="a" * 64, size=1)
    path = PurePosixPath("/opt/containers/x.sif")
    placed = Placement(node="controller", path=path, sha256=sif.sha256, sent=True)
    done = Deployment(sif=sif, cluster=everywhere, path=path, placements=(placed,), seconds=1.0)
    deployments.remember(done, space)
    deployments.remember_failure("hello-mpi", CLUSTER, "why", space)

    for columns in WIDTHS:
        compare("status-deployed", columns, shown(project, columns, "status"))


def test_a_failure(project: Path) -> None:
    (project / "images" / "hello-mpi" / "fault").touch()

    for columns in WIDTHS:
        compare("failure", columns, shown(project, columns, "build.hello-mpi", status=1))


@pytest.mark.parametrize("columns", WIDTHS)
def test_waiting_for_another_run(project: Path, columns: int) -> None:
    (project / "images" / LONG / "gate").touch()

    with on_screen(project, columns, f"build.{LONG}") as first:
        first.shows(lambda lines: any("RUN make" in line for line in lines))
        with on_screen(project, columns, f"build.{LONG}") as second:
            lines = second.shows(lambda lines: any("waiting" in line for line in lines))
            compare("waiting", columns, lines)


@pytest.mark.parametrize("columns", WIDTHS)
def test_progress(project: Path, columns: int) -> None:
    for name in ("debian", "hello-mpi", LONG):
        (project / "images" / name / "gate").touch()
        record = project / "build" / "records" / name / "build-0.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"version": 2, "built": 1, "seconds": 1200.0}))

    with on_screen(project, columns, "build", "--all", "--jobs", "2") as here:
        lines = here.shows(lambda lines: sum("RUN make" in line for line in lines) == 2)
        compare("progress", columns, lines)
