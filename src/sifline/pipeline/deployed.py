"""What is deployed to a cluster: its catalog, rolling back, undeploying, pruning, comparing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sifline.errors import UsageError
from sifline.pipeline import deployments
from sifline.pipeline.plans import Planner

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    from sifline.model import Cluster
    from sifline.model.catalog import Catalog, CatalogImage, Removed, RolledBack, Version


class DeployedImages:
    """Reads and changes what the registries of a cluster's nodes hold; nothing is built."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._context, self._show = planner.context, planner.show
        self._workspace = planner.workspace

    def catalog(self, cluster: Cluster) -> Catalog:
        """Return what the nodes of a cluster have; those that do not answer are named."""
        from sifline.stages.deployed import catalog

        with self._show.step(f"catalog {cluster.name}"):
            return catalog.read(cluster, self._context)

    def history(self, cluster: Cluster, name: str) -> tuple[Catalog, CatalogImage]:
        """Return one image of the catalog, and the catalog.

        :raises UsageError: if it was never deployed there.
        """
        from sifline.stages.deployed import catalog

        with self._show.step(f"history {name}"):
            found = catalog.read(cluster, self._context)
            return found, catalog.find(found, name)

    def current(self, cluster: Cluster, name: str) -> tuple[Version, PurePosixPath]:
        """Return the version of an image that is in place on a cluster, and its path there.

        :raises UsageError: if none is.
        """
        _, image = self.history(cluster, name)
        if not image.current:
            raise UsageError(
                f"{name} was undeployed from {cluster.name}; run: invoke deploy.{name}"
                f" {cluster.flag}"
            )
        return image.current, image.path

    def rollback(self, cluster: Cluster, name: str, *, to: str, dry: bool) -> RolledBack:
        """Put an earlier version of an image in place."""
        from sifline.stages.deployed import rollback

        with self._show.step(f"rollback {name}"):
            done = rollback.rollback(cluster, name, self._context, to=to, dry=dry)
        if not dry:
            deployments.remember_switch(done, self._workspace)
        return done

    def undeploy(self, cluster: Cluster, name: str, *, dry: bool) -> Removed:
        """Remove the name of an image, and its versions that nothing needs."""
        from sifline.stages.deployed import removal

        with self._show.step(f"undeploy {name}"):
            done = removal.undeploy(cluster, name, self._context, dry=dry)
        if not (dry or cluster.left_out or done.silent):
            deployments.forget_image(name, cluster, self._workspace)
        return done

    def prune(self, cluster: Cluster, *, keep: int, dry: bool) -> Removed:
        """Remove versions that nothing needs, and abandoned uploads."""
        from sifline.stages.deployed import removal

        with self._show.step(f"prune {cluster.name}"):
            return removal.prune(cluster, self._context, keep=keep, dry=dry)
