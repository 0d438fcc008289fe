"""Rows of nodes that stand for several, and the nodes of partitions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sifline.config.clusters import dump_cluster, load_cluster
from sifline.errors import UsageError
from sifline.model import Cluster

HEAD = "nodes:\n  - {name: c, role: controller}\n"
TWO = HEAD + "  - {name: 'n[1-2]', role: compute}\n  - {name: m1, role: compute}\n"


def load(tmp_path: Path, text: str) -> Cluster:
    path = tmp_path / "cluster.yaml"
    path.write_text(text, encoding="utf-8")
    return load_cluster(path)


def test_a_row_with_a_range_is_a_group_of_nodes(tmp_path: Path) -> None:
    cluster = load(
        tmp_path,
        f"{HEAD}  - name: compute-[001-512]\n    role: compute\n    cpus: 64\n"
        "    address: 10.0.[0-1].[0-255]\n    features: [ib, big]\n",
    )
    assert len(cluster.compute) == 512
    last = cluster.compute[-1]
    assert (last.name, last.address, last.cpus) == ("compute-512", "10.0.1.255", 64)
    assert {node.features for node in cluster.compute} == {("ib", "big")}


def test_addresses_belong_to_names_in_the_order_of_both(tmp_path: Path) -> None:
    row = "  - {name: 'a2,a[1,3]', role: compute, address: '10.0.0.[7,5],h.example.org'}\n"
    cluster = load(tmp_path, HEAD + row)
    assert [(node.name, node.address) for node in cluster.compute] == [
        ("a2", "10.0.0.7"),
        ("a1", "10.0.0.5"),
        ("a3", "h.example.org"),
    ]


def test_gpus_of_a_group_are_those_of_each_of_its_nodes(tmp_path: Path) -> None:
    row = "  - {name: 'g[1-2]', role: compute, gpu_devices: [{file: '/dev/nvidia[0-3]'}]}\n"
    assert [node.gpus for node in load(tmp_path, HEAD + row).compute] == [4, 4]


def test_a_group_is_read_back_as_its_nodes(tmp_path: Path) -> None:
    cluster = load(
        tmp_path, TWO + "partitions: [{name: p, nodes: [m1, 'n[1-2]'], exclusive: true}]"
    )
    assert load(tmp_path, dump_cluster(cluster, tmp_path)) == cluster


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ("n[1-2]", "n[1-2]"),
        ("n1,m1", "n1,m1"),
        ("[n2, n1]", "n[2,1]"),
        ("[m1, 'n[1-2]']", "m1,n[1-2]"),
        ("all", ""),
        ("ALL", ""),
    ],
)
def test_a_partition_has_a_list_of_nodes(tmp_path: Path, nodes: str, found: str) -> None:
    quoted = nodes if nodes.startswith("[") else f"'{nodes}'"
    cluster = load(
        tmp_path, f"{TWO}partitions: [{{name: p, nodes: {quoted}}}, {{name: all-of-it}}]"
    )
    assert [part.nodes for part in cluster.partitions] == [found, ""]
    assert cluster.notes == ()


def test_nodes_without_a_partition_are_noted(tmp_path: Path) -> None:
    cluster = load(tmp_path, TWO + "partitions: [{name: p, nodes: m1}]")
    assert cluster.notes == ("n[1-2] are in no partition, so that no job can run there",)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            HEAD + "  - {name: 'n[1-]', role: compute}",
            3,
            "must be a host name, or several such as",
        ),
        (
            HEAD + "  - {name: 'n[1-3', role: compute}",
            3,
            "must be a host name, or several such as",
        ),
        (HEAD + "  - {name: '-[1-3]', role: compute}", 3, "-1 is no host name"),
        (HEAD + "  - {name: 'n[3-1]', role: compute}", 3, "nodes[1].name 'n[3-1]': is no list"),
        (HEAD + "  - {name: 'n[1-99999]', role: compute}", 3, "has more than 65536 nodes"),
        (
            HEAD + "  - {name: 'n[1-3]', role: compute, address: '10.0.0.[1-2]'}",
            3,
            "nodes[1].address: 10.0.0.[1-2] is 2 addresses, and n[1-3] 3 nodes",
        ),
        (
            HEAD + "  - {name: 'n[1-3]',\n     role: compute,\n     address: 10.0.0.1}",
            5,
            "10.0.0.1 is 1 addresses, and n[1-3] 3 nodes",
        ),
        (TWO + "  - {name: n2, role: compute}", 5, "two nodes are named n2; name each host once"),
        (TWO + "  - {name: 'm[2,2]', role: compute}", 5, "two nodes are named m2"),
        (TWO + "partitions: [{name: p, nodes: n3}]", 5, "there is no compute node n3; add it to"),
        (TWO + "partitions: [{name: p, nodes: n3}]", 5, "Did you mean n2, n1"),
        (TWO + "partitions: [{name: p, nodes: c}]", 5, "c is the controller, which runs no jobs"),
        (
            TWO + "partitions: [{name: p, nodes: 'n[2-1]'}]",
            5,
            "partitions[0].nodes 'n[2-1]': is no",
        ),
        (TWO + "partitions: [{name: p, nodes: 'a b'}]", 5, "must be a list of nodes such as"),
        (TWO + "partitions: [{name: p, nodes: [n1, 3]}]", 5, "must be a string, found 3"),
        (TWO + "partitions:\n- name: p\n  max_time: '10'\n  default_time: '1:00:00'", 8, "longer"),
        (TWO + "partitions: [{name: p, allow_qos: [x]}]", 5, "without the section accounting"),
        (
            TWO + "accounting: {qos: [{name: long}]}\npartitions: [{name: p, allow_qos: [lnog]}]",
            6,
            "accounting.qos has no lnog; add it there, or remove it here. Did you mean long?",
        ),
        (
            TWO + "accounting: {}\npartitions: [{name: p, allow_accounts: [physics]}]",
            6,
            "accounting.accounts has no physics",
        ),
        (TWO + "partitions: [{name: p, priority: 3}]", 5, "Did you mean priority_tier"),
        (TWO + "partitions: [{name: p, state: gone}]", 5, "one of up, down, drain, inactive"),
        (TWO + "partitions: [{name: p, max_nodes: 0}]", 5, "a whole number from 1 to 65536"),
        (HEAD + "  - {name: n, role: compute, features: ['a&b']}", 3, "feature 'a&b' must be"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path / 'cluster.yaml'}:{line}: ")
    assert message in caught.value.message


def test_accounts_of_a_database_of_others_are_not_looked_up(tmp_path: Path) -> None:
    more = "accounting: {host: dbd}\npartitions: [{name: p, allow_accounts: [physics]}]"
    assert load(tmp_path, TWO + more).partitions[0].allow_accounts == ("physics",)


def test_the_examples_of_the_reference_are_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "cluster-file.md"
    examples = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    found = [load(tmp_path, text) for text in examples if "nodes:" in text]
    assert [(len(cluster.nodes), cluster.notes) for cluster in found] == [(2, ()), (133, ())]
