"""Inspect: whether the nodes of a cluster can take SIFs in, whoever set them up."""

from __future__ import annotations

from sifline.engines.registry import RegistryRefused, ask
from sifline.engines.ssh import Ssh
from sifline.machine.context import Context
from sifline.model import Cluster, ProvisionedCluster


def inspect(cluster: Cluster, context: Context) -> ProvisionedCluster:
    """Return ``cluster`` as one that SIFs can be deployed to.

    A node that does not answer is none that refuses: a deployment says which it does not reach.

    :raises StepFailed: naming the node without a registry and what makes one; where no node
        answers.
    """
    with Ssh(cluster, context.runner) as ssh:
        answered, failed = ssh.each(cluster.nodes, lambda node: ask(ssh, node, "list"))
    for error in failed.values():
        if isinstance(error, RegistryRefused) or not answered:
            raise error
    return ProvisionedCluster(cluster=cluster)
