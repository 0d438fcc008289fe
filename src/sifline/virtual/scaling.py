"""Adds compute nodes to a virtual cluster that runs, and removes some, beside all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sifline.engines.docker.containers import Container, Containers, despite_a_killed_run
from sifline.errors import StepFailed, UsageError
from sifline.formats.node_lists import expand
from sifline.machine.context import Context
from sifline.machine.interrupts import each
from sifline.model import Role, Scaled
from sifline.virtual.addresses import assigned
from sifline.virtual.found import cluster_label, cluster_lock, own_containers, state_folder
from sifline.virtual.registering import CONFIGURATION
from sifline.virtual.starting import create, prepared, settle, write
from sifline.virtual.wanted import (
    COUNT,
    MOST_NODES,
    Description,
    Wanted,
    fit,
    fits,
    public_key,
    want,
    with_compute,
)

_CONTROLLER = Role.CONTROLLER.value
JOBS = ("squeue", "--noheader", "--format=%N|%i of %u (%T)")


@dataclass(frozen=True, kw_only=True)
class _Change:
    """The cluster as it shall be, and the nodes that this adds and removes."""

    wanted: Wanted
    found: Mapping[str, Container]
    jobs: tuple[str, ...]

    @property
    def added(self) -> tuple[str, ...]:
        return tuple(node for node in self.wanted.options if node not in self.found)

    @property
    def removed(self) -> tuple[str, ...]:
        return tuple(node for node in self.found if node not in self.wanted.options)

    def result(self) -> Scaled:
        """Return what is done, or would be."""
        cluster = self.wanted.cluster
        return Scaled(
            name=cluster.name,
            compute=len(cluster.compute),
            added=self.added,
            removed=self.removed,
            jobs=self.jobs,
        )


def would_scale(description: Description, count: int, context: Context) -> Scaled:
    """Return what ``scale`` would do; fails if it would, except for jobs."""
    return _planned(description, count, context).result()


def scale(
    description: Description, count: int, context: Context, *, interrupt_jobs: bool = False
) -> Scaled:
    """Give a cluster that runs ``count`` compute nodes; the others are not touched.

    What was asked for is recorded first, so that ``up`` finishes what was interrupted.

    :param interrupt_jobs: remove nodes on which jobs run.
    :raises UsageError: for a number that is not possible.
    :raises StepFailed: if the cluster is not as described, or jobs run on nodes that would go.
    """
    name = description.name
    folder = state_folder(name, context.workspace)
    with cluster_lock(name, context):
        change = _planned(description, count, context)
        if change.jobs and not interrupt_jobs:
            raise StepFailed(
                f"jobs run on nodes that would be removed: {'; '.join(change.jobs)}; wait for"
                f" them, or run: invoke cluster.scale {count} --cluster {name} --interrupt-jobs"
            )
        engine = Containers(context.runner)
        if change.removed:
            context.progress(f"removing {', '.join(change.removed)}")
            each(change.removed, lambda node: engine.remove(change.found[node].name))
        write(folder / COUNT, f"{count}\n")
        if change.added:
            context.progress(f"starting {', '.join(change.added)}")
            _add(change, context)
        settle(change.wanted, engine.find(cluster_label(name)), context)
    return change.result()


def _planned(description: Description, count: int, context: Context) -> _Change:
    name = description.name
    others = len(description.cluster.nodes) - len(description.cluster.compute)
    if not 1 <= count <= MOST_NODES - others:
        raise UsageError(f"cluster.scale {count}: takes a number from 1 to {MOST_NODES - others}")
    found = {item.labels["sifline.node"]: item for item in own_containers(name, context)}
    wanted = _wanted(description, count, next(iter(found.values())).image, context)
    kept = [item for node, item in found.items() if node in wanted.options]
    asleep = [node for node, item in found.items() if not item.running]
    # Nodes of another description would be recreated, with what was deployed to them.
    if not fits(wanted, kept) or len(kept) == 0 or asleep:
        what = f"{', '.join(asleep)} do not run" if asleep else "its nodes are not as described"
        raise StepFailed(f"{name}: {what}; run first: invoke cluster.up --cluster {name}")
    gone = [node for node in found if node not in wanted.options]
    return _Change(wanted=wanted, found=found, jobs=_jobs(found, gone, context))


def _wanted(description: Description, count: int, image: str, context: Context) -> Wanted:
    """Return the cluster with that many compute nodes, of the image that its nodes have."""
    name, workspace = description.name, context.workspace
    folder = state_folder(name, workspace)
    machine = Containers(context.runner).machine()
    fitted = with_compute(fit(description, folder, machine, context), count)
    return want(fitted, image, public_key(folder, context), workspace)


def _jobs(
    found: Mapping[str, Container], gone: Sequence[str], context: Context
) -> tuple[str, ...]:
    """Return the jobs on nodes that would go, or that nobody can tell; none without Slurm."""
    heads = [item for item in found.values() if item.labels["sifline.role"] == _CONTROLLER]
    engine = Containers(context.runner)
    if not gone or not heads:
        return ()
    if not engine.execute(heads[0].name, "test", "-e", CONFIGURATION, check=False).ok:
        return ()
    # All of them: squeue refuses a list with a node that Slurm does not know yet.
    answer = engine.execute(heads[0].name, *JOBS, check=False)
    if not answer.ok:
        return (f"slurmctld does not tell which: {answer.tail(1)}",)
    return jobs_on(answer.stdout, gone)


def jobs_on(text: str, gone: Sequence[str]) -> tuple[str, ...]:
    """Return the jobs that have some of the nodes ``gone``.

    :param text: what JOBS prints.
    """
    found = []
    for line in text.splitlines():
        nodes, _, job = line.strip().partition("|")
        if names := set(expand(nodes)).intersection(gone):
            found.append(f"job {job} on {', '.join(sorted(names))}")
    return tuple(found)


def _add(change: _Change, context: Context) -> None:
    wanted = change.wanted
    subnet = prepared(wanted.cluster.name, context)
    held = {node: item.fixed for node, item in change.found.items()}
    addresses = assigned([*wanted.options], held, subnet)

    def start(node: str) -> None:
        despite_a_killed_run(lambda: create(wanted, node, addresses[node], context))

    each(change.added, start)
