"""Clusters: virtual ones up and down, any one provisioned, deployed to and validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sifline.model import (
    CheckResult,
    Cluster,
    Deployment,
    ListedCluster,
    NodeState,
    ProvisionedCluster,
    Step,
    TestedSif,
    Verb,
    WouldBringUp,
    WouldDeploy,
)
from sifline.pipeline.plans import BUILD, CONVERT, MAKE, Planner
from sifline.pipeline.work import Work

if TYPE_CHECKING:
    from sifline.virtual import Description


class Clusters:
    """Brings virtual clusters up and down; provisions, deploys to and validates any cluster."""

    def __init__(self, planner: Planner, work: Work) -> None:
        self._planner = planner
        self._work = work
        self._context, self._show = planner.context, planner.show
        self._workspace = planner.workspace

    def up(self, asked: str) -> Cluster:
        """Bring up the virtual cluster of that name or file."""
        from sifline import virtual

        described = self._described(asked)
        if described.image in self._planner.images:
            self._work.build([described.image])
        with self._show.step(f"cluster.up {described.name}"):
            return virtual.up(described, self._context)

    def would_up(self, asked: str) -> WouldBringUp:
        """Tell what ``up`` would do; nothing is built or started."""
        from sifline import virtual

        described = self._described(asked)
        steps: tuple[Step, ...] = ()
        if described.image in self._planner.images:
            steps = self._work.dry(BUILD, [described.image], only_new=True).steps
        stands = not any(step.changes for step in steps) and virtual.stands_so(
            described, self._context
        )
        nodes = () if stands else tuple(node.name for node in described.cluster.nodes)
        return WouldBringUp(name=described.name, steps=steps, nodes=nodes)

    def _described(self, asked: str) -> Description:
        """Return how the cluster of that name or file shall stand.

        A name that no file of clusters/ has stands as clusters/virtual.yaml says.
        """
        from sifline import virtual
        from sifline.config.clusters import SUFFIXES

        if asked.endswith(SUFFIXES):
            return virtual.describe(Path(asked))
        folder = self._workspace.root / "clusters"
        files = [folder / f"{asked}{suffix}" for suffix in SUFFIXES]
        file = next((path for path in files if path.is_file()), folder / "virtual.yaml")
        return virtual.describe(file, asked)

    def _called(self, asked: str) -> str:
        """Return the name of the virtual cluster of that name or file."""
        from sifline.config.clusters import SUFFIXES

        return self._described(asked).name if asked.endswith(SUFFIXES) else asked

    def down(self, asked: str, *, foreign: bool = False, dry: bool = False) -> tuple[str, ...]:
        """Take a virtual cluster down; another checkout's where it is ``foreign``.

        :param dry: only tell what would be removed.
        :raises UsageError: where there is nothing of it.
        """
        from sifline import virtual

        name = self._called(asked)
        with self._show.step(f"cluster.down {name}"):
            removed = virtual.down(name, self._context, foreign=foreign, dry=dry)
            if not removed:
                raise virtual.unknown(name, self._context)
        return tuple(removed)

    def listed(self) -> tuple[ListedCluster, ...]:
        """Return the clusters that are described here, and the virtual ones of the engine."""
        from sifline import virtual
        from sifline.config.clusters import described_clusters

        standing = {item.name: item for item in virtual.standing(self._context)}
        files = described_clusters(self._workspace)
        return tuple(
            ListedCluster(name=name, file=files.get(name), standing=standing.get(name))
            for name in sorted({*files, *standing})
        )

    def status(self, asked: str) -> tuple[NodeState, ...]:
        """Return the nodes of a virtual cluster.

        :raises UsageError: where it does not stand.
        """
        from sifline import virtual

        name = self._called(asked)
        found = virtual.status(name, self._context)
        if not found:
            raise virtual.unknown(name, self._context)
        return found

    def shell(self, asked: str, node: str, command: Sequence[str], *, user: str = "") -> int:
        """Open a node of a virtual cluster on the user's terminal."""
        from sifline import virtual

        name = self._called(asked)
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

    def would_deploy(
        self, names: Sequence[str], cluster: Cluster, *, untested: bool = False
    ) -> WouldDeploy:
        """Tell what ``deploy`` would do: with images, and on nodes; nothing is made or sent."""
        from sifline.stages import convert, deploy, inspect

        done = self._work.dry(CONVERT if untested else MAKE, names)
        done.check()
        with self._show.step(f"inspect {_called(cluster)}"):
            target = inspect.inspect(cluster, self._context)
        # Of a SIF that is not made yet, no node can have the digest.
        made = (Verb.BUILD, Verb.CONVERT)
        pending = {step.image.name for step in done.steps if step.needed and step.verb in made}
        nodes = dict[str, Mapping[str, str]]()
        for name in names:
            if name in pending:
                nodes[name] = dict.fromkeys((node.name for node in cluster.nodes), "send")
                continue
            sif = convert.standing(self._planner.images[name], self._workspace)
            found = deploy.survey(TestedSif.untested(sif), target, self._context)
            nodes[name] = {node: action.value for node, action in found.items()}
        return WouldDeploy(steps=done.steps, nodes=nodes)

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
