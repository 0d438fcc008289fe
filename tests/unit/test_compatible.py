"""Whether an image can work on a node: each limit from both sides, and odd versions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.contents.compatibility import Compatibility, least_driver
from sifline.contents.compatibility_table import DRIVERS, KERNELS, PMIX
from sifline.contents.compatible import Needs, compatible, incomplete, version
from sifline.model import NodeFacts
from sifline.report.compatibility import page

FACTS = NodeFacts(
    node="n1",
    architecture="x86_64",
    kernel="6.1.0-18-amd64",
    glibc="2.36",
    driver="550.54.15",
    driver_glibc="2.17",
    gpus=2,
    slurm="24.11.5",
    mpi_types=("none", "pmi2", "pmix", "pmix_v5"),
    mpi_default="none",
    pmix="5.0.7a1",
    apptainer="1.4.5",
    setuid=False,
    user_namespaces=True,
    kernel_mount=False,
    squashfs_kernel=None,
    squashfs_fuse=("gzip", "zstd"),
)
RECORD = Compatibility(
    architecture="amd64",
    libc="glibc 2.36",
    mpi=("Open MPI 4.1.4",),
    pmix=("4.2.2",),
    cuda=("12.1.105",),
    complete=True,
)
NEEDS = Needs(record=RECORD, architecture="amd64", compression="zstd", gpu=True)


def judged(needs: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, bool]]:
    """The facts that an image with changed needs is refused for on a node with changed facts."""
    whole = {key: value for key, value in needs.items() if hasattr(NEEDS, key)}
    record = replace(RECORD, **{key: needs[key] for key in needs.keys() - whole.keys()})
    found = compatible(replace(NEEDS, record=record, **whole), replace(FACTS, **facts))
    assert all(item.node == "n1" and item.reason and item.way_out for item in found)
    return [(item.fact, item.known) for item in found]


def test_nothing_speaks_against_an_image_that_fits() -> None:
    assert compatible(NEEDS, FACTS) == ()


REFUSED = [
    ({"architecture": "arm64"}, {}, "architecture"),
    ({}, {"architecture": "aarch64"}, "architecture"),
    ({"libc": "glibc 2.12"}, {}, "glibc"),
    ({}, {"driver_glibc": "2.38"}, "glibc"),
    ({"libc": "musl"}, {}, "glibc"),
    ({}, {"kernel": "2.6.32-754.el6"}, "kernel"),
    ({}, {"driver": "470.82.01"}, "driver"),
    ({"cuda": ("13.0.1",)}, {}, "driver"),
    ({"cuda": ("10.2.89", "9.0.176")}, {"driver": "418.39"}, "driver"),
    ({}, {"mpi_types": ("none", "pmi2")}, "MPI"),
    ({"mpi": ("MPICH 4.0.2",), "pmix": ()}, {"mpi_default": "pmix"}, "MPI"),
    ({"mpi": ("MPICH 4.0.2",), "pmix": ()}, {"mpi_types": ("none", "pmix")}, "MPI"),
    ({"pmix": ("3.1.0rc1",)}, {"slurm": "25.05.2"}, "PMIx"),
    ({"pmix": ("5.0.8",)}, {}, "PMIx"),
    ({"pmix": ("5.0.9a1",)}, {"slurm": "25.11.1"}, "PMIx"),
    ({"pmix": ("1.2.4",)}, {}, "PMIx"),
    ({"pmix": ("2.0.1",)}, {}, "PMIx"),
    ({"compression": "xz"}, {}, "squashfs"),
    ({}, {"kernel_mount": True, "setuid": True, "squashfs_kernel": ("gzip",)}, "squashfs"),
    ({}, {"user_namespaces": False}, "mounting"),
]


@pytest.mark.parametrize(("needs", "facts", "fact"), REFUSED)
def test_what_cannot_work_is_refused(
    needs: dict[str, Any], facts: dict[str, Any], fact: str
) -> None:
    assert judged(needs, facts) == [(fact, True)]


@pytest.mark.parametrize(
    ("needs", "facts"),
    [
        ({"architecture": "386"}, {}),
        ({"libc": "glibc 2.17"}, {}),
        ({"libc": "musl", "gpu": False}, {}),
        ({}, {"driver": "", "driver_glibc": "", "gpus": 0}),  # no GPU: it runs on processors
        ({}, {"driver": "525.60.13"}),  # minor version compatibility
        ({}, {"slurm": ""}),
        ({"pmix": ("3.1.0rc2",)}, {"slurm": "25.05.2"}),
        ({"pmix": ("3.0.2",)}, {"slurm": "25.05.1"}),
        ({"pmix": ("5.0.9",)}, {"slurm": "25.11.2"}),
        ({"pmix": ("5.0.10",)}, {}),
        ({"pmix": ("2.1.1",)}, {}),
        ({"pmix": ("1.2.5",)}, {"pmix": "2.1.1"}),
        ({}, {"user_namespaces": False, "setuid": True, "kernel_mount": False}),
        ({}, {"kernel_mount": True, "setuid": True, "squashfs_kernel": ("zstd",)}),
        ({}, {"kernel_mount": None, "squashfs_kernel": ("zstd",)}),
    ],
)
def test_what_works_is_not_refused(needs: dict[str, Any], facts: dict[str, Any]) -> None:
    assert judged(needs, facts) == []


@pytest.mark.parametrize(
    ("needs", "facts", "fact"),
    [
        ({}, {"architecture": None}, "architecture"),
        ({}, {"architecture": "loongarch64"}, "architecture"),
        ({"libc": ""}, {}, "glibc"),
        ({}, {"driver_glibc": None}, "glibc"),
        ({"cuda": ("99.1",)}, {}, "driver"),
        ({"cuda_compat": "535.54.03"}, {"driver": "470.82.01"}, "driver"),
        ({"pmix": ()}, {}, "PMIx"),
        ({}, {"mpi_types": None}, "PMIx"),
        ({}, {"pmix": None}, "PMIx"),
        ({}, {"slurm": None}, "PMIx"),
        ({"mpi": ("MPICH 4.0.2",), "pmix": ()}, {}, "MPI"),
        ({}, {"apptainer": ""}, "Apptainer"),
        ({}, {"apptainer": "1.0.3"}, "Apptainer"),
        ({}, {"user_namespaces": None}, "mounting"),
        ({}, {"squashfs_fuse": None}, "squashfs"),
        ({}, {"squashfs_fuse": ()}, "squashfs"),
        ({}, {"kernel_mount": None}, "squashfs"),
        ({"compression": ""}, {}, "squashfs"),
    ],
)
def test_what_is_unknown_is_neither(
    needs: dict[str, Any], facts: dict[str, Any], fact: str
) -> None:
    assert judged(needs, facts) == [(fact, False)]


def test_gpus_without_a_driver_are_unknown() -> None:
    # Practice clusters have device files alone.
    assert judged({}, {"driver": "", "driver_glibc": ""}) == [("driver", False)]


def test_an_incomplete_record_is_said() -> None:
    assert incomplete(NEEDS) == ()
    record = replace(RECORD, complete=None, unread=("var/lib/rpm/Packages", "x"))
    found = incomplete(replace(NEEDS, record=record))
    assert [(item.node, item.known) for item in found] == [("", False), ("", False)]
    assert found[1].reason.endswith("cannot be read here: var/lib/rpm/Packages and 1 more")


def test_every_row_of_the_table_has_a_source_and_versions() -> None:
    for row in (*PMIX, *DRIVERS, *KERNELS):
        assert row.source.startswith("https://") or row.source.startswith("not found")
    assert all(version(row.least) for row in (*DRIVERS, *KERNELS))
    assert all(version(text) or not text for row in PMIX for text in (*row.image, *row.node))
    assert all(
        any(fact == "PMIx" for fact, _ in judged({"pmix": (first(row.image),)}, server(row)))
        for row in PMIX
    )
    assert least_driver(["12.1"]) == "525.60.13"


def first(limits: tuple[str, str]) -> str:
    return limits[0] or "1.0.0"


def server(row: Any) -> dict[str, Any]:
    return {row.against.lower(): first(row.node)}


def test_versions_compare_as_their_projects_release_them() -> None:
    ordered = [
        "2.17",
        "3.1.0a1",
        "3.1.0rc1",
        "v3.1.0rc2",
        "3.1.0",
        "3.1.10",
        "25.05.2",
        "525.60.13",
    ]
    found = [version(text) for text in ordered]
    assert found == sorted(item for item in found if item)
    assert [version(text) for text in (None, "", "rc1", "x.1", "7", "\u0661.\u0662")] == [None] * 6


ODD = st.text() | st.sampled_from(["", "9" * 5000 + ".1", "1.2", "5.0.8rc1", "glibc 2.36", "musl"])
WORDS = st.lists(ODD, max_size=3).map(tuple)


@given(
    needs=st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(("architecture", "compression", "libc", "cuda_compat"), ODD),
            **dict.fromkeys(("mpi", "pmix", "cuda", "unread"), WORDS),
        },
    ),
    facts=st.fixed_dictionaries(
        {},
        optional={
            **{
                key: st.none() | ODD
                for key in ("architecture", "kernel", "driver", "driver_glibc", "slurm", "pmix")
            },
            **{key: st.none() | WORDS for key in ("mpi_types", "squashfs_kernel")},
            **{key: st.none() | st.booleans() for key in ("setuid", "kernel_mount")},
            "apptainer": st.none() | ODD,
        },
    ),
)
def test_odd_versions_never_raise_and_no_fact_is_no_compatibility(
    needs: dict[str, Any], facts: dict[str, Any]
) -> None:
    judged(needs, facts)


def test_a_node_of_which_nothing_is_known_is_never_compatible() -> None:
    found = compatible(NEEDS, NodeFacts(node="n1"))

    assert {item.fact for item in found} >= {
        "architecture",
        "glibc",
        "driver",
        "PMIx",
        "Apptainer",
    }
    assert not any(item.known for item in found)


def test_the_page_shows_the_table() -> None:
    file = Path(__file__).parents[2] / "docs" / "reference" / "compatibility.md"

    assert file.read_text() == f"{page().rstrip()}\n"
