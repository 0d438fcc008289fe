"""What is done with images, in which order, side by side where nothing forbids it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sifline.config.image_names import refuse_broken
from sifline.contents.build_context import DOCKERFILE
from sifline.engines.docker import holding
from sifline.engines.docker.images import Docker
from sifline.errors import MissingError, SiflineError
from sifline.formats.dockerfile.stages import Dockerfile
from sifline.machine import records
from sifline.machine.facts import Machine
from sifline.model import (
    BuiltImage,
    Cleaned,
    Explanation,
    GraphNode,
    Image,
    ImageState,
    Sif,
    Step,
    TestReport,
    Verb,
)
from sifline.pipeline.plans import (
    BUILD,
    CONVERT,
    KINDS,
    MAKE,
    RUNTIMES,
    TOOLBOX,
    ImagePlans,
)
from sifline.stages import build, discover, plan
from sifline.stages.build import Surroundings
from sifline.stages.discover import tag_of

if TYPE_CHECKING:
    from sifline.config.settings import Setting
    from sifline.model import Opening

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


# What git says where there is no commit to name.
_WITHOUT_COMMIT = ("not a git repository", "bad revision 'HEAD'", "Not a valid object name HEAD")


class ImagePipeline(ImagePlans):
    """The stages that make images and SIFs of one checkout."""

    def run(self, verbs: Sequence[Verb], names: Sequence[str], *, only_new: bool = True) -> Done:
        """Do what the plan says."""
        names, broken = self._apart(names)
        steps = self.plan(verbs, names, only_new=only_new)
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
        steps = self.plan(verbs, names, only_new=only_new)
        failing = self._lacking(steps)
        return Done(steps=steps, results={}, failure=_failure(failing), broken=broken)

    def _lacking(self, steps: Sequence[Step]) -> dict[str, SiflineError]:
        """Return by image what would fail at once, because what it needs is not there."""
        images = [step.image for step in steps if step.verb is Verb.BUILD and step.changes]
        listed = Docker(self._context.runner).all() if images else ()
        found: dict[str, SiflineError] = {}
        for image in images:
            try:
                build.need(image, self._around(image), listed)
            except MissingError as error:
                found[image.name] = error
        return found

    def _apart(self, names: Sequence[str]) -> tuple[Sequence[str], dict[str, SiflineError]]:
        """Take what is broken out where the rest shall go on."""
        return self.sound(names) if self._options.keep_going else (names, {})

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
        results = {step.key: self._kept(step) for step in steps if not step.needed}
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
                return self._told(
                    convert.convert(before, self._context, force=force, processors=share)
                )
            return self._test(name, before, step.verb, size=got[f"{Verb.BUILD.value} {name}"].size)

    def _told(self, made: Sif) -> Sif:
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
        held = self._labelled(sif=isinstance(subject, Sif))
        with records.locked(lock, self._context), held as label:
            place, key = self._workspace.record(name, KINDS[verb]), self._test_key(name, subject)
            options = self.images[name].sif
            budget = (options.budget or 0) if options.over_budget == "error" else 0
            # Whatever passed before: what counts is how it ends now.
            place.unlink(missing_ok=True)
            report = imagetest.imagetest(
                subject,
                self._test_folders(name, subject),
                self._context,
                runtime=RUNTIMES[verb],
                promises=imagetest.Promises(
                    smoke=self.images[name].smoke,
                    budget=budget,
                    # What a definition file installs is in no image.
                    image_size=0 if options.definition else size,
                ),
                label=label,
            )
            if key == self._test_key(name, subject):  # else the tests changed while they ran
                records.write(place, {"key": key, "report": vars(report)})
        return report

    def _around(self, image: Image) -> Surroundings:
        """What the site gives a build beside its recipe."""
        asked = [name for name, _ in image.secrets]
        return Surroundings(
            proxies=self.site.proxy_arguments(),
            secrets=self.site.secret_arguments(asked),
            hide=self.site.hidden(asked),
            offline=self.site.offline,
            commit=self._commit,
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

    def explain(
        self, names: Sequence[str], broken: Mapping[str, SiflineError]
    ) -> tuple[Explanation, ...]:
        """Say why each of ``names`` would be built, converted or tested, or not.

        Those that ``sound`` found ``broken`` only say what is wrong.
        """
        from sifline.stages import explain

        docker = Docker(self._context.runner)
        # Not what would be made beside it: nobody needs Apptainer to be told this.
        steps = self._plan(MAKE, self._known(names), names, docker.all(), only_new=True)
        tools = docker.versions()
        builds = {step.image.name: step for step in steps if step.verb is Verb.BUILD}
        known = {name: self._record(step) for name, step in builds.items()}
        own = {
            name: explain.own_changes(
                step, known[name], build.context_entries(step.image, self._workspace)
            )
            for name, step in builds.items()
        }
        changes = explain.changes(tuple(builds.values()), own)
        told = [
            replace(
                explain.explain(
                    builds[name], known[name], changes[name], tools=tools, commit=self._commit
                ),
                later=explain.later(name, steps),
            )
            for name in names
        ]
        told += [explain.broken(name, error.message) for name, error in broken.items()]
        return tuple(sorted(told, key=lambda item: item.name))

    def _record(self, step: Step) -> Mapping[str, Any] | None:
        """The record of the build of the image at hand; None where this checkout has none."""
        mark = step.held.fingerprint if step.held else ""
        return records.read(build.build_record(self._workspace, step.image.name, mark))

    def settings(
        self, names: Sequence[str], broken: Mapping[str, SiflineError]
    ) -> dict[str, tuple[Setting, ...]]:
        """Return each setting with its origin: of each image, and under "" of the site.

        An image that ``sound`` found ``broken`` has the one setting ``error``.
        """
        from sifline.config.settings import Setting, everything

        flags = discover.arguments(self._options.build_args)
        found = {"": everything(self._workspace, self.site)}
        for name in self._known(names):
            declared = Dockerfile.read(self.images[name].folder / DOCKERFILE).arguments
            found[name] = everything(
                self._workspace, self.site, name=name, flags=flags, declared=declared
            )
        for name, error in broken.items():
            found[name] = (Setting(key="error", value=error.message, origin=f"images/{name}"),)
        return dict(sorted(found.items()))

    def graph(
        self, names: Sequence[str], broken: Mapping[str, SiflineError]
    ) -> tuple[GraphNode, ...]:
        """Return ``names`` and all that they are built on, with the state of each.

        Those that ``sound`` found ``broken`` stand alone: what they are built on may be a circle.
        """
        nodes = (
            GraphNode(name=name, parents=(), state="broken", reason=error.message)
            for name, error in broken.items()
        )
        return (*self._graph(names), *nodes)

    def _graph(self, names: Sequence[str]) -> tuple[GraphNode, ...]:
        """Return the nodes of sound images; without an engine nobody knows their states."""
        try:
            steps = self.plan(BUILD, names)
        except MissingError as error:
            self._show.line(f"the states are not known: {error.message}")
            order = plan.order(self.images, self._known(names))
            found = (self.images[name] for name in order)
            return tuple(
                GraphNode(
                    name=image.name,
                    parents=image.parents,
                    bases=image.bases,
                    words=image.words,
                    state="unknown",
                )
                for image in found
            )
        return tuple(
            GraphNode(
                name=step.image.name,
                parents=step.image.parents,
                bases=step.image.bases,
                words=step.image.words,
                state="build" if step.needed else "up to date",
                reason=step.reason,
            )
            for step in steps
        )

    def status(
        self, names: Sequence[str], broken: Mapping[str, SiflineError]
    ) -> tuple[ImageState, ...]:
        """Return the state of each image, also of those that ``sound`` found ``broken``."""
        found = {
            step.image.name: self._state(step)
            for step in self.plan(BUILD, names)
            if step.image.name in names
        }
        for name, error in broken.items():
            found[name] = ImageState(
                name=name, image_id="", size=0, stale="", sif="-", sif_size=0, error=error.message
            )
        return tuple(found[name] for name in sorted(found))

    def shell(
        self,
        name: str,
        command: Sequence[str],
        *,
        sif: bool,
        mount_home: bool,
        volumes: Sequence[str],
        gpus: str,
        workdir: str,
        env: Sequence[str],
    ) -> int:
        """Open ``name`` on the user's terminal; return the exit status."""
        from sifline.stages import shell

        self._known([name])
        asked = shell.Asked(
            mount_home=mount_home, volumes=volumes, gpus=gpus, workdir=workdir, env=env
        )
        opening = shell.opening(self.images[name], asked, shell.Caller.here())
        wanted = shell.command(command)
        # Where the output is no terminal's, a terminal would write other line ends into it.
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        opened = self._open_sif if sif else self._open_image
        return opened(name, wanted, opening, terminal=terminal)

    def _open_image(
        self, name: str, command: Sequence[str], opening: Opening, *, terminal: bool
    ) -> int:
        (built,) = self.build([name])
        self._tell(opening)
        engine = Docker(self._context.runner)
        with self._labelled(sif=False) as label:
            return engine.shell(built.image_id, command, opening, terminal=terminal, label=label)

    def _open_sif(
        self, name: str, command: Sequence[str], opening: Opening, *, terminal: bool
    ) -> int:
        from sifline.formats import sif as siffile

        if self._need_toolbox():
            self.build([TOOLBOX])
        (made,) = self.convert([name])
        self._tell(opening)
        # As Docker does; Apptainer by itself goes by where it was called.
        workdir = siffile.workdir(siffile.read(made.path))
        with self._labelled(sif=True) as label:
            return self._apptainer.shell(
                made.path, command, opening, workdir=workdir, terminal=terminal, label=label
            )

    def _labelled(self, *, sif: bool) -> AbstractContextManager[str]:
        """Return what yields the label of containers that end with it; "" where there are none."""
        if sif and self._apptainer.native:
            return nullcontext("")  # an engine, which may not answer, has no part in it
        return holding.holding(self._context)

    def _tell(self, opening: Opening) -> None:
        for note in opening.notes:
            self._show.line(note)

    def clean(
        self,
        names: Sequence[str],
        *,
        parts: Sequence[str],
        older_than: float,
        unused: bool,
        foreign: bool,
        gone: bool,
        dry: bool,
    ) -> Cleaned:
        """Remove ``parts`` (docker, sifs, state) of what sifline made of ``names``.

        :param gone: where ``unused`` is, also of what has no folder now.
        """
        from sifline.stages import clean

        steps = self.plan(BUILD, names) if unused else ()
        space, known = self._workspace, [*self._known(names)]
        if unused and gone:
            known += clean.gone(self.images, space)
        return clean.clean(
            # Their Dockerfiles are not asked: they may be broken, or gone.
            [Image(name=name, folder=space.images / name, tag=tag_of(name)) for name in known],
            clean.Parts(
                **{part: part in parts for part in ("docker", "sifs", "state")},
                older_than=older_than,
                unused=unused,
                foreign=foreign,
            ),
            self._context,
            at_hand={step.held.image_id for step in steps if step.held},
            dry=dry,
        )

    def _state(self, step: Step) -> ImageState:
        from sifline.stages import convert

        held, path = step.held, self._workspace.sif(step.image.name)
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
        """The commit of the checkout, ``-dirty`` behind it where files differ; "" outside git."""
        if not shutil.which("git"):
            return ""
        describe = ("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
        result = self._context.runner.run(
            ["git", "-C", str(self._workspace.root), *describe], check=False, env={"LC_ALL": "C"}
        )
        if result.ok:
            return result.stdout.strip()
        said = result.stderr.strip().splitlines()
        # A folder outside of git, and one without commits, have none.
        if said and not any(words in said[0] for words in _WITHOUT_COMMIT):
            hint = next((line.strip() for line in said if "safe.directory" in line), "")
            advice = f"; run {hint}" if hint.startswith("git ") else ""
            self._show.line(f"images get no commit as a label: git says {said[0]}{advice}")
        return ""
