"""A registry on a file system that all nodes share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Cluster, Registry
from sifline.stages.provision import provision
from tests.support.deploying import everywhere
from tests.support.groups import shares_cluster
from tests.support.mounts import bind

pytestmark = [shares_cluster("cluster of isolation and accounting"), pytest.mark.long]

STAGE = "registry"
SHARED = "/srv/shared"


@pytest.fixture
def shared(cluster: Cluster) -> Cluster:
    root = PurePosixPath(f"{SHARED}/containers")
    return replace(cluster, registry_root=root, registry=Registry(shared=True))


def test_a_shared_file_system_that_is_not_mounted_is_named(
    shared: Cluster, context: Context, ssh: Ssh
) -> None:
    everywhere(ssh, f"mkdir -p {SHARED}")

    with pytest.raises(StepFailed, match=rf"{SHARED}/containers is on no mounted file system"):
        provision(shared, context, stage=STAGE)

    assert ssh.run(shared.controller, ["ls", SHARED]).stdout == ""


def test_a_shared_registry_has_to_be_the_same_on_all_nodes(
    shared: Cluster, context: Context, ssh: Ssh, tmp_path: Path
) -> None:
    ask = ["docker", "inspect", "--format={{.State.Pid}}"]
    processes = {
        node.name: int(
            context.runner.run([*ask, f"sifline-{shared.name}-{node.name}"]).stdout.strip()
        )
        for node in shared.nodes
    }
    same, other = tmp_path / "same", tmp_path / "other"
    same.mkdir(mode=0o755)
    other.mkdir(mode=0o755)
    first, *rest, last = shared.nodes
    try:
        for node in (first, *rest):
            bind(same, processes[node.name], SHARED)
        bind(other, processes[last.name], SHARED)
        with pytest.raises(StepFailed, match=rf"of {last.name} is not that of {first.name}"):
            provision(shared, context, stage=STAGE)

        ssh.run(last, ["umount", SHARED], sudo=True)
        bind(same, processes[last.name], SHARED)
        assert provision(shared, context, stage=STAGE).changed >= 0
        assert provision(shared, context, stage=STAGE).changed == 0
        assert (same / "containers" / ".registry").is_dir()
    finally:
        everywhere(ssh, f"umount {SHARED} || :")
