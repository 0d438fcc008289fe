"""The only place that knows the order: from Dockerfile to a job on the cluster."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sifline import records
from sifline.adapters.docker import Docker
from sifline.buildcontext import digest
from sifline.errors import MissingError, UsageError
from sifline.model import (
    PREPARED,
    BuiltImage,
    CheckResult,
    Cluster,
    Deployment,
    Image,
    ImageState,
    NodeState,
    Provisioned,
    Quickstart,
    Sif,
    Step,
    TestReport,
)
from sifline.runner import Context
from sifline.stages import build, discover, plan

if TYPE_CHECKING:
    from sifline.adapters.apptainer import Apptainer
    from sifline.report.terminal import Terminal

TOOLBOX = "toolbox"
NODE_IMAGE = "slurm-node"
QUICKSTART_IMAGE = "hello-mpi"
QUICKSTART_SUITE = "mpi-job"


class Pipeline:
    """The stages of one checkout, in order; a later one calls for what it needs of an earlier."""

    def __init__(self, context: Context, show: Terminal) -> None:
        self._context = context
        self._show = show
        self._workspace = context.workspace

    @cached_property
    def images(self) -> dict[str, Image]:
        """All images by name."""
        return discover.load(self._workspace)

    # Images

    def plan(self, names: Iterable[str], *, force: bool = False) -> tuple[Step, ...]:
        """Return what building ``names`` would do, and why."""
        return self._look(names, force=force)[0]

    def _look(
        self, names: Iterable[str], *, force: bool = False
    ) -> tuple[tuple[Step, ...], dict[str, BuiltImage]]:
        """Ask the engine once: the plan, and the images it was made from."""
        wanted = set(self._known(names))
        needed = [self.images[name] for name in plan.order(self.images, wanted)]
        held = build.existing(needed, self._context)
        steps = plan.plan(
            self.images, wanted, {name: item.fingerprint for name, item in held.items()}
        )
        if force:
            steps = tuple(
                replace(step, needed=True, reason=step.reason or "--force")
                if step.image.name in wanted
                else step
                for step in steps
            )
        return steps, held

    def build(self, names: Iterable[str], *, force: bool = False) -> tuple[BuiltImage, ...]:
        """Build ``names`` and what they are built on, where anything changed."""
        steps, held = self._look(names, force=force)
        done = []
        for step in steps:
            if step.needed:
                with self._show.step(f"build {step.image.name}"):
                    done.append(build.build(step, self._context))
            else:
                done.append(replace(held[step.image.name], fresh=True))
        return tuple(done)

    def test(
        self, names: Sequence[str], *, runtime: str, only_new: bool = False
    ) -> tuple[TestReport, ...]:
        """Test ``names`` in Docker, or in their SIFs; ``only_new`` leaves out what passed."""
        prepare = self._built if runtime == "docker" else self.convert
        subjects: list[BuiltImage | Sif] = [*prepare(names)]
        done = []
        for name, subject in zip(names, subjects, strict=True):
            done.append(self._test(name, subject, runtime, only_new=only_new))
        return tuple(done)

    def convert(self, names: Sequence[str], *, force: bool = False) -> tuple[Sif, ...]:
        """Convert ``names`` to SIFs, building them first where needed."""
        from sifline.stages import convert

        self._need_apptainer()
        done = []
        for built in self._built(names):
            with self._show.step(f"convert {built.image.name}"):
                done.append(
                    convert.convert(built, self._context, force=force, commit=self._commit)
                )
        return tuple(done)

    def make(self, names: Sequence[str], *, force: bool = False) -> tuple[Sif, ...]:
        """Build, test, convert, and test the SIF."""
        self.build(names, force=force)
        self.test(names, runtime="docker", only_new=not force)
        sifs = self.convert(names, force=force)
        self.test(names, runtime="apptainer", only_new=not force)
        return sifs

    def info(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return what is known of each image and of its SIF, read from the SIF itself."""
        from sifline.stages import convert

        facts = []
        for name in self._known(names):
            image = self.images[name]
            held = build.existing([image], self._context).get(name)
            fact: dict[str, Any] = {
                "name": name,
                "description": image.description,
                "built on": list(image.parents),
                "tag": image.tag,
                "image id": held.image_id if held else "",
                "size": held.size if held else 0,
                "fingerprint": held.fingerprint if held else "",
            }
            path = self._workspace.sif(name)
            if path.is_file():
                fact["sif"] = convert.info(path, self._context)
            facts.append(fact)
        return facts

    def status(self, names: Sequence[str]) -> tuple[ImageState, ...]:
        """Return the state of each image."""
        steps, held = self._look(names)
        by_name = {step.image.name: step for step in steps}
        return tuple(self._state(by_name[name], held.get(name)) for name in names)

    def shell(
        self,
        name: str,
        *,
        sif: bool,
        mount_home: bool,
        volumes: Sequence[str],
        gpus: str,
        command: Sequence[str],
    ) -> int:
        """Open ``name`` on the user's terminal; return the exit status."""
        for volume in volumes:
            if ":" not in volume:
                raise UsageError(f"--volume {volume!r}: takes SOURCE:TARGET")
        binds = [*volumes, *([f"{Path.home()}:{Path.home()}"] if mount_home else [])]
        wanted = list(command) or ["/bin/sh", "-l"]
        if sif:
            self._need_apptainer()
            (made,) = self.convert([name])
            argv = self._apptainer.shell_argv(
                made.path, wanted, binds=binds, gpus=bool(gpus), terminal=sys.stdin.isatty()
            )
        else:
            (built,) = self._built([name])
            argv = Docker(self._context.runner).shell_argv(
                built.image.tag, wanted, volumes=binds, gpus=gpus, terminal=sys.stdin.isatty()
            )
        return self._context.runner.attach(argv)

    def clean(
        self, names: Sequence[str], *, docker: bool, sifs: bool, state: bool
    ) -> tuple[str, ...]:
        """Remove what sifline made of ``names``; return what that was."""
        removed: list[str] = []
        engine = Docker(self._context.runner)
        if docker:
            held = build.existing(
                [self.images[name] for name in self._known(names)], self._context
            )
            # An image of our tag without our label was made by somebody else.
            ours = sorted(item.image.tag for item in held.values() if item.fingerprint)
            engine.remove_images(ours)
            removed += [f"image {tag}" for tag in ours]
        for name in self._known(names):
            paths = [self._workspace.sif(name)] if sifs else []
            if state:
                paths += [
                    *self._workspace.records.glob(f"{name}.*.json"),
                    *self._workspace.logs.glob(f"{name}.*.log"),
                ]
                if self.images[name].prepare:
                    paths.append(self.images[name].folder / PREPARED)
            for path in paths:
                if path.exists():
                    path.unlink()
                    removed.append(str(path.relative_to(self._workspace.root)))
        return tuple(removed)

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

    def cluster_down(self, name: str) -> tuple[str, ...]:
        """Take the virtual cluster ``name`` down."""
        from sifline import virtual

        with self._show.step(f"cluster.down {name}"):
            return tuple(virtual.down(name, self._context))

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

    def cluster(self, name: str) -> Cluster:
        """Return the cluster of that name or file."""
        from sifline.config.clusters import find_cluster, load_cluster

        return load_cluster(find_cluster(name, self._workspace))

    def provision(self, name: str, *, check: bool = False) -> Provisioned:
        """Configure the cluster ``name`` with Ansible."""
        from sifline.stages import provision

        cluster = self.cluster(name)
        with self._show.step(f"provision {name}"):
            return provision.provision(cluster, self._context, check=check)

    def deploy(self, names: Sequence[str], *, cluster: str) -> tuple[Deployment, ...]:
        """Deploy the SIFs of ``names``, converting them first where needed."""
        from sifline.stages import deploy

        target = self.cluster(cluster)
        done = []
        for sif in self.convert(names):
            with self._show.step(f"deploy {sif.name}"):
                done.append(deploy.deploy(sif, target, self._context))
        return tuple(done)

    def checks(self) -> Any:
        """Return the suites and their checks."""
        from sifline.stages import validate

        return validate.listing()

    def validate(
        self, name: str, *, suites: Sequence[str] = (), checks: Sequence[str] = ()
    ) -> tuple[CheckResult, ...]:
        """Judge the cluster ``name``."""
        from sifline.stages import validate

        cluster = self.cluster(name)
        with self._show.step(f"validate {name}"):
            return validate.validate(cluster, self._context, suites=suites, checks=checks)

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

        tools = [NODE_IMAGE, *([TOOLBOX] if self._toolbox_needed() else [])]
        built = timed("build", lambda: self.build([image, *tools]))
        timed("test in Docker", lambda: self.test([image], runtime="docker", only_new=True))
        (sif,) = timed("convert", lambda: self.convert([image]))
        timed("test the SIF", lambda: self.test([image], runtime="apptainer", only_new=True))
        stands = timed("cluster up", lambda: self.cluster_up(cluster))
        timed("provision", lambda: self.provision(cluster))
        (deployment,) = timed("deploy", lambda: self.deploy([image], cluster=cluster))
        (job,) = timed("MPI job", lambda: self.validate(cluster, suites=[QUICKSTART_SUITE]))
        return Quickstart(
            built=next(item for item in built if item.image.name == image),
            sif=sif,
            cluster=stands,
            deployment=deployment,
            job=job,
            seconds=tuple(seconds.items()),
        )

    # Helpers

    def _known(self, names: Iterable[str]) -> tuple[str, ...]:
        for name in names:
            if name not in self.images:
                raise discover.unknown(name, self._workspace)
        return tuple(names)

    def _built(self, names: Sequence[str]) -> tuple[BuiltImage, ...]:
        """``names`` alone, without what they are built on."""
        by_name = {item.image.name: item for item in self.build(names)}
        return tuple(by_name[name] for name in names)

    def _toolbox_needed(self) -> bool:
        return not self._apptainer.native

    @cached_property
    def _apptainer(self) -> Apptainer:
        from sifline.adapters.apptainer import Apptainer

        return Apptainer(self._context.runner)

    def _need_apptainer(self) -> None:
        """Have Apptainer: the machine's own, else the toolbox, from images/ or as it stands."""
        if not self._toolbox_needed():
            return
        if TOOLBOX in self.images:
            self.build([TOOLBOX])
        elif not Docker(self._context.runner).images([discover.tag_of(TOOLBOX)]):
            raise MissingError(
                "neither apptainer nor singularity is installed, and there is no images/toolbox;"
                " install Apptainer, or add that image"
            )

    def _test(
        self, name: str, subject: BuiltImage | Sif, runtime: str, *, only_new: bool
    ) -> TestReport:
        from sifline.stages import imagetest

        record = self._workspace.records / f"{name}.test-{runtime}.json"
        folders = [
            folder
            for folder in (
                self.images[item].folder / "tests" for item in plan.order(self.images, [name])
            )
            if folder.is_dir()
        ]
        key = {
            "subject": subject.sha256 if isinstance(subject, Sif) else subject.image_id,
            "tests": [digest(folder) for folder in folders],
        }
        known = records.read(record) or {}
        if only_new and known.get("key") == key:
            return TestReport(**{**known["report"], "skip_reasons": tuple(known["reasons"])})
        with self._show.step(f"test {name} ({runtime})"):
            report = imagetest.imagetest(subject, folders, self._context, runtime=runtime)
        counts = {
            field: getattr(report, field)
            for field in ("name", "runtime", "passed", "failed", "skipped", "seconds")
        }
        records.write(record, {"key": key, "report": counts, "reasons": report.skip_reasons})
        return report

    def _state(self, step: Step, held: BuiltImage | None) -> ImageState:
        from sifline.stages import convert

        path = self._workspace.sif(step.image.name)
        return ImageState(
            name=step.image.name,
            image_id=held.image_id if held else "",
            size=held.size if held else 0,
            stale=step.reason,
            sif=convert.state(step.image.name, held, self._workspace),
            sif_size=path.stat().st_size if path.is_file() else 0,
        )

    @cached_property
    def _commit(self) -> str:
        """The commit of the checkout; "" outside git."""
        if not shutil.which("git"):
            return ""
        result = self._context.runner.run(
            ["git", "-C", str(self._workspace.root), "rev-parse", "HEAD"], check=False
        )
        return result.stdout.strip() if result.ok else ""
