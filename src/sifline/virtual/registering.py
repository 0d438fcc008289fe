"""Waits until Slurm uses the nodes of a virtual cluster again that were started."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from datetime import datetime, timezone

from sifline.engines.docker.containers import Container, Containers
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.model import Role
from sifline.virtual.found import CLUSTER

READY_SECONDS = 60
POLL_SECONDS = 0.3
# slurmd reports whole seconds.
SLACK_SECONDS = 1
CONFIGURATION = "/etc/slurm/slurm.conf"
_FIELD = re.compile(r"(?:^| )(NodeName|State|SlurmdStartTime|Reason)=(.*?)(?= \w+=|$)")
_AWAY = re.compile(r"DOWN|NOT_RESPONDING|UNKNOWN|\*")


def wait_for_slurm(
    found: Sequence[Container], started: Collection[str], since: float, context: Context
) -> None:
    """Wait until slurmctld answers and the nodes have registered.

    Returns at once where there is no Slurm: the cluster is not provisioned, or has no controller
    that runs. Nodes that slurmctld does not know are not waited for.

    :param found: all nodes of the cluster.
    :param started: the names of those that were started.
    :param since: before that, in seconds since the epoch.
    :raises StepFailed: after the time limit, with the nodes that have not registered.
    """
    heads = [item for item in found if item.labels["sifline.role"] == Role.CONTROLLER.value]
    if not started or not heads or not heads[0].running:
        return
    engine, head = Containers(context.runner), heads[0]
    if not engine.execute(head.name, "test", "-e", CONFIGURATION, check=False).ok:
        return
    context.progress("waiting for Slurm")
    last = time.monotonic() + READY_SECONDS
    asked = ("env", "TZ=UTC", "scontrol", "show", "node", "--oneliner")
    # All of them answer to a slurmctld that started anew.
    restarted = head.labels["sifline.node"] in started
    while True:
        answer = engine.execute(head.name, *asked, check=False)
        away = lacking(answer.stdout, started, since, every=restarted)
        if answer.ok and not away:
            return
        if time.monotonic() > last:
            raise _not_registered(head, away if answer.ok else [])
        time.sleep(POLL_SECONDS)


def lacking(text: str, started: Collection[str], since: float, *, every: bool) -> list[str]:
    """Return the nodes that Slurm does not use yet.

    :param text: what ``scontrol show node --oneliner`` prints, with times in UTC.
    :param every: also nodes that were not started have to respond.
    """
    away = list[str]()
    for line in text.splitlines():
        fields = dict(_FIELD.findall(line))
        name, state = fields.get("NodeName", ""), fields.get("State", "")
        new = name in started
        late = new and _began(fields.get("SlurmdStartTime", "")) < since - SLACK_SECONDS
        if late or ((every or new) and _AWAY.search(state)):
            away.append(name)
    return away


def _began(text: str) -> float:
    """Return a time of Slurm in seconds since the epoch; 0 if slurmd has not told it."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:
        return 0.0


def _not_registered(head: Container, away: Sequence[str]) -> StepFailed:
    cluster, node = head.labels[CLUSTER], head.labels["sifline.node"]
    if not away:
        return StepFailed(
            f"slurmctld on {node} does not answer after {READY_SECONDS} s; run:"
            f" invoke provision --cluster {cluster}"
        )
    return StepFailed(
        f"Slurm does not use {', '.join(away)} after {READY_SECONDS} s; look for faults with:"
        f" invoke cluster.status --cluster {cluster}; then run: invoke provision --cluster"
        f" {cluster}"
    )
