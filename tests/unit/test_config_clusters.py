"""Cluster files: both formats are read, and what is wrong is named with file, key and cause."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.config.clusters import (
    dump_cluster,
    find_cluster,
    is_host_name,
    load_cluster,
    not_running,
)
from sifline.errors import UsageError
from sifline.model import Cluster, Node, Partition, Role, SshAccess, Workspace

ROOT = Path(__file__).parents[2]

SMALL = """
name: small
nodes:
  - {name: c, role: controller, address: 10.0.0.1}
  - {name: n1, role: compute, address: 10.0.0.2}
"""

FULL = """
name: full
nodes:
  - {name: c, role: controller, address: c.example.org, cpus: 4, memory_mb: 4096}
  - {name: n1, role: compute, address: "fe80::1",
     cpus: 8, memory_mb: 8192, gpus: 4, gpu_type: a100}
ssh: {user: ops, port: 2222, identity_file: keys/id, known_hosts: /etc/hosts.known}
partitions:
  - {name: gpu}
  - {name: debug, default: true, max_time: "1-12:00:00"}
job_user: bob
registry_root: /srv/containers
variables: {slurm_common_extra: [DebugFlags=Gres], other: 3}
"""

LONG = """
version: "1.0"
metadata: {name: x, description: y}
clusters:
  hpc:
    name: long
    colour: green
    controller: {ip_address: 10.0.0.1, cpu_cores: 4, memory_gb: 10}
    compute_nodes:
      - ip: 10.0.0.2
        cpu_cores: 8
        pcie_passthrough:
          enabled: true
          devices: [{device_type: gpu}, {device_type: gpu}, {device_type: audio}]
      - {ip: 10.0.0.3, pcie_passthrough: {enabled: false, devices: [{device_type: gpu}]}}
      - {ip_address: 10.0.0.4, name: special}
      - {ip_address: 10.0.0.5, name: label, hostname: gpu05}
    slurm_config: {partitions: [gpu, debug], default_partition: debug, max_job_time: "12:00:00"}
    ssh: {user: admin, private_key_path: ~/.ssh/id, port: 2222}
  cloud: {anything: true}
