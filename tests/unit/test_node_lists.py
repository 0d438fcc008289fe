"""Lists of nodes on the command line: what they name, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sifline.config.node_lists import choose
from sifline.errors import UsageError
from sifline.formats.node_lists import expand, fold
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
