"""Virtual clusters on the real engine: up, again, side by side, killed, and nothing left."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
import yaml

from sifline import virtual
from sifline.config.clusters import find_cluster, load_cluster
from sifline.engines.docker.containers import Containers
from sifline.engines.ssh.faults import Fault, SshFailed
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.machine.context import Context
from sifline.machine.process import ProcessRunner
from sifline.model import Cluster, Node, Workspace
from sifline.pipeline import Pipeline
from tests.support.contexts import context_of
from tests.support.moments import Moment, ended_at

ROOT = Path(__file__).parents[2]
FILE = ROOT / "clusters" / "virtual.yaml"
# A name for each worker of each run: they do not meet.
NAME = f"vtest-{os.getpid()}"
SHARED = f"vshared-{os.getpid()}"

# One worker has the cluster that is only looked at; whoever is free brings up the others.
looks_at_standing = pytest.mark.xdist_group("standing virtual cluster")
spread = pytest.mark.spread

# When an `up` is ended: before anything of it is in the engine; while its first nodes are
# started, and its last; when all of them answer.
MOMENTS = (
    Moment(words="+ docker network create"),
    Moment(words="+ docker run"),
    Moment(words="+ docker run", times=3),
    Moment(words="logging in"),
)


@pytest.fixture(autouse=True, scope="module")
def _image(pipeline: Pipeline) -> None:
    pipeline.work.build([virtual.DEFAULT_IMAGE])


@pytest.fixture
def space(tmp_path: Path) -> Context:
    """A workspace of its own, so that what is left in build/ can be counted."""
    return context_of(tmp_path)


@pytest.fixture
def up(space: Context) -> Iterator[Callable[..., Cluster]]:
    """Brings clusters up, and takes them down after the test, NAME in any case."""
    names = {NAME}

    def up(name: str = NAME, file: Path = FILE) -> Cluster:
        names.add(name)
        return virtual.up(virtual.describe(file, name), space)

    yield up
    for name in names:
        virtual.down(name, space)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Context:
    return context_of(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def standing(shared: Context, _image: None) -> Iterator[Cluster]:
    """A cluster that tests leave as it is; its workspace is ``shared``."""
    try:
        yield virtual.up(virtual.describe(FILE, SHARED), shared)
    finally:
        virtual.down(SHARED, shared)


def engine(*argv: str) -> list[str]:
    """What the docker command prints, asked past the code under test."""
    return subprocess.run(
        ["docker", *argv], check=True, capture_output=True, text=True
    ).stdout.split()


def left(name: str, space: Context) -> list[str]:
    """Everything in the engine and in build/ that has to do with the cluster ``name``."""
    return [
        *engine("ps", "--all", "--quiet", "--filter", f"name=^sifline-{name}-"),
        *engine("network", "ls", "--quiet", "--filter", f"name=^sifline-{name}$"),
        *engine("volume", "ls", "--quiet", "--filter", f"label=sifline.cluster={name}"),
        *map(str, space.workspace.clusters.glob(f"{name}*")),
    ]


def containers(name: str) -> list[str]:
    return sorted(engine("ps", "--quiet", "--no-trunc", "--filter", f"name=^sifline-{name}-"))


def ask(cluster: Cluster, space: Context, *argv: str, sudo: bool = False) -> dict[str, str]:
    """What ``argv`` prints on each node."""
    with Ssh(cluster, space.runner) as ssh:
        done, failed = ssh.each(
            cluster.nodes, lambda node: ssh.run(node, argv, sudo=sudo, check=False).stdout.strip()
        )
    assert failed == {}
    return done


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """Writes clusters/virtual.yaml with changes."""

    def file(**changes: object) -> Path:
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(FILE.read_text()), **changes}))
        return path

    return file


@spread
def test_nodes_are_what_the_file_says_and_have_booted_when_up_is_done(
    up: Callable[..., Cluster], space: Context
) -> None:
    cluster = up()

    names = ["controller", "compute-01", "compute-02"]
    assert cluster == load_cluster(find_cluster(NAME, space.workspace))
    assert [node.name for node in cluster.nodes] == names
    assert ask(cluster, space, "hostname") == {name: name for name in names}
    assert set(ask(cluster, space, "systemctl", "is-system-running", "--wait").values()) == {
        "running"
    }
    gpus = ask(cluster, space, "sh", "-c", "ls /dev | grep -c ^nvidia")
    assert gpus == {"controller": "0", "compute-01": "2", "compute-02": "2"}


@looks_at_standing
def test_nodes_find_each_other_by_name(standing: Cluster, shared: Context) -> None:
    for node in standing.nodes:
        answers = ask(standing, shared, "getent", "hosts", node.name)
        assert {answer.split()[0] for answer in answers.values()} == {node.address}


@looks_at_standing
def test_another_host_key_is_refused(standing: Cluster, shared: Context, tmp_path: Path) -> None:
    assert standing.ssh.known_hosts is not None
    lines = standing.ssh.known_hosts.read_text().splitlines()
    keys = [line.split()[2] for line in lines]
    # Each node gets the key of its neighbour.
    swapped = [
        line.replace(key, other)
        for line, key, other in zip(lines, keys, keys[1:] + keys[:1], strict=True)
    ]
    hosts = tmp_path / "known_hosts"
    hosts.write_text("\n".join(swapped) + "\n")
    cluster = replace(standing, ssh=replace(standing.ssh, known_hosts=hosts))
    with Ssh(cluster, shared.runner) as ssh, pytest.raises(SshFailed) as error:
        ssh.run(cluster.controller, ["true"])
    assert error.value.fault is Fault.CHANGED_KEY


@looks_at_standing
def test_the_second_up_changes_nothing(standing: Cluster, shared: Context) -> None:
    before = containers(SHARED)
    commands = list[str]()
    counting = replace(shared, runner=ProcessRunner(echo=commands.append))
    assert virtual.up(virtual.describe(FILE, SHARED), counting) == standing
    assert containers(SHARED) == before
    # It looks at the image, the containers and the machine, starts nothing and logs in nowhere.
    asked = [shlex.split(command)[1:4] for command in commands]
    assert [" ".join(word for word in words if word[0] != "-") for words in asked] == [
        "docker image inspect",
        "docker container ls",
        "docker container inspect",
        "docker info",
    ]


@spread
def test_a_stopped_node_is_started_again_and_a_lost_one_is_made_anew(
    up: Callable[..., Cluster], space: Context
) -> None:
    cluster = up()
    before = containers(NAME)
    engine("kill", f"sifline-{NAME}-compute-02")
    assert [item.state for item in virtual.status(NAME, space)] == ["running", "running", "exited"]
    assert up() == cluster
    ask(cluster, space, "true")
    assert containers(NAME) == before

    engine("rm", "--force", f"sifline-{NAME}-compute-02")
    assert up() == cluster
    ask(cluster, space, "true")
    assert len({*containers(NAME)} & {*before}) == 2


@spread
def test_nodes_without_their_network_are_made_anew(
    up: Callable[..., Cluster], space: Context
) -> None:
    up()
    engine("kill", *containers(NAME))
    engine("network", "rm", f"sifline-{NAME}")
    ask(up(), space, "true")


@spread
def test_a_cluster_goes_with_all_faults_that_it_has(
    up: Callable[..., Cluster], space: Context
) -> None:
    up()
    for fault in virtual.FAULTS:
        virtual.change(NAME, "compute-01", fault, space, folder=PurePosixPath("/opt"))
        (state,) = (item for item in virtual.status(NAME, space) if item.node == "compute-01")
        assert fault in state.faults

    virtual.down(NAME, space)
    assert left(NAME, space) == []


@spread
def test_all_faults_are_undone_together(up: Callable[..., Cluster], space: Context) -> None:
    cluster, folder = up(), PurePosixPath("/opt")
    for fault in virtual.FAULTS:
        virtual.change(NAME, "compute-01", fault, space, folder=folder)

    done = virtual.change(NAME, "compute-01", "", space, folder=folder, undo=True)

    # What a killed node forgot is not there to be undone.
    assert {item.fault for item in done} >= {"kill", "slow-cpu", "clock"}
    assert all(not item.faults for item in virtual.status(NAME, space))
    ask(cluster, space, "true")


@spread
def test_nodes_are_added_and_removed_beside_the_others(
    up: Callable[..., Cluster], space: Context
) -> None:
    cluster = up()
    before, described = containers(NAME), virtual.describe(FILE, NAME)

    assert virtual.scale(described, 3, space).added == ("compute-03",)
    more = load_cluster(find_cluster(NAME, space.workspace))
    assert more.nodes[:3] == cluster.nodes
    assert ask(more, space, "hostname")["compute-03"] == "compute-03"
    # An up keeps the number, whatever the file describes.
    assert up() == more
    assert {*before} < {*containers(NAME)}

    assert virtual.scale(described, 2, space).removed == ("compute-03",)
    assert load_cluster(find_cluster(NAME, space.workspace)).nodes == cluster.nodes
    assert containers(NAME) == before


@spread
def test_a_lost_key_is_replaced(up: Callable[..., Cluster], space: Context) -> None:
    up()
    key = space.workspace.clusters / NAME / "id_ed25519"
    lost = key.read_text()
    key.unlink()
    assert ask(up(), space, "whoami") == dict.fromkeys(
        ("controller", "compute-01", "compute-02"), "admin"
    )
    assert key.read_text() != lost


@spread
def test_another_description_is_noticed(
    up: Callable[..., Cluster], space: Context, file: Callable[..., Path]
) -> None:
    before = up()
    assert up(NAME, file(job_user="bob")) == replace(before, job_user="bob")
    nodes = [
        {"name": "head", "role": "controller"},
        {"name": "n1", "role": "compute", "gpus": 1},
    ]
    assert [node.name for node in up(NAME, file(nodes=nodes)).nodes] == ["head", "n1"]
    assert [item.node for item in virtual.status(NAME, space)] == ["head", "n1"]


@spread
def test_clusters_stand_side_by_side(up: Callable[..., Cluster], space: Context) -> None:
    one, two = up(f"{NAME}-1"), up(f"{NAME}-2")
    assert {node.address for node in one.nodes} & {node.address for node in two.nodes} == set()
    virtual.down(f"{NAME}-1", space)
    assert left(f"{NAME}-1", space) == []
    ask(two, space, "true")


@spread
def test_down_leaves_nothing(up: Callable[..., Cluster], space: Context) -> None:
    up()
    assert len(left(NAME, space)) == 6  # three nodes, a network, a home, a folder
    assert len(virtual.down(NAME, space)) == 6
    assert left(NAME, space) == []
    assert virtual.down(NAME, space) == []


@spread
def test_another_checkout_takes_a_cluster_down_where_it_says_so(
    up: Callable[..., Cluster], space: Context, tmp_path: Path
) -> None:
    up()
    elsewhere = replace(space, workspace=Workspace(root=tmp_path / "elsewhere"))
    before = containers(NAME)
    with pytest.raises(UsageError, match=f"checkout {space.workspace.root}; .* --foreign$"):
        virtual.down(NAME, elsewhere)
    with pytest.raises(UsageError, match=f"checkout {space.workspace.root};"):
        virtual.shell_argv(NAME, "controller", elsewhere, command=["true"])
    assert containers(NAME) == before

    # It needs no state: what it knows of the cluster it has from the engine.
    virtual.down(NAME, elsewhere, foreign=True)
    assert containers(NAME) == []


@looks_at_standing
@pytest.mark.usefixtures("standing")
def test_a_cluster_of_another_checkout_is_left_alone(shared: Context, tmp_path: Path) -> None:
    before = containers(SHARED)
    elsewhere = replace(shared, workspace=Workspace(root=tmp_path / "elsewhere"))
    with pytest.raises(UsageError, match=f"belongs to the checkout {shared.workspace.root}"):
        virtual.up(virtual.describe(FILE, SHARED), elsewhere)
    assert containers(SHARED) == before


@pytest.fixture
def demanding(standing: Cluster) -> Iterator[Node]:
    """A node with a login shell that greets, and with a sudo that wants a password: s3cret."""
    script = """
        cp -a /etc/sudoers.d /run/kept
        sed -i 's/NOPASSWD: *//' /etc/sudoers.d/admin
        echo admin:s3cret | chpasswd
        echo 'echo Welcome; echo module loaded >&2' > /home/admin/.bashrc
    """
    node = standing.nodes[1]
    inside = f"sifline-{SHARED}-{node.name}"
    try:
        engine("exec", inside, "sh", "-ec", script)
        yield node
    finally:
        undo = "cp -a /run/kept/. /etc/sudoers.d; rm -r /run/kept /home/admin/.bashrc"
        engine("exec", inside, "sh", "-c", f"{undo}; passwd --lock admin")


@looks_at_standing
def test_a_node_that_greets_and_wants_a_password_is_used_all_the_same(
    standing: Cluster, shared: Context, demanding: Node, tmp_path: Path
) -> None:
    node, file = demanding, tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 1000)
    with Ssh(standing, shared.runner) as ssh:
        assert ssh.run(node, ["cat"], input="fed").stdout == "fed"
        with pytest.raises(SshFailed) as caught:
            ssh.run(node, ["true"], sudo=True)
        assert caught.value.fault is Fault.SUDO_ASKS
        ssh.send(node, file, PurePosixPath("/tmp/sent"))

    right, wrong = (
        replace(standing, ssh=replace(standing.ssh, become_password=word))
        for word in ("s3cret", "guess")
    )
    with Ssh(right, shared.runner) as ssh:
        assert ssh.run(node, ["sh", "-c", "id -un; cat"], sudo=True, input="x").stdout == "root\nx"
        assert ssh.run(node, ["id", "-un"], user="alice").stdout == "alice\n"
        ssh.send(node, file, PurePosixPath("/root/sent"), sudo=True)
        same = ssh.run(node, ["cmp", "/tmp/sent", "/root/sent"], sudo=True, check=False)
        assert same.stdout + same.stderr == ""

    with Ssh(wrong, shared.runner) as ssh, pytest.raises(SshFailed, match="did not take"):
        ssh.run(node, ["true"], sudo=True)


KILLED = """
import sys
from pathlib import Path
from sifline import virtual
from sifline.machine.process import ProcessRunner
from tests.support.contexts import context_of
from tests.support.moments import Teller

