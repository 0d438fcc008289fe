"""Deployments of files that no test of an image was run on."""

from __future__ import annotations

from sifline.machine.context import Context
from sifline.model import Cluster, Deployment, ProvisionedCluster, Sif, TestedSif
from sifline.stages import deploy as stage


def deploy(sif: Sif, cluster: Cluster, context: Context, *, keep: int = stage.KEEP) -> Deployment:
    """Deploy ``sif`` as it is to a cluster that the test has provisioned, or stands in for."""
    ready = ProvisionedCluster(cluster=cluster)
    return stage.deploy(TestedSif.untested(sif), ready, context, keep=keep)
