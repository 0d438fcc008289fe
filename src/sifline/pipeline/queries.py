"""Questions about images: their state, their parents, and why they would be built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sifline.contents import sif_records
from sifline.contents.build_context import DOCKERFILE
from sifline.engines.docker.images import Docker
from sifline.errors import MissingError, SiflineError
from sifline.formats.dockerfile.stages import Dockerfile
from sifline.machine import records
from sifline.model import (
    Explanation,
    GraphNode,
    ImageState,
    Step,
    Verb,
)
from sifline.pipeline import deployments
from sifline.pipeline.plans import (
    BUILD,
    MAKE,
    Planner,
)
from sifline.stages import build, discover, plan
from sifline.stages.build import contexts

if TYPE_CHECKING:
    from sifline.config.settings import Setting


class Queries:
    """Answers questions about the images of one checkout; changes nothing."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self._context, self._show = planner.context, planner.show
        self._options, self._workspace = planner.options, planner.workspace

    def explain(
        self, names: Sequence[str], broken: Mapping[str, SiflineError]
    ) -> tuple[Explanation, ...]:
        """Return why each of ``names`` would be built, converted or tested, or why not.

        Images in ``broken`` (from ``sound``) only get their error.
        """
        from sifline.stages import explain

        docker = Docker(self._context.runner)
        # Without the steps of the toolbox, since explaining needs no Apptainer.
        look = self._planner.look(self._planner.known(names))
        steps = self._planner.plan_from(MAKE, names, names, look, only_new=True)
        tools = docker.versions()
        builds = {step.image.name: step for step in steps if step.verb is Verb.BUILD}
        known = {name: self._record(step) for name, step in builds.items()}
        own = {
            name: explain.own_changes(
                step, known[name], contexts.context_entries(step.image, self._workspace)
            )
            for name, step in builds.items()
        }
        changes = explain.changes(tuple(builds.values()), own)
        told = [
            replace(
                explain.explain(
                    builds[name],
                    known[name],
                    changes[name],
                    tools=tools,
                    commit=self._planner.commit,
                ),
                later=explain.later(name, steps),
            )
            for name in names
        ]
        told += [explain.broken(name, error.message) for name, error in broken.items()]
        return tuple(sorted(told, key=lambda item: item.name))

    def _record(self, step: Step) -> Mapping[str, Any] | None:
        """Return the build record of the current image; None if this checkout has none."""
        mark = step.held.fingerprint if step.held else ""
        return records.read(build.build_record(self._workspace, step.image.name, mark))

    def settings(
        self, names: Sequence[str], broken: Mapping[str, SiflineError]
    ) -> dict[str, tuple[Setting, ...]]:
        """Return each setting with its origin, by image; under "" those of the site.

        An image in ``broken`` (from ``sound``) has the single setting ``error``.
        """
        from sifline.config.settings import Setting, everything

        flags = discover.arguments(self._options.build_args)
        found = {"": everything(self._workspace, self._planner.site)}
        for name in self._planner.known(names):
            declared = Dockerfile.read(self._planner.images[name].folder / DOCKERFILE).arguments
            found[name] = everything(
                self._workspace, self._planner.site, name=name, flags=flags, declared=declared
            )
        for name, error in broken.items():
            found[name] = (Setting(key="error", value=error.message, origin=f"images/{name}"),)
        return dict(sorted(found.items()))

    def graph(
        self, names: Sequence[str], broken: Mapping[str, SiflineError]
    ) -> tuple[GraphNode, ...]:
        """Return ``names`` and all their parents, with the state of each.

        Images in ``broken`` (from ``sound``) have no edges: their parents may form a circle.
        """
        nodes = (
            GraphNode(name=name, parents=(), state="broken", reason=error.message)
            for name, error in broken.items()
        )
        return (*self._graph(names), *nodes)

    def svg(self, graph: str) -> str:
        """Return a graph written in DOT as an SVG."""
        from sifline.engines import graphviz

        return graphviz.svg(graph, self._context.runner)

    def _graph(self, names: Sequence[str]) -> tuple[GraphNode, ...]:
        """Return the nodes of usable images; without an engine their states are unknown."""
        try:
            steps = self._planner.plan(BUILD, names).steps
        except MissingError as error:
            self._show.line(f"the states are not known: {error.message}")
            order = plan.order(self._planner.images, self._planner.known(names))
            found = (self._planner.images[name] for name in order)
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
        """Return the state of each image, including those in ``broken`` (from ``sound``)."""
        found = {
            step.image.name: self._state(step)
            for step in self._planner.plan(BUILD, names).steps
            if step.image.name in names
        }
        for name, error in broken.items():
            found[name] = ImageState(
                name=name, image_id="", size=0, stale="", sif="-", sif_size=0, error=error.message
            )
        return tuple(found[name] for name in sorted(found))

    def _state(self, step: Step) -> ImageState:
        from sifline.stages import convert

        name, held = step.image.name, step.held
        path, state = self._workspace.sif(name), convert.state(name, held, self._workspace)
        record = sif_records.read(name, self._workspace)
        there = sif_records.current(path, record) if record and state != "none" else None
        digest = str(there["sha256"]) if there else ""
        tests, sif_tests = self._planner.testing.states(step.image, held)
        return ImageState(
            name=name,
            image_id=held.image_id if held else "",
            size=held.size if held else 0,
            stale=step.reason,
            sif=state,
            sif_size=path.stat().st_size if path.is_file() else 0,
            tests=tests,
            sif_tests=sif_tests,
            signed=convert.signed(path),
            deployed=deployments.known(name, self._workspace, sha256=digest),
        )
