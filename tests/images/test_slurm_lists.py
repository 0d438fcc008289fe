"""Lists of nodes are those that Slurm itself reads, in the same order."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.formats.node_lists import expand_in_order, fold_in_order
from tests.support.engine import docker, need_image

IMAGE = "sifline/slurm-node"
LEAST = """ClusterName=x
SlurmctldHost=localhost
NodeName=n1
PartitionName=p Nodes=ALL
"""
# Prints the names of each list in a line.
EACH = 'for list in "$@"; do scontrol show hostnames "$list" | tr "\\n" " "; echo; done'

pytestmark = pytest.mark.spread


@pytest.fixture(autouse=True, scope="module")
def _image() -> None:
    need_image(IMAGE)


def read(folder: Path, *lists: str) -> list[list[str]]:
    """The names that Slurm reads from each list."""
    (folder / "slurm.conf").write_text(LEAST)
    mount = f"type=bind,source={folder},target=/etc/slurm,readonly"
    argv = ("run", "--rm", "--pull=never", "--network=none", "--mount", mount, IMAGE)
    done = docker(*argv, "sh", "-c", EACH, "sh", *lists)
    return [line.split() for line in done.stdout.splitlines()]


def test_slurm_reads_the_lists_of_cluster_files_as_sifline_does(tmp_path: Path) -> None:
    lists = (
        "compute-[001-003,007],gpu-1",
        "n[3,1-2]",
        "n[08-12]",
        "n[08-102]",
        "n[098-101]",
        "b1,a1",
        "10.0.[0-1].[7-8]",
        "r[2,1]n[1-2]",
    )
    assert read(tmp_path, *lists) == [expand_in_order(text) for text in lists]


def test_slurm_reads_the_lists_that_go_into_slurm_conf_in_their_order(tmp_path: Path) -> None:
    groups = (
        [f"compute-{number:03}" for number in (*range(1, 300), 7000, *range(500, 520))],
        [f"192.0.2.{number}" for number in (5, 2, 3, 9, 10, 11)],
        ["n9", "n10", "n08", "n09", "n010"],
        ["n1-ib", "n2-ib", "login", "n1.example.org", "n2.example.org"],
        ["fe80::8", "fe80::9", "fe80::a"],
    )
    assert read(tmp_path, *map(fold_in_order, groups)) == [*groups]
