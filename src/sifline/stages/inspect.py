"""Inspect: checks that the nodes of a cluster can take SIFs, whoever set them up."""

from __future__ import annotations

from sifline.engines.registry import Registries, RegistryRefused
from sifline.engines.ssh.faults import Fault, SshFailed
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import SiflineError
from sifline.machine.context import Context
from sifline.model import Cluster, ProvisionedCluster

REFUSALS = (Fault.NOT_RUN, Fault.SUDO_ASKS, Fault.SUDO_REFUSED)


def inspect(cluster: Cluster, context: Context) -> ProvisionedCluster:
    """Return ``cluster`` as one to which SIFs can be deployed.

    A node that is down raises no error here: the deployment reports it.

    :raises StepFailed: naming a node without a registry, or a node that does not run commands as
        root; also if no node answers.
    """
    with Ssh(cluster, context.runner) as ssh:
        registries = Registries(ssh)
        answered, failed = ssh.each(cluster.nodes, lambda node: registries.ask(node, "ready"))
    for error in failed.values():
        if not answered or isinstance(error, RegistryRefused) or _stays(error):
            raise error
    return ProvisionedCluster(cluster=cluster)


def _stays(error: SiflineError) -> bool:
    """Return whether the error would remain after a build; a password is not tried twice."""
    return isinstance(error, SshFailed) and error.fault in REFUSALS
