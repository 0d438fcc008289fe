"""Lists of nodes on the command line: what they name, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.config.node_lists import choose
from sifline.errors import UsageError
from sifline.formats.node_lists import (
    MOST,
    NodeListError,
    expand,
    expand_in_order,
    fold,
    fold_in_order,
)
from sifline.model import Cluster, Node, Partition, Role, SshAccess

NAMES = ("head", "compute-01", "compute-02", "compute-03", "gpu-1")
CLUSTER = Cluster(
    name="blue",
    nodes=tuple(
        Node(name=name, role=Role.CONTROLLER if name == "head" else Role.COMPUTE) for name in NAMES
    ),
    ssh=SshAccess(),
    partitions=(Partition(name="main"),),
    source=Path("clusters/blue.yaml"),
)


def chosen(**lists: str) -> tuple[list[str], list[str]]:
    found = choose(CLUSTER, **lists)
    return [node.name for node in found.nodes], [node.name for node in found.left_out]


@pytest.mark.parametrize(
    ("lists", "nodes"),
    [
        ({"only": "compute-[01-02]"}, ["compute-01", "compute-02"]),
        ({"only": "gpu-1,compute-[01,03]"}, ["compute-01", "compute-03", "gpu-1"]),
        ({"only": "head"}, ["head"]),
        ({"without": "compute-[01-03]"}, ["head", "gpu-1"]),
        ({"only": "compute-[01-03]", "without": "compute-02"}, ["compute-01", "compute-03"]),
    ],
)
def test_nodes_are_chosen_as_slurm_writes_them(lists: dict[str, str], nodes: list[str]) -> None:
    assert chosen(**lists) == (nodes, [name for name in NAMES if name not in nodes])


def test_the_controller_is_known_where_it_is_left_out() -> None:
    found = choose(CLUSTER, only="gpu-1")

    assert found.controller.name == "head"
    assert [node.name for node in found.compute] == ["gpu-1"]
    assert {node.name for node in found.whole} == {*NAMES}


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        (
            {"only": "compute-[02-04]"},
            "--node compute-[02-04]: clusters/blue.yaml has no node 'compute-04'. Did you mean",
        ),
        ({"without": "gpu-2"}, "--without gpu-2: clusters/blue.yaml has no node 'gpu-2'."),
        ({"only": "compute-[1-2]"}, "has no node 'compute-1'. Did you mean compute-01"),
        ({"only": ""}, "--node '': names no node"),
        ({"without": ""}, "--without '': names no node"),
        ({"only": ","}, "--node ',': is no list such as compute-[01-03],gpu-1"),
        ({"only": "compute-[01-"}, "is no list such as"),
        ({"only": "n[1-2,1-99999999]"}, "1-99999999 has more than 65536 nodes"),
        ({"only": f"n[1-{'9' * 5000}]"}, "has more than 65536 nodes"),
        ({"only": "@all"}, "is no list such as compute-[01-03],gpu-1"),
        ({"only": "compute-[01-03]!compute-02"}, "is no list such as"),
        ({"only": "n[1-60000]x[1-60000]"}, "names more than 65536 nodes"),
        ({"only": "gpu-1", "without": "gpu-1"}, "--node gpu-1, --without gpu-1: no node is left"),
        (
            {"without": "head,gpu-1,compute-[01-03]"},
            "--without head,gpu-1,compute-[01-03]: no node of blue is left",
        ),
    ],
)
def test_what_names_no_nodes_of_the_cluster_is_refused(lists: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        chosen(**lists)
    assert said in caught.value.message


@pytest.mark.parametrize("content", ["no section", "[nodeset]\nfold_axis: x\n"])
def test_a_broken_configuration_of_the_library_is_told_in_one_line(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "defaults.conf").write_text(content)
    call = "from sifline.formats.node_lists import expand; expand('a')"
    done = subprocess.run(
        [sys.executable, "-c", call],
        env={"CLUSTERSHELL_CFGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("sifline.")]
    assert ": the configuration of ClusterShell cannot be read: " in line
    assert line.endswith("; fix that file")


def test_other_configuration_of_the_library_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "groups.conf").write_text("[Main]\ndefault: x\n[x]\nmap: echo gpu-1\n")
    monkeypatch.setenv("CLUSTERSHELL_CFGDIR", str(tmp_path))

    assert expand("x,a[1-2]") == ["a1", "a2", "x"]


@pytest.mark.parametrize(
    ("text", "count", "last"),
    [
        ("n[1-300,400-700]", 601, "n700"),
        ("n[1-40000],m[1-20000]", 60000, "n40000"),
        ("n[01-100]", 100, "n100"),
        ("n[08-1002]", 995, "n1002"),
        ("n[001-099]", 99, "n099"),
        ("r[1-2]n[1-2]", 4, "r2n2"),
    ],
)
def test_lists_are_expanded_as_slurm_does(text: str, count: int, last: str) -> None:
    names = expand(text)
    assert (len(names), last in names) == (count, True)
    assert {*expand(fold(names))} == {*names}


def test_a_range_with_zeros_keeps_their_width_as_long_as_it_fits() -> None:
    assert expand("n[08-11,098-101]") == [
        *("n08", "n09", "n10", "n11", "n098", "n099", "n100", "n101"),
    ]


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["n1"], "n1"),
        (["n1", "n2", "n3"], "n[1-3]"),
        (["n3", "n1", "n2", "n7"], "n[3,1-2,7]"),
        (["n08", "n09", "n10", "m1"], "n[08-10],m1"),
        (["n9", "n10"], "n[9-10]"),
        (["n09", "n010"], "n[09,010]"),
        (["n1-ib", "n2-ib", "login"], "n1-ib,n2-ib,login"),
        (["192.0.2.9", "192.0.2.10", "192.0.3.1"], "192.0.2.[9-10],192.0.3.1"),
        (["fe80::8", "fe80::9"], "fe80::8,fe80::9"),
        ([], ""),
    ],
)
def test_a_list_in_order_has_numbers_at_the_end_of_names(names: list[str], text: str) -> None:
    assert fold_in_order(names) == text


NAME = st.from_regex(r"[a-z][a-z0-9-]{0,4}[0-9]{0,4}", fullmatch=True)


@given(st.lists(NAME, min_size=1, max_size=30))
def test_what_is_folded_in_order_is_expanded_again(names: list[str]) -> None:
    assert expand_in_order(fold_in_order(names)) == names


@given(st.integers(0, 1200), st.integers(1, 50), st.integers(0, 4))
def test_a_range_is_as_slurm_reads_it(first: int, count: int, width: int) -> None:
    names = [f"n{number:0{width}}" for number in range(first, first + count)]
    assert expand_in_order(fold_in_order(names)) == names
    assert len(fold_in_order(names)) <= len("n[1200-1250]")


def test_nodes_of_two_ranges_are_in_the_order_of_their_numbers() -> None:
    assert expand_in_order("r[2,1]n[1-2],x") == ["r2n1", "r2n2", "r1n1", "r1n2", "x"]


@pytest.mark.parametrize(
    "text", ["n[1-70000]", "n[1-40000],m[1-40000]", "a[0-999]b[0-999]c[0-999]"]
)
def test_a_list_without_an_end_is_refused_at_once(text: str) -> None:
    with pytest.raises(NodeListError, match=f"more than {MOST} nodes"):
        expand_in_order(text)
