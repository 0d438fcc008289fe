"""Users run deployed images by their modules, with Environment Modules and Slurm on real nodes."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.machine.context import Context
from sifline.model import Cluster, Run, Sif
from tests.support.command import ROOT
from tests.support.deploying import deploy, forget
from tests.support.groups import shares_cluster
from tests.support.waiting import until

pytestmark = [shares_cluster("cluster of deploy and quickstart"), pytest.mark.long]

NAME = "module-test"
MODULE = "modtest/1.0"
# Of a header: launch line, magic, version and architecture come before its UUID (16 bytes).
UUID = slice(48, 64)
# What is printed inside says which file it is.
WHICH = "printenv APPTAINER_CONTAINER"


@pytest.fixture
def sifs(cluster: Cluster, ssh: Ssh, tmp_path: Path) -> Iterator[list[Sif]]:
    """Two SIFs that run, and differ in what their headers call themselves."""
    content = bytearray((ROOT / "build" / "sif" / "hello-mpi.sif").read_bytes())
    made = []
    for number in range(2):
        content[UUID] = uuid4().bytes
        path = tmp_path / f"{number}.sif"
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        made.append(Sif(name=NAME, path=path, sha256=sha256, size=len(content), module=MODULE))
    yield made
    for node in cluster.nodes:
        forget(ssh, node, NAME)
        root = cluster.registry_root
        left = [f"{root}/modules/modtest", f"{root}/.registry/commands/custom-images/{NAME}"]
        ssh.run(node, ["rm", "-rf", *left], sudo=True)


def as_alice(ssh: Ssh, script: str) -> str:
    """Run a script on the controller, in a shell like that of a login."""
    words = ["runuser", "-l", "alice", "-c", f"bash -lc {shlex.quote(script)}"]
    return ssh.run(ssh.cluster.controller, words, sudo=True).stdout


def loaded(cluster: Cluster, module: str = MODULE) -> str:
    return f"set -e; module use {cluster.registry_root}/modules; module load {module}; "


def digests(text: str) -> list[str]:
    return [Path(line).stem for line in text.split()]


def test_a_user_runs_a_command_in_the_image_on_all_nodes_without_a_path(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    deploy(sifs[0], cluster, context)

    steps = f"modtest {WHICH}; srun -N2 modtest {WHICH}"
    printed = as_alice(ssh, f"{loaded(cluster, 'modtest')} {steps}")

    assert digests(printed) == [sifs[0].sha256] * 3
    offered = as_alice(ssh, f"{loaded(cluster)} module -t avail modtest 2>&1")
    assert MODULE in offered


def test_a_job_uses_one_version_in_all_its_steps(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    old, new = sifs
    deploy(old, cluster, context)
    out, go = f"/home/alice/{NAME}.out", f"/home/alice/{NAME}.go"
    step = f"srun -N2 modtest {WHICH} >> {out}"
    waits = f"until test -e {go}; do sleep 0.2; done"
    job = f"#!/bin/bash -l\n{loaded(cluster)} {step}; {waits}; {step}\n"
    as_alice(ssh, f"rm -f {out} {go}")
    submit = f"printf %s {shlex.quote(job)} | sbatch --parsable -N2 --output=/dev/null"
    number = as_alice(ssh, submit).strip()
    try:
        until(lambda: len(digests(as_alice(ssh, f"cat {out} || :"))) == 2, "the first step")
        deploy(new, cluster, context)
        assert digests(as_alice(ssh, f"{loaded(cluster)} modtest {WHICH}")) == [new.sha256]
        as_alice(ssh, f"touch {go}")
        until(lambda: len(digests(as_alice(ssh, f"cat {out}"))) == 4, "the second step")
    finally:
        as_alice(ssh, f"scancel {number}")

    assert digests(as_alice(ssh, f"cat {out}")) == [old.sha256] * 4
    # The next job has what was deployed meanwhile.
    assert digests(as_alice(ssh, f"{loaded(cluster)} srun modtest {WHICH}")) == [new.sha256]
    as_alice(ssh, f"rm -f {out} {go}")


def test_folders_that_the_image_asks_for_are_there(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    sif = replace(sifs[0], run=Run(binds=("~/:/mine:ro", "/nonexistent:/x"), gpus="all"))
    deploy(sif, cluster, context)

    as_alice(ssh, "echo found > ~/module-test.txt")
    said = as_alice(ssh, f"{loaded(cluster)} srun modtest cat /mine/module-test.txt 2>&1")
    as_alice(ssh, "rm ~/module-test.txt")

    assert "there is no /nonexistent on this node, so it is not bound" in said
    assert said.splitlines()[-1] == "found"


def test_the_exit_status_of_the_command_is_that_of_the_step(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    deploy(sifs[0], cluster, context)

    said = as_alice(ssh, f"{loaded(cluster)} srun modtest sh -c 'exit 7' 2>/dev/null || echo $?")

    assert said.strip() == "7"
