"""Virtual clusters without an engine: names, what docker is told, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import IO, Any

import pytest

from sifline import virtual
from sifline.engines.docker import containers
from sifline.engines.docker.containers import Busy, Container, Containers
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.machine.process import Result
from sifline.model import NodeState, WouldBringUp
from sifline.pipeline import Pipeline
from sifline.pipeline.clusters import Clusters
from sifline.report import clusters as report_clusters
from sifline.report import planned
from sifline.report.terminal import Terminal
from sifline.tasks import practice
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

FILE = Path(__file__).parents[2] / "clusters" / "virtual.yaml"
NO_ENGINE = answer(stderr="Cannot connect to the Docker daemon at unix:///x.", returncode=1)


def entry(
    node: str,
    role: str,
    *,
    state: str = "running",
    address: str = "10.0.0.2",
    checkout: str | None = None,
    **more: object,
) -> dict[str, object]:
    labels = {"sifline.node": node, "sifline.role": role, "sifline.cluster": "x"}
    if checkout is not None:
        labels["sifline.workspace"] = checkout
    return {
        "Name": f"/sifline-x-{node}",
        "State": {"Status": state},
        "Config": {"Labels": labels},
        "NetworkSettings": {"Networks": {"sifline-x": {"IPAddress": address}}},
        **more,
    }


def holding(
    *entries: dict[str, object],
    network: str = "",
    volumes: str = "",
    image: Result | None = None,
    more: Mapping[tuple[str, ...], Result] = MappingProxyType({}),
) -> RecordingRunner:
    return RecordingRunner(
        {
            ("docker", "container", "ls"): answer("id\n" if entries else ""),
            ("docker", "container", "inspect"): answer(json.dumps(entries)),
            ("docker", "network", "ls"): answer(network),
            ("docker", "network", "rm"): answer(),
            ("docker", "volume", "ls"): answer(volumes),
            ("docker", "volume", "rm"): answer(),
            ("docker", "rm"): answer(),
            ("docker", "exec"): answer('{"active": []}'),
            ("docker", "image", "inspect"): image or answer(),
            **more,
        }
    )


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "-a", "A", "a_b", "a;b", "x" * 41])
def test_a_name_that_cannot_be_used_reaches_neither_engine_nor_disk(
    tmp_path: Path, name: str
) -> None:
    space = context_of(tmp_path, RecordingRunner())
    with pytest.raises(UsageError, match="use lower-case letters"):
        virtual.up(virtual.describe(FILE, name), space)
    with pytest.raises(UsageError, match="use lower-case letters"):
        virtual.down(name, space)
    with pytest.raises(UsageError, match="use lower-case letters"):
        virtual.status(name, space)
    assert list(tmp_path.iterdir()) == []


def test_states_come_with_the_controller_first(tmp_path: Path) -> None:
    runner = holding(
        entry("a", "compute", state="exited", address=""), entry("head", "controller")
    )
    assert virtual.status("x", context_of(tmp_path, runner)) == (
        NodeState(node="head", role="controller", address="10.0.0.2", state="running"),
        NodeState(node="a", role="compute", address="", state="exited"),
    )


def test_the_shell_of_a_cluster_that_does_not_stand_says_how_to_bring_it_up(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match=r"invoke cluster\.up --cluster "):
        virtual.shell_argv("x", "a", context_of(tmp_path, holding()), command=[])


def test_the_shell_of_a_stopped_node_is_refused(tmp_path: Path) -> None:
    runner = holding(entry("a", "compute", state="exited"))
    with pytest.raises(StepFailed, match="a of cluster x is exited"):
        virtual.shell_argv("x", "a", context_of(tmp_path, runner), command=[])


def test_without_an_engine_bootstrap_is_named(tmp_path: Path) -> None:
    space = context_of(tmp_path, RecordingRunner({("docker",): NO_ENGINE}))
    with pytest.raises(MissingError, match="run scripts/bootstrap"):
        virtual.up(virtual.describe(FILE, "x"), space)
    with pytest.raises(MissingError, match="run scripts/bootstrap"):
        virtual.status("x", space)


LONG = "clusters: {hpc: {controller: {ip: a}, compute_nodes: [{ip: b}]}}\n"
SHORT = "nodes: [{name: a, role: controller}, {name: b, role: compute}]\n"


@pytest.mark.parametrize(
    ("text", "image"),
    [
        (SHORT, "slurm-node"),
        (SHORT + "virtual: {}", "slurm-node"),
        (SHORT + "virtual: {image: other}", "other"),
        (LONG, "slurm-node"),
        (LONG + "virtual: {image: other}", "other"),
    ],
)
def test_the_nodes_are_made_of_the_image_that_the_file_names(
    tmp_path: Path, text: str, image: str
) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert virtual.describe(path, "x").image == image


def test_too_many_nodes_are_refused(tmp_path: Path) -> None:
    nodes = "".join(f"- {{name: n{number}, role: compute}}\n" for number in range(64))
    path = tmp_path / "large.yaml"
    path.write_text(f"nodes:\n- {{name: c, role: controller}}\n{nodes}")
    with pytest.raises(UsageError, match="65 nodes are too many"):
        virtual.up(virtual.describe(path, "x"), context_of(tmp_path, RecordingRunner()))


def test_its_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described, opened = tmp_path / "mine.yaml", list[Path]()
    real: Callable[..., IO[Any]] = Path.open
    described.write_text(FILE.read_text())
    (tmp_path / "images").mkdir()

    def recording(path: Path, *words: Any, **options: Any) -> IO[Any]:
        opened.append(path)
        return real(path, *words, **options)

    monkeypatch.setattr(Path, "open", recording)
    runner = holding(image=answer(returncode=1))
    with pytest.raises(MissingError, match="the engine has no image slurm-node"):
        Pipeline(context_of(tmp_path, runner), Terminal()).clusters.up(str(described))
    assert opened.count(described) == 1


def test_what_the_engine_says_of_a_container_that_does_not_start_is_told() -> None:
    said = "docker: Error response from daemon: no such device.\nSee 'docker run --help'.\n"
    runner = RecordingRunner({("docker", "run"): answer(stderr=said, returncode=125)})
    with pytest.raises(
        StepFailed, match=r"^a container did not start: Error .* no such device\.$"
    ):
        Containers(runner).start(["--name=a"], "image")


SUBNET = IPv4Network("10.213.7.0/24")


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Pool overlaps with other one on this address space", Busy),
        ("network with name n already exists", Busy),
        ("permission denied", StepFailed),
    ],
)
def test_addresses_that_another_run_took_may_be_chosen_anew(
    said: str, kind: type[StepFailed]
) -> None:
    runner = RecordingRunner(
        {("docker", "network"): answer(stderr=f"Error: {said}", returncode=1)}
    )
    with pytest.raises(StepFailed, match=f"network n cannot be created: Error: {said}") as caught:
        Containers(runner).create_network("n", ["a=b"], subnet=SUBNET, dynamic=SUBNET)
    assert type(caught.value) is kind


def test_subnets_of_all_networks_are_read() -> None:
    networks = [
        {"Name": "bridge", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}, {"Subnet": "::/64"}]}},
        {"Name": "host", "IPAM": {"Config": None}},
    ]
    runner = RecordingRunner(
        {
            ("docker", "network", "ls"): answer("1\n2\n"),
            ("docker", "network", "inspect"): answer(json.dumps(networks)),
        }
    )
    assert Containers(runner).subnets() == {
        "bridge": (IPv4Network("172.17.0.0/16"),),
        "host": (),
    }


def test_a_container_that_vanishes_while_it_is_looked_at_is_none() -> None:
    runner = RecordingRunner(
        {
            ("docker", "container", "ls"): answer("gone\nid\n"),
            ("docker", "container", "inspect"): answer(
                json.dumps([entry("a", "compute")]), stderr="No such container", returncode=1
            ),
        }
    )
    assert Containers(runner).find("a=b") == (
        Container(
            name="sifline-x-a",
            state="running",
            address="10.0.0.2",
            labels={"sifline.node": "a", "sifline.role": "compute", "sifline.cluster": "x"},
        ),
    )


TAKEN = 'docker: Error response from daemon: Conflict. "/x" is already in use by container "1".'
# The docker command ends what it says of a network with a line of its own.
BUSY = "Error response from daemon: error while removing network: network x has active endpoints"


def test_a_volume_that_a_killed_run_uses_may_be_free_a_moment_later() -> None:
    said = "Error response from daemon: remove v: volume is in use - [1a2b]"
    runner = RecordingRunner({("docker", "volume", "rm"): answer(stderr=said, returncode=1)})
    with pytest.raises(Busy, match="volume v cannot be removed: Error response"):
        Containers(runner).remove_volume("v")


def leaving(*network_rm: Result) -> RecordingRunner:
    """An engine in which a killed run's container appears after all others are removed."""
    return RecordingRunner(
        {
            ("docker", "container", "ls"): [answer(""), answer(""), answer("id\n")],
            ("docker", "container", "inspect"): answer(json.dumps([entry("late", "compute")])),
            ("docker", "rm"): answer(),
            ("docker", "network", "ls"): answer("n1\n"),
            ("docker", "network", "ls", "--filter"): answer(""),
            ("docker", "network", "rm"): list(network_rm),
            ("docker", "volume", "ls"): answer(""),
        }
    )


