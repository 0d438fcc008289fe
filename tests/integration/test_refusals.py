"""SIFs that cannot work on the nodes of a real cluster: nothing of them is sent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Cluster, Sif, TestedSif
from sifline.pipeline import Pipeline, compatibility
from sifline.stages import facts
from tests.support.command import ROOT, invoke
from tests.support.deploying import forget
from tests.support.groups import shares_cluster
from tests.support.holdings import catalog

pytestmark = [shares_cluster("cluster of deploy and quickstart"), pytest.mark.long]

NAME = "refusal-test"
# Where a SIF names its architecture, and the number of arm64 there.
PLACE, ARM64 = 45, b"04"


@pytest.fixture
def foreign(tmp_path: Path) -> Sif:
    """The SIF of hello-mpi, whose header says arm64."""
    path = tmp_path / f"{NAME}.sif"
    path.write_bytes((ROOT / "build" / "sif" / "hello-mpi.sif").read_bytes())
    with path.open("r+b") as file:
        file.seek(PLACE)
        file.write(ARM64)
    return Sif(name=NAME, path=path, sha256="a" * 64, size=path.stat().st_size)


def test_a_sif_for_another_processor_is_refused_before_it_is_sent(
    cluster: Cluster, context: Context, foreign: Sif
) -> None:
    with pytest.raises(StepFailed) as caught:
        compatibility.refuse([foreign], cluster, context, override=False, say=print)

    assert caught.value.message.startswith(
        f"{NAME} cannot work on compute-01, compute-02: architecture: the SIF is for arm64, the"
        " node is x86_64; build and convert the image for linux/amd64; nothing was sent"
    )


def test_an_override_is_in_the_catalog_of_each_node(
    cluster: Cluster, context: Context, foreign: Sif, pipeline: Pipeline
) -> None:
    from sifline.contents.build_context import file_digest
    from sifline.stages.inspect import inspect

    sif = replace(foreign, sha256=file_digest(foreign.path))
    tested = TestedSif.untested(sif)
    record = compatibility.override_record("nodes for it come tomorrow")
    with Ssh(cluster, context.runner) as ssh:
        try:
            pipeline.clusters.deployed(tested, inspect(cluster, context), override=record)
            command = ["cat", str(cluster.registry_root / ".registry" / "catalog.json")]
            for node in cluster.nodes:
                held = json.loads(ssh.run(node, command, sudo=True).stdout)["images"]
                kept = json.loads(held[f"{sif.category}/{NAME}"]["override"])
                assert kept["reason"] == "nodes for it come tomorrow"
                assert kept.keys() == {"reason", "who", "when"}
        finally:
            for node in cluster.nodes:
                forget(ssh, node, NAME)
    assert NAME not in {item.name for item in catalog(cluster, context)}


def test_the_facts_of_the_nodes_are_what_their_own_programs_say(
    cluster: Cluster, context: Context
) -> None:
    found = facts.facts(cluster, context, refresh=True)

    assert found.silent == {}
    with Ssh(cluster, context.runner) as ssh:
        for node, item in zip(cluster.nodes, found.nodes, strict=True):
            said = [
                ssh.run(node, argv).stdout
                for argv in (["uname", "-m"], ["ldd", "--version"], ["apptainer", "--version"])
            ]
            assert said[0].strip() == item.architecture
            assert item.glibc
            assert said[1].splitlines()[0].endswith(item.glibc)
            assert said[2].split()[-1] == item.apptainer
            assert item.slurm
            assert item.slurm in ssh.run(node, ["srun", "-V"]).stdout
            assert item.mpi_types
            assert "pmix" in item.mpi_types


def test_deploy_says_it_in_one_line_and_sends_nothing(cluster: Cluster) -> None:
    done = invoke("deploy.hello-mpi", "--cluster", cluster.name, "--override", " ")

    assert done.returncode == 2
    assert "--override: takes a reason: one line of 1 to 200 characters" in done.stderr
