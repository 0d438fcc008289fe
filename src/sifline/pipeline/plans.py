"""Plans: which steps images need, in which order, and why. Planning changes nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from sifline.config import docker_client, image_names
from sifline.engines.docker import engine
from sifline.engines.docker.images import Docker
from sifline.engines.docker.versions import base_ids, versions
from sifline.errors import MissingError, SiflineError, StepFailed, UsageError
from sifline.machine.context import Context
from sifline.model import Image, Step, Verb
from sifline.pipeline.options import Options
from sifline.pipeline.testing import Testing
from sifline.stages import build, discover, plan
from sifline.stages.build import contexts
from sifline.stages.plan import Held

if TYPE_CHECKING:
    from sifline.config.sites import Site
    from sifline.engines.apptainer.program import Apptainer
    from sifline.engines.docker.images import EngineImage
    from sifline.report.terminal import Terminal

TOOLBOX = "toolbox"

BUILD = (Verb.BUILD,)
TEST = (Verb.BUILD, Verb.TEST)
CONVERT = (Verb.BUILD, Verb.CONVERT)
TEST_SIF = (Verb.BUILD, Verb.CONVERT, Verb.TEST_SIF)
WITH_APPTAINER = (Verb.CONVERT, Verb.TEST_SIF)
MAKE = (Verb.BUILD, Verb.TEST, Verb.CONVERT, Verb.TEST_SIF)


# What git says where there is no commit to name.
_WITHOUT_COMMIT = ("not a git repository", "bad revision 'HEAD'", "Not a valid object name HEAD")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a plan goes by: what the engine holds, and the foreign images that have moved.

    ``asked`` are the images about whose bases the registries were asked.
    """

    listed: Sequence[EngineImage]
    moved: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps in their order, and what the engine held when they were decided."""

    steps: tuple[Step, ...]
    listed: Sequence[EngineImage]


class Planner:
    """Looks at images, engine and records of one checkout, and plans the steps that are needed."""

    def __init__(self, context: Context, show: Terminal, options: Options | None = None) -> None:
        self.context = context
        self.show = show
        self.options = options or Options()
        self.workspace = context.workspace
        # Read once, as the images are.
        self._digests: dict[str, str] = {}

    @cached_property
    def images(self) -> Mapping[str, Image]:
        """All images by name, each read when it is asked for."""
        options = self.options
        return discover.Catalog(self.workspace, self.site, options.build_args, options.conversion)

    @cached_property
    def testing(self) -> Testing:
        """The tests of images and SIFs."""
        return Testing(self.images, self.context, gpu=self.options.gpu)

    @cached_property
    def site(self) -> Site:
        """The site profile in use."""
        from sifline.config.sites import load_site

        return load_site(self.workspace, self.options.site)

    def plan(self, verbs: Sequence[Verb], names: Sequence[str], *, only_new: bool = True) -> Plan:
        """Return what doing ``verbs`` with ``names`` takes, in order, and why.

        :param only_new: leave out tests that passed on the very same image.
        """
        look = self.look(self.known(names))
        steps = self.plan_from(verbs, names, names, look, only_new=only_new)
        needed = {item.verb for item in steps if item.needed}
        if needed.intersection(WITH_APPTAINER) and self.need_toolbox(needed, look.listed):
            more = [*names, TOOLBOX]
            look = self.look(more, look)
            steps = self.plan_from(verbs, names, more, look, only_new=only_new)
        return Plan(steps=steps, listed=look.listed)

    def look(self, names: Sequence[str], before: Look | None = None) -> Look:
        """Ask the engine what it holds, and with ``--pull`` the registries what moved.

        :param before: what was asked for already; only the rest is.
        """
        known = before or Look(listed=Docker(self.context.runner).all())
        if before is None:
            self._need_platform()
        if not self.options.pull:
            return known
        if self.site.offline:
            raise UsageError(f"--pull: {self.site.origin} says offline; leave one of them out")
        new = [name for name in plan.order(self.images, names) if name not in known.asked]
        images = [self.images[name] for name in new]
        moved = build.moved(images, known.listed, self.context)
        return replace(known, moved=known.moved | moved, asked=known.asked.union(new))

    def sound(self, names: Sequence[str]) -> tuple[list[str], dict[str, SiflineError]]:
        """Return the images that can be planned, and the error of each that cannot.

        Beside images with which all went well, a broken one is a failure in part, and no input
        that could not be used.
        """
        try:
            self._look_at(self.known(names))
            return [*names], {}
        except UsageError:
            broken = dict[str, SiflineError]()
        for name in names:
            try:
                self._look_at([name])
            except UsageError as error:
                broken[name] = StepFailed(error.message, details=error.details)
        return [name for name in names if name not in broken], broken

    def _look_at(self, names: Sequence[str]) -> None:
        """Read all that a plan reads of the files of ``names`` and of what they are built on."""
        for name in plan.order(self.images, names):
            self._digest(self.images[name])

    def plan_from(
        self,
        verbs: Sequence[Verb],
        names: Sequence[str],
        built: Sequence[str],
        look: Look,
        *,
        only_new: bool,
    ) -> tuple[Step, ...]:
        """Return the steps; ``built`` are ``names``, and the toolbox where it is needed."""
        # Who says convert --force means the SIF.
        forced = names if self.options.force and tuple(verbs) in (BUILD, MAKE) else ()
        held = self.held(built, look)
        steps = list(plan.builds(self.images, built, held, self._digest, forced=forced))
        builds = {step.image.name: step for step in steps}
        toolbox = (builds[TOOLBOX].key,) if TOOLBOX in builds else ()
        sifs: dict[str, Step] = {}
        for verb in verbs[1:]:
            for name in names:
                before = sifs[name] if verb is Verb.TEST_SIF else builds[name]
                step = self._later(verb, before, only_new=only_new)
                if verb in WITH_APPTAINER:
                    step = replace(step, needs=(*step.needs, *toolbox))
                if verb is Verb.TEST_SIF:
                    # It is compared with the image, whose size a step learns from what it needs.
                    step = replace(step, needs=(*step.needs, builds[name].key))
                if verb is Verb.CONVERT and Verb.TEST in verbs:
                    # What does not pass its tests is not converted.
                    step = replace(step, needs=(*step.needs, f"{Verb.TEST.value} {name}"))
                if verb is Verb.CONVERT:
                    sifs[name] = step
                steps.append(step)
        return tuple(steps)

    def held(self, names: Sequence[str], look: Look) -> Held:
        """What the engine holds of all that ``names`` are built on."""
        needed = [self.images[name] for name in plan.order(self.images, names)]
        return Held(
            images=versions(needed, look.listed),
            bases=base_ids(needed, look.listed),
            moved=look.moved,
            tags=frozenset(tag for entry in look.listed for tag in entry.tags),
        )

    def _need_platform(self) -> None:
        """Refuse an environment that would have images of another platform built."""
        docker_client.need_no_other(
            os.environ,
            local=engine.is_local(),
            engine=Docker(self.context.runner).platform,
            machine=os.uname().machine,
        )

    def _digest(self, image: Image) -> str:
        if image.name not in self._digests:
            self._digests[image.name] = contexts.context_digest(image, self.workspace)
        return self._digests[image.name]

    def _later(self, verb: Verb, before: Step, *, only_new: bool) -> Step:
        """The step that comes after ``before`` for the same image, and why it is needed."""
        image = before.image
        if before.changes:
            reason = f"after {before.key}"
        elif self.options.force:
            reason = "--force"
        elif verb is Verb.CONVERT:
            from sifline.stages import convert

            reason = convert.stale(image.name, before.held, self.workspace)
        else:
            reason = self.testing.needed(verb, before) if only_new else "asked for"
        return Step(
            verb=verb,
            image=image,
            reason=reason,
            needed=bool(reason),
            needs=(before.key,),
            held=before.held,
        )

    def known(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return ``names``.

        :raises UsageError: with the nearest names, where one is no image.
        """
        for name in names:
            if name not in self.images:
                raise image_names.unknown(name, self.workspace)
        return tuple(names)

    @cached_property
    def apptainer(self) -> Apptainer:
        """The Apptainer in use."""
        from sifline.engines.apptainer.program import Apptainer

        return Apptainer(self.context.runner)

    def need_toolbox(
        self, verbs: Iterable[Verb] = (), listed: Sequence[EngineImage] | None = None
    ) -> bool:
        """Return whether images/toolbox has to be built: for Apptainer, or to stream into a SIF.

        :param listed: what the engine holds, where it was asked already.
        :raises MissingError: where there is no Apptainer at all.
        """
        if self.apptainer.native:
            fast = Verb.CONVERT in verbs and self.options.method != "apptainer"
            return fast and TOOLBOX in self.images
        if TOOLBOX in self.images:
            return True
        held = Docker(self.context.runner).all() if listed is None else listed
        if not any(discover.tag_of(TOOLBOX) in entry.tags for entry in held):
            raise MissingError(
                "neither apptainer nor singularity is installed, and there is no images/toolbox;"
                " install Apptainer, or add that image"
            )
        return False

    @cached_property
    def commit(self) -> str:
        """The commit of the checkout, ``-dirty`` behind it where files differ; "" outside git."""
        if not shutil.which("git"):
            return ""
        describe = ("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
        result = self.context.runner.run(
            ["git", "-C", str(self.workspace.root), *describe], check=False, env={"LC_ALL": "C"}
        )
        if result.ok:
            return result.stdout.strip()
        said = result.stderr.strip().splitlines()
        # A folder outside of git, and one without commits, have none.
        if said and not any(words in said[0] for words in _WITHOUT_COMMIT):
            hint = next((line.strip() for line in said if "safe.directory" in line), "")
            advice = f"; run {hint}" if hint.startswith("git ") else ""
            self.show.line(f"images get no commit as a label: git says {said[0]}{advice}")
        return ""