def test_a_name_that_is_taken_may_be_free_a_moment_later() -> None:
    said = f"{TAKEN}\n\nRun 'docker run --help'\n"
    runner = RecordingRunner({("docker", "run"): answer(stderr=said, returncode=125)})
    with pytest.raises(Busy, match=r"did not start: Error response from daemon: Conflict\."):
        Containers(runner).start([], "image")


def test_down_removes_what_a_killed_run_makes_meanwhile(tmp_path: Path) -> None:
    runner = leaving(answer(stderr=BUSY, returncode=1), answer())
    assert virtual.down("x", context_of(tmp_path, runner)) == [
        "container sifline-x-late",
        "network sifline-x",
    ]
    assert [argv[-1] for argv in runner.argvs if argv[1] == "rm"] == ["sifline-x-late"]


ELSEWHERE = "the cluster x belongs to the checkout /elsewhere; "


@pytest.mark.parametrize(
    "runner",
    [
        holding(entry("head", "controller", checkout="/elsewhere")),
        # The run that makes it has come no further than the network.
        holding(network="/elsewhere\n"),
    ],
    ids=["nodes", "network alone"],
)
def test_a_cluster_of_another_checkout_is_neither_opened_nor_taken_down(
    tmp_path: Path, runner: RecordingRunner
) -> None:
    space = context_of(tmp_path, runner)
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / "virtual.yaml").write_text(FILE.read_text())
    with pytest.raises(UsageError, match=f"^{ELSEWHERE}take it down there, or here with: (.*)$"):
        virtual.down("x", space)
    with pytest.raises(UsageError, match=f"^{ELSEWHERE}open it there, or bring up your own: (.*)"):
        virtual.shell_argv("x", "head", space, command=[])
    with pytest.raises(
        UsageError, match=f"^{ELSEWHERE}bring one of your own up under another name: "
    ):
        Pipeline(space, Terminal()).quickstart("x")
    assert {argv[1:3] for argv in runner.argvs} <= {
        ("container", "ls"),
        ("container", "inspect"),
        ("network", "ls"),
    }


