"""Each output of --json: what docs/reference/json.md shows of it has the same keys."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from sifline.contents.comparison import Contents, Settings, compare
from sifline.contents.compatibility import Compatibility
from sifline.contents.sizes import Copies, Folder, Hidden, Layer, Report
from sifline.engines.apptainer.signatures import DataObject, Signature, Verified
from sifline.formats.packages import Distribution, Found, Package
from sifline.model import (
    AffectedJob,
    CheckResult,
    Cleaned,
    Cluster,
    ClusterFacts,
    Deployment,
    FaultChange,
    Image,
    Inventory,
    ListedCluster,
    Node,
    NodeFacts,
    NodeState,
    Placement,
    ProvisionedCluster,
    Role,
    Scaled,
    SifFile,
    SshAccess,
    StandingCluster,
    Status,
    Step,
    Unreached,
    Workspace,
    WouldBringUp,
    WouldConvert,
    WouldDeploy,
)
from sifline.model.catalog import (
    Behind,
    Catalog,
    CatalogImage,
    Event,
    Removal,
    Removed,
    RolledBack,
    Version,
)
from sifline.pipeline import deployments
from sifline.stages.inventory import Bill
from sifline.tasks import helps, images, support
from tests.support import sif_files
from tests.support.fake_engine import fake_engine
from tests.support.invoking import invoke_here

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
SECTION = re.compile(r"^### `([^`]+)`\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
TASKS = """
from pathlib import Path, PurePosixPath
from sifline.tasks import namespace
ns = namespace(Path(__file__).parent)
"""
# Below these, keys are names of things.
NAMED = frozenset({"labels", "settings", "frameworks", "hosts"})
SIF = Path("build/sif/hello-mpi.sif")
KEY = "0123456789ABCDEF0123456789ABCDEF01234567"

NUMPY = Package(kind="python", name="numpy", version="1.26.4", architecture="")
CONTENTS = Contents(
    name="hello-mpi",
    kind="image",
    version=f"sha256:{'a' * 64}",
    size=247291925,
    fingerprint="f" * 64,
    found=Found(
        packages=(Package(kind="deb", name="libc6", version="2.41-12"), NUMPY),
        distribution=Distribution(id="debian", version="13", name="Debian GNU/Linux 13"),
        broken=("opt/odd/METADATA",),
    ),
    settings=Settings(
        environment={"OMPI_MCA_btl": "self"}, labels={"title": "x"}, command=("bash",)
    ),
)
OTHER = Contents(
    name="hello-mpi",
    kind="image",
    version=f"sha256:{'b' * 64}",
    size=248291925,
    fingerprint="e" * 64,
    found=Found(
        packages=(
            Package(kind="deb", name="libc6", version="2.41-13"),
            Package(kind="deb", name="libpmix2", version="5.0.7"),
        ),
        distribution=CONTENTS.found.distribution,
    ),
    settings=Settings(environment={"OMPI_MCA_btl": "tcp"}, labels={"title": "y"}),
)
COMPATIBILITY = Compatibility(
    architecture="amd64",
    libc="glibc 2.36",
    mpi=("Open MPI 4.1.4",),
    pmix=("4.2.2",),
    cuda=("12.1.105",),
    least_driver="525.60.13",
    nccl=("2.20.5",),
    python=("3.11.2",),
    frameworks={"torch": "2.4.0 for CUDA 12.1"},
)
SIZES = Report(
    name="hello-mpi",
    image=247291925,
    sif=81000000,
    budget=500000000,
    layers=(Layer(instruction="RUN apt-get update", size=52000000),),
    total=240000000,
    files=9120,
    folders=(Folder(path="usr/lib", size=120000000),),
    copies=(Copies(size=2000000, paths=("opt/a", "opt/b")),),
    hidden=(Hidden(path="var/cache/apt", size=1500000, replaced=False),),
)
VERIFIED = Verified(
    path=SIF,
    objects=(DataObject(id=1, kind="Def.FILE"), DataObject(id=2, kind="FS")),
    signatures=(Signature(id=3, fingerprint=KEY, name="Ada", local=True, objects=(1, 2)),),
)
CHECK = CheckResult(
    suite="mpi-job",
    name="ranks-on-nodes",
    status=Status.PASSED,
    message="4 ranks on 2 nodes",
    seconds=3.1,
)
NODE = NodeState(
    node="compute-01",
    role="compute",
    address="172.20.0.3",
    state="running",
    checkout="/home/ada/containers",
    faults=("slow-cpu",),
)
FAULT = FaultChange(node="compute-01", fault="slow-cpu", action="set", details="slow")
SCALED = Scaled(name="virtual", compute=3, added=("compute-03",))
CLEANED = Cleaned(
    removed=(("image sifline/hello-mpi:latest", 247000000),), kept=(), freed=247000000
)
WOULD_DEPLOY = WouldDeploy(
    steps=(
        Step(
            image=Image(name="hello-mpi", folder=Path("images/hello-mpi"), tag=""),
            reason="its Dockerfile or context changed",
            needed=True,
        ),
    ),
    nodes={"hello-mpi": {"compute-01": "send"}},
    left_out=("compute-02",),
)
WOULD_BRING_UP = WouldBringUp(
    name="virtual",
    steps=WOULD_DEPLOY.steps,
    removed=("compute-01",),
    started=("controller", "compute-01"),
)
CLUSTER = Cluster(
    name="lab",
    nodes=(Node(name="compute-01", role=Role.COMPUTE, address="172.20.0.3"),),
    ssh=SshAccess(user="root"),
    partitions=(),
    source=Path("clusters/lab.yaml"),
)
INVENTORY = Inventory(
    cluster=replace(
        CLUSTER, notes=("compute-02 is in no partition, so that no job can run there",)
    ),
    hosts={
        "all": {
            "vars": {"ansible_user": "root"},
            "children": {
                "controller": {"hosts": {"controller": {"ansible_host": "172.20.0.2"}}},
                "compute": {
                    "hosts": {"compute-01": {"ansible_host": "172.20.0.3", "slurm_common_cpus": 2}}
                },
            },
        }
    },
)
PROVISIONED = ProvisionedCluster(
    cluster=CLUSTER,
    ok=112,
    changed=1,
    seconds=8.1,
    changes=(("slurm-common: write slurm.conf", ("compute-01",)),),
    kept=("compute-01:/etc/slurm/slurm.conf.before",),
    diffs=((("compute-01",), "--- slurm.conf\n+++ slurm.conf\n"),),
    jobs=(
        AffectedJob(
            id="8",
            user="alice",
            state="RUNNING",
            where="compute-01",
            why="goes from 2 to 1 cpus",
            becomes="queued again",
        ),
    ),
    notes=("compute-01: stays drained: Prolog error",),
)
DEPLOYED = Deployment(
    sif=SifFile(name="hello-mpi", category="mpi", path=SIF, size=81000000, sha256="a" * 64),
    cluster=CLUSTER,
    path=PurePosixPath("/opt/containers/mpi/hello-mpi.sif"),
    placements=(
        Placement(
            node="compute-01",
            path=PurePosixPath("/opt/containers/mpi/hello-mpi.sif"),
            sha256="a" * 64,
            sent=True,
        ),
    ),
    seconds=2.4,
    behind=(Unreached(node="compute-02", why="compute-02 (10.0.0.12) does not answer"),),
)
VERSION = Version(
    sha256="a" * 64,
    size=81000000,
    when="2026-01-31T12:00:00+00:00",
    who="ada@laptop",
    fingerprint="f" * 64,
    commit="0a1b2c3d4e5f60718293a4b5c6d7e8f901234567",
    image_digest=f"sha256:{'d' * 64}",
    tests="54 passed",
    nodes=("controller", "compute-01"),
)
CATALOG_IMAGE = CatalogImage(
    name="hello-mpi",
    category="mpi",
    path=PurePosixPath("/opt/containers/mpi/hello-mpi.sif"),
    current=VERSION,
    previous=(replace(VERSION, sha256="b" * 64, when="2026-01-30T12:00:00+00:00"),),
    behind=(Behind(node="compute-02", why="other version", sha256="b" * 64),),
    history=(
        Event(
            what="deployed",
            version=VERSION,
            in_place=("controller", "compute-01"),
            kept=("compute-02",),
        ),
    ),
)
SILENT = (("compute-03", "compute-03: does not answer"),)
CATALOG = Catalog(
    cluster=CLUSTER,
    images=(CATALOG_IMAGE,),
    silent=SILENT,
    foreign=(("compute-01", "/opt/containers/mpi/other.sif"),),
)
ROLLED_BACK = RolledBack(
    image=CATALOG_IMAGE,
    cluster=CLUSTER,
    version=CATALOG_IMAGE.previous[0],
    actions=(("compute-01", "switch"),),
    silent=SILENT,
)
REMOVAL = Removal(
    node="compute-01", kind="version", image="mpi/hello-mpi", what="b" * 64, size=81000000
)
REMOVED = Removed(
    cluster=CLUSTER,
    removed=(REMOVAL,),
    kept=(replace(REMOVAL, what="c" * 64, why="process 712 (python) on compute-01 has it open"),),
    jobs=("job 8 of alice (pending)",),
    silent=SILENT,
)
FACTS = ClusterFacts(
    nodes=(NodeFacts(node="compute-01", read=1.0, mpi_types=("pmix",), squashfs_fuse=("gzip",)),),
    silent={"compute-02": "compute-02 does not answer"},
)
WOULD_CONVERT = WouldConvert(
    source="docker://ubuntu:22.04",
    name="ubuntu",
    path=Path("build/sif/ubuntu.sif"),
    reason="there is no SIF",
)
PLANNED = SimpleNamespace(steps=WOULD_DEPLOY.steps, broken={}, check=lambda: None)
LISTED = ListedCluster(
    name="virtual",
    file=Path("clusters/virtual.yaml"),
    standing=StandingCluster(name="virtual", nodes=3, running=3, checkout="/home/ada/containers"),
)


def pipeline(*_: object, **__: object) -> SimpleNamespace:
    """Stands in for what needs an engine or a cluster: returns what a real one would."""
    return SimpleNamespace(
        work=SimpleNamespace(dry=lambda *_, **__: PLANNED),
        cleaner=SimpleNamespace(clean=lambda *_, **__: CLEANED),
        planner=SimpleNamespace(sound=lambda names: ([*names], {})),
        sifs=SimpleNamespace(
            compat=lambda *_, **__: (("hello-mpi", COMPATIBILITY),),
            diff=lambda *_, **__: compare(CONTENTS, OTHER),
            sbom=lambda *_, **__: (Bill(path=Path("hello-mpi.cdx.json"), contents=CONTENTS),),
            sizes=lambda _: (SIZES,),
            verify_signature=lambda *_, **__: (VERIFIED,),
            would_convert_source=lambda *_: WOULD_CONVERT,
        ),
        clusters=SimpleNamespace(
            find=lambda *_, **__: CLUSTER,
            inventory=lambda *_: INVENTORY,
            deploy=lambda *_, **__: ((DEPLOYED,), {}),
            down=lambda *_, **__: ("container virtual-compute-01", "network virtual"),
            listed=lambda: (LISTED,),
            provision=lambda *_, **__: PROVISIONED,
            status=lambda _: (NODE,),
            facts=lambda *_, **__: FACTS,
            validate=lambda *_, **__: (CHECK,),
            would_down=lambda *_, **__: ("container virtual-compute-01", "network virtual"),
            would_up=lambda *_, **__: WOULD_BRING_UP,
            would_deploy=lambda *_, **__: WOULD_DEPLOY,
        ),
        deployed=SimpleNamespace(
            catalog=lambda _: CATALOG,
            history=lambda *_: (CATALOG, CATALOG_IMAGE),
            rollback=lambda *_, **__: ROLLED_BACK,
            undeploy=lambda *_, **__: REMOVED,
            prune=lambda *_, **__: REMOVED,
        ),
        practice=SimpleNamespace(
            fault=lambda *_, **__: (FAULT,),
            restart=lambda *_, **__: ("compute-01",),
            scale=lambda *_, **__: SCALED,
            would_scale=lambda *_: SCALED,
        ),
    )


# Those that are carried out on a checkout with a fake engine, and those on a stand-in.
REAL = (
    *("status", "explain", "info", "config", "doctor", "validate --list", "graph"),
    *("build --dry", "test --dry", "lint-slurm slurm.conf"),
)
STANDING_IN = (
    *("convert --dry", "make --dry", "deploy --dry", "clean --dry"),
    "convert --dry --source docker://ubuntu:22.04",
    *("compat", "diff", "sbom", "sizes", "verify-signature"),
    *("cluster.list", "cluster.status", "validate", "cluster.up --dry", "cluster.down --dry"),
    *("cluster.fault", "cluster.restart", "cluster.scale"),
    *("inventory", "provision", "deploy", "facts"),
    *("catalog", "history", "rollback", "undeploy --dry", "prune --dry"),
)
# What a task is about, where it has to be said.
SUBJECTS = {
    "cluster.fault": ("--node", "compute-01", "--fault", "slow-cpu"),
    "cluster.restart": ("--node", "compute-01"),
    "cluster.scale": ("3",),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout with an image that is built and deployed, whose SIF is another's."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pytest"])
        fake_engine(folder, patch)
        (folder / "tasks.py").write_text(TASKS)
        (folder / "images" / "hello-mpi").mkdir(parents=True)
        (folder / "images" / "hello-mpi" / "Dockerfile").write_text("FROM scratch\n")
        (folder / "images" / "debian").mkdir(parents=True)
        (folder / "images" / "debian" / "Dockerfile").write_text("FROM sifline/hello-mpi\n")
        done = invoke_here(folder, "build.hello-mpi")
        assert done.returncode == 0, done.stderr
        (folder / "build" / "sif").mkdir()
        labels = sif_files.labels_object({"title": "hello-mpi"})
        sif_files.write(folder / SIF, [labels, sif_files.SQUASHFS])
        record = folder / "build" / "records" / "hello-mpi" / "deploy-lab.json"
        record.write_text(
            json.dumps(
                {
                    "version": 2,
                    "cluster": "lab",
                    "sha256": "a" * 64,
                    "nodes": ["controller", "compute-01"],
                    "when": "2026-01-31T12:00:00+00:00",
                }
            )
        )
        (folder / "slurm.conf").write_text("SchedulerPort=7321\n")
        with pytest.MonkeyPatch.context() as there:
            there.chdir(folder)
            yield folder


def words_of(call: str) -> list[str]:
    """The command line of an output; of the image verbs, about one image."""
    task, *more = call.split()
    body = helps.tasks()[task]
    # The graph of one image has no parents.
    one = body in images.VERBS and task != "graph" and "--source" not in more
    about = f"{task}.hello-mpi" if one else task
    return [about, *SUBJECTS.get(task, ()), *more, "--json"]


@pytest.fixture
def output(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Return what carries out a call and reads what it prints."""
    monkeypatch.setattr(sys, "argv", ["pytest"])

    def read(call: str) -> dict[str, Any]:
        if call in STANDING_IN:
            monkeypatch.setattr(support.Run, "pipeline", pipeline)
        done = invoke_here(project, *words_of(call))
        assert done.stdout, done.stderr
        return dict(json.loads(done.stdout))

    return read


