"""Deployments of files that no test of an image was run on."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sifline.engines.ssh.nodes import Ssh
from sifline.formats.sif import Kind
from sifline.machine.context import Context
from sifline.model import Cluster, Deployment, Node, ProvisionedCluster, Sif, TestedSif
from sifline.nodeside.registry import KEPT
from sifline.stages import deploy as stage
from tests.support.holdings import catalog
from tests.support.sif_files import write


def deploy(sif: Sif, cluster: Cluster, context: Context, *, keep: int = KEPT) -> Deployment:
    """Deploy ``sif`` as it is to a cluster that the test has provisioned, or stands in for."""
    ready = ProvisionedCluster(cluster=cluster)
    return stage.deploy(TestedSif.untested(sif), ready, context, keep=keep)


def variant(folder: Path, number: int, *, name: str, size: int) -> Sif:
    """A file that is laid out as a SIF, with content that differs by ``number``."""
    content = b"hsqs" + hashlib.shake_256(bytes([number])).digest(size)
    path = write(folder / f"{number}.sif", [(int(Kind.PARTITION), "", content)])
    data = path.read_bytes()
    return Sif(name=name, path=path, sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def held(cluster: Cluster, context: Context, name: str) -> dict[str, tuple[str | None, str]]:
    """Return what each node has of an image, and who deployed it."""
    found = [item for item in catalog(cluster, context) if item.name == name]
    return {item.node: (item.found, item.who) for item in found}


def everywhere(ssh: Ssh, script: str) -> None:
    """Run a script on all nodes, as root."""
    for node in ssh.cluster.nodes:
        ssh.run(node, ["sh", "-c", script], sudo=True)


def forget(ssh: Ssh, node: Node, name: str) -> None:
    """Remove what was deployed to a node under that name, as if it had never been there."""
    root = ssh.cluster.registry_root
    script = f"""
import json, pathlib, shutil
root = pathlib.Path("{root}")
(root / "custom-images/{name}.sif").unlink(missing_ok=True)
shutil.rmtree(root / ".registry/versions/custom-images/{name}", ignore_errors=True)
path = root / ".registry/catalog.json"
catalog = json.loads(path.read_text())
catalog["images"].pop("custom-images/{name}", None)
catalog.get("history", {{}}).pop("custom-images/{name}", None)
path.write_text(json.dumps(catalog))
"""
    ssh.run(node, ["python3", "-"], sudo=True, input=script)
