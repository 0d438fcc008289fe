"""Lists of nodes as Slurm writes them, ``compute-[01-03,07],gpu-1``, and the nodes they name."""

from __future__ import annotations

import configparser
import re
from collections.abc import Sequence
from dataclasses import replace

from sifline.errors import MissingError, UsageError, did_you_mean
from sifline.model import Cluster

# As many nodes as Slurm takes in a range; the library would go on until the memory is full.
MOST = 1 << 16
_RANGE = re.compile(r"[\[,]\s*(\d{1,18})-(\d+)")


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
    )


def _names(flag: str, text: str, known: Sequence[str], cluster: Cluster) -> list[str]:
    names = expanded(flag, text)
    for name in names:
        if name not in known:
            raise UsageError(
                f"{flag} {text}: {cluster.source} has no node {name!r}.{did_you_mean(name, known)}"
            )
    return names


def expanded(flag: str, text: str) -> list[str]:
    """Return the names that a list stands for.

    :raises UsageError: where it is no list of nodes, an empty one, or one without an end.
    """
    _refuse_odd(flag, text)
    try:
        from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException
    except ModuleNotFoundError:
        raise MissingError(
            f"{flag}: this Python environment has no ClusterShell; run scripts/bootstrap, or"
            " install sifline anew"
        ) from None
    except (configparser.Error, ValueError) as error:
        # It reads defaults.conf as it is loaded; nothing of that matters here.
        raise UsageError(
            f"{flag}: the configuration of ClusterShell cannot be read:"
            f" {' '.join(str(error).split())}; fix that file"
        ) from None
    try:
        # No groups: they would be read from the configuration of ClusterShell.
        nodes = NodeSet(text, resolver=RESOLVER_NOGROUP)
    except NodeSetException as error:
        raise UsageError(
            f"{flag} {text!r}: is no list such as compute-[01-03],gpu-1: {error}"
        ) from None
    if len(nodes) > MOST:
        raise UsageError(f"{flag} {text!r}: names more than {MOST} nodes")
    names = list(nodes)
    if not names:
        raise UsageError(f"{flag} {text!r}: names no node; say such as compute-[01-03],gpu-1")
    return names


def _refuse_odd(flag: str, text: str) -> None:
    """Refuse what the library would read as something else, or would never come to the end of."""
    # Its operators, which Slurm does not have.
    if set(text) & set("!&^@%"):
        raise UsageError(f"{flag} {text!r}: is no list such as compute-[01-03],gpu-1")
    for first, last in _RANGE.findall(text):
        if len(last) > len(first) + len(str(MOST)) or int(last) - int(first) >= MOST:
            raise UsageError(f"{flag} {text!r}: {first}-{last} has more than {MOST} nodes")