"""


def load(tmp_path: Path, text: str) -> Cluster:
    path = tmp_path / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    return load_cluster(path)


def test_all_keys_of_the_short_format_are_read(tmp_path: Path) -> None:
    assert load(tmp_path, FULL) == Cluster(
        name="full",
        nodes=(
            Node(name="c", role=Role.CONTROLLER, address="c.example.org", cpus=4, memory_mb=4096),
            Node(
                name="n1",
                role=Role.COMPUTE,
                address="fe80::1",
                cpus=8,
                memory_mb=8192,
                gpus=4,
                gpu_type="a100",
            ),
        ),
        ssh=SshAccess(
            user="ops",
            port=2222,
            identity_file=tmp_path / "keys" / "id",
            known_hosts=Path("/etc/hosts.known"),
        ),
        partitions=(
            Partition(name="gpu"),
            Partition(name="debug", default=True, max_time="1-12:00:00"),
        ),
        source=tmp_path / "cluster.yaml",
        job_user="bob",
        registry_root=PurePosixPath("/srv/containers"),
        variables=(("slurm_common_extra", ["DebugFlags=Gres"]), ("other", 3)),
    )


def test_the_first_partition_is_the_default_where_none_is_named(tmp_path: Path) -> None:
    cluster = load(tmp_path, SMALL + "partitions: [{name: a}, {name: b}]")
    assert [part.name for part in cluster.partitions if part.default] == ["a"]


def test_a_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    cluster = load(tmp_path, SMALL + "ssh: {identity_file: ~/.ssh/id}")
    assert cluster.ssh.identity_file == Path("/home/somebody/.ssh/id")


@pytest.mark.parametrize("text", [SMALL, FULL])
def test_what_is_dumped_is_read_back(tmp_path: Path, text: str) -> None:
    cluster = load(tmp_path, text)
    assert load(tmp_path, dump_cluster(cluster, tmp_path)) == cluster


def test_the_long_format_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    cluster = load(tmp_path, LONG)

    found = [(node.name, node.address, node.cpus, node.gpus) for node in cluster.nodes]
    assert found == [
        ("controller", "10.0.0.1", 4, 0),
        ("compute-01", "10.0.0.2", 8, 2),
        ("compute-02", "10.0.0.3", 1, 0),
        ("special", "10.0.0.4", 1, 0),
        ("gpu05", "10.0.0.5", 1, 0),
    ]
    assert cluster.controller.memory_mb == 9216  # nine tenths of 10 GiB
    assert cluster.ssh == SshAccess(
        user="admin", port=2222, identity_file=Path("/home/somebody/.ssh/id")
    )
    assert cluster.partitions == (
        Partition(name="gpu", max_time="12:00:00"),
        Partition(name="debug", default=True, max_time="12:00:00"),
    )


def test_the_long_format_tells_what_it_left_aside(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    assert load(tmp_path, LONG).notes == (
        f"clusters.cloud is not used, clusters.hpc is; for that one: --cluster {path}#cloud",
        "clusters.hpc.colour is ignored: unknown",
        "memory_gb is the machine's: Slurm may use 90 % of it",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: [", "cluster.yaml:1: is not YAML"),
        ("a: 1\nb: :\n  - c: [\n", "fix that line"),
        ("", "must be a table of name, nodes,"),
        ("- a", "must be a table of name, nodes,"),
        ("2026-13-45", "is not YAML"),
        (SMALL + "node: []", "unknown key node; allowed are name, nodes,"),
        (SMALL + "node: []", "Did you mean nodes, name?"),
        (SMALL + "3: []", "unknown key 3"),
        ("nodes: {a: 1}", "nodes must be a list of tables"),
        ("nodes: [a]", "nodes must be a list of tables"),
        ("nodes: [{name: a}]", "nodes[0].role must be a string, found nothing"),
        ("nodes: [{name: a, role: head}]", "nodes[0].role must be one of controller, compute"),
        ("nodes: [{name: a, role: compute, cpu: 2}]", "Did you mean cpus"),
        ("nodes: [{name: a, role: compute, cpus: two}]", "nodes[0].cpus must be a whole number"),
        ("nodes: [{name: a, role: compute, cpus: 0}]", "from 1 to"),
        ("nodes: [{name: a, role: compute, gpus: yes}]", "nodes[0].gpus must be a whole number"),
        ("nodes: [{name: 3, role: compute}]", "nodes[0].name must be a string, found 3"),
        ("nodes: [{name: a, role: compute}]", "must have the role controller, found none"),
        ("name: x", "must have the role controller, found none"),
        ("nodes: [{name: a, role: controller}]", "no node has the role compute"),
        (SMALL + "  - {name: d, role: controller}", "found c, d"),
        (SMALL + "  - {name: n1, role: compute}", "two nodes are named n1"),
        (SMALL + "  - {name: n2, role: compute, address: 10.0.0.2}", "n1 and n2 have the same"),
        (SMALL + "ssh: {port: 70000}", "ssh.port must be a whole number from 1 to 65535"),
        (SMALL + "ssh: {key: x}", "unknown key ssh.key"),
        (SMALL + "ssh: {user: -oProxyCommand=x}", "ssh user '-oProxyCommand=x' must be"),
        (
            SMALL + "ssh: {identity_file: ~nobody.at.all/id}",
            "ssh.identity_file must be a path of a user who has a home",
        ),
        (SMALL + "job_user: 'a b'", "job_user 'a b' must be a user name"),
        (SMALL + "registry_root: opt", "registry_root 'opt' must be an absolute folder"),
        (SMALL + "registry: {deployers: '%all'}", "must be the name of a group"),
        (SMALL + "registry: {user_folders: [../x]}", "must be a user name, or @ and a group"),
        (SMALL + "registry: {shared: true, catch_up: true}", "remove catch_up"),
        (SMALL + "registry_root: /opt/../etc", "must be an absolute folder"),
        (SMALL + "registry_root: '/opt/$(x)'", "must be an absolute folder"),
        (SMALL + "partitions: [{name: 'a b'}]", "partition name 'a b' must be"),
        (SMALL + "partitions: [{name: a}, {name: a}]", "two partitions are named a"),
        (SMALL + "partitions: [{name: a, max_time: 24:00:00}]", "max_time must be a string"),
        (SMALL + "partitions: [{name: a, max_time: soon}]", "max_time 'soon' must be a time"),
        (
            SMALL + "partitions: [{name: a, default: true}, {name: b, default: true}]",
            "only one can be the default",
        ),
        (SMALL + "variables: {a b: 1}", "'a b' is no name that Ansible takes"),
        ("clusters: {}", "clusters has no hpc"),
        ("clusters: {hpc: {controller: {ip: 10.0.0.1}}}", "no node has the role compute"),
        ("clusters: {hpc: {compute_nodes: [{ip: 10.0.0.1}]}}", "role controller, found none"),
        ("clusters: {hpc: {controller: {cpu_cores: 2}}}", "clusters.hpc.controller.ip must be"),
        (LONG.replace("default_partition: debug", "default_partition: x"), "one of gpu, debug"),
        (
            LONG.replace("[gpu, debug]", "['a b', debug]"),
            "partitions[0]: partition name 'a b' must",
        ),
        (LONG.replace("[gpu, debug]", "gpu"), "slurm_config.partitions must be a list of strings"),
        (
            LONG.replace("ip: 10.0.0.2", "ip: a b"),
            "clusters.hpc.compute_nodes[0].ip: address 'a b'",
        ),
        (
            LONG.replace("cpu_cores: 8", "cpu_cores: 0"),
            "compute_nodes[0].cpu_cores must be a whole",
        ),
        (SMALL.replace("n1,", "a b,"), "nodes[1].name: node name 'a b' must be a host name"),
        (SMALL.replace("10.0.0.2", '"1::2::3"'), "nodes[1].address '1::2::3' must be a host name"),
        (
            SMALL + "ssh: {identity_file: 3}",
            "ssh.identity_file must be the path of a file, found 3",
        ),
        (SMALL + "virtual: {image: X}", "virtual.image must be the name of an image, found 'X'"),
        (SMALL + "virtual: {imag: x}", "unknown key virtual.imag; allowed are image."),
        # Each ruined a cluster, or dropped a part of the file.
        (SMALL + "nodes: []", "yaml:6: is not YAML that sifline reads: the key nodes is there"),
        (
            SMALL + "partitions: [{name: DEFAULT}]",
            "yaml:6: partitions[0].name: Slurm does not take",
        ),
        (SMALL + "partitions: [{name: a},\n{name: default}]", "yaml:7: partitions[1].name: Slurm"),
        (SMALL.replace("n1,", "All,"), "yaml:5: nodes[1].name: Slurm does not take All"),
        (SMALL + "partitions: [{name: a, max_time: '0'}]", "'0' must be a time above 0 such as"),
        (SMALL + "partitions: [{name: a, max_time: '0-00:00'}]", "must be a time above 0 such as"),
        (
            SMALL + "  - {name: n2, role: compute, gpus: 1, gpu_type: '4'}",
            "which Slurm takes for a",
        ),
        (
            SMALL + "  - {name: n2, role: compute, gpus: 1, gpu_type: 4k}",
            "which Slurm takes for a",
        ),
        (SMALL + "registry_root: /etc", "yaml:6: registry_root: /etc is a folder of the system"),
        (SMALL + "registry_root: //usr/lib//x/", "/usr/lib/x is a folder of the system"),
        (SMALL + "registry_root: /srv/.", "registry_root: /srv is a folder of the system"),
        (SMALL + "ssh: {user: '1000'}", "yaml:6: ssh.user: ssh user '1000' must be a user name"),
        (SMALL + "job_user: x@y", "yaml:6: job_user 'x@y' must be a user name"),
        (SMALL + "accounting: {accounts: [{name: a, users: [Bob]}]}", "a user name in lower case"),
        # Errors name the line.
        (SMALL + "node: []", "cluster.yaml:6: unknown key node;"),
        (SMALL + "ssh:\n  port: x", "cluster.yaml:7: ssh.port must be a whole number"),
        (SMALL + "  - {name: n1, role: compute}", "yaml:6: nodes[2].name: two nodes are named n1"),
        (SMALL + "  - {name: d, role: controller}", "cluster.yaml:3: nodes: one node must have"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(tmp_path, text)

    assert error.value.message.startswith(str(tmp_path))
    assert message in error.value.message
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    "name",
    ["a b", "-a", "a-", "a;b", "$(id)", "a/b", "..", "a_b", "ä", "a\n", "", "x" * 64, "a." * 200],
)
def test_a_name_that_is_no_host_name_is_refused(tmp_path: Path, name: str) -> None:
    import yaml

    text = yaml.safe_dump(
        {
            "nodes": [
                {"name": "c", "role": "controller"},
                {"name": name, "role": "compute"},
            ]
        }
    )
    with pytest.raises(UsageError, match="must be a host name"):
        load(tmp_path, text)


@given(st.text(max_size=300))
def test_host_names_need_no_quotes_and_are_no_options(word: str) -> None:
    if is_host_name(word):
        assert word.isascii()
        assert word.replace("-", "").replace(".", "").isalnum()
        assert word[0].isalnum()


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "cluster.yaml"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError, match=r"cluster\.yaml(:1)?: cannot be read"):
        load_cluster(path)


def test_a_virtual_cluster_that_does_not_stand_is_told_how_to(tmp_path: Path) -> None:
    text = (ROOT / "clusters" / "virtual.yaml").read_text(encoding="utf-8")
    path = tmp_path / "virtual.yaml"
    path.write_text(text)

    with pytest.raises(UsageError) as caught:
        load_cluster(path, asked="virtual")
    assert caught.value.message == (
        "the virtual cluster virtual is not running; run: invoke cluster.up and then: invoke"
        " provision"
    )
    with pytest.raises(UsageError) as caught:
        load_cluster(path)
    assert caught.value.message == (
        f"the virtual cluster virtual is not running; run: invoke cluster.up --cluster {path} and"
        " then: invoke provision --cluster virtual; if it is running, name it: --cluster virtual"
    )


def test_a_cluster_that_is_not_the_default_is_named_in_the_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SIFLINE_CLUSTER", "lab")
    assert not_running("virtual", "virtual").message.endswith(
        "invoke cluster.up --cluster virtual and then: invoke provision --cluster virtual"
    )


def test_a_file_whose_name_is_no_cluster_name_is_told(tmp_path: Path) -> None:
    path = tmp_path / "my_cluster.yaml"
    path.write_text(SMALL.replace("name: small", ""), encoding="utf-8")
    with pytest.raises(UsageError, match="name: cluster name 'my_cluster' must be letters"):
        load_cluster(path)


@pytest.mark.parametrize("user", ["first.last", "First.Last", "svc-1", "_x", "1st", "a_b"])
def test_a_user_may_be_called_as_linux_allows(tmp_path: Path, user: str) -> None:
    more = f"registry: {{deployers: {user}, user_folders: [{user}, '@{user}']}}\n"
    cluster = load(tmp_path, f"{SMALL}ssh: {{user: {user}}}\njob_user: {user}\n{more}")
    assert {cluster.ssh.user, cluster.job_user, cluster.registry.deployers} == {user}


@pytest.mark.parametrize(
    "folder", ["/opt/containers", "/srv/x", "/home/x", "/usr/local/x", "/data", "/mnt/nfs"]
)
def test_a_folder_for_the_images_alone_is_taken(tmp_path: Path, folder: str) -> None:
    assert str(load(tmp_path, f"{SMALL}registry_root: {folder}").registry_root) == folder


def test_anchors_are_read_as_what_they_stand_for(tmp_path: Path) -> None:
    text = """
