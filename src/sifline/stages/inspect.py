"""Inspect: whether the nodes of a cluster can take SIFs in, whoever set them up."""

from __future__ import annotations

from sifline.engines.registry import RegistryRefused, ask
from sifline.engines.ssh.faults import Fault, SshFailed
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import SiflineError
from sifline.machine.context import Context
from sifline.model import Cluster, ProvisionedCluster

REFUSALS = (Fault.NOT_RUN, Fault.SUDO_ASKS, Fault.SUDO_REFUSED)


def inspect(cluster: Cluster, context: Context) -> ProvisionedCluster:
    """Return ``cluster`` as one that SIFs can be deployed to.

    A node that is down is none that refuses: a deployment says which it does not reach.

    :raises StepFailed: naming the node without a registry and what makes one, or the node that
        does not run commands as root; where no node answers.
    """
    with Ssh(cluster, context.runner) as ssh:
        answered, failed = ssh.each(cluster.nodes, lambda node: ask(ssh, node, "ready"))
    for error in failed.values():
        if not answered or isinstance(error, RegistryRefused) or _stays(error):
            raise error
    return ProvisionedCluster(cluster=cluster)


def _stays(error: SiflineError) -> bool:
    """Whether it is as wrong when everything is built; a password is not tried twice."""
    return isinstance(error, SshFailed) and error.fault in REFUSALS
