"""Faults of the nodes of a virtual cluster: given and taken back, and read from the nodes.

What is active is not recorded anywhere, so a run that was killed cannot leave a wrong record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from sifline.engines.docker.containers import CPU_PERIOD, Container, Containers
from sifline.errors import StepFailed
from sifline.machine.context import Context
from sifline.machine.interrupts import each
from sifline.machine.process import Result
from sifline.model import FaultChange, NodeState
from sifline.nodeside.faults import CLOCK, DISK_FULL, NO_GPU, SLOW_DISK, SLOW_NETWORK
from sifline.virtual.booting import wait
from sifline.virtual.found import (
    CLUSTER,
    WORKSPACE,
    chosen,
    cluster_lock,
    containers_of,
    own_containers,
)
from sifline.virtual.registering import wait_for_slurm

SLOW_CPU, KILL = "slow-cpu", "kill"
FAULTS = (DISK_FULL, SLOW_NETWORK, SLOW_CPU, SLOW_DISK, CLOCK, NO_GPU, KILL)
# One fifth of one CPU.
SLOW_QUOTA = CPU_PERIOD // 5
UNLIMITED = -1
# Exit status of a process that SIGKILL ended.
KILLED = 137
# slurmd restarts with the clock, and needs its GPUs for that.
_FIRST = (KILL, NO_GPU)
SET, SET_ALREADY, UNDONE, NOT_SET = "set", "set already", "undone", "not set"


@dataclass(frozen=True, kw_only=True)
class _Node:
    """A node, and what changing its faults needs."""

    container: Container
    name: str
    folder: PurePosixPath
    context: Context

    @property
    def engine(self) -> Containers:
        return Containers(self.context.runner)


def status(name: str, context: Context) -> tuple[NodeState, ...]:
    """Return the nodes of the cluster ``name``, the controller first; () if it does not exist."""
    found = containers_of(name, context)
    faults = each(found, lambda item: active(item, context))
    return tuple(
        NodeState(
            node=item.labels["sifline.node"],
            role=item.labels["sifline.role"],
            address=item.address,
            state=item.state,
            checkout=item.labels.get(WORKSPACE, ""),
            faults=has,
        )
        for item, has in zip(found, faults, strict=True)
    )


def active(container: Container, context: Context) -> tuple[str, ...]:
    """Return the faults that a node has now, in the order of ``FAULTS``."""
    found = set[str]()
    if container.cpu_quota:
        found.add(SLOW_CPU)
    if not container.running and container.exit_status == KILLED:
        found.add(KILL)
    if container.running:
        found |= set(_listed(container, context))
    return tuple(fault for fault in FAULTS if fault in found)


def change(
    name: str,
    listed: str,
    fault: str,
    context: Context,
    *,
    folder: PurePosixPath,
    undo: bool = False,
    dry: bool = False,
) -> tuple[FaultChange, ...]:
    """Give nodes a fault, or take it back, and return what was done with each.

    :param listed: the nodes, as Slurm writes lists of them.
    :param fault: one of ``FAULTS``; "" with ``undo`` for all that they have.
    :param folder: the folder that disk-full fills besides /tmp.
    :param dry: change nothing, and return what would be done.
    :raises UsageError: for an unknown node; if another checkout brought the cluster up.
    :raises StepFailed: if a node does not run, or the fault is not possible there.
    """
    if dry:
        nodes = chosen(name, listed, own_containers(name, context))
        return _sum([_would(_of(item, folder, context), fault, undo=undo) for item in nodes])
    with cluster_lock(name, context):
        nodes = chosen(name, listed, own_containers(name, context))
        work = _undone if undo else _given
        return _sum(each(nodes, lambda item: work(_of(item, folder, context), fault)))


def _of(item: Container, folder: PurePosixPath, context: Context) -> _Node:
    name = item.labels["sifline.node"]
    return _Node(container=item, name=name, folder=folder, context=context)


def _sum(found: Sequence[Sequence[FaultChange]]) -> tuple[FaultChange, ...]:
    return tuple(item for items in found for item in items)


def _would(node: _Node, fault: str, *, undo: bool) -> list[FaultChange]:
    has = active(node.container, node.context)
    if not undo:
        _need_running(node, fault)
        action = SET_ALREADY if fault in has else SET
        return [FaultChange(node=node.name, fault=fault, action=action)]
    asked = [fault] if fault else has
    return [
        FaultChange(node=node.name, fault=item, action=UNDONE if item in has else NOT_SET)
        for item in asked
    ]


def _given(node: _Node, fault: str) -> list[FaultChange]:
    """Give the fault, even if the node has it: a call that was killed may have done half."""
    _need_running(node, fault)
    before = active(node.container, node.context)
    dead = fault == KILL and KILL in before
    details = "its container was killed" if dead else _SET[fault](node)
    action = SET_ALREADY if fault in before else SET
    return [FaultChange(node=node.name, fault=fault, action=action, details=details)]


def _undone(node: _Node, fault: str) -> list[FaultChange]:
    has = active(node.container, node.context)
    if KILL in has and fault in ("", KILL):
        done = [_with(node, KILL, UNDONE, _UNDO[KILL](node))]
        # Others may have outlived it.
        (now,) = chosen(
            node.container.labels[CLUSTER],
            node.name,
            containers_of(node.container.labels[CLUSTER], node.context),
        )
        return done if fault else [*done, *_undone(replace(node, container=now), fault)]
    if fault and fault not in has:
        return [_with(node, fault, NOT_SET)]
    asked = [fault] if fault else sorted(has, key=lambda item: item not in _FIRST)
    return [_with(node, item, UNDONE, _UNDO[item](node)) for item in asked]


def _with(node: _Node, fault: str, action: str, details: str = "") -> FaultChange:
    return FaultChange(node=node.name, fault=fault, action=action, details=details)


def _need_running(node: _Node, fault: str) -> None:
    if not node.container.running and fault != KILL:
        raise StepFailed(
            f"{node.name} is {node.container.state}, so it cannot have {fault}; start it first:"
            f" invoke cluster.up --cluster {node.container.labels[CLUSTER]}"
        )


# --- what each fault does


def _slow_cpu(node: _Node) -> str:
    node.engine.limit_cpus(node.container.name, SLOW_QUOTA)
    return f"all of it has {100 * SLOW_QUOTA // CPU_PERIOD} % of one CPU"


def _quick_cpu(node: _Node) -> str:
    node.engine.limit_cpus(node.container.name, UNLIMITED)
    return "its CPUs have their own speed again"


def _kill(node: _Node) -> str:
    node.engine.kill(node.container.name)
    return "its container was killed"


def _revive(node: _Node) -> str:
    since, engine = time.time(), node.engine
    engine.start_again(node.container.name)
    found = containers_of(node.container.labels[CLUSTER], node.context)
    (now,) = (item for item in found if item.name == node.container.name)
    wait(now, engine)
    wait_for_slurm(found, [node.name], since, node.context)
    return "it runs again"


def _inside(verb: str, fault: str) -> Callable[[_Node], str]:
    """Return what has the program on the node change a fault."""

    def change(node: _Node) -> str:
        words = (verb, fault, str(node.folder))
        if fault == SLOW_NETWORK:
            # The node itself may not change its network, as hosts of a cluster may not either.
            result = node.engine.beside(
                node.container, *_PROGRAM, *words, capability="NET_ADMIN", input=_program()
            )
        else:
            result = _run(node.container, node.context, *words)
        return str(_answer(node.name, fault, result)["details"])

    return change


_PROGRAM = ("python3", "-")
_SET: Mapping[str, Callable[[_Node], str]] = {
    **{fault: _inside("set", fault) for fault in FAULTS},
    SLOW_CPU: _slow_cpu,
    KILL: _kill,
}
_UNDO: Mapping[str, Callable[[_Node], str]] = {
    **{fault: _inside("undo", fault) for fault in FAULTS},
    SLOW_CPU: _quick_cpu,
    KILL: _revive,
}


def _program() -> str:
    return (resources.files("sifline") / "nodeside" / "faults.py").read_text("utf-8")


def _run(container: Container, context: Context, *words: str) -> Result:
    engine = Containers(context.runner)
    return engine.execute(container.name, *_PROGRAM, *words, check=False, input=_program())


def _listed(container: Container, context: Context) -> Sequence[str]:
    """Return the faults that the program finds on a node; none where it cannot run."""
    result = _run(container, context, "list")
    return tuple(json.loads(result.stdout)["active"]) if result.ok else ()


def _answer(node: str, fault: str, result: Result) -> dict[str, Any]:
    if not result.ok:
        raise StepFailed(f"{node}: {fault} is not possible: {result.tail(1)}")
    return dict(json.loads(result.stdout))
