"""Changes of a virtual cluster that runs: faults, restarts, and the number of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sifline.model import Cluster, FaultChange, Scaled
from sifline.pipeline.plans import Planner

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    from sifline.pipeline.clusters import Clusters


class Practice:
    """Gives nodes of virtual clusters faults, restarts them, adds some and removes some."""

    def __init__(self, planner: Planner, clusters: Clusters) -> None:
        self._clusters = clusters
        self._context, self._show = planner.context, planner.show
        self._workspace = planner.workspace

    def fault(
        self, asked: str, nodes: str, fault: str, *, undo: bool = False, dry: bool = False
    ) -> tuple[FaultChange, ...]:
        """Give nodes of a virtual cluster a fault, or take it back.

        :param fault: "" with ``undo`` for all that they have.
        """
        from sifline import virtual

        name = self._clusters.name_of(asked)
        folder = self._registry_root(name)
        with self._show.step(f"cluster.fault {name}"):
            return virtual.change(
                name, nodes, fault, self._context, folder=folder, undo=undo, dry=dry
            )

    def _registry_root(self, name: str) -> PurePosixPath:
        """Return the folder of the SIFs on the nodes of a virtual cluster."""
        from sifline.config.clusters import load_cluster, standing_clusters

        file = standing_clusters(self._workspace).get(name)
        # A cluster whose file was lost is not used before cluster.up wrote it again.
        return load_cluster(file).registry_root if file else Cluster.registry_root

    def restart(self, asked: str, nodes: str, *, dry: bool = False) -> Sequence[str]:
        """Restart nodes of a virtual cluster and return their names."""
        from sifline import virtual

        name = self._clusters.name_of(asked)
        with self._show.step(f"cluster.restart {name}"):
            return virtual.restart(name, nodes, self._context, dry=dry)

    def would_scale(self, asked: str, count: int) -> Scaled:
        """Return what ``scale`` would do; nothing is added or removed."""
        from sifline import virtual

        return virtual.would_scale(self._clusters.described(asked), count, self._context)

    def scale(self, asked: str, count: int, *, interrupt_jobs: bool = False) -> Scaled:
        """Give a virtual cluster that number of compute nodes.

        :param interrupt_jobs: remove nodes on which jobs run.
        """
        from sifline import virtual

        described = self._clusters.described(asked)
        with self._show.step(f"cluster.scale {described.name}"):
            return virtual.scale(described, count, self._context, interrupt_jobs=interrupt_jobs)
