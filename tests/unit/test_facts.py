"""Facts of nodes: what the program on a node reads, what is kept of it, and for how long."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.machine.context import Context
from sifline.machine.process import ProcessRunner
from sifline.model import Cluster, ClusterFacts, Node, NodeFacts, Role, SshAccess
from sifline.nodeside import facts as program
from sifline.report import facts as report
from sifline.stages import facts as stage
from tests.support.contexts import context_of
from tests.support.remote import install

CLUSTER = Cluster(
    name="tiny",
    nodes=(Node(name="head", role=Role.CONTROLLER), Node(name="n1", role=Role.COMPUTE)),
    ssh=SshAccess(user="admin"),
    partitions=(),
    source=Path("clusters/tiny.yaml"),
)
Files = Callable[[dict[str, str]], None]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """A node with these files of text alone."""

    def play(texts: dict[str, str]) -> None:
        monkeypatch.setattr(program, "read", texts.get)

    return play


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """This machine stands for all nodes."""
    for name, value in install(tmp_path).items():
        monkeypatch.setenv(name, value)
    return context_of(tmp_path, ProcessRunner())


def printed(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-", *words],
        input=Path(program.__file__).read_text(),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def test_the_program_reads_each_fact_of_the_model() -> None:
    found = printed("/nowhere", "")

    assert {*found} - {"format"} == {field.name for field in fields(NodeFacts)} - {"node", "read"}
    assert found["free"] is None
    assert (found["architecture"], found["kernel"]) == (
        subprocess.check_output(["uname", "-m"], text=True).strip(),
        subprocess.check_output(["uname", "-r"], text=True).strip(),
    )


def test_a_node_that_was_not_booted_since_says_only_that() -> None:
    boot = printed("/", "")["boot"]

    assert printed("/", boot) == {"format": program.FORMAT, "boot": boot}
    assert "kernel" in printed("/", f"{boot}0")


def test_types_of_srun_are_those_that_it_lists() -> None:
    listed = (
        "MPI plugin types are...\n\tnone\n\tpmi2\n\tpmix\n"
        "specific pmix plugin versions available: pmix_v4,pmix_v5\n"
    )

    assert program.mpi_types(listed) == ["none", "pmi2", "pmix", "pmix_v4", "pmix_v5"]
    assert program.mpi_types("srun: error") == []


def test_the_newest_glibc_that_libraries_need(tmp_path: Path) -> None:
    old, new, other = tmp_path / "old.so", tmp_path / "new.so", tmp_path / "empty.so"
    old.write_bytes(b"\0GLIBC_2.2.5\0GLIBC_2.17\0")
    new.write_bytes(b"\0GLIBC_2.9\0GLIBC_ABI_DT_RELR\0")
    other.touch()

    assert program.needed([str(old)]) == "2.17"
    assert program.needed([str(old), str(new)]) == "2.36"
    assert program.needed([str(other)]) is None


@pytest.mark.parametrize(
    ("text", "mounts"),
    [
        ("", True),
        ("# allow setuid-mount squashfs = iflimited\n", False),
        ("allow setuid-mount squashfs = yes\n", True),
        ("allow setuid-mount squashfs = no\n", False),
        ("allow setuid-mount squashfs = iflimited\nlimit container owners = root\n", True),
        ("allow setuid-mount squashfs = iflimited\nlimit container owners = NULL\n", False),
    ],
)
def test_whether_the_kernel_mounts_follows_apptainers_settings(
    files: Files, text: str, mounts: bool
) -> None:
    files({"/etc/apptainer/apptainer.conf": f"allow setuid = yes\n{text}"})

    assert program.kernel_mounts(program.configuration() or {}) is mounts


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ({}, None),
        ({"max_user_namespaces": "0\n"}, False),
        ({"max_user_namespaces": "9"}, True),
        ({"max_user_namespaces": "9", "unprivileged_userns_clone": "0\n"}, False),
        ({"max_user_namespaces": "9", "apparmor_restrict_unprivileged_userns": "1"}, None),
    ],
)
def test_user_namespaces_by_the_settings_of_the_kernel(
    files: Files, texts: dict[str, str], found: bool | None
) -> None:
    folder = {"max_user_namespaces": "user"}
    files({f"/proc/sys/{folder.get(key, 'kernel')}/{key}": text for key, text in texts.items()})

    assert program.user_namespaces() is found


def test_compressions_of_the_kernel_are_those_of_its_options(files: Files) -> None:
    release = os.uname().release
    path = f"/boot/config-{release}"

    files({path: "CONFIG_SQUASHFS=m\nCONFIG_SQUASHFS_ZLIB=y\n# CONFIG_SQUASHFS_ZSTD is not set\n"})
    assert program.kernel_squashfs() == ["gzip"]
    files({path: "CONFIG_EXT4_FS=y\n"})
    assert program.kernel_squashfs() == []


def test_without_the_options_nothing_is_guessed(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(gzip, "open", missing)
    files({"/proc/filesystems": "nodev\tproc\n\tsquashfs\n"})

    assert program.kernel_squashfs() is None


def test_a_driver_is_read_from_the_kernel_or_the_name_of_its_library(
    files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    files({})
    assert program.driver() | {"gpus": 0} == {
        "driver": "",
        "driver_cuda": "",
        "driver_glibc": "",
        "gpus": 0,
    }
    library = tmp_path / "libcuda.so.535.129.03"
    library.write_bytes(b"GLIBC_2.27\0")
    (tmp_path / "libcuda.so.1").symlink_to(library)
    monkeypatch.setattr(program, "LIBRARIES", (str(tmp_path),))
    found = program.driver()
    assert (found["driver"], found["driver_cuda"], found["driver_glibc"]) == (
        *("535.129.03", None),
        "2.27",
    )
    files({"/proc/driver/nvidia/version": "NVRM version: NVIDIA Module  550.54.15  Tue\n"})
    assert program.driver()["driver"] == "550.54.15"


def test_facts_are_kept_until_a_boot_or_a_day_is_over(context: Context) -> None:
    first = stage.facts(CLUSTER, context, now=1000.0)
    again = stage.facts(CLUSTER, context, now=2000.0)

    assert [item.read for item in first.nodes] == [1000.0, 1000.0]
    assert again == first
    assert stage.facts(CLUSTER, context, now=1000.0 + stage.LASTING).nodes[0].read > 1000.0
    assert stage.facts(CLUSTER, context, now=500.0).nodes[0].read == 500.0  # no time travel
    assert stage.facts(CLUSTER, context, now=600.0, refresh=True).nodes[0].read == 600.0
    place = stage.path_of(CLUSTER, context)
    place.write_text(place.read_text().replace(first.nodes[0].boot, "another"))
    assert stage.facts(CLUSTER, context, now=700.0).nodes[0].read == 700.0


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2, "format": 1, "nodes": {"n1": 7}}'])
def test_a_damaged_file_of_facts_is_read_anew(context: Context, text: str) -> None:
    place = stage.path_of(CLUSTER, context)
    place.parent.mkdir(parents=True)
    place.write_text(text)

    assert [item.read for item in stage.facts(CLUSTER, context, now=9.0).nodes] == [9.0, 9.0]


def test_a_node_without_python_is_named(context: Context, tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    (tmp_path / "python3").chmod(0o755)

    found = stage.facts(CLUSTER, context)

    assert found.nodes == ()
    assert found.silent["n1"].startswith("n1: its facts cannot be read: broken; it needs Python")


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in fields(NodeFacts)]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text() | st.floats()),
    )
)
def test_whatever_a_node_answers_has_the_types_of_the_model_or_is_unknown(
    answer: dict[str, Any],
) -> None:
    found = NodeFacts.of("n1", answer, read=1.0)

    assert isinstance(found.kernel, (str, type(None)))
    assert found.free is None or found.free >= 0
    assert found.mpi_types is None or all(item.isprintable() for item in found.mpi_types)


def test_nodes_with_the_same_value_share_a_row() -> None:
    one = NodeFacts(node="n1", glibc="2.36", setuid=False, mpi_types=("none", "pmix"))
    two = NodeFacts(node="n2", glibc="2.41", setuid=False)
    text = report.text(ClusterFacts(nodes=(one, two), silent={"n3": "n3 does not answer"}))
    rows = [" ".join(line.split()) for line in text.splitlines()]

    assert {"glibc 2.36 n1", "glibc 2.41 n2", "set-uid mounts no n1, n2"} <= {*rows}
    assert {"srun --mpi none pmix n1", "srun --mpi unknown n2"} <= {*rows}
    assert rows[-1] == "n3: no facts: n3 does not answer"
