"""Addresses of virtual clusters: free, fixed, and the same each time."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline import virtual
from sifline.errors import StepFailed
from sifline.machine.routes import routed
from sifline.virtual.addresses import POOLS, assigned, dynamic, subnet
from sifline.virtual.registering import lacking
from sifline.virtual.scaling import jobs_on
from sifline.virtual.wanted import with_compute

FILE = Path(__file__).parents[2] / "clusters" / "virtual.yaml"
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
NETWORKS = st.lists(
    st.builds(
        lambda number, length: IPv4Network((number, length), strict=False),
        st.integers(int(POOLS[0][0]), int(POOLS[0][-1])),
        st.integers(18, 32),
    ),
    max_size=8,
)


@given(name=NAMES, taken=NETWORKS)
def test_a_subnet_overlaps_nothing_and_is_the_same_each_time(
    name: str, taken: list[IPv4Network]
) -> None:
    found = subnet(name, taken)

    assert [other for other in taken if other.overlaps(found)] == []
    assert any(found.subnet_of(pool) for pool in POOLS)
    assert subnet(name, taken) == found


def test_other_pools_are_used_where_one_is_taken() -> None:
    first, *more = POOLS

    assert subnet("x", [IPv4Network("10.0.0.0/8")]).subnet_of(more[0])
    with pytest.raises(StepFailed, match="no free addresses for the cluster x: all of 10"):
        subnet("x", POOLS)
    assert subnet("x", more).subnet_of(first)


@given(
    count=st.integers(1, 64),
    held=st.dictionaries(st.integers(0, 63), st.integers(10, 127), max_size=20),
)
def test_nodes_keep_their_addresses_and_others_get_free_ones(
    count: int, held: dict[int, int]
) -> None:
    network = subnet("x", [])
    # Two nodes never hold the same address.
    numbers = {number: node for node, number in held.items()}
    had = {f"n{node}": str(network[number]) for number, node in numbers.items()}
    nodes = [f"n{number}" for number in range(count)]

    found = assigned(nodes, had, network)

    assert list(found) == nodes
    assert {node: found[node] for node in nodes if node in had} == {
        node: address for node, address in had.items() if node in nodes
    }
    assert len(set(found.values())) == count
    assert all(IPv4Address(address) not in dynamic(network) for address in found.values())


TABLE = """\
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
odd
odd\tXYZ\t0\t0\t0\t0\t0\tFF00FF00
"""


def test_routes_of_this_machine_are_read(tmp_path: Path) -> None:
    table = tmp_path / "route"
    table.write_text(TABLE)

    assert routed(table) == (IPv4Network("172.17.0.0/16"),)
    assert routed(tmp_path / "none") == ()


@given(text=st.text(max_size=200))
def test_a_table_of_routes_may_hold_anything(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    table = tmp_path_factory.getbasetemp() / "route"
    table.write_text(f"head\n{text}", encoding="utf-8")

    assert isinstance(routed(table), tuple)


@given(count=st.integers(1, 63))
def test_a_scaled_cluster_has_that_number_of_nodes_and_keeps_the_others(count: int) -> None:
    described = virtual.describe(FILE, "x").cluster

    found = with_compute(described, count)

    names = [node.name for node in found.nodes]
    assert len(found.compute) == count
    assert len(set(names)) == len(names)
    assert found.compute[:2] == described.compute[: min(count, 2)]
    assert [node.name for node in found.compute] == [
        f"compute-{n:02}" for n in range(1, count + 1)
    ]


@pytest.mark.parametrize(
    ("name", "following"),
    [("n", "n-2"), ("n9", "n10"), ("n09", "n10"), ("gpu-1-a", "gpu-1-a-2"), ("99", "100")],
)
def test_a_new_node_is_named_after_the_last(name: str, following: str) -> None:
    described = virtual.describe(FILE, "x").cluster
    head, first, _ = described.nodes
    named = replace(described, nodes=(head, replace(first, name=name)))

    assert [node.name for node in with_compute(named, 2).compute] == [name, following]


SHOWN = (
    "NodeName=a Arch=x86_64 State={a} BootTime=2026-01-01T00:00:00"
    " SlurmdStartTime={began} Reason=x y [root@2026]\n"
    "NodeName=b Arch=x86_64 State={b} SlurmdStartTime=2026-01-01T00:00:00 \n"
)
# 2026-01-01T12:00:00 UTC.
SINCE = 1767268800.0


@pytest.mark.parametrize(
    ("a", "began", "b", "every", "away"),
    [
        ("IDLE", "2026-01-01T12:00:01", "IDLE", True, []),
        ("IDLE+DRAIN", "2026-01-01T12:00:01", "MIXED", True, []),
        # What Slurm knows of it is of before.
        ("IDLE", "2026-01-01T11:00:00", "IDLE", False, ["a"]),
        ("IDLE", "None", "IDLE", False, ["a"]),
        ("DOWN", "2026-01-01T12:00:01", "DOWN*", False, ["a"]),
        ("IDLE", "2026-01-01T12:00:01", "IDLE+NOT_RESPONDING", False, []),
        ("IDLE", "2026-01-01T12:00:01", "IDLE+NOT_RESPONDING", True, ["b"]),
    ],
)
def test_a_node_is_back_once_it_registered_after_its_start(
    a: str, began: str, b: str, every: bool, away: list[str]
) -> None:
    text = SHOWN.format(a=a, began=began, b=b)

    assert lacking(text, ["a"], SINCE, every=every) == away


def test_jobs_are_found_by_each_of_their_nodes() -> None:
    text = "n[1-3]|4 of ada (RUNNING)\nn1|5 of ada (RUNNING)\n|6 of ada (PENDING)\n"
    assert jobs_on(text, ["n3", "n2"]) == ("job 4 of ada (RUNNING) on n2, n3",)
    assert jobs_on(text, ["n4"]) == ()
