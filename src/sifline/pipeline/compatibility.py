"""Compares SIFs with the facts of nodes before they are deployed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sifline.errors import StepFailed, UsageError
from sifline.formats import times
from sifline.machine.caller import caller
from sifline.machine.context import Context
from sifline.model import Cluster, ClusterFacts, NodeFacts, SifFile

if TYPE_CHECKING:
    from sifline.contents.compatible import Refusal

LONGEST_REASON = 200


def override_record(reason: str | None) -> str:
    """Return an override as the catalog keeps it: JSON with reason, user and time; "" for None.

    :raises UsageError: if the reason is empty, too long, or not one line.
    """
    if reason is None:
        return ""
    text = reason.strip()
    if not text or len(text) > LONGEST_REASON or not text.isprintable():
        raise UsageError(
            f"--override: takes a reason: one line of 1 to {LONGEST_REASON} characters"
        )
    return json.dumps({"reason": text, "who": caller(), "when": times.iso(time.time())})


def refuse(
    sifs: Sequence[SifFile],
    cluster: Cluster,
    context: Context,
    *,
    override: bool,
    say: Callable[[str], None],
) -> tuple[str, ...]:
    """Compare SIFs with the facts of the nodes on which jobs run, and say what is unknown.

    Returns the names of the SIFs that would have been refused without ``override``.

    Nodes that do not answer are left to the deployment, which names them.

    :param override: print refusals instead of raising them.
    :param say: prints one line.
    :raises StepFailed: if a SIF cannot work on a node, or, where the cluster file says
        ``strict``, if that is unknown.
    """
    from sifline.stages import facts

    if not sifs:
        return ()
    found = facts.facts(cluster, context)
    refused, overridden = list[str](), list[str]()
    for sif in sifs:
        for item, nodes in _together(findings(sif, cluster, found, context)):
            line = _line(sif.name, item, nodes)
            stops = item.known or cluster.registry.strict
            if stops and not override:
                refused.append(line)
                continue
            overridden += [sif.name] if stops else []
            say(f"note: {line}")
    if refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise StepFailed(
            f"{refused[0]}{more}; nothing was sent; --override REASON deploys it all the same",
            details="\n".join(refused[1:]),
        )
    return tuple(overridden)


def findings(
    sif: SifFile, cluster: Cluster, found: ClusterFacts, context: Context
) -> tuple[Refusal, ...]:
    """Return what speaks against a SIF on the nodes whose facts are known."""
    from sifline.contents.compatible import compatible, incomplete
    from sifline.stages import inventory

    needs = inventory.needs_of_sif(sif.path, sif.sha256, context)
    needs = replace(needs, gpu=bool(needs.record.cuda or sif.run.gpus))
    return (
        *incomplete(needs),
        *(item for facts in running(cluster, found) for item in compatible(needs, facts)),
    )


def running(cluster: Cluster, found: ClusterFacts) -> tuple[NodeFacts, ...]:
    """Return the facts of the nodes on which jobs run; of all chosen ones if there are none."""
    names = {node.name for node in cluster.compute or cluster.nodes}
    return tuple(item for item in found.nodes if item.node in names)


def _together(items: Sequence[Refusal]) -> Iterator[tuple[Refusal, list[str]]]:
    """Yield equal refusals of several nodes once, with the names of the nodes."""
    nodes = dict["Refusal", list[str]]()
    for item in items:
        nodes.setdefault(replace(item, node=""), []).append(item.node)
    yield from nodes.items()


def _line(name: str, item: Refusal, nodes: Sequence[str]) -> str:
    named = ", ".join(filter(None, nodes))
    where = f" on {named}" if named else ""
    how = "cannot work" if item.known else "may not work"
    return f"{name} {how}{where}: {item.fact}: {item.reason}; {item.way_out}"