tell = Teller(*sys.argv[1:3])
root, file, name = sys.argv[3:]
described = virtual.describe(Path(file), name)
virtual.up(described, context_of(Path(root), ProcessRunner(echo=tell), progress=tell))
"""


def interrupted(space: Context, moment: Moment, signal_: signal.Signals) -> int:
    return ended_at(moment, signal_, KILLED, [space.workspace.root, FILE, NAME])


@spread
@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_up_after_a_killed_one_succeeds(
    up: Callable[..., Cluster], space: Context, moment: Moment
) -> None:
    assert interrupted(space, moment, signal.SIGKILL) == -signal.SIGKILL
    ask(up(), space, "true")


@spread
def test_up_takes_the_name_that_a_killed_run_took_just_now(
    up: Callable[..., Cluster], space: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, late = Containers.start, list[str]()

    def start(self: Containers, options: Sequence[str], image: str) -> None:
        if not late:
            late.append(image)
            real(self, options, image)
        real(self, options, image)

    monkeypatch.setattr(Containers, "start", start)
    ask(up(), space, "true")
    assert late


@spread
@pytest.mark.usefixtures("up")
@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_an_interrupted_up_leaves_nothing(space: Context, moment: Moment) -> None:
    # 1: Python's status for an exception; a cluster that was already up would end with 0.
    assert interrupted(space, moment, signal.SIGINT) in (1, -signal.SIGINT)
    assert left(NAME, space) == []


def broken_image(tmp_path: Path, command: str) -> str:
    (tmp_path / "Dockerfile").write_text(
        f'FROM sifline/{virtual.DEFAULT_IMAGE}\nCMD ["sh", "-c", "{command}"]\n'
    )
    engine("buildx", "build", "--quiet", "--tag", f"sifline/{NAME}:latest", str(tmp_path))
    return NAME


@spread
@pytest.mark.usefixtures("up")
def test_a_node_that_ends_is_told_with_its_last_words(
    space: Context, tmp_path: Path, file: Callable[..., Path]
) -> None:
    image = broken_image(tmp_path, "echo no cgroups here; false")
    try:
        with pytest.raises(StepFailed, match="ended while it started") as error:
            virtual.up(virtual.describe(file(virtual={"image": image}), NAME), space)
    finally:
        engine("image", "rm", f"sifline/{image}:latest")
    assert error.value.details == "no cgroups here"
    assert left(NAME, space) == []


@spread
@pytest.mark.usefixtures("up")
def test_a_missing_image_is_named(space: Context, file: Callable[..., Path]) -> None:
    with pytest.raises(MissingError, match=r"no image nowhere; run invoke build\.nowhere"):
        virtual.up(virtual.describe(file(virtual={"image": "nowhere"}), NAME), space)
    assert left(NAME, space) == []


PRINT = ("sh", "-c", 'echo "$(id -u) $HOME"')


@looks_at_standing
@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize(
    ("user", "expected"),
    [("", "0 /root\n"), ("root", "0 /root\n"), ("alice", "1001 /home/alice\n")],
)
def test_shell_runs_a_command_as_that_user(shared: Context, user: str, expected: str) -> None:
    argv = virtual.shell_argv(SHARED, "compute-01", shared, command=PRINT, user=user)
    assert shared.runner.run(argv).stdout == expected


@looks_at_standing
@pytest.mark.usefixtures("standing")
def test_an_unknown_node_gets_the_nearest_names(shared: Context) -> None:
    with pytest.raises(UsageError, match=r"no node 'compute-1'\. Did you mean compute-01"):
        virtual.shell_argv(SHARED, "compute-1", shared, command=[])