def test_a_cluster_of_another_checkout_is_taken_down_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    runner = RecordingRunner(
        {
            ("docker", "container", "ls"): answer("id\n"),
            ("docker", "container", "inspect"): answer(
                json.dumps([entry("head", "controller", checkout="/elsewhere")])
            ),
            ("docker", "rm"): answer(),
            ("docker", "network", "ls"): answer(""),
            ("docker", "volume", "ls"): answer(""),
        }
    )
    space = context_of(tmp_path, runner)
    assert virtual.down("x", space, foreign=True) == ["container sifline-x-head"]


def test_the_state_of_a_cluster_says_who_brought_it_up(tmp_path: Path) -> None:
    runner = holding(entry("head", "controller", checkout="/elsewhere"))
    (state,) = virtual.status("x", context_of(tmp_path, runner))
    assert state.checkout == "/elsewhere"
    assert "/elsewhere" in report_clusters.node_states([state])


@pytest.mark.parametrize("said", [BUSY, "Error: something else"])
def test_down_fails_with_what_stays_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(containers, "BUSY_SECONDS", 0.2)
    runner = leaving(answer(stderr=f"{said}\nexit status 1\n", returncode=1))
    with pytest.raises(StepFailed, match=rf"n1 cannot be removed: {said}; docker network inspect"):
        virtual.down("x", context_of(tmp_path, runner))
    tries = [argv for argv in runner.argvs if argv[1:3] == ("network", "rm")]
    assert (len(tries) > 1) == (said is BUSY)


