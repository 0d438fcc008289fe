"""Build, test and convert images, in parallel where steps are independent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from sifline.contents import sif_records
from sifline.engines.docker import holding
from sifline.engines.docker.images import Docker
from sifline.errors import MissingError, SiflineError
from sifline.machine import records
from sifline.machine.facts import Machine
from sifline.model import (
    BuiltImage,
    FoundSif,
    Image,
    Sif,
    Step,
    TestedImage,
    TestedSif,
    TestReport,
    Verb,
)
from sifline.pipeline.done import Done, Results
from sifline.pipeline.plans import BUILD, CONVERT, MAKE, TOOLBOX, Plan, Planner
from sifline.stages import build
from sifline.stages.build import needs
from sifline.stages.build.needs import Surroundings

# Memory and disk that another step may take: without them it is not started.
STEP_MEMORY = 1 << 30
STEP_DISK = 1 << 30
# Compression is slower with fewer; the engine's stream keeps one more busy.
LEAST_CORES = 2


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _failure(failing: Mapping[str, SiflineError]) -> SiflineError | None:
    """Return one error for all builds that cannot be started; None if there are none."""
    if not failing:
        return None
    from sifline.machine import schedule

    keys, state = {name: f"{Verb.BUILD.value} {name}" for name in failing}, schedule.State.FAILED
    return schedule.failure(
        {
            keys[name]: schedule.Outcome(key=keys[name], state=state, error=error)
            for name, error in failing.items()
        }
    )


class Work:
    """Builds, tests and converts the images of one checkout."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._context, self._show = planner.context, planner.show
        self._options, self._workspace = planner.options, planner.workspace

    def run(
        self,
        verbs: Sequence[Verb],
        names: Sequence[str],
        *,
        only_new: bool = True,
        forced: bool = True,
    ) -> Done:
        """Carry out the plan of ``verbs`` for ``names``.

        :param forced: whether --force, if it was given, is about these images.
        """
        names, broken = self._apart(names)
        planned = self._planner.plan(verbs, names, only_new=only_new, forced=forced)
        steps, lacking = planned.steps, self._lacking(planned)
        if lacking and not self._options.keep_going:
            return Done(steps=steps, failure=_failure(lacking))
        for name, error in lacking.items():
            # The other steps, which may take hours, go on; this one fails when its turn comes.
            self._show.line(f"[{Verb.BUILD.value} {name}] will fail: {error.message}")
        return replace(self._carry_out(steps), broken=broken)

    def dry(self, verbs: Sequence[Verb], names: Sequence[str], *, only_new: bool = True) -> Done:
        """Return the plan that ``run`` would follow, and the errors that are known already."""
        names, broken = self._apart(names)
        planned = self._planner.plan(verbs, names, only_new=only_new)
        failing = self._lacking(planned)
        return Done(steps=planned.steps, failure=_failure(failing), broken=broken)

    def _lacking(self, planned: Plan) -> dict[str, SiflineError]:
        """Return by image the errors that are known before a build, such as a missing secret."""
        steps = (step for step in planned.steps if step.verb is Verb.BUILD)
        images = [step.image for step in steps if step.changes]
        found: dict[str, SiflineError] = {}
        for image in images:
            try:
                needs.need(image, self._around(image), planned.listed)
            except MissingError as error:
                found[image.name] = error
        return found

    def _apart(self, names: Sequence[str]) -> tuple[Sequence[str], dict[str, SiflineError]]:
        """With --keep-going, return the usable images, and the errors of the broken ones."""
        return self._planner.sound(names) if self._options.keep_going else (names, {})

    def build(self, names: Sequence[str]) -> tuple[BuiltImage, ...]:
        """Build those of ``names`` that are out of date, and return them all.

        --force is about what the user asked for, and not about images that it needs.
        """
        built = self.run(BUILD, names, forced=False).check().built
        return tuple(built[name] for name in names)

    def convert(self, names: Sequence[str]) -> tuple[Sif, ...]:
        """Build and convert what is out of date of ``names``, and return the SIFs."""
        sifs = self.run(CONVERT, names).check().sifs
        return tuple(sifs[name] for name in names)

    def _carry_out(self, steps: tuple[Step, ...]) -> Done:
        """Run the steps that are needed, in parallel where they are independent."""
        records.sweep(self._workspace.build / "records")
        holding.sweep(self._context)
        results, needed = Results(), [step for step in steps if step.needed]
        for step in steps:
            if not step.needed:
                self._keep(step, results)
        if not needed:
            return Done(steps=steps, results=results)
        from sifline.machine import schedule

        pending = {step.key for step in needed}
        workers, cores = self._workers, _cores()
        conversions = sum(step.verb is Verb.CONVERT for step in needed)
        share = max(LEAST_CORES, cores // max(1, min(workers, conversions)))
        jobs = [
            schedule.Job(
                key=step.key,
                needs=tuple(key for key in step.needs if key in pending),
                action=partial(self._do, step, share, results),
                **self._claims(step, share),
            )
            for step in needed
        ]
        self.expect(needed)
        outcomes = schedule.run(
            jobs,
            workers=workers,
            cores=cores,
            keep_going=self._options.keep_going,
            resources=Machine(self._disks(len(jobs))),
            on_wait=self._show.aside,
            stop=self._context.runner.stop,
        )
        failure = schedule.failure(outcomes)
        return Done(steps=steps, results=results.ordered(steps), failure=failure)

    def _keep(self, step: Step, results: Results) -> None:
        """Add the existing result of a step that is up to date."""
        name = step.image.name
        if step.verb is Verb.BUILD:
            results.built[name] = build.settle(step, self._context)
        elif step.verb is Verb.CONVERT:
            from sifline.stages import convert

            results.sifs[name] = convert.settled(step.image, self._workspace)
        elif step.verb is Verb.TEST:
            assert step.held is not None  # noqa: S101 - for the type checker: else it is tested
            report = self._planner.testing.passed(name, step.verb)
            results.tested[name] = TestedImage(built=step.held, report=report)
        else:
            results.sif_reports[name] = self._planner.testing.passed(name, step.verb)

    def _do(self, step: Step, share: int, results: Results) -> None:
        """Carry out one step and add its result; other steps may run at the same time.

        :param share: how many processors a conversion may use.
        """
        name, testing = step.image.name, self._planner.testing
        with self._show.step(step.key):
            if step.verb is Verb.BUILD:
                results.built[name] = self._build(step, results.built)
            elif step.verb is Verb.CONVERT:
                results.sifs[name] = self._convert(results.built[name], share)
            elif step.verb is Verb.TEST:
                held = self.labelled(sif=False)
                results.tested[name] = testing.test(results.built[name], held)
            else:
                held, size = self.labelled(sif=True), results.built[name].size
                results.sif_reports[name] = testing.test_sif(results.sifs[name], size, held)

    @property
    def _workers(self) -> int:
        return self._options.jobs or _cores()

    def expect(self, steps: Sequence[Step]) -> None:
        """Announce those of ``steps`` that are needed, with how long they took the last time."""
        took = {step.key: self._took(step) for step in steps if step.needed}
        self._show.expect(took, workers=self._workers)

    def _took(self, step: Step) -> float | None:
        """How many seconds the same took the last time; None where nobody knows."""
        name = step.image.name
        if step.verb is Verb.BUILD:
            return build.last_seconds(name, self._workspace)
        if step.verb is Verb.CONVERT:
            return records.seconds(sif_records.read(name, self._workspace))
        return self._planner.testing.seconds(name, step.verb)

    def _build(self, step: Step, built: Mapping[str, BuiltImage]) -> BuiltImage:
        parents = {name: built[name] for name in step.image.parents}
        return build.build(step, parents, self._context, self._around(step.image))

    def _convert(self, built: BuiltImage, share: int) -> Sif:
        from sifline.stages import convert

        force = self._options.force
        return self.told(convert.convert(built, self._context, force=force, processors=share))

    def told(self, made: Sif) -> Sif:
        """Print the notes about a new SIF, and return it."""
        for note in made.notes:
            self._show.line(f"[{Verb.CONVERT.value} {made.name}] {note}")
        return made

    def _claims(self, step: Step, share: int) -> dict[str, int]:
        """Return the memory and disk that the step may take while others run."""
        if step.verb is not Verb.CONVERT:
            return {"memory": STEP_MEMORY, "disk": STEP_DISK}
        from sifline.stages import convert

        # The size of an image that is not built yet is unknown.
        size = step.held.size if step.held else 0
        return {
            "memory": convert.MEMORY,
            "disk": max(STEP_DISK, convert.space_needed(size, copies=1)),
            "cores": step.image.sif.processors or share,
        }

    def _around(self, image: Image) -> Surroundings:
        """Return what the site gives a build in addition to its recipe."""
        asked = [name for name, _ in image.secrets]
        return Surroundings(
            proxies=self._planner.site.proxy_arguments(),
            secrets=self._planner.site.secret_arguments(asked),
            hide=self._planner.site.hidden(asked),
            offline=self._planner.site.offline,
            commit=self._planner.commit,
            buildkit=self._buildkit if image.features or image.contexts else None,
        )

    @cached_property
    def _buildkit(self) -> int | None:
        """Return the version of the engine's BuildKit; None if it is unknown."""
        return Docker(self._context.runner).buildkit()

    def _disks(self, jobs: int) -> list[Path]:
        """Return the folders that fill up; the engine's only if steps may run in parallel."""
        folders = [self._workspace.build]
        if jobs > 1:
            folders.append(Path(Docker(self._context.runner).root()))
        return folders

    def labelled(self, *, sif: bool) -> AbstractContextManager[str]:
        """Return a context with the label of the containers that end with it; "" without any."""
        if sif and self._planner.apptainer.native:
            return nullcontext("")  # the engine, which may be down, is not needed
        return holding.holding(self._context)

    def tested_sifs(self, names: Sequence[str]) -> tuple[TestedSif, ...]:
        """Build, test, convert and test the SIFs of ``names``, as far as they are out of date."""
        results = self.run(MAKE, names).check()
        return tuple(results.tested_sif(name) for name in names)

    def untested_sifs(self, names: Sequence[str]) -> tuple[TestedSif, ...]:
        """Build and convert what is out of date of ``names``, without tests."""
        return tuple(TestedSif.untested(sif) for sif in self.convert(names))

    def tested_file(self, path: Path) -> TestedSif:
        """Return a SIF that sifline did not make, after the tests of every SIF."""
        found, report = self.test_file(path)
        return TestedSif.from_file(found, report)

    def test_file(self, path: Path) -> tuple[FoundSif, TestReport]:
        """Run the tests of every SIF on a file that sifline did not make.

        :raises UsageError: if it is not a SIF, or truncated or damaged.
        :raises StepFailed: naming the tests that failed.
        """
        from sifline.stages import convert, imagetest

        found = convert.read_sif(path)
        if self._planner.need_toolbox():
            self.build([TOOLBOX])
        lock = self._workspace.build / "locks" / f"{found.name}.test-file.lock"
        with (
            self._show.step(f"test {path}"),
            records.locked(lock, self._context, what=f"the tests of {path}"),
            self.labelled(sif=True) as label,
        ):
            gpu = self._planner.options.gpu
            return found, imagetest.test_file(found, self._context, gpu=gpu, label=label)
