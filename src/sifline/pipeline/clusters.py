"""Virtual clusters up and down; provision, deploy to and validate any cluster."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sifline.errors import MissingError, StepFailed, UsageError
from sifline.model import (
    CheckResult,
    Cluster,
    ClusterFacts,
    Deployment,
    Inventory,
    ListedCluster,
    NodeState,
    ProvisionedCluster,
    SifFile,
    Step,
    TestedSif,
    Verb,
    WouldBringUp,
    WouldDeploy,
)
from sifline.pipeline import compatibility, deployments
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

        described = self.described(asked)
        virtual.refuse_foreign(described.name, self._context)
        self._show.expect({f"cluster.up {described.name}": None})
        if described.image in self._planner.images:
            self._work.build([described.image])
        with self._show.step(f"cluster.up {described.name}"):
            # What was deployed went with the containers.
            gone = partial(deployments.forget, described.name, self._workspace)
            return virtual.up(described, self._context, removed=gone)

    def would_up(self, asked: str) -> WouldBringUp:
        """Return what ``up`` would do; nothing is built or started.

        :raises SiflineError: if ``up`` would fail before it starts anything.
        """
        from sifline import virtual

        described = self.described(asked)
        virtual.refuse_foreign(described.name, self._context)
        steps: tuple[Step, ...] = ()
        if described.image in self._planner.images:
            done = self._work.dry(BUILD, [described.image])
            done.check()
            steps, image_id = done.steps, _kept(done.steps, described.image)
        else:
            image_id = virtual.image_of_engine(described.image, self._context)
        removed, started = virtual.would(described, image_id, self._context)
        return WouldBringUp(name=described.name, steps=steps, removed=removed, started=started)

    def described(self, asked: str) -> Description:
        """Return the description of the virtual cluster of that name or file.

        A name without a file in clusters/ gets the description of clusters/virtual.yaml.

        :raises UsageError: if the file describes hosts: a virtual cluster of that name would
            replace them wherever the name is given.
        """
        from sifline import virtual
        from sifline.config.clusters import described_clusters, names_file

        if names_file(asked):
            found = virtual.describe(Path(asked))
        else:
            usual = self._workspace.root / "clusters" / "virtual.yaml"
            file = described_clusters(self._workspace).get(asked, usual)
            found = virtual.describe(file, asked)
        if found.hosts:
            raise UsageError(
                f"{found.cluster.source}: describes hosts, since it has no section virtual; for a"
                " virtual cluster choose another name: invoke cluster.up --cluster NAME"
            )
        return found

    def name_of(self, asked: str) -> str:
        """Return the name of the virtual cluster of that name or file."""
        from sifline.config.clusters import names_file

        return self.described(asked).name if names_file(asked) else asked

    def down(self, asked: str, *, foreign: bool = False) -> tuple[str, ...]:
        """Remove a virtual cluster; with ``foreign`` also one of another checkout.

        :raises UsageError: if there is nothing to remove.
        """
        from sifline import virtual

        name = self.name_of(asked)
        self.would_down(asked, foreign=foreign)
        with self._show.step(f"cluster.down {name}"):
            removed = virtual.down(name, self._context, foreign=foreign)
        deployments.forget(name, self._workspace)
        return tuple(removed)

    def would_down(self, asked: str, *, foreign: bool = False) -> tuple[str, ...]:
        """Return what ``down`` would remove; fails if ``down`` would."""
        from sifline import virtual

        name = self.name_of(asked)
        found = virtual.down(name, self._context, foreign=foreign, dry=True)
        if not found:
            raise virtual.unknown(name, self._context, wanted=False)
        return tuple(found)

    def listed(self) -> tuple[ListedCluster, ...]:
        """Return the clusters that files describe, and the virtual clusters of the engine."""
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

        :raises UsageError: if it is not running.
        """
        from sifline import virtual

        name = self.name_of(asked)
        found = virtual.status(name, self._context)
        if not found:
            raise virtual.unknown(name, self._context)
        return found

    def shell(self, asked: str, node: str, command: Sequence[str], *, user: str = "") -> int:
        """Open a shell or run a command on a node of a virtual cluster, on the user's terminal."""
        from sifline import virtual

        name = self.name_of(asked)
        return self._context.runner.attach(
            virtual.shell_argv(name, node, self._context, command=command, user=user)
        )

    def find(
        self,
        name: str,
        *,
        become_password: str = "",
        only: str | None = None,
        without: str | None = None,
    ) -> Cluster:
        """Return the cluster of that name or file, with the nodes that were chosen.

        :param become_password: for sudo on the nodes; "" if sudo must not ask for one.
        :param only: a list of nodes, as Slurm writes them; None for all.
        :param without: a list of nodes to leave out.
        """
        from sifline.config.clusters import find_cluster, load_cluster

        try:
            found = load_cluster(find_cluster(name, self._workspace), asked=name)
        except UsageError:
            self._refuse_foreign(name)
            raise
        if only is not None or without is not None:
            from sifline.config.node_lists import choose

            found = choose(found, only=only, without=without)
        self._note(found)
        return replace(found, asked=name, ssh=replace(found.ssh, become_password=become_password))

    def inventory(self, asked: str) -> Inventory:
        """Return the cluster of that name or file, and the inventory that Ansible gets of it.

        No node is contacted; a virtual cluster need not run.
        """
        from sifline.config.clusters import find_cluster, load_virtual
        from sifline.engines import ansible

        found, section = load_virtual(find_cluster(asked, self._workspace))
        notes = list(found.notes)
        if section and not all(node.address for node in found.nodes):
            name = shlex.quote(asked)
            notes.append(f"its nodes have no addresses before: invoke cluster.up --cluster {name}")
        found = replace(found, asked=asked, notes=tuple(notes))
        self._note(found)
        return Inventory(cluster=found, hosts=ansible.hosts(found))

    def _note(self, cluster: Cluster) -> None:
        """Print the notes of a cluster file."""
        for note in cluster.notes:
            self._show.aside(f"note: {cluster.source}: {note}")

    def _refuse_foreign(self, name: str) -> None:
        """Raise an error if a virtual cluster of that name runs for another checkout."""
        from sifline import virtual
        from sifline.config.clusters import names_file

        if not names_file(name):
            # Without an engine there is none.
            with suppress(MissingError, StepFailed):
                virtual.refuse_foreign(name, self._context)

    def provision(
        self,
        cluster: Cluster,
        *,
        check: bool = False,
        stage: str = "",
        adopt: bool = False,
        interrupt_jobs: bool = False,
        wait: bool = False,
        diff: bool = False,
    ) -> ProvisionedCluster:
        """Configure a cluster with Ansible: all stages, or only ``stage``."""
        from sifline.stages import provision

        with self._show.step(f"provision {_called(cluster)}"):
            return provision.provision(
                cluster,
                self._context,
                check=check,
                stage=stage,
                adopt=adopt,
                interrupt_jobs=interrupt_jobs,
                wait=wait,
                diff=diff,
            )

    def deploy(
        self,
        names: Sequence[str],
        cluster: Cluster,
        *,
        untested: bool = False,
        require_all: bool = False,
        foreign: bool = False,
        override: str | None = None,
    ) -> tuple[tuple[Deployment, ...], Mapping[str, StepFailed]]:
        """Deploy the SIFs of ``names``; build, convert and test them first if out of date.

        Return also the errors of images that were not deployed, if others were to be.

        :param untested: deploy even if tests failed or were not run.
        :param require_all: deploy to all nodes or to none.
        :param foreign: replace files of others in the images' places.
        :param override: why to deploy although an image cannot work on a node.
        :raises StepFailed: without it, if an image cannot.
        """
        from sifline.stages import inspect

        record = compatibility.override_record(override)
        with self._show.step(f"inspect {_called(cluster)}"):
            target = inspect.inspect(cluster, self._context)
        took = {
            f"deploy {name}": deployments.seconds(name, cluster, self._workspace) for name in names
        }
        self._show.expect(took)
        sifs = self._work.untested_sifs(names) if untested else self._work.tested_sifs(names)
        # All images before the first is sent.
        over = self._refuse([sif.sif for sif in sifs], cluster, override=bool(record))
        done, failed = list[Deployment](), dict[str, StepFailed]()
        for sif in sifs:
            try:
                done.append(
                    self.deployed(
                        sif,
                        target,
                        require_all=require_all,
                        foreign=foreign,
                        override=record if sif.sif.name in over else "",
                    )
                )
            except StepFailed as error:
                if len(sifs) == 1:
                    raise
                failed[sif.sif.name] = error
        return tuple(done), failed

    def _refuse(
        self, sifs: Sequence[SifFile], cluster: Cluster, *, override: bool
    ) -> tuple[str, ...]:
        """Compare SIFs with the nodes; see ``compatibility.refuse``."""
        with self._show.step(f"compare {_called(cluster)}"):
            return compatibility.refuse(
                sifs, cluster, self._context, override=override, say=self._show.aside
            )

    def would_deploy(
        self,
        names: Sequence[str],
        cluster: Cluster,
        *,
        untested: bool = False,
        foreign: bool = False,
        override: str | None = None,
    ) -> WouldDeploy:
        """Return what ``deploy`` would do with images and on nodes; nothing is built or sent.

        :raises StepFailed: if ``deploy`` would refuse a SIF that is converted.
        """
        from sifline.stages import convert, deploy, inspect

        record = compatibility.override_record(override)
        done = self._work.dry(CONVERT if untested else MAKE, names)
        done.check()
        with self._show.step(f"inspect {_called(cluster)}"):
            target = inspect.inspect(cluster, self._context)
        # No node can have the digest of a SIF that is not converted yet.
        made = (Verb.BUILD, Verb.CONVERT)
        pending = {step.image.name for step in done.steps if step.needed and step.verb in made}
        images = self._planner.images
        held = {
            name: convert.standing(images[name], self._workspace)
            for name in names
            if name not in pending
        }
        self._refuse([*held.values()], cluster, override=bool(record))
        nodes = dict[str, Mapping[str, str]]()
        for name in names:
            if name in pending:
                nodes[name] = dict.fromkeys((node.name for node in cluster.nodes), "send")
                continue
            asked = TestedSif.untested(held[name])
            found = deploy.survey(asked, target, self._context, foreign=foreign)
            silent = {node.name: "behind" for node in cluster.nodes if node.name not in found}
            nodes[name] = {**{node: action.value for node, action in found.items()}, **silent}
        left_out = tuple(node.name for node in cluster.left_out)
        return WouldDeploy(steps=done.steps, nodes=nodes, left_out=left_out)

    def deployed(
        self,
        sif: TestedSif,
        cluster: ProvisionedCluster,
        *,
        require_all: bool = False,
        foreign: bool = False,
        override: str = "",
    ) -> Deployment:
        """Deploy one SIF; ``override`` is for the catalog, see ``deploy``."""
        from sifline.stages import deploy

        name, space = sif.sif.name, self._workspace
        with self._show.step(f"deploy {name}"):
            try:
                done = deploy.deploy(
                    sif,
                    cluster,
                    self._context,
                    require_all=require_all,
                    foreign=foreign,
                    override=override,
                )
            except StepFailed as error:
                deployments.remember_failure(name, cluster.cluster, error.message, space)
                raise
            deployments.remember(done, space)
            if any(place.surplus for place in done.placements):
                self._tidy(done)
            return done

    def _tidy(self, done: Deployment) -> None:
        """Remove old versions of a deployed image that nothing needs; a failure is only told."""
        from sifline.stages.deployed import removal

        cluster = done.cluster
        if cluster.registry.deployers and cluster.ssh.user != "root":
            # Looking into other people's processes takes root.
            self._show.aside(f"note: old versions stay until: invoke prune {cluster.flag}")
            return
        try:
            removal.tidy(cluster, f"{done.sif.category}/{done.sif.name}", self._context)
        except StepFailed as error:
            again = f"invoke prune {cluster.flag}"
            self._show.aside(f"note: old versions stay: {error.message}; later: {again}")

    def facts(self, cluster: Cluster, *, refresh: bool = False) -> ClusterFacts:
        """Return what the nodes of a cluster offer to images; ``refresh`` reads all again."""
        from sifline.stages import facts

        with self._show.step(f"facts {_called(cluster)}"):
            return facts.facts(cluster, self._context, refresh=refresh)

    def checks(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Return the names and summaries of the checks, by suite."""
        from sifline.validation import run

        return run.listing()

    def validate(
        self, cluster: Cluster, *, suites: Sequence[str] = (), checks: Sequence[str] = ()
    ) -> tuple[CheckResult, ...]:
        """Run health checks on a cluster.

        :raises UsageError: if a suite or a check is unknown.
        """
        from sifline.validation import run

        run.chosen(suites, checks)
        with self._show.step(f"validate {_called(cluster)}"):
            return run.validate(cluster, self._context, suites=suites, checks=checks)


def _kept(steps: Sequence[Step], image: str) -> str | None:
    """Return the id of the image that is up to date; None if it would be built."""
    step = next(step for step in steps if step.image.name == image)
    return None if step.changes or not step.held else step.held.image_id


def _called(cluster: Cluster) -> str:
    """Return the name or file by which the user named a cluster."""
    return cluster.asked or cluster.name