def clusters(tmp_path: Path, runner: RecordingRunner) -> Clusters:
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "clusters").mkdir(exist_ok=True)
    return Pipeline(context_of(tmp_path, runner), Terminal()).clusters


@pytest.mark.parametrize("verb", ["status", "down"])
def test_a_cluster_that_does_not_stand_is_an_error_with_the_nearest(
    tmp_path: Path, verb: str
) -> None:
    runner = holding()
    ask = getattr(clusters(tmp_path, runner), verb)

    with pytest.raises(UsageError, match="no virtual cluster green is running") as caught:
        ask("green")
    # Whoever takes one down wants none to be brought up.
    assert ("; for one: invoke cluster.up" in caught.value.message) == (verb == "status")


@pytest.mark.parametrize("described", [False, True])
def test_a_cluster_of_another_checkout_is_none_of_this_one_and_said_to_be_there(
    tmp_path: Path, *, described: bool
) -> None:
    found = clusters(tmp_path, holding(entry("head", "controller", checkout="/elsewhere")))
    if described:
        (tmp_path / "clusters" / "x.yaml").write_text(FILE.read_text())

    with pytest.raises(UsageError, match=r"^the cluster x belongs to the checkout /elsewhere; "):
        found.find("x")


def test_the_nearest_cluster_that_stands_is_named(tmp_path: Path) -> None:
    space = context_of(tmp_path, holding(entry("head", "controller")))

    assert str(virtual.unknown("xx", space)) == (
        "no virtual cluster xx is running. Did you mean x? Running: x. See invoke cluster.list."
    )
    assert "--cluster green. Running: x. See" in str(virtual.unknown("green", space))


def test_a_cluster_of_another_checkout_is_told_as_such(tmp_path: Path) -> None:
    found = holding(entry("head", "controller", checkout="/elsewhere"))

    message = str(virtual.unknown("green", context_of(tmp_path, found)))

    assert "Running: x (another checkout)." in message


def test_a_cluster_that_is_not_there_is_an_error_before_the_step_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError):
        clusters(tmp_path, holding()).down("green")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("chosen", [{"suites": ["bogus"]}, {"checks": ["bogus"]}])
def test_a_check_that_is_not_there_is_an_error_before_the_step_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chosen: dict[str, list[str]]
) -> None:
    cluster = virtual.describe(FILE).cluster

    with pytest.raises(UsageError, match=r"no (suite|check) is called 'bogus'"):
        clusters(tmp_path, holding()).validate(cluster, **chosen)
    assert capsys.readouterr().err == ""


def with_users() -> RecordingRunner:
    asked = ("docker", "exec", "--", "sifline-x-a", "getent")
    people = "root:x:0:0::/root:/bin/bash\nalice:x:1:1::/home/a:/bin/bash\nmunge:x:2:2::/m:/no\n"
    return holding(
        entry("a", "compute"),
        more={(*asked, "passwd"): answer(people), (*asked, "group"): answer("users:x:100:\n")},
    )


