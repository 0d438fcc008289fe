"""The main job of the users: PyTorch trains on two nodes, inside the SIF, under Slurm."""

from __future__ import annotations

import json
import re

import pytest

from sifline.model import Cluster
from tests.support.command import invoke
from tests.support.groups import shares_cluster

pytestmark = [
    shares_cluster("cluster of the proofs and the training"),
    pytest.mark.long,
    pytest.mark.big,
]


def test_one_model_is_trained_on_two_nodes(cluster: Cluster, pytorch: str) -> None:
    done = invoke("validate", "--cluster", cluster.name, "--suite", "training-job")

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(
        r"4 processes on compute-01, compute-02: loss [\d.]+ to \S+, the same parameters on all;"
        rf" PyTorch 2\.4\.0\+cu121 in /opt/containers/ml-frameworks/{re.escape(pytorch)}\.sif",
        done.stdout,
    ), done.stdout
    assert "1 passed, 0 failed, 0 skipped" in done.stdout


def test_ranks_of_slurm_talk_through_the_images_mpi4py(cluster: Cluster, pytorch: str) -> None:
    program = (
        "from mpi4py import MPI; import json, socket, sys; w = MPI.COMM_WORLD;"
        " all = w.allgather([w.rank, socket.gethostname()]);"
        " sys.stdout.write(json.dumps(all) + chr(10)) if w.rank == 0 else None"
    )
    sif = f"/opt/containers/ml-frameworks/{pytorch}.sif"
    words = ("srun", "--nodes=2", "--ntasks=4", "--mpi=pmix", "apptainer", "exec", sif)
    shell = ("cluster.shell", "--cluster", cluster.name, "--user", "alice", "--")
    done = invoke(*shell, *words, "python3", "-c", program)

    assert done.returncode == 0, done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[[")))
    assert [rank for rank, _ in found] == [0, 1, 2, 3]
    assert {host for _, host in found} == {"compute-01", "compute-02"}


def test_what_the_sif_needs_is_read_from_it(pytorch: str) -> None:
    done = invoke(f"compat.{pytorch}", "--sif", "--json")

    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["images"]
    assert found["libc"].startswith("glibc 2.")
    assert (found["mpi"], found["cuda"]) == (["Open MPI 4.1.4"], ["12.1.105"])
    assert (found["nccl"], found["least_driver"]) == (["2.20.5"], "525.60.13")
    assert found["frameworks"] == {"torch": "2.4.0 for CUDA 12.1"}
