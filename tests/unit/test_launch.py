"""The launcher of modules, run as a node runs it: by a link whose path says what is meant."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.nodeside import launch

KEY = "ml-frameworks/pytorch-cuda12.1"
OLD, NEW = "a" * 64, "b" * 64
# Prints what it is called with; the launcher replaces itself by it.
APPTAINER = "#!/bin/sh\nprintf '%s\\n' \"$@\"\n"


class Node:
    """The registry of a node, with two versions of one image."""

    def __init__(self, root: Path) -> None:
        self.root = root / "containers"
        self.bin = root / "bin"
        self.bin.mkdir()
        self.tool = self.bin / "apptainer"
        self.tool.write_text(APPTAINER)
        self.tool.chmod(0o755)
        self.launcher = root / "launch"
        source = Path(launch.__file__).read_text("utf-8")
        self.launcher.write_text(f"#!/usr/bin/python3 -IBS\n{source}")
        self.launcher.chmod(0o755)
        self.folder = self.root / ".registry" / "versions" / KEY
        self.folder.mkdir(parents=True)
        for sha256 in (OLD, NEW):
            (self.folder / f"{sha256}.sif").touch()
        self.catalog(new={}, old={})

    def catalog(self, *, new: dict[str, Any], old: dict[str, Any]) -> None:
        same = {"module": "pytorch/2.4"}
        first = {"sha256": NEW, "when": "2026-05-02T00:00:00+00:00", **same, **new}
        before = {"sha256": OLD, "when": "2026-05-01T00:00:00+00:00", **same, **old}
        entry = {**first, "previous": [before]}
        path = self.root / ".registry" / "catalog.json"
        path.write_text(json.dumps({"version": 1, "images": {KEY: entry}}))

    def link(self, version: str = "2.4") -> Path:
        link = self.root / ".registry" / "commands" / KEY / version / "pytorch"
        if not link.is_symlink():
            link.parent.mkdir(parents=True)
            link.symlink_to(self.launcher)
        return link

    def run(
        self, *words: str, version: str = "2.4", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        given = {"PATH": f"{self.bin}:{os.defpath}", "HOME": str(self.root), **environ}
        argv = [str(self.link(version)), *words]
        return subprocess.run(argv, env=given, capture_output=True, text=True, check=False)

    def sif(self, sha256: str) -> str:
        return str(self.folder / f"{sha256}.sif")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_command_runs_in_the_newest_version_outside_of_a_job(node: Node) -> None:
    done = node.run("python", "train.py", "--name", "two words", "")

    assert done.stdout.splitlines() == [
        *("exec", node.sif(NEW), "python", "train.py", "--name", "two words", "")
    ]
    assert (done.stderr, done.returncode) == ("", 0)


def test_without_a_command_the_image_runs_its_own(node: Node) -> None:
    assert node.run().stdout.splitlines() == ["run", node.sif(NEW)]


@pytest.mark.parametrize(
    ("start", "sha256"),
    [("1777680000", NEW), ("1777679999", OLD), ("1777593600", OLD), ("4000000000", NEW)],
)
def test_all_steps_of_a_job_use_the_version_with_which_it_began(
    node: Node, start: str, sha256: str
) -> None:
    done = node.run("true", SLURM_JOB_START_TIME=start)

    assert done.stdout.splitlines() == ["exec", node.sif(sha256), "true"]
    assert done.stderr == ""


def test_a_job_that_is_older_than_all_versions_is_told_which_it_uses(node: Node) -> None:
    done = node.run("true", SLURM_JOB_START_TIME="1000000000")

    assert done.stdout.splitlines() == ["exec", node.sif(OLD), "true"]
    note = f"this job began before version {OLD[:12]} was deployed, which it uses now"
    assert done.stderr == f"pytorch: note: {note}\n"


def test_only_the_first_task_of_a_step_says_it(node: Node) -> None:
    assert node.run("true", SLURM_JOB_START_TIME="1000000000", SLURM_PROCID="3").stderr == ""


def test_a_version_of_the_module_is_that_version_after_another_was_deployed(node: Node) -> None:
    node.catalog(new={"module": "pytorch/2.5"}, old={})

    assert node.run("true", version="2.4").stdout.splitlines()[1] == node.sif(OLD)
    assert node.run("true", version="2.5").stdout.splitlines()[1] == node.sif(NEW)


def test_a_version_that_went_is_never_replaced_by_another(node: Node) -> None:
    (node.folder / f"{OLD}.sif").unlink()

    done = node.run("true", SLURM_JOB_START_TIME="1777593600")

    assert (done.stdout, done.returncode) == ("", launch.CANNOT_START)
    assert done.stderr == (
        f"pytorch: error: version {OLD[:12]} of pytorch-cuda12.1, which this job uses, is not on"
        " this node; start the job anew, or ask whoever deploys images\n"
    )


def test_a_module_that_went_says_so(node: Node) -> None:
    done = node.run("true", version="1.0")

    assert done.returncode == launch.CANNOT_START
    assert "module version 1.0 is no longer on this node; see: module avail" in done.stderr


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"images": []}', '{"images": {}}', json.dumps({"images": {KEY: 3}})]
)
def test_a_catalog_without_the_image_is_one_line(node: Node, text: str) -> None:
    (node.root / ".registry" / "catalog.json").write_text(text)

    done = node.run("true")

    assert (done.stdout, done.returncode) == ("", launch.CANNOT_START)
    assert done.stderr.startswith("pytorch: error: ")
    assert len(done.stderr.splitlines()) == 1


def test_without_apptainer_it_is_not_found(node: Node) -> None:
    done = node.run("true", PATH="/nonexistent")

    assert done.returncode == launch.NOT_FOUND
    assert done.stderr == "pytorch: error: neither apptainer nor singularity is in PATH\n"


def test_folders_of_the_image_are_bound_and_missing_ones_are_named(
    node: Node, tmp_path: Path
) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    binds = [f"{data}:/data:ro", "/nonexistent:/x", "~/bin:/tools", f"{data}:/a,b"]
    node.catalog(new={"run": json.dumps({"binds": binds})}, old={})

    done = node.run("true", HOME=str(tmp_path))

    assert done.stdout.splitlines()[:5] == [
        *("exec", "--bind", f"{data}:/data:ro", "--bind", f"{tmp_path}/bin:/tools")
    ]
    assert done.stderr.splitlines() == [
        "pytorch: note: there is no /nonexistent on this node, so it is not bound",
        f"pytorch: note: {data} cannot be bound",
    ]


@pytest.mark.skipif(Path(launch.DRIVER).exists(), reason="this host has an NVIDIA GPU")
def test_gpus_of_a_job_on_a_node_without_a_driver_are_not_left_out_in_silence(node: Node) -> None:
    node.catalog(new={"run": '{"gpus": "all"}'}, old={})

    assert node.run("true").stderr == ""
    assert node.run("true", SLURM_JOB_GPUS="0").stderr == (
        "pytorch: note: Slurm gave this job GPUs, but this node has no /dev/nvidiactl: without"
        " them\n"
    )


def test_the_driver_is_handed_in_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "DRIVER", str(tmp_path))

    assert launch.defaults({"run": '{"gpus": "all"}'}, {}) == (["--nv"], [])


def test_too_little_shared_memory_is_named() -> None:
    assert launch.defaults({"run": '{"shared_memory": "1b"}'}, {}) == ([], [])
    _, (note,) = launch.defaults({"run": '{"shared_memory": "900000g"}'}, {})
    assert note == "/dev/shm of this node has less than the 900000g asked for"


def test_called_by_another_path_it_says_how_to_call_it(node: Node) -> None:
    done = subprocess.run([str(node.launcher)], capture_output=True, text=True, check=False)

    assert done.returncode == launch.CANNOT_START
    assert done.stderr == (
        "launch: error: is not called by the link of a module; run: module load NAME\n"
    )


@given(start=st.text(), when=st.text())
def test_odd_times_raise_no_error(start: str, when: str) -> None:
    found = launch.started({"SLURM_JOB_START_TIME": start})
    assert found is None or isinstance(found, float)
    assert isinstance(launch.placed({"when": when}), float)
