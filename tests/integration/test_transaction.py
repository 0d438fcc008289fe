"""A deployment is one transaction over the nodes, and one at a time, whoever runs it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Cluster, Sif, Workspace
from tests.support.deploying import deploy, forget, held
from tests.support.deploying import variant as made
from tests.support.groups import shares_cluster
from tests.support.holdings import catalog

pytestmark = [shares_cluster("cluster of deploy and quickstart"), pytest.mark.long]

NAME = "transaction-test"
SIZE = 5_000_000


@pytest.fixture
def sifs(cluster: Cluster, ssh: Ssh, tmp_path: Path) -> Iterator[list[Sif]]:
    yield [made(tmp_path, number, name=NAME, size=SIZE) for number in range(3)]
    for node in cluster.nodes:
        forget(ssh, node, NAME)


def digests(cluster: Cluster, context: Context) -> dict[str, str | None]:
    """What each node has, as it reads its own file."""
    return {node: found for node, (found, _) in held(cluster, context, NAME).items()}


def everywhere(cluster: Cluster, sif: Sif) -> dict[str, str]:
    return {node.name: sif.sha256 for node in cluster.nodes}


def test_where_one_node_cannot_take_it_no_node_switches(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    old, new, _ = sifs
    deploy(old, cluster, context)
    node = cluster.compute[-1]
    versions = f"{cluster.registry_root}/.registry/versions/custom-images/{NAME}"
    ssh.run(node, ["sh", "-c", f"mv {versions} {versions}.kept; touch {versions}"], sudo=True)
    try:
        with pytest.raises(StepFailed, match=f"no node of {cluster.name} was switched") as caught:
            deploy(new, cluster, context)
        assert f"{node.name}: " in caught.value.message
        assert f"--without {node.name}" in caught.value.message
    finally:
        ssh.run(node, ["sh", "-c", f"rm {versions}; mv {versions}.kept {versions}"], sudo=True)
    assert digests(cluster, context) == everywhere(cluster, old)

    deploy(new, cluster, context)
    assert digests(cluster, context) == everywhere(cluster, new)


def test_two_checkouts_that_deploy_at_once_leave_one_version_on_all_nodes(
    cluster: Cluster, context: Context, sifs: list[Sif], tmp_path: Path
) -> None:
    """Each is done with its own before the other one begins, or says that it is not."""
    first, second, third = sifs
    deploy(first, cluster, context)
    others = [
        replace(context, workspace=Workspace(root=tmp_path / name)) for name in ("one", "two")
    ]
    for other in others:
        other.workspace.root.mkdir()

    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(
                lambda pair: deploy(pair[0], cluster, pair[1]),
                zip((second, third), others, strict=True),
            )
        )

    assert [len(item.placements) for item in done] == [len(cluster.nodes)] * 2
    found = digests(cluster, context)
    assert set(found) == {node.name for node in cluster.nodes}
    assert len(set(found.values())) == 1
    assert found["controller"] in {second.sha256, third.sha256}
    told = {item.sha256 for item in catalog(cluster, context) if item.name == NAME}
    assert told == set(found.values())


def test_what_others_put_in_its_place_is_replaced_only_where_that_is_asked_for(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    place = f"{cluster.registry_root}/custom-images/{NAME}.sif"
    node = cluster.compute[0]
    ssh.run(node, ["sh", "-c", f"echo theirs > {place}"], sudo=True)

    with pytest.raises(StepFailed, match=f"{node.name}: {place} is not sifline's"):
        deploy(sifs[0], cluster, context)
    assert ssh.run(node, ["cat", place]).stdout == "theirs\n"
    ssh.run(node, ["sh", "-c", f"rm {place}; mkdir {place}"], sudo=True)
    with pytest.raises(StepFailed, match=f"{node.name}: {place} is a folder; move it away"):
        deploy(sifs[0], cluster, context)

    ssh.run(node, ["rmdir", place], sudo=True)
    deploy(sifs[0], cluster, context)
    assert digests(cluster, context) == everywhere(cluster, sifs[0])


def test_a_catalog_that_makes_no_sense_stops_no_deployment(
    cluster: Cluster, context: Context, ssh: Ssh, sifs: list[Sif]
) -> None:
    deploy(sifs[0], cluster, context)
    node = cluster.compute[0]
    file = f"{cluster.registry_root}/.registry/catalog.json"
    ssh.run(node, ["cp", file, f"{file}.before"], sudo=True)
    ssh.run(node, ["sh", "-c", f"echo '{{\"images\": []}}' > {file}"], sudo=True)
    try:
        deploy(sifs[1], cluster, context)

        assert digests(cluster, context) == everywhere(cluster, sifs[1])
        kept = ssh.run(node, ["sh", "-c", f"cat {file}.*~"], sudo=True).stdout
        assert kept == '{"images": []}\n'
    finally:
        # What the other images' entries say is not made of files.
        ssh.run(node, ["sh", "-c", f"rm {file}.*~; mv {file}.before {file}"], sudo=True)