nodes:
  - {name: c, role: controller}
  - &node {name: n1, role: compute, cpus: 8}
  - {<<: *node, name: n2}
variables: {a: &list [1, 2], b: *list}
"""
    cluster = load(tmp_path, text)
    assert [(node.name, node.cpus) for node in cluster.compute] == [("n1", 8), ("n2", 8)]
    # Written again without lines and anchors that a dumper would not take.
    assert load(tmp_path, dump_cluster(cluster, tmp_path)).variables == cluster.variables


def test_a_node_without_address_is_reached_by_its_name(tmp_path: Path) -> None:
    cluster = load(tmp_path, SMALL.replace(", address: 10.0.0.2", ""))
    assert cluster.compute[0].address == ""


def test_the_example_in_the_long_format_is_read() -> None:
    cluster = load_cluster(ROOT / "clusters" / "example.yaml")
    assert [node.gpus for node in cluster.nodes] == [0, 2, 0]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("clusters/virtual.yaml", "clusters/lab.yml", "build/clusters/one/cluster.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "build/clusters/half-up").mkdir()
    return Workspace(root=tmp_path)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("virtual", "clusters/virtual.yaml"),
        ("lab", "clusters/lab.yml"),
        ("one", "build/clusters/one/cluster.yaml"),
    ],
)
def test_a_cluster_is_found_by_name(workspace: Workspace, name: str, path: str) -> None:
    assert find_cluster(name, workspace) == workspace.root / path


def test_a_standing_cluster_comes_before_its_description(workspace: Workspace) -> None:
    standing = workspace.root / "build/clusters/virtual/cluster.yaml"
    standing.parent.mkdir()
    standing.touch()
    assert find_cluster("virtual", workspace) == standing


def test_a_path_is_taken_as_it_is(workspace: Workspace) -> None:
    assert find_cluster("some/where.yml", workspace) == Path("some/where.yml")


@pytest.mark.parametrize(
    ("name", "hint"),
    [("virtul", "Did you mean virtual?"), ("half-up", "Known are lab, one, virtual."), ("..", "")],
)
def test_an_unknown_cluster_gets_the_nearest_names(
    workspace: Workspace, name: str, hint: str
) -> None:
    with pytest.raises(UsageError) as error:
        find_cluster(name, workspace)
    assert f"no cluster '{name}'" in error.value.message
    assert hint in error.value.message
    # Whoever mistyped a name wants no new cluster.
    assert ("invoke cluster.up" in error.value.message) == ("Did you mean" not in hint)


@pytest.mark.parametrize("written", ["/opt/containers/", "/opt//containers", "//opt/containers//"])
def test_slashes_of_a_folder_are_as_a_shell_reads_them(tmp_path: Path, written: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"{SMALL}registry_root: {written}\n")

    assert str(load_cluster(path).registry_root).lstrip("/") == "opt/containers"


@pytest.mark.parametrize(
    "address", ["::ffff:10.0.0.1", "64:ff9b::192.0.2.1", "1:2:3:4:5:6:1.2.3.4"]
)
def test_an_address_may_end_as_the_older_kind_does(tmp_path: Path, address: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(SMALL.replace("10.0.0.2", f'"{address}"'))

    assert address in [node.address for node in load_cluster(path).nodes]
