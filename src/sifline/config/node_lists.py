"""The flags --node and --without: which nodes of a cluster they choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sifline.errors import UsageError, did_you_mean
from sifline.formats import node_lists
from sifline.formats.node_lists import NodeListError
from sifline.model import Cluster


def choose(cluster: Cluster, *, only: str | None = None, without: str | None = None) -> Cluster:
    """Return the cluster with the nodes of ``only`` and without those of ``without``.

    The nodes keep the order of the cluster file. None means that the flag was not given: a list
    that is empty, such as that of a variable which is not set, does not mean all nodes.

    :raises UsageError: naming the flag, and the nearest node where one is unknown; where no node
        is left.
    """
    known = [node.name for node in cluster.nodes]
    wanted = known if only is None else _names("--node", only, known, cluster)
    unwanted = () if without is None else _names("--without", without, known, cluster)
    names = set(wanted).difference(unwanted)
    if not names:
        raise UsageError(
            f"--node {only}, --without {without}: no node is left"
            if only is not None
            else f"--without {without}: no node of {cluster.name} is left"
        )
    return replace(
        cluster,
        nodes=tuple(node for node in cluster.nodes if node.name in names),
        left_out=tuple(node for node in cluster.nodes if node.name not in names),
        order=tuple(known),
    )


def _names(flag: str, text: str, known: Sequence[str], cluster: Cluster) -> list[str]:
    try:
        names = node_lists.expand(text)
    except NodeListError as error:
        raise UsageError(f"{flag} {text!r}: {error}") from None
    if not names:
        raise UsageError(f"{flag} {text!r}: names no node; say such as compute-[01-03],gpu-1")
    for name in names:
        if name not in known:
            raise UsageError(
                f"{flag} {text}: {cluster.source} has no node {name!r}.{did_you_mean(name, known)}"
            )
    return names
