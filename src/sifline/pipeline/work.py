"""Work on images: built, tested, converted, side by side where nothing forbids it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from sifline.config.image_names import refuse_broken
from sifline.engines.docker import holding
from sifline.engines.docker.images import Docker
from sifline.errors import MissingError, SiflineError
from sifline.machine import records
from sifline.machine.facts import Machine
from sifline.model import (
    BuiltImage,
    Image,
    Sif,
    Step,
    TestedSif,
    TestReport,
    Verb,
)
from sifline.pipeline.plans import (
    BUILD,
    CONVERT,
    KINDS,
    MAKE,
    RUNTIMES,
    Planner,
)
from sifline.stages import build
from sifline.stages.build import needs
from sifline.stages.build.needs import Surroundings

# What one more step may take while others run: it is not started into less.
STEP_MEMORY = 1 << 30
STEP_DISK = 1 << 30
# Fewer make a conversion wait for its compression; the engine's stream keeps one more busy.
LEAST_CORES = 2


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of a plan: results by the key of their step, and what went wrong.

    ``broken`` are the images whose files cannot be used, which are in no step.
    """

    steps: tuple[Step, ...]
    results: Mapping[str, Any]
    failure: SiflineError | None = None
    broken: Mapping[str, SiflineError] = field(default_factory=dict)

    def of(self, verb: Verb, names: Sequence[str] | None = None) -> tuple[Any, ...]:
        """Return the results of ``verb`` in the order of the plan, or of ``names``."""
        steps = [step for step in self.steps if step.verb is verb and step.key in self.results]
        if names is None:
            return tuple(self.results[step.key] for step in steps)
        by_name = {step.image.name: self.results[step.key] for step in steps}
        return tuple(by_name[name] for name in names)

    def check(self) -> Done:
        """Raise what went wrong."""
        if self.failure:
            raise self.failure
        refuse_broken(self.broken)
        return self


