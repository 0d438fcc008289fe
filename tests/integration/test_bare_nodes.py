"""Provisioning of nodes that have an SSH server, Python and sudo, and nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.machine.process import ProcessRunner
from sifline.model import Cluster, Node
from sifline.model.check import Status
from sifline.pipeline import Pipeline
from sifline.stages.provision import provision
from tests.support.command import ROOT

pytestmark = [pytest.mark.xdist_group("bare nodes"), pytest.mark.long]

NAME = f"bare-{os.getpid()}"
SLURM_NODE = ROOT / "images" / "slurm-node"

CLUSTER = f"""\
name: {NAME}
nodes:
  - {{name: head, role: controller, cpus: 1, memory_mb: 1024}}
  - {{name: n1, role: compute, cpus: 2, memory_mb: 2048, gpus: 2}}
ssh: {{user: admin}}
partitions:
  - {{name: debug, default: true, max_time: "1:00:00"}}
job_user: alice
virtual: {{image: {NAME}}}
"""


@pytest.fixture(scope="module")
def bare(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder, runner = tmp_path_factory.mktemp("bare"), ProcessRunner()
    described = folder / f"{NAME}.yaml"
    described.write_text(CLUSTER)
    pipeline.work.build(["debian-trixie"])
    tag = f"sifline/{NAME}:latest"
    # The node image without anything that the roles install.
    runner.run(["docker", "build", "--quiet", f"--tag={tag}", "--target=machine", str(SLURM_NODE)])
    try:
        yield pipeline.clusters.up(str(described))
    finally:
        pipeline.clusters.down(NAME)
        runner.run(["docker", "rmi", "--force", tag])


@pytest.fixture(scope="module")
def ssh(bare: Cluster, context: Context) -> Iterator[Ssh]:
    with Ssh(bare, context.runner) as connections:
        yield connections


def test_a_check_of_a_bare_node_says_what_would_be_installed_and_changes_nothing(
    bare: Cluster, context: Context, ssh: Ssh
) -> None:
    done = provision(bare, context, check=True)
    log = (context.workspace.logs / f"{bare.name}.provision.log").read_text()
    assert done.changed > 0
    for name in ("munge", "libpmix2t64", "slurmctld", "slurmd", "apptainer", "rsync"):
        assert re.search(rf"would install (\S+, )*{name}\b", log), name
    for node in bare.nodes:
        found = ssh.run(node, ["sh", "-c", "command -v munged apptainer rsync"], check=False)
        assert found.stdout == ""


@contextmanager
def ubuntu(ssh: Ssh, node: Node) -> Iterator[None]:
    """Let a node say that it is Ubuntu, whose archive has no Apptainer."""
    aside, text = "/etc/os-release.aside", 'ID=ubuntu\nVERSION_ID="24.04"\n'
    ssh.run(node, ["mv", "/etc/os-release", aside], sudo=True)
    try:
        ssh.run(node, ["tee", "/etc/os-release"], sudo=True, input=text)
        yield
    finally:
        ssh.run(node, ["mv", aside, "/etc/os-release"], sudo=True)


def test_a_node_that_cannot_have_apptainer_is_named_before_anything_is_changed(
    bare: Cluster, context: Context, ssh: Ssh
) -> None:
    node = bare.compute[0]
    said = rf"{node.name}: .*\(ubuntu 24\.04\) has Apptainer; set container_runtime_apt_source"
    with ubuntu(ssh, node):
        for stage in ("", "container-runtime"):
            with pytest.raises(StepFailed, match=said):
                provision(bare, context, stage=stage)
    for other in bare.nodes:
        found = ssh.run(other, ["sh", "-c", "command -v munged rsync fusermount"], check=False)
        assert found.stdout == ""


def test_a_stage_that_needs_another_one_says_which(bare: Cluster, context: Context) -> None:
    with pytest.raises(StepFailed, match="MUNGE does not run on this node; run the stage munge"):
        provision(bare, context, stage="controller")
    provision(bare, context, stage="munge")
    # Where no slurmctld answers, each time that it is asked takes ten seconds.
    soon = replace(bare, variables=(("slurm_compute_wait_seconds", 1),))
    with pytest.raises(StepFailed, match="does not answer this node; run the stage controller"):
        provision(soon, context, stage="compute")


def test_bare_nodes_become_a_cluster_that_takes_images_and_runs_mpi_jobs_with_them(
    bare: Cluster, pipeline: Pipeline, context: Context, ssh: Ssh
) -> None:
    done = pipeline.clusters.provision(bare)
    assert done.changed > 0
    assert provision(bare, context).changed == 0
    pipeline.clusters.deploy(["hello-mpi"], bare)
    results = pipeline.clusters.validate(bare, suites=["infrastructure"])
    assert [result for result in results if result.status is Status.FAILED] == []
    find = ["find", str(bare.registry_root), "-name", "hello-mpi.sif"]
    (image,) = ssh.run(bare.controller, find, sudo=True).stdout.split()
    job = ["srun", "--mpi=pmix", "--ntasks=2", "apptainer", "run", image]
    said = ssh.run(bare.controller, job, user="alice").stdout
    assert said.count("size=2") == 2, said


def test_the_daemons_run_after_each_boot(bare: Cluster, ssh: Ssh) -> None:
    for node, units in (
        (bare.controller, ["munge", "slurmctld"]),
        *((node, ["munge", "slurmd"]) for node in bare.compute),
    ):
        found = ssh.run(node, ["systemctl", "is-enabled", *units])
        assert found.stdout.split() == ["enabled", "enabled"]


def test_a_user_without_subordinate_ids_is_named(bare: Cluster, context: Context) -> None:
    def asked(user: str) -> Cluster:
        return replace(bare, variables=(("container_runtime_subid_users", [user]),))

    assert provision(asked("alice"), context, stage="container-runtime").changed == 0
    with pytest.raises(StepFailed, match="nobody has no subordinate ids in /etc/subuid"):
        provision(asked("nobody"), context, stage="container-runtime")


def test_nothing_of_the_package_source_of_apptainer_is_left(bare: Cluster, ssh: Ssh) -> None:
    for node in bare.nodes:
        found = ssh.run(node, ["sh", "-c", "grep -rl sid /etc/apt || true"], sudo=True)
        assert found.stdout == ""