@pytest.mark.parametrize(
    ("user", "says"),
    [
        ("bob", "a has no user 'bob'. Its users are root, alice. Open it as root: invoke"),
        ("alize", "a has no user 'alize'. Did you mean alice?"),
        ("alice:usrs", "a has no group 'usrs'. Did you mean users?"),
    ],
)
def test_a_user_whom_the_node_does_not_have_is_an_error(
    tmp_path: Path, user: str, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        virtual.shell_argv("x", "a", context_of(tmp_path, with_users()), command=[], user=user)
    assert caught.value.message.startswith(says)


@pytest.mark.parametrize(
    ("user", "folder"),
    [("", "/root"), ("root", "/root"), ("alice", "/home/a"), ("munge", "/"), ("77:88", "/")],
)
def test_a_shell_starts_in_the_home_of_its_user(tmp_path: Path, user: str, folder: str) -> None:
    space = context_of(tmp_path, with_users())
    assert f"--workdir={folder}" in virtual.shell_argv("x", "a", space, command=[], user=user)


def test_clusters_that_are_described_and_that_stand_are_listed(tmp_path: Path) -> None:
    runner = holding(
        entry("head", "controller", checkout="/there"), entry("a", "compute", state="exited")
    )
    described = clusters(tmp_path, runner)
    (tmp_path / "clusters" / "lab.yaml").touch()

    found = described.listed()

    assert report_clusters.clusters(found).splitlines()[1:] == [
        f"lab      {tmp_path}/clusters/lab.yaml  -              -",
        f"x        {'-':<{len(str(tmp_path)) + 18}}  1 of 2 run     /there",
    ]
    assert report_clusters.cluster_values(found) == [
        {"name": "lab", "file": f"{tmp_path}/clusters/lab.yaml", "standing": None},
        {
            "name": "x",
            "file": None,
            "standing": {"name": "x", "nodes": 2, "running": 1, "checkout": "/there"},
        },
    ]


def test_a_cluster_is_described_by_a_file_of_its_name_else_by_the_usual_one(
    tmp_path: Path,
) -> None:
    runner = holding(image=answer(returncode=1))
    described = clusters(tmp_path, runner)
    for name, image in (("virtual", "usual"), ("lab", "own")):
        text = FILE.read_text().replace("image: slurm-node", f"image: {image}")
        (tmp_path / "clusters" / f"{name}.yaml").write_text(text)

    for asked, image in (("lab", "own"), ("other", "usual")):
        with pytest.raises(MissingError, match=f"the engine has no image {image}"):
            described.up(asked)


def test_what_would_be_removed_is_what_is_removed(tmp_path: Path) -> None:
    here = str(tmp_path)
    runner = holding(entry("head", "controller", checkout=here), network=here, volumes="v\n")
    described = clusters(tmp_path, runner)
    folder = tmp_path / "build" / "clusters" / "x"
    folder.mkdir(parents=True)

    told = described.would_down("x")

    assert [argv for argv in runner.argvs if "rm" in argv] == []
    assert folder.is_dir()
    assert not (tmp_path / "build" / "locks").exists()
    assert told == described.down("x")
    assert told == (
        "container sifline-x-head",
        "network sifline-x",
        "volume v",
        f"folder {folder}",
    )


def test_a_file_that_describes_hosts_is_no_virtual_cluster(tmp_path: Path) -> None:
    described = clusters(tmp_path, RecordingRunner())
    (tmp_path / "clusters" / "lab.yaml").write_text(
        "nodes: [{name: a, role: controller, address: 10.0.0.1}, {name: b, role: compute}]\n"
    )

    for asked in ("lab", f"{tmp_path}/clusters/lab.yaml"):
        with pytest.raises(UsageError, match=r"lab\.yaml: describes hosts, since it has"):
            described.up(asked)


def test_what_up_would_do_names_nodes_that_it_removes_first() -> None:
    told = WouldBringUp(name="x", removed=("a",), started=("a", "b"))

    assert planned.would_bring_up(told) == "would remove a\nwould start a, b"
    assert "nothing to do" in planned.would_bring_up(WouldBringUp(name="x"))


def test_up_would_fail_where_the_engine_has_no_image(tmp_path: Path) -> None:
    described = clusters(tmp_path, holding(image=answer(returncode=1)))
    (tmp_path / "clusters" / "virtual.yaml").write_text(FILE.read_text())

    with pytest.raises(MissingError, match="the engine has no image slurm-node"):
        described.would_up("x")


def test_up_would_refuse_the_cluster_of_another_checkout(tmp_path: Path) -> None:
    described = clusters(tmp_path, holding(entry("head", "controller", checkout="/there")))
    (tmp_path / "clusters" / "virtual.yaml").write_text(FILE.read_text())

    with pytest.raises(UsageError, match="belongs to the checkout /there"):
        described.would_up("x")


@pytest.mark.parametrize("user", ["", "alice"])
def test_a_shell_has_the_variables_of_a_login_alone(tmp_path: Path, user: str) -> None:
    space = context_of(tmp_path, with_users())

    argv = virtual.shell_argv("x", "a", space, command=["id"], user=user)

    name, home = (user, "/home/a") if user else ("root", "/root")
    words = argv[argv.index("env") :]
    assert words[:2] == ["env", "--ignore-environment"]
    assert {f"USER={name}", f"LOGNAME={name}", f"HOME={home}"} <= set(words)
    assert words[-1] == "id"


def test_the_state_of_a_node_names_its_faults(tmp_path: Path) -> None:
    runner = holding(
        entry("a", "compute", HostConfig={"CpuQuota": 20000}),
        more={("docker", "exec"): answer('{"active": ["clock", "disk-full"]}')},
    )
    (state,) = virtual.status("x", context_of(tmp_path, runner))
    assert state.faults == ("disk-full", "slow-cpu", "clock")
    assert "disk-full, slow-cpu, clock" in report_clusters.node_states([state])


@pytest.mark.parametrize(("status", "faults"), [(137, ("kill",)), (0, ())])
def test_a_killed_node_is_told_from_one_that_was_stopped(
    tmp_path: Path, status: int, faults: tuple[str, ...]
) -> None:
    dead = {"Status": "exited", "ExitCode": status}
    runner = holding(entry("a", "compute", address="", State=dead))
    (state,) = virtual.status("x", context_of(tmp_path, runner))
    assert state.faults == faults


REGISTRY = PurePosixPath("/opt/containers")


def test_a_fault_that_a_node_has_is_said(tmp_path: Path) -> None:
    runner = holding(
        entry("a", "compute", HostConfig={"CpuQuota": 20000}),
        more={("docker", "update"): answer()},
    )
    space = context_of(tmp_path, runner)

    given = virtual.change("x", "a", "slow-cpu", space, folder=REGISTRY)
    dry = virtual.change("x", "a", "", space, folder=REGISTRY, undo=True, dry=True)
    undone = virtual.change("x", "a", "clock", space, folder=REGISTRY, undo=True)

    assert [item.action for item in (*given, *dry, *undone)] == [
        *("set already", "undone", "not set")
    ]


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ("b", r"cluster x has no node 'b'\. Its nodes are a\."),
        ("a[", r"--node 'a\[': "),
        ("", "--node '': names no node"),
    ],
)
def test_nodes_that_are_not_there_get_no_fault(tmp_path: Path, nodes: str, says: str) -> None:
    space = context_of(tmp_path, holding(entry("a", "compute")))
    with pytest.raises(UsageError, match=says):
        virtual.change("x", nodes, "kill", space, folder=REGISTRY)
    with pytest.raises(UsageError, match=says):
        virtual.restart("x", nodes, space)