def _failure(failing: Mapping[str, SiflineError]) -> SiflineError | None:
    """One error for the builds that cannot be begun."""
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

    def run(self, verbs: Sequence[Verb], names: Sequence[str], *, only_new: bool = True) -> Done:
        """Do what the plan says."""
        names, broken = self._apart(names)
        steps = self._planner.plan(verbs, names, only_new=only_new)
        lacking = self._lacking(steps)
        if lacking and not self._options.keep_going:
            return Done(steps=steps, results={}, failure=_failure(lacking))
        for name, error in lacking.items():
            # The rest goes on, which may take hours; their steps fail when it is their turn.
            self._show.line(f"[{Verb.BUILD.value} {name}] will fail: {error.message}")
        return replace(self._carry_out(steps), broken=broken)

    def dry(self, verbs: Sequence[Verb], names: Sequence[str], *, only_new: bool = True) -> Done:
        """Return the plan that ``run`` would follow, and what would fail at once."""
        names, broken = self._apart(names)
        steps = self._planner.plan(verbs, names, only_new=only_new)
        failing = self._lacking(steps)
        return Done(steps=steps, results={}, failure=_failure(failing), broken=broken)

    def _lacking(self, steps: Sequence[Step]) -> dict[str, SiflineError]:
        """Return by image what would fail at once, because what it needs is not there."""
        images = [step.image for step in steps if step.verb is Verb.BUILD and step.changes]
        listed = Docker(self._context.runner).all() if images else ()
        found: dict[str, SiflineError] = {}
        for image in images:
            try:
                needs.need(image, self._around(image), listed)
            except MissingError as error:
                found[image.name] = error
        return found

    def _apart(self, names: Sequence[str]) -> tuple[Sequence[str], dict[str, SiflineError]]:
        """Take what is broken out where the rest shall go on."""
        return self._planner.sound(names) if self._options.keep_going else (names, {})

    def build(self, names: Sequence[str]) -> tuple[BuiltImage, ...]:
        """Build ``names`` where anything changed, and return them."""
        done: tuple[BuiltImage, ...] = self.run(BUILD, names).check().of(Verb.BUILD, names)
        return done

    def convert(self, names: Sequence[str]) -> tuple[Sif, ...]:
        """Build and convert ``names`` where anything changed, and return the SIFs."""
        done: tuple[Sif, ...] = self.run(CONVERT, names).check().of(Verb.CONVERT, names)
        return done

    def _carry_out(self, steps: tuple[Step, ...]) -> Done:
        """Do the steps that are needed, side by side where they do not need each other."""
        records.sweep(self._workspace.build / "records")
        holding.sweep(self._context)
        results = {step.key: self._planner.kept(step) for step in steps if not step.needed}
        needed = [step for step in steps if step.needed]
        if not needed:
            return Done(steps=steps, results=results)
        from sifline.machine import schedule

        pending = {step.key for step in needed}
        workers, cores = self._options.jobs or _cores(), _cores()
        conversions = sum(step.verb is Verb.CONVERT for step in needed)
        share = max(LEAST_CORES, cores // max(1, min(workers, conversions)))
        jobs = [
            schedule.Job(
                key=step.key,
                needs=tuple(key for key in step.needs if key in pending),
                action=partial(self._do, step, results, share),
                **self._claims(step, share),
            )
            for step in needed
        ]
        self._show.total(len(jobs))
        outcomes = schedule.run(
            jobs,
            workers=workers,
            cores=cores,
            keep_going=self._options.keep_going,
            resources=Machine(self._disks(len(jobs))),
            on_wait=self._show.line,
            stop=self._context.runner.stop,
        )
        done = schedule.State.DONE
        results.update({key: out.value for key, out in outcomes.items() if out.state is done})
        return Done(steps=steps, results=results, failure=schedule.failure(outcomes))

    def _do(
        self,
        step: Step,
        kept: Mapping[str, Any],
        share: int,
        results: Mapping[str, Any],
    ) -> Any:
        """Carry out one step; other steps may run beside it."""
        from sifline.stages import convert

        got = {**kept, **results}
        name, force = step.image.name, self._options.force
        with self._show.step(step.key):
            if step.verb is Verb.BUILD:
                return build.build(
                    step,
                    {item: got[f"{Verb.BUILD.value} {item}"] for item in step.image.parents},
                    self._context,
                    self._around(step.image),
                )
            before = got[step.needs[0]]
            if step.verb is Verb.CONVERT:
                return self.told(
                    convert.convert(before, self._context, force=force, processors=share)
                )
            return self._test(name, before, step.verb, size=got[f"{Verb.BUILD.value} {name}"].size)

    def told(self, made: Sif) -> Sif:
        """Say what people should know of the making of a SIF, in lines that stay."""
        for note in made.notes:
            self._show.line(f"[{Verb.CONVERT.value} {made.name}] {note}")
        return made

    def _claims(self, step: Step, share: int) -> dict[str, int]:
        """What the step may take while others run."""
        if step.verb is not Verb.CONVERT:
            return {"memory": STEP_MEMORY, "disk": STEP_DISK}
        from sifline.stages import convert

        # Of an image that is yet to be built nobody knows the size.
        size = step.held.size if step.held else 0
        return {
            "memory": convert.MEMORY,
            "disk": max(STEP_DISK, convert.space_needed(size, copies=1)),
            "cores": step.image.sif.processors or share,
        }

    def _test(self, name: str, subject: BuiltImage | Sif, verb: Verb, *, size: int) -> TestReport:
        """Run the tests and remember that they passed; one run of them at a time.

        :param size: of the image in the engine, in bytes.
        """
        from sifline.stages import imagetest

        lock = self._workspace.build / "locks" / f"{name}.{KINDS[verb]}.lock"
        held = self.labelled(sif=isinstance(subject, Sif))
        with records.locked(lock, self._context), held as label:
            place = self._workspace.record(name, KINDS[verb])
            key = self._planner.tests_key(name, subject)
            options = self._planner.images[name].sif
            budget = (options.budget or 0) if options.over_budget == "error" else 0
            # Whatever passed before: what counts is how it ends now.
            place.unlink(missing_ok=True)
            report = imagetest.imagetest(
                subject,
                self._planner.tests_folders(name, subject),
                self._context,
                runtime=RUNTIMES[verb],
                promises=imagetest.Promises(
                    smoke=self._planner.images[name].smoke,
                    budget=budget,
                    # What a definition file installs is in no image.
                    image_size=0 if options.definition else size,
                ),
                label=label,
            )
            if key == self._planner.tests_key(
                name, subject
            ):  # else the tests changed while they ran
                records.write(place, {"key": key, "report": vars(report)})
        return report

    def _around(self, image: Image) -> Surroundings:
        """What the site gives a build beside its recipe."""
        asked = [name for name, _ in image.secrets]
        return Surroundings(
            proxies=self._planner.site.proxy_arguments(),
            secrets=self._planner.site.secret_arguments(asked),
            hide=self._planner.site.hidden(asked),
            offline=self._planner.site.offline,
            commit=self._planner.commit,
            buildkit=self._buildkit if image.features else None,
        )

    @cached_property
    def _buildkit(self) -> int | None:
        """The version of the engine's BuildKit."""
        return Docker(self._context.runner).buildkit()

    def _disks(self, jobs: int) -> list[Path]:
        """The folders that fill up; the engine's is asked for where two steps may compete."""
        folders = [self._workspace.build]
        if jobs > 1:
            folders.append(Path(Docker(self._context.runner).root()))
        return folders

    def labelled(self, *, sif: bool) -> AbstractContextManager[str]:
        """Return what yields the label of containers that end with it; "" where there are none."""
        if sif and self._planner.apptainer.native:
            return nullcontext("")  # an engine, which may not answer, has no part in it
        return holding.holding(self._context)

    def tested_sifs(self, names: Sequence[str]) -> tuple[TestedSif, ...]:
        """Build, test, convert and test the SIFs of ``names`` where anything changed."""
        done = self.run(MAKE, names).check()
        pairs = zip(done.of(Verb.CONVERT, names), done.of(Verb.TEST_SIF, names), strict=True)
        return tuple(TestedSif(sif=sif, report=report) for sif, report in pairs)

    def untested_sifs(self, names: Sequence[str]) -> tuple[TestedSif, ...]:
        """Build and convert ``names`` where anything changed, without a test."""
        return tuple(TestedSif.untested(sif) for sif in self.convert(names))
