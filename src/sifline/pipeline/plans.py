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


# Git's messages if there is no commit to name.
_WITHOUT_COMMIT = ("not a git repository", "bad revision 'HEAD'", "Not a valid object name HEAD")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a plan is based on: the images in the engine, and the base images that have moved.

    ``asked`` are the images whose bases were looked up in the registries.
    """

    listed: Sequence[EngineImage]
    moved: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The steps in their order, and what the engine held when they were planned."""

    steps: tuple[Step, ...]
    listed: Sequence[EngineImage]


class Planner:
    """Plans the steps that images need, from the images, the engine and the records."""

    def __init__(self, context: Context, show: Terminal, options: Options | None = None) -> None:
        self.context = context
        self.show = show
        self.options = options or Options()
        self.workspace = context.workspace
        # Found once, like the images.
        self._digests: dict[str, str] = {}
        self._orders: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._sound: set[str] = set()

    @cached_property
    def images(self) -> Mapping[str, Image]:
        """Return all images by name; each is read on first use."""
        options = self.options
        return discover.Catalog(self.workspace, self.site, options.build_args, options.conversion)

    @cached_property
    def testing(self) -> Testing:
        """Return the image tests of this checkout."""
        return Testing(self.images, self.context, gpu=self.options.gpu)

    @cached_property
    def site(self) -> Site:
        """Return the site profile in use."""
        from sifline.config.sites import load_site

        return load_site(self.workspace, self.options.site)

    def plan(
        self,
        verbs: Sequence[Verb],
        names: Sequence[str],
        *,
        only_new: bool = True,
        forced: bool = True,
    ) -> Plan:
        """Return the steps that ``verbs`` need for ``names``, in order, each with its reason.

        :param only_new: leave out tests that passed on the same image or SIF.
        :param forced: whether --force, if it was given, is about these images.
        """
        look = self.look(self.known(names))
        steps = self.plan_from(verbs, names, names, look, only_new=only_new, forced=forced)
        needed = {item.verb for item in steps if item.needed}
        if needed.intersection(WITH_APPTAINER) and self.need_toolbox(needed, look.listed):
            more = [*names, TOOLBOX]
            look = self.look(more, look)
            steps = self.plan_from(verbs, names, more, look, only_new=only_new, forced=forced)
        return Plan(steps=steps, listed=look.listed)

    def look(self, names: Sequence[str], before: Look | None = None) -> Look:
        """Ask the engine for its images, and with ``--pull`` the registries which have moved.

        :param before: earlier answers, which are not asked for again.
        """
        known = before or Look(listed=Docker(self.context.runner).all())
        if before is None:
            self._need_platform()
        if not self.options.pull:
            return known
        if self.site.offline:
            raise UsageError(f"--pull: {self.site.origin} says offline; leave one of them out")
        new = [name for name in self._order(names) if name not in known.asked]
        images = [self.images[name] for name in new]
        moved = build.moved(images, known.listed, self.context)
        return replace(known, moved=known.moved | moved, asked=known.asked.union(new))

    def sound(self, names: Sequence[str]) -> tuple[list[str], dict[str, SiflineError]]:
        """Return the images that can be planned, and the error of each that cannot.

        Next to images that worked, a broken one is a failed step (status 1), not wrong input
        (status 2).
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
        """Read the files of ``names`` and of their parents that a plan needs."""
        for name in self._order(names):
            self._digest(self.images[name])
        self._need_known(names)

    def plan_from(
        self,
        verbs: Sequence[Verb],
        names: Sequence[str],
        built: Sequence[str],
        look: Look,
        *,
        only_new: bool,
        forced: bool = True,
    ) -> tuple[Step, ...]:
        """Return the steps; ``built`` are ``names``, and the toolbox if it is needed."""
        # convert --force means the SIF, not the image.
        anew = forced and self.options.force and tuple(verbs) in (BUILD, MAKE)
        held = self.held(built, look)
        self._need_known(names)
        steps = list(
            plan.builds(self.images, built, held, self._digest, forced=names if anew else ())
        )
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
                    # The SIF's size is compared with the image's, which the build step returns.
                    step = replace(step, needs=(*step.needs, builds[name].key))
                if verb is Verb.CONVERT and Verb.TEST in verbs:
                    # Only what passes its tests is converted.
                    step = replace(step, needs=(*step.needs, f"{Verb.TEST.value} {name}"))
                if verb is Verb.CONVERT:
                    sifs[name] = step
                steps.append(step)
        return tuple(steps)

    def held(self, names: Sequence[str], look: Look) -> Held:
        """Return what the engine holds of ``names`` and of all their parents."""
        needed = [self.images[name] for name in self._order(names)]
        return Held(
            images=versions(needed, look.listed),
            bases=base_ids(needed, look.listed),
            moved=look.moved,
            tags=frozenset(tag for entry in look.listed for tag in entry.tags),
        )

    def _need_platform(self) -> None:
        """Raise an error if the environment asks for images of another platform."""
        docker_client.need_no_other(
            os.environ,
            local=engine.is_local(),
            engine=Docker(self.context.runner).platform,
            machine=os.uname().machine,
        )

    def _order(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return ``names`` and all their parents, parents first."""
        key = tuple(names)
        if key not in self._orders:
            self._orders[key] = plan.order(self.images, key)
        return self._orders[key]

    def _need_known(self, names: Sequence[str]) -> None:
        """Refuse tests to skip that there are not: before hours of building, not behind them."""
        for name in self._order(names):
            if name not in self._sound:
                self.testing.need_known(self.images[name])
                self._sound.add(name)

    def _digest(self, image: Image) -> str:
        if image.name not in self._digests:
            self._digests[image.name] = contexts.context_digest(image, self.workspace)
        return self._digests[image.name]

    def _later(self, verb: Verb, before: Step, *, only_new: bool) -> Step:
        """Return the step that follows ``before`` for the same image, and why it is needed."""
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

        :raises UsageError: with the nearest names, if one is not an image.
        """
        for name in names:
            if name not in self.images:
                raise image_names.unknown(name, self.workspace)
        return tuple(names)

    @cached_property
    def apptainer(self) -> Apptainer:
        """Return the Apptainer in use."""
        from sifline.engines.apptainer.program import Apptainer

        return Apptainer(self.context.runner)

    def need_toolbox(
        self, verbs: Iterable[Verb] = (), listed: Sequence[EngineImage] | None = None
    ) -> bool:
        """Return whether images/toolbox must be built: for Apptainer, or to stream into a SIF.

        :param listed: the images of the engine, if they are known already.
        :raises MissingError: if there is no Apptainer and no images/toolbox.
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
        """Return the commit of the checkout, with ``-dirty`` if files differ; "" outside git."""
        if not shutil.which("git"):
            return ""
        describe = ("describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
        result = self.context.runner.run(
            ["git", "-C", str(self.workspace.root), *describe], check=False, env={"LC_ALL": "C"}
        )
        if result.ok:
            return result.stdout.strip()
        said = result.stderr.strip().splitlines()
        # A folder outside git, or a repository without commits, has none.
        if said and not any(words in said[0] for words in _WITHOUT_COMMIT):
            hint = next((line.strip() for line in said if "safe.directory" in line), "")
            advice = f"; run {hint}" if hint.startswith("git ") else ""
            self.show.line(f"images get no commit label: git says {said[0]}{advice}")
        return ""
