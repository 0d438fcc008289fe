"""Remove a virtual cluster: containers, networks, volumes and its folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from sifline.config.clusters import STATE_FILE
from sifline.engines.docker.containers import Containers, despite_a_killed_run
from sifline.machine.context import Context
from sifline.machine.interrupts import each
from sifline.virtual.found import (
    check_name,
    cluster_label,
    cluster_lock,
    containers_of,
    refuse_other_checkout,
    state_folder,
)


def down(
    name: str, context: Context, *, foreign: bool = False, dry: bool = False
) -> Sequence[str]:
    """Remove the cluster ``name`` and return what was removed; () if it does not exist.

    :param foreign: even if another checkout brought it up.
    :param dry: remove nothing, and return what would be removed.
    :raises UsageError: if another checkout brought it up.
    :raises StepFailed: if the engine cannot remove something.
    """
    check_name(name)
    if dry:
        _refuse_other(name, context, foreign=foreign)
        return parts(name, context)
    with cluster_lock(name, context):
        _refuse_other(name, context, foreign=foreign)
        return remove_all(name, context)


def _refuse_other(name: str, context: Context, *, foreign: bool) -> None:
    if not foreign:
        refuse_other_checkout(
            name,
            containers_of(name, context),
            context,
            f"take it down there, or here with: invoke cluster.down --cluster {name} --foreign",
        )


def parts(name: str, context: Context) -> list[str]:
    """Return the parts of the cluster ``name`` that exist, in words."""
    engine, label = Containers(context.runner), cluster_label(name)
    folder = state_folder(name, context.workspace)
    return [
        *(f"container {item.name}" for item in engine.find(label)),
        *(f"network sifline-{name}" for _ in engine.networks(label)),
        *(f"volume {volume}" for volume in engine.volumes(label)),
        *([f"folder {folder}"] if folder.is_dir() else []),
    ]


def remove_all(name: str, context: Context, *, keep_folder: bool = False) -> list[str]:
    """Remove the cluster ``name``, of any checkout; the caller holds the lock."""
    engine, label = Containers(context.runner), cluster_label(name)
    folder = state_folder(name, context.workspace)
    removed = list[str]()

    def remove() -> None:
        found = engine.find(label)
        if found:
            context.progress(f"removing {', '.join(sorted(item.name for item in found))}")
        each(found, lambda item: engine.remove(item.name))
        removed.extend(f"container {item.name}" for item in found)
        for network in engine.networks(label):
            engine.remove_network(network)
            removed.append(f"network sifline-{name}")
        for volume in engine.volumes(label):
            engine.remove_volume(volume)
            removed.append(f"volume {volume}")

    # A cluster without its file does not count as running: remove it first, in case of
    # interruption.
    (folder / STATE_FILE).unlink(missing_ok=True)
    despite_a_killed_run(remove)
    if folder.is_dir() and not keep_folder:
        shutil.rmtree(folder)
        removed.append(f"folder {folder}")
    return removed
