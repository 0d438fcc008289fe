"""The main job through the command line, on the standing cluster: a second run is a short one."""

from __future__ import annotations

import re
import subprocess

import pytest

from sifline.model import Cluster
from sifline.pipeline import Pipeline
from tests.support.command import invoke
from tests.support.groups import shares_cluster

pytestmark = [shares_cluster("cluster of deploy and quickstart"), pytest.mark.long]


@pytest.fixture(scope="module")
def second_run(cluster: Cluster) -> subprocess.CompletedProcess[str]:
    return invoke("quickstart", "--cluster", cluster.name)


def test_it_ends_with_what_was_built_deployed_and_printed(
    second_run: subprocess.CompletedProcess[str],
    cluster: Cluster,
    pipeline: Pipeline,
) -> None:
    done = second_run
    assert done.returncode == 0, done.stderr
    (sif,) = pipeline.work.convert(["hello-mpi"])

    assert re.search(r"built +sifline/hello-mpi:latest +[0-9a-f]{12} +\d+ MB", done.stdout)
    assert re.search(rf"SIF +{re.escape(str(sif.path))} +{sif.sha256[:12]} ", done.stdout)
    names = ", ".join(node.name for node in cluster.nodes)
    assert re.search(rf"deployed +{names} +{sif.sha256[:12]} ", done.stdout)
    assert re.search(r"^file on each node: /\S+/hello-mpi\.sif$", done.stdout, re.MULTILINE)
    hosts = set(re.findall(r"rank \d on (\S+) sum 6", done.stdout))
    assert hosts == {node.name for node in cluster.compute}


def test_a_second_run_does_only_what_is_not_up_to_date(
    second_run: subprocess.CompletedProcess[str], cluster: Cluster
) -> None:
    assert "[build" not in second_run.stderr
    assert "[test" not in second_run.stderr
    assert f"0 sent, {len(cluster.nodes)} held already" in second_run.stdout


def test_what_a_quickstart_would_do_is_told_before(
    second_run: subprocess.CompletedProcess[str], cluster: Cluster
) -> None:
    assert second_run.returncode == 0

    told = invoke("--dry", "quickstart", "--cluster", cluster.name).stdout
    new = invoke("--dry", "quickstart", "--cluster", "not-there").stdout

    assert re.search(r"hello-mpi +keep +test the SIF: up to date", told), told
    assert f"{cluster.name} runs as described: nothing to do" in told
    assert "would start controller, compute-01, compute-02" in new


def test_validate_exits_with_1_where_a_check_fails(cluster: Cluster, pipeline: Pipeline) -> None:
    controller, path = "controller", "/opt/containers/custom-images"
    pipeline.clusters.shell(cluster.name, controller, ["chmod", "0700", path])
    try:
        done = invoke("validate", "--cluster", cluster.name, "--suite", "registry")
    finally:
        pipeline.clusters.shell(cluster.name, controller, ["chmod", "0755", path])

    assert done.returncode == 1
    assert "checks failed: folders-as-provisioned" in done.stderr


def test_an_unknown_cluster_is_refused_with_the_nearest_name(cluster: Cluster) -> None:
    done = invoke("provision", "--cluster", cluster.name[:-1])

    assert done.returncode == 2
    assert cluster.name in done.stderr


@pytest.mark.usefixtures("second_run")
def test_what_is_up_to_date_would_not_be_done_again(cluster: Cluster) -> None:
    deployed = invoke("--dry", "deploy.hello-mpi", "--cluster", cluster.name)
    up = invoke("--dry", "cluster.up", "--cluster", cluster.name)
    listed = invoke("cluster.list")

    names = ", ".join(node.name for node in cluster.nodes)
    *_, steps, told = deployed.stdout.splitlines()
    assert re.fullmatch(r"0 of [45] steps to do", steps)
    assert told == f"hello-mpi is on {names}"
    assert up.stdout == f"{cluster.name} runs as described: nothing to do\n"
    assert re.search(rf"(?m)^{cluster.name} .*3 of 3 run", listed.stdout)
