"""Cluster files in the long format: what is read, what is noted, which of several is used."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from sifline.config.clusters import find_cluster, load_cluster, load_virtual
from sifline.errors import UsageError
from sifline.model import Cluster, Workspace
from tests.support.invoking import invoke_here

ONE = """\
version: "1.0"
clusters:
  hpc:
    controller: {ip: 10.0.0.1}
    compute_nodes:
      - {ip: 10.0.0.2}
"""
SEVERAL = """\
clusters:
  hpc: &hpc
    name: lab
    controller: {ip: 10.0.0.1}
    compute_nodes: [{ip: 10.0.0.2}]
  test: {<<: *hpc, name: small}
  other: {<<: *hpc, name: again}
  third: {<<: *hpc, name: again}
"""


def load(tmp_path: Path, text: str, key: str = "") -> Cluster:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return load_cluster(path.with_name(f"x.yaml#{key}") if key else path)


def nodes(text: str, more: str = "") -> str:
    """Return a file with these rows of compute nodes."""
    return f"{ONE.rpartition('      - ')[0]}{text}\n{more}"


def test_what_is_not_understood_is_noted_once(tmp_path: Path) -> None:
    rows = "".join(f"      - {{ip: 10.0.0.{n}, gpu: 2, gres: x, odd: 1}}\n" for n in (2, 3, 4))
    more = "    gres_config: {auto: true}\n    container_registry: {path: /x}\n"
    storage = "    storage: {beegfs: {enabled: true}}\n    ssh: {password: x}\n"
    cluster = load(tmp_path, nodes(rows, more + storage))
    first = "clusters.hpc.compute_nodes[0]"
    assert cluster.notes == (
        "clusters.hpc.gres_config is ignored; write gpus and gpu_type, or gpu_devices, of each"
        " node",
        "clusters.hpc.container_registry is ignored; write registry_root and registry",
        "clusters.hpc.ssh.password is ignored: unknown",
        f"{first}.gpu is ignored, and in 2 other nodes; write gpus and gpu_type, or gpu_devices",
        f"{first}.gres is ignored, and in 2 other nodes; write gpus and gpu_type, or gpu_devices",
        f"{first}.odd is ignored: unknown, and in 2 other nodes",
        "clusters.hpc.storage.beegfs is ignored; mount it on the nodes",
    )


def test_keys_of_the_short_format_say_what_the_long_one_cannot(tmp_path: Path) -> None:
    row = "      - {ip: 10.0.0.2, gpus: 2, gpu_type: a100, features: [ib]}\n"
    more = """
    job_user: first.last
    registry_root: /srv/containers
    registry: {shared: true}
    variables: {x: 1}
    accounting: {accounts: [{name: a, users: [first.last]}]}
    slurm_config:
      max_job_time: "12:00:00"
      partitions: [{name: gpu, nodes: compute-01, max_nodes: 1}, {name: all-of-it}]