def test_a_node_that_does_not_run_gets_no_fault(tmp_path: Path) -> None:
    space = context_of(tmp_path, holding(entry("a", "compute", state="exited", address="")))
    with pytest.raises(StepFailed, match=r"a is exited, so .*: invoke cluster\.up --cluster x$"):
        virtual.change("x", "a", "clock", space, folder=REGISTRY)


def test_a_fault_that_is_not_possible_says_why(tmp_path: Path) -> None:
    refusal = answer(stderr="the node has no GPU\n", returncode=1)
    runner = holding(entry("a", "compute"), more={("docker", "exec"): refusal})
    with pytest.raises(StepFailed, match=r"^a: no-gpu is not possible: the node has no GPU$"):
        virtual.change("x", "a", "no-gpu", context_of(tmp_path, runner), folder=REGISTRY)


def test_nodes_of_another_checkout_are_not_changed(tmp_path: Path) -> None:
    space = context_of(tmp_path, holding(entry("a", "compute", checkout="/elsewhere")))
    with pytest.raises(UsageError, match=f"^{ELSEWHERE}change it there"):
        virtual.change("x", "a", "kill", space, folder=REGISTRY)
    with pytest.raises(UsageError, match=f"^{ELSEWHERE}change it there"):
        virtual.restart("x", "a", space)


def test_the_verbs_know_the_same_faults() -> None:
    assert practice.FAULTS == virtual.FAULTS


@pytest.mark.parametrize("count", [0, 64])
def test_a_number_of_nodes_that_is_not_possible_is_refused(tmp_path: Path, count: int) -> None:
    space = context_of(tmp_path, holding(entry("a", "compute")))
    with pytest.raises(UsageError, match=f"cluster.scale {count}: takes a number from 1 to 63"):
        virtual.would_scale(virtual.describe(FILE, "x"), count, space)
