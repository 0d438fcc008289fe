"""The stages in their order, from a Dockerfile to a job on the cluster; no other room knows it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from sifline.pipeline.options import Options
from sifline.pipeline.plans import BUILD, MAKE, TEST, TOOLBOX, Planner
from sifline.pipeline.work import Work

if TYPE_CHECKING:
    from sifline.machine.context import Context
    from sifline.model import CheckResult, Quickstart, Step, WouldBringUp
    from sifline.pipeline.cleaning import Cleaner
    from sifline.pipeline.clusters import Clusters
    from sifline.pipeline.deployed import DeployedImages
    from sifline.pipeline.opening import Opener
    from sifline.pipeline.practice import Practice
    from sifline.pipeline.queries import Queries
    from sifline.pipeline.sifs import Sifs
    from sifline.report.terminal import Terminal

T = TypeVar("T")

NODE_IMAGE = "slurm-node"
QUICKSTART_IMAGE = "hello-mpi"
QUICKSTART_SUITE = "mpi-job"


class Pipeline:
    """The stages of one checkout, in order; each first runs the earlier stages that it needs."""

    def __init__(self, context: Context, show: Terminal, options: Options | None = None) -> None:
        self.planner = Planner(context, show, options)
        self.work = Work(self.planner)

    # What only some verbs need is loaded at its first use.

    @cached_property
    def queries(self) -> Queries:
        """Answers about images: status, plans, sizes, differences."""
        from sifline.pipeline.queries import Queries

        return Queries(self.planner)

    @cached_property
    def opener(self) -> Opener:
        """Shells in images, SIFs and nodes."""
        from sifline.pipeline.opening import Opener

        return Opener(self.planner, self.work)

    @cached_property
    def cleaner(self) -> Cleaner:
        """What `clean` removes."""
        from sifline.pipeline.cleaning import Cleaner

        return Cleaner(self.planner)

    @cached_property
    def sifs(self) -> Sifs:
        """SIF files: conversion of other images, tests, signatures."""
        from sifline.pipeline.sifs import Sifs

        return Sifs(self.planner, self.work)

    @cached_property
    def clusters(self) -> Clusters:
        """Virtual clusters, and the stages on any cluster."""
        from sifline.pipeline.clusters import Clusters

        return Clusters(self.planner, self.work)

    @cached_property
    def deployed(self) -> DeployedImages:
        """What is deployed to a cluster: catalog, history, rollback, undeploy, prune."""
        from sifline.pipeline.deployed import DeployedImages

        return DeployedImages(self.planner)

    @cached_property
    def practice(self) -> Practice:
        """Changes of virtual clusters that run: faults, restarts, the number of nodes."""
        from sifline.pipeline.practice import Practice

        return Practice(self.planner, self.clusters)

    def doctor(self) -> tuple[CheckResult, ...]:
        """Check that this machine has what the verbs need."""
        from sifline.stages import doctor

        return doctor.doctor(self.planner.context)

    def would_quickstart(self, cluster: str) -> tuple[tuple[Step, ...], WouldBringUp]:
        """Return the steps of images that a quickstart needs, and what it starts."""
        done = self.work.dry(MAKE, [QUICKSTART_IMAGE])
        done.check()
        would = self.clusters.would_up(cluster)
        known = {step.key for step in done.steps}
        more = tuple(step for step in would.steps if step.key not in known)
        return (*done.steps, *more), replace(would, steps=())

    def quickstart(self, cluster: str) -> Quickstart:
        """Take hello-mpi from its Dockerfile to an MPI job, skipping what is up to date."""
        from sifline import virtual
        from sifline.model import Quickstart

        image, seconds = QUICKSTART_IMAGE, dict[str, float]()

        def timed(stage: str, call: Callable[[], T]) -> T:
            started = time.monotonic()
            result = call()
            seconds[stage] = time.monotonic() - started
            return result

        described = self.clusters.described(cluster)
        virtual.refuse_foreign(described.name, self.planner.context)
        tools = [NODE_IMAGE, *([TOOLBOX] if self.planner.need_toolbox() else [])]
        self._expect([image, *tools], image, described.name)
        built = timed("build", lambda: self.work.build([image, *tools]))
        timed("test in Docker", lambda: self.work.run(TEST, [image]).check())
        (converted,) = timed("convert", lambda: self.work.convert([image]))
        (sif,) = timed("test the SIF", lambda: self.work.tested_sifs([image]))
        stands = timed("cluster up", lambda: self.clusters.up(cluster))
        ready = timed("provision", lambda: self.clusters.provision(stands))
        deployment = timed("deploy", lambda: self.clusters.deployed(sif, ready))
        (job,) = timed(
            "MPI job", lambda: self.clusters.validate(stands, suites=[QUICKSTART_SUITE])
        )
        return Quickstart(
            built=next(item for item in built if item.image.name == image),
            sif=converted,
            cluster=stands,
            deployment=deployment,
            job=job,
            seconds=tuple(seconds.items()),
        )

    def _expect(self, built: Sequence[str], image: str, cluster: str) -> None:
        """Announce all steps of a quickstart: the headline counts them from the beginning."""
        steps = [*self.planner.plan(BUILD, built).steps, *self.planner.plan(MAKE, [image]).steps]
        self.work.expect(steps)
        titles = (
            *(f"cluster.up {cluster}", f"provision {cluster}"),
            *(f"deploy {image}", f"validate {cluster}"),
        )
        self.planner.show.expect(dict.fromkeys(titles))
