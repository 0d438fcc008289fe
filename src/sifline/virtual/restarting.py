"""Restarts nodes of a virtual cluster, as a reboot would."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sifline.engines.docker.containers import Containers
from sifline.machine.context import Context
from sifline.machine.interrupts import each
from sifline.virtual.booting import wait
from sifline.virtual.found import chosen, cluster_lock, containers_of, own_containers
from sifline.virtual.registering import wait_for_slurm


def restart(name: str, listed: str, context: Context, *, dry: bool = False) -> Sequence[str]:
    """Restart nodes and wait until they can be used: by SSH and, once provisioned, by Slurm.

    A node that does not run is started. Jobs on the nodes end.

    :param listed: the nodes, as Slurm writes lists of them.
    :param dry: restart none.
    :returns: the names of the nodes.
    :raises UsageError: for an unknown node; if another checkout brought the cluster up.
    :raises StepFailed: if a node does not come back in time.
    """
    if dry:
        found = chosen(name, listed, own_containers(name, context))
        return [item.labels["sifline.node"] for item in found]
    with cluster_lock(name, context):
        asked = chosen(name, listed, own_containers(name, context))
        nodes = [item.labels["sifline.node"] for item in asked]
        engine, since = Containers(context.runner), time.time()
        context.progress(f"restarting {', '.join(nodes)}")
        each(asked, lambda item: engine.restart(item.name))
        found = containers_of(name, context)
        again = [item for item in found if item.labels["sifline.node"] in nodes]
        each(again, lambda item: wait(item, engine))
        wait_for_slurm(found, nodes, since, context)
    return nodes
