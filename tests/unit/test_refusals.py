"""What cannot work on a node is refused before a byte is sent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sifline.contents.compatibility import Compatibility
from sifline.contents.compatible import Needs
from sifline.errors import StepFailed, UsageError
from sifline.machine.context import Context
from sifline.model import (
    Cluster,
    ClusterFacts,
    Node,
    NodeFacts,
    Registry,
    Role,
    SifFile,
    SshAccess,
)
from sifline.pipeline import compatibility
from sifline.stages import facts, inventory
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner

CLUSTER = Cluster(
    name="tiny",
    nodes=(
        Node(name="head", role=Role.CONTROLLER),
        *(Node(name=name, role=Role.COMPUTE) for name in ("n1", "n2", "n3")),
    ),
    ssh=SshAccess(user="admin"),
    partitions=(),
    source=Path("clusters/tiny.yaml"),
)
SIF = SifFile(name="hello", path=Path("hello.sif"), sha256="a" * 64, size=7)
NEEDS = Needs(
    record=Compatibility(libc="glibc 2.36", complete=True),
    architecture="arm64",
    compression="gzip",
)
NODE = NodeFacts(
    node="n1",
    architecture="x86_64",
    kernel="6.1.0",
    slurm="",
    apptainer="1.4.5",
    setuid=True,
    kernel_mount=True,
    squashfs_kernel=("gzip",),
)
NODES = tuple(replace(NODE, node=name) for name in ("head", "n1", "n2"))


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A SIF for arm64; three nodes for amd64, and one that does not answer."""
    given = ClusterFacts(nodes=NODES, silent={"n3": "n3 does not answer"})
    monkeypatch.setattr(facts, "facts", lambda *_: given)
    monkeypatch.setattr(inventory, "needs_of_sif", lambda *_: NEEDS)
    return context_of(tmp_path, RecordingRunner())


def told(
    context: Context, cluster: Cluster = CLUSTER, *, override: bool = False
) -> tuple[list[str], StepFailed | None]:
    said: list[str] = []
    try:
        over = compatibility.refuse([SIF], cluster, context, override=override, say=said.append)
    except StepFailed as error:
        return said, error
    assert over == (("hello",) if override else ())
    return said, None


def test_a_sif_for_arm64_is_refused_on_amd64(context: Context) -> None:
    said, error = told(context)

    assert error
    assert (said, error.message) == (
        [],
        "hello cannot work on n1, n2: architecture: the SIF is for arm64, the node is x86_64;"
        " build and convert the image for linux/amd64; nothing was sent;"
        " --override REASON deploys it all the same",
    )


def test_with_a_reason_it_is_said_and_goes_on(context: Context) -> None:
    said, error = told(context, override=True)

    assert error is None
    assert len(said) == 1
    assert said[0].startswith("note: hello cannot work on n1, n2: architecture: ")


def test_what_is_unknown_is_said_and_refused_where_the_site_asks_for_it(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = replace(NEEDS, architecture="")
    monkeypatch.setattr(inventory, "needs_of_sif", lambda *_: unknown)

    said, error = told(context)
    assert error is None
    assert said[0].startswith("note: hello may not work on n1, n2: architecture: the SIF does not")
    said, error = told(context, replace(CLUSTER, registry=Registry(strict=True)))
    assert said == []
    assert error
    assert error.message.startswith("hello may not work on n1, n2: architecture: ")


def test_a_sif_that_fits_is_neither_noted_nor_refused(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = replace(NEEDS, architecture="amd64")
    monkeypatch.setattr(inventory, "needs_of_sif", lambda *_: fits)

    assert told(context) == ([], None)


def test_an_override_keeps_reason_user_and_time() -> None:
    found = json.loads(compatibility.override_record("  driver update tonight "))

    assert found["reason"] == "driver update tonight"
    assert "@" in found["who"]
    assert found["when"].startswith("20")
    assert compatibility.override_record(None) == ""


@pytest.mark.parametrize("reason", ["", " ", "two\nlines", "x" * 201, "\x1b[31m"])
def test_an_override_without_a_proper_reason_is_refused(reason: str) -> None:
    with pytest.raises(UsageError, match="--override: takes a reason"):
        compatibility.override_record(reason)