"""
    cluster = load(tmp_path, nodes(row, more))
    (node,) = cluster.compute
    assert (node.gpus, node.gpu_type, node.features) == (2, "a100", ("ib",))
    assert (cluster.job_user, cluster.registry.shared) == ("first.last", True)
    assert cluster.registry_root == PurePosixPath("/srv/containers")
    assert (cluster.variables, cluster.accounting is None) == ((("x", 1),), False)
    found = [(part.name, part.nodes, part.max_time, part.default) for part in cluster.partitions]
    assert found == [
        ("gpu", "compute-01", "12:00:00", True),
        ("all-of-it", "", "12:00:00", False),
    ]
    assert cluster.notes == ()


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (
            "      - {count: 2, ip: DHCP}\n      - {ip: 10.0.0.9}\n",
            [("compute-01", ""), ("compute-02", ""), ("compute-03", "10.0.0.9")],
        ),
        (
            "      {count: 2, ip: '10.0.0.[4-5]'}\n",
            [("compute-01", "10.0.0.4"), ("compute-02", "10.0.0.5")],
        ),
        (
            "      - {name: 'gpu-[1-2]', count: 2, ip_address: dhcp}\n",
            [("gpu-1", ""), ("gpu-2", "")],
        ),
        (
            "      - {hostname: 'n[7,9]', name: x, ip: 'a,b'}\n",
            [("n7", "a"), ("n9", "b")],
        ),
    ],
)
def test_a_row_may_be_several_nodes(
    tmp_path: Path, rows: str, found: list[tuple[str, str]]
) -> None:
    assert [(node.name, node.address) for node in load(tmp_path, nodes(rows)).compute] == found


def test_an_address_of_dhcp_is_noted(tmp_path: Path) -> None:
    assert load(tmp_path, nodes("      - {count: 12, ip: DHCP}\n")).notes == (
        "clusters.hpc.compute_nodes[0].ip is DHCP: reached by name, compute-[01-12]",
    )


@pytest.mark.parametrize("version", ["1", "1.0", "'1.0'", "1.2", "'1'"])
def test_versions_that_are_known_are_read(tmp_path: Path, version: str) -> None:
    assert load(tmp_path, ONE.replace('"1.0"', version)).name == "hpc"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (ONE.replace("1.0", "7.3"), 1, "version is '7.3', and sifline reads 1.0"),
        (ONE.replace('"1.0"', "7.3"), 1, "version is 7.3, and sifline reads 1.0"),
        (ONE.replace('"1.0"', "yes"), 1, "version is True"),
        (ONE + "nodes: []\n", 7, "nodes: is a key of the short format"),
        (ONE + "job_user: x\n", 7, "move it into clusters.hpc, or describe the cluster without"),
        (
            nodes("      - {count: 3, ip: 10.0.0.1}\n"),
            6,
            "10.0.0.1 is 1 addresses, and compute-[01-03]",
        ),
        (
            nodes("      - {count: 3, name: n, ip: DHCP}\n"),
            6,
            "count is 3, and its name stands for 1",
        ),
        (nodes("      - {count: 0, ip: DHCP}\n"), 6, "count must be a whole number from 1"),
        (nodes("      - {ip: 10.0.0.1}\n"), 6, "controller and compute-01 have the same address"),
        (nodes("      - {cpu_cores: 2}\n"), 6, "compute_nodes[0].ip must be"),
        (ONE + "    registry_root: /etc\n", 7, "clusters.hpc.registry_root: /etc is a folder of"),
        (ONE + "    job_user: a b\n", 7, "clusters.hpc.job_user 'a b' must be a user name"),
        (
            ONE + "    slurm_config: {partitions: [DEFAULT]}\n",
            7,
            "Slurm does not take DEFAULT for",
        ),
        (ONE + "    slurm_config: {max_job_time: '0'}\n", 7, "'0' must be a time above 0"),
        (
            ONE + "    slurm_config: {partitions: [{name: a, nodes: n9}]}\n",
            7,
            "slurm_config.partitions[0].nodes: there is no compute node n9",
        ),
        (
            "clusters:\n  a: {}\n  b: {}\n",
            2,
            "clusters has no hpc, found a, b; choose one: --clus",
        ),
        ("clusters: {}\n", 1, "clusters has no hpc; describe one there"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path / 'x.yaml'}:{line}: ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("key", "name"),
    [("", "lab"), ("hpc", "lab"), ("lab", "lab"), ("test", "small"), ("small", "small")],
)
def test_a_cluster_is_chosen_by_its_key_or_its_name(tmp_path: Path, key: str, name: str) -> None:
    cluster = load(tmp_path, SEVERAL, key)
    assert (cluster.name, cluster.source) == (name, tmp_path / "x.yaml")


def test_the_only_cluster_of_a_file_is_used_whatever_its_key(tmp_path: Path) -> None:
    cluster = load(tmp_path, ONE.replace("hpc:", "blue:"))
    assert (cluster.name, cluster.notes) == ("blue", ())


def test_the_others_are_noted_with_what_chooses_them(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    assert load(tmp_path, SEVERAL, "small").notes == tuple(
        f"clusters.{other} is not used, clusters.test is; for that one: --cluster {path}#{other}"
        for other in ("hpc", "other", "third")
    )


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("tset", "clusters has no tset, found hpc, test, other, third. Did you mean test?"),
        (
            "again",
            "two clusters have the name again, found hpc, test, other, third. Choose one by"
            " its key.",
        ),
    ],
)
def test_a_cluster_that_is_not_there_is_named(tmp_path: Path, key: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, SEVERAL, key)
    assert caught.value.message == f"{tmp_path / 'x.yaml'}:2: {message}"


def test_a_file_of_one_cluster_needs_no_key(tmp_path: Path) -> None:
    text = "name: one\nnodes: [{name: c, role: controller}, {name: n, role: compute}]\n"
    assert load(tmp_path, text, "one").name == "one"
    with pytest.raises(UsageError, match="describes one alone; leave out #two"):
        load(tmp_path, text, "two")


def test_a_key_may_be_behind_a_name_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "clusters").mkdir()
    file = tmp_path / "clusters" / "several.yaml"
    file.write_text(SEVERAL)
    workspace = Workspace(root=tmp_path)
    for asked in ("several#test", f"{file}#small"):
        assert load_virtual(find_cluster(asked, workspace))[0].name == "small"
    with pytest.raises(UsageError, match="no cluster is named behind #"):
        find_cluster(f"{file}#", workspace)


@pytest.mark.parametrize("words", [("inventory",), ("cluster.up", "--dry"), ("validate",)])
def test_verbs_take_a_key(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "tasks.py").write_text(
        "from pathlib import Path\nfrom sifline.tasks import namespace\n"
        "ns = namespace(Path(__file__).parent)\n"
    )
    (tmp_path / "images").mkdir()
    (tmp_path / "x.yaml").write_text(SEVERAL)
    done = invoke_here(tmp_path, *words, "--cluster", "x.yaml#tset")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: x.yaml:2: clusters has no tset, found hpc, test")
