"""Clusters: virtual ones up and down, any one provisioned, deployed to and validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sifline.model import (
    CheckResult,
    Cluster,
    Deployment,
    NodeState,
    ProvisionedCluster,
    TestedSif,
)
from sifline.pipeline.plans import Planner
from sifline.pipeline.work import Work


class Clusters:
    """Brings virtual clusters up and down; provisions, deploys to and validates any cluster."""

    def __init__(self, planner: Planner, work: Work) -> None:
        self._planner = planner
        self._work = work
        self._context, self._show = planner.context, planner.show
        self._workspace = planner.workspace

    def up(self, name: str, file: Path | None = None) -> Cluster:
        """Bring up the virtual cluster ``name`` from ``file``."""
        from sifline import virtual

        described = virtual.describe(
            file or self._workspace.root / "clusters" / "virtual.yaml", name
        )
        if described.image in self._planner.images:
            self._work.build([described.image])
        with self._show.step(f"cluster.up {name}"):
            return virtual.up(described, self._context)

    def down(self, name: str, *, foreign: bool = False) -> tuple[str, ...]:
        """Take the virtual cluster ``name`` down; another checkout's where it is ``foreign``."""
        from sifline import virtual

        with self._show.step(f"cluster.down {name}"):
            return tuple(virtual.down(name, self._context, foreign=foreign))

    def status(self, name: str) -> tuple[NodeState, ...]:
        """Return the nodes of the virtual cluster ``name``."""
        from sifline import virtual

        return virtual.status(name, self._context)

    def shell(self, name: str, node: str, command: Sequence[str], *, user: str = "") -> int:
        """Open a node of a virtual cluster on the user's terminal."""
        from sifline import virtual

        return self._context.runner.attach(
            virtual.shell_argv(name, node, self._context, command=command, user=user)
        )

    def find(self, name: str, *, become_password: str = "") -> Cluster:
        """Return the cluster of that name or file.

        :param become_password: what sudo on the nodes is told; "" where it must not ask.
        """
        from sifline.config.clusters import find_cluster, load_cluster

        found = load_cluster(find_cluster(name, self._workspace))
        return replace(found, asked=name, ssh=replace(found.ssh, become_password=become_password))

    def provision(
        self, cluster: Cluster, *, check: bool = False, stage: str = "", adopt: bool = False
    ) -> ProvisionedCluster:
        """Configure a cluster with Ansible: all of it, or one ``stage``."""
        from sifline.stages import provision

        with self._show.step(f"provision {_called(cluster)}"):
            return provision.provision(
                cluster, self._context, check=check, stage=stage, adopt=adopt
            )

    def deploy(
        self, names: Sequence[str], cluster: Cluster, *, untested: bool = False
    ) -> tuple[Deployment, ...]:
        """Deploy the SIFs of ``names``; first they are made and tested where needed.

        :param untested: even where their tests fail or were not run.
        """
        from sifline.stages import inspect

        with self._show.step(f"inspect {_called(cluster)}"):
            target = inspect.inspect(cluster, self._context)
        sifs = self._work.untested_sifs(names) if untested else self._work.tested_sifs(names)
        return tuple(self.deployed(sif, target) for sif in sifs)

    def deployed(self, sif: TestedSif, cluster: ProvisionedCluster) -> Deployment:
        """Deploy one SIF."""
        from sifline.stages import deploy

        with self._show.step(f"deploy {sif.sif.name}"):
            return deploy.deploy(sif, cluster, self._context)

    def checks(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Return the name and the summary of each check, by suite."""
        from sifline.validation import run

        return run.listing()

    def validate(
        self, cluster: Cluster, *, suites: Sequence[str] = (), checks: Sequence[str] = ()
    ) -> tuple[CheckResult, ...]:
        """Run health checks on a cluster."""
        from sifline.validation import run

        with self._show.step(f"validate {_called(cluster)}"):
            return run.validate(cluster, self._context, suites=suites, checks=checks)


def _called(cluster: Cluster) -> str:
    """Return what the user calls a cluster: its name, or its file."""
    return cluster.asked or cluster.name
