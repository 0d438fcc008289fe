"""The only place that knows the order: from Dockerfile to a job on the cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sifline.model import (
    CheckResult,
    Cluster,
    Deployment,
    NodeState,
    ProvisionedCluster,
    Quickstart,
    TestedSif,
    Verb,
)
from sifline.pipeline.plans import MAKE, TEST, TOOLBOX
from sifline.pipeline.sifs import SifPipeline

NODE_IMAGE = "slurm-node"
QUICKSTART_IMAGE = "hello-mpi"
QUICKSTART_SUITE = "mpi-job"


class Pipeline(SifPipeline):
    """The stages of one checkout, in order; a later one calls for what it needs of an earlier."""

    # Clusters

    def cluster_up(self, name: str, file: Path | None = None) -> Cluster:
        """Bring up the virtual cluster ``name`` from ``file``."""
        from sifline import virtual

        described = file or self._workspace.root / "clusters" / "virtual.yaml"
        image = virtual.image_of(described, name)
        if image in self.images:
            self.build([image])
        with self._show.step(f"cluster.up {name}"):
            return virtual.up(described, name, self._context)

    def cluster_down(self, name: str, *, foreign: bool = False) -> tuple[str, ...]:
        """Take the virtual cluster ``name`` down; another checkout's where it is ``foreign``."""
        from sifline import virtual

        with self._show.step(f"cluster.down {name}"):
            return tuple(virtual.down(name, self._context, foreign=foreign))

    def cluster_status(self, name: str) -> tuple[NodeState, ...]:
        """Return the nodes of the virtual cluster ``name``."""
        from sifline import virtual

        return virtual.status(name, self._context)

    def cluster_shell(
        self, name: str, node: str, command: Sequence[str], *, user: str = ""
    ) -> int:
        """Open a node of a virtual cluster on the user's terminal."""
        from sifline import virtual

        return self._context.runner.attach(
            virtual.shell_argv(name, node, self._context, command=command, user=user)
        )

    def cluster(self, name: str, *, become_password: str = "") -> Cluster:
        """Return the cluster of that name or file.

        :param become_password: what sudo on the nodes is told; "" where it must not ask.
        """
        from sifline.config.clusters import find_cluster, load_cluster

        found = load_cluster(find_cluster(name, self._workspace))
        return replace(found, asked=name, ssh=replace(found.ssh, become_password=become_password))

    def provision(
        self,
        name: str,
        *,
        check: bool = False,
        stage: str = "",
        adopt: bool = False,
        become_password: str = "",
    ) -> ProvisionedCluster:
        """Configure the cluster ``name`` with Ansible: all of it, or one ``stage``."""
        from sifline.stages import provision

        cluster = self.cluster(name, become_password=become_password)
        with self._show.step(f"provision {name}"):
            return provision.provision(
                cluster, self._context, check=check, stage=stage, adopt=adopt
            )

    def deploy(
        self,
        names: Sequence[str],
        *,
        cluster: str,
        become_password: str = "",
        untested: bool = False,
    ) -> tuple[Deployment, ...]:
        """Deploy the SIFs of ``names``; first they are made and tested where needed.

        :param untested: even where their tests fail or were not run.
        """
        from sifline.stages import inspect

        described = self.cluster(cluster, become_password=become_password)
        with self._show.step(f"inspect {cluster}"):
            target = inspect.inspect(described, self._context)
        sifs = self._untested_sifs(names) if untested else self._tested_sifs(names)
        return tuple(self._deployed(sif, target) for sif in sifs)

    def _tested_sifs(self, names: Sequence[str]) -> tuple[TestedSif, ...]:
        """Make and test what is not up to date."""
        done = self.run(MAKE, names).check()
        pairs = zip(done.of(Verb.CONVERT, names), done.of(Verb.TEST_SIF, names), strict=True)
        return tuple(TestedSif(sif=sif, report=report) for sif, report in pairs)

    def _untested_sifs(self, names: Sequence[str]) -> tuple[TestedSif, ...]:
        return tuple(TestedSif.untested(sif) for sif in self.convert(names))

    def _deployed(self, sif: TestedSif, cluster: ProvisionedCluster) -> Deployment:
        from sifline.stages import deploy

        with self._show.step(f"deploy {sif.sif.name}"):
            return deploy.deploy(sif, cluster, self._context)

    def checks(self) -> Any:
        """Return the suites and their checks."""
        from sifline.validation import run

        return run.listing()

    def validate(
        self,
        name: str,
        *,
        suites: Sequence[str] = (),
        checks: Sequence[str] = (),
        become_password: str = "",
    ) -> tuple[CheckResult, ...]:
        """Judge the cluster ``name``."""
        from sifline.validation import run

        cluster = self.cluster(name, become_password=become_password)
        with self._show.step(f"validate {name}"):
            return run.validate(cluster, self._context, suites=suites, checks=checks)

    # The whole

    def doctor(self) -> tuple[CheckResult, ...]:
        """Check this machine."""
        from sifline.stages import doctor

        return doctor.doctor(self._context)

    def quickstart(self, cluster: str) -> Quickstart:
        """Go the whole way with the smallest image; a second run does what is not up to date."""
        image, seconds = QUICKSTART_IMAGE, dict[str, float]()

        def timed(stage: str, call: Any) -> Any:
            started = time.monotonic()
            result = call()
            seconds[stage] = time.monotonic() - started
            return result

        tools = [NODE_IMAGE, *([TOOLBOX] if self._need_toolbox() else [])]
        built = timed("build", lambda: self.build([image, *tools]))
        timed("test in Docker", lambda: self.run(TEST, [image]).check())
        (converted,) = timed("convert", lambda: self.convert([image]))
        (sif,) = timed("test the SIF", lambda: self._tested_sifs([image]))
        stands = timed("cluster up", lambda: self.cluster_up(cluster))
        ready = timed("provision", lambda: self.provision(cluster))
        deployment = timed("deploy", lambda: self._deployed(sif, ready))
        (job,) = timed("MPI job", lambda: self.validate(cluster, suites=[QUICKSTART_SUITE]))
        return Quickstart(
            built=next(item for item in built if item.image.name == image),
            sif=converted,
            cluster=stands,
            deployment=deployment,
            job=job,
            seconds=tuple(seconds.items()),
        )