def documented() -> dict[str, dict[str, Any]]:
    return {
        name: json.loads(found[1])
        for name, text in SECTION.findall(PAGE.read_text())
        if (found := EXAMPLE.search(text))
    }


def shape(value: Any) -> Any:
    """The keys of a value; those of all elements of a list together."""
    if isinstance(value, Mapping):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        found: dict[str, Any] = {}
        for item in map(shape, value):
            found |= item if isinstance(item, dict) else {}
        return [found] if found else []
    return None


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from value
        for key, item in value.items():
            if key == "nodes" and isinstance(item, dict):
                continue  # by image and node
            yield from keys([*item.values()] if key in NAMED and isinstance(item, dict) else item)
    elif isinstance(value, list):
        for item in value:
            yield from keys(item)


@pytest.mark.parametrize("call", [*REAL, *STANDING_IN])
def test_the_page_shows_the_keys_that_are_there(
    output: Callable[[str], dict[str, Any]], call: str
) -> None:
    found = output(call)

    assert (next(iter(found)), found["schema"]) == ("schema", 1)
    assert shape(found) == shape(documented()[call])
    assert [key for key in keys(found) if not re.fullmatch(r"[a-z][a-z0-9_]*", key)] == []


def test_every_task_that_prints_json_is_on_the_page() -> None:
    with_json = {
        name
        for name, body in helps.tasks().items()
        if "json" in (getattr(body, "__kwdefaults__", None) or {})
        or "json" in getattr(getattr(body, "__signature__", None), "parameters", {})
    }

    assert {call.split()[0] for call in documented()} == with_json


def test_deployments_of_the_example_are_those_that_are_recorded(project: Path) -> None:
    (found,) = deployments.known("hello-mpi", Workspace(root=project), sha256="a" * 64)

    assert (found.cluster, found.current, found.nodes) == (
        "lab",
        True,
        ("controller", "compute-01"),
    )
