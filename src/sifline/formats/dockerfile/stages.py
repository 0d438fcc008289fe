"""A Dockerfile's stages and the images they are built on, read without a build.

The rules are BuildKit's, from its sources and from experiments: names of stages are lower case,
FROM sees only the ARGs before the first FROM, ``--from`` does not expand variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from sifline.errors import UsageError, did_you_mean
from sifline.formats.dockerfile import words
from sifline.formats.dockerfile.features import TARGET_STAGE
from sifline.formats.dockerfile.syntax import Parser, Syntax, Use, refusal
from sifline.formats.platforms import MACHINES
from sifline.model import Feature

# BuildKit's name for an unnamed last stage if no target is requested.
DEFAULT_STAGE = "default"
# FROM scratch: no image.
NONE = "scratch"
# The grammar of an image name, github.com/distribution/reference.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?"
    rf"{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An image that a build takes files from, in the engine's notation.

    ``platform`` is that of ``FROM --platform``; "" if there is none.
    """

    text: str
    platform: str
    line: int


@dataclass(frozen=True, kw_only=True)
class _Edge:
    """A place that names a stage, an image or a named build context.

    ``stage`` is the stage's number, or None; ``context`` is the context's name, or "".
    """

    use: Use
    stage: int | None
    reference: Reference
    context: str = ""


@dataclass(frozen=True, kw_only=True)
class Dockerfile:
    """A parsed Dockerfile; the images that it needs depend on the build arguments.

    ``text`` is the file's, with its line ends, non-UTF-8 bytes as ``surrogateescape``.
    ``arguments`` are the names declared by ARG anywhere, ``stages`` the named stages, ``secrets``
    the ids that RUN mounts and whether each is required, ``ssh`` those of SSH agents, ``frontend``
    the image of ``# syntax=``, "" for the engine's own. ``features`` need a recent engine,
    ``contexts`` are names of folders.
    """

    path: Path
    text: str = field(repr=False)
    arguments: tuple[str, ...]
    stages: tuple[str, ...]
    secrets: tuple[tuple[str, bool], ...]
    ssh: tuple[tuple[str, bool], ...]
    frontend: str
    features: tuple[Feature, ...]
    contexts: frozenset[str]
    _syntax: Syntax = field(repr=False)

    @classmethod
    def read(cls, path: Path, contexts: Iterable[str] = ()) -> Dockerfile:
        """Read the Dockerfile at ``path``.

        :param contexts: named build contexts; they hide stages and images of that name.
        :raises UsageError: naming the line, if the engine would refuse it.
        """
        try:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
        syntax = Parser(path, text).syntax()
        return cls(
            path=path,
            text=text,
            arguments=syntax.declared,
            stages=tuple(dict.fromkeys(stage.name for stage in syntax.stages if stage.name)),
            secrets=syntax.secrets,
            ssh=syntax.ssh,
            frontend=syntax.frontend,
            features=syntax.features,
            contexts=frozenset(contexts),
            _syntax=syntax,
        )

    def references(
        self, arguments: Mapping[str, str], *, target: str = ""
    ) -> tuple[Reference, ...]:
        """Return the images that the stage ``target`` (default: the last) needs, each once.

        They come in the order of the file; ``arguments`` override the defaults of ARG.

        :raises UsageError: if a name expands to no image, or there is no such stage.
        """
        graph = self._graph(arguments, target)
        found: dict[str, Reference] = {}
        for index in sorted(self._needed(graph, target)):
            for edge in graph[index]:
                if edge.stage is None and edge.reference.text != NONE:
                    found.setdefault(edge.reference.text, edge.reference)
        return tuple(found.values())

    def base(self, arguments: Mapping[str, str], *, target: str = "") -> Reference:
        """Return the image that the stage ``target`` (default: the last) begins with.

        It follows FROM through other stages; images of ``COPY --from`` do not count. ``scratch``
        means that there is none.

        :raises UsageError: as ``references``.
        """
        graph = self._graph(arguments, target)
        edge = graph[self._target(target)][0]
        while edge.stage is not None:
            edge = graph[edge.stage][0]
        return edge.reference

    def rewritten(
        self, replacements: Mapping[str, str], arguments: Mapping[str, str], *, target: str = ""
    ) -> str:
        """Return the text with the images in ``replacements`` replaced, and no other change.

        The keys are :attr:`Reference.text`, and names of contexts. Write it with
        ``surrogateescape`` as well.
        """
        pieces, at, graph = [], 0, self._graph(arguments, target)
        edges = {edge.use.start: edge for edges in graph for edge in edges}
        for start, edge in sorted(edges.items()):
            name = edge.context or edge.reference.text
            if edge.stage is None and name in replacements:
                new = replacements[name]
                pieces += [self.text[at:start], edge.use.before, new, edge.use.after]
                at = edge.use.end
        return "".join([*pieces, self.text[at:]])

    def _graph(self, arguments: Mapping[str, str], target: str) -> list[list[_Edge]]:
        """Return for each stage the stages and images that it takes files from, the base first."""
        values = self._values(arguments, target)
        last = {stage.name: index for index, stage in enumerate(self._syntax.stages) if stage.name}
        before: dict[str, int] = {}
        graph: list[list[_Edge]] = []
        for index, stage in enumerate(self._syntax.stages):
            base = self._base(stage.base, values, before)
            inherited = () if base.stage is None else self._syntax.stages[base.stage].triggers
            sources = [self._source(use, last) for use in (*inherited, *stage.uses)]
            graph.append([base, *sources])
            if stage.name:
                before[stage.name] = index
        return graph

    def _values(self, arguments: Mapping[str, str], target: str) -> dict[str, str]:
        last = self._syntax.stages[-1].name if self._syntax.stages else ""
        values = {**_platform_arguments(), TARGET_STAGE: target or last or DEFAULT_STAGE}
        values.update({name: arguments[name] for name in values if name in arguments})
        for line, word in self._syntax.defaults:
            name, given, default = word.partition("=")
            if name in arguments:
                values[name] = arguments[name]
            elif given:
                values[name] = self._expanded(default, values, line)
        return values

    def _expanded(self, text: str, values: Mapping[str, str], line: int) -> str:
        try:
            return words.expand(text, values, escape=self._syntax.escape)
        except ValueError as error:
            raise refusal(self.path, line, f"{text} cannot be expanded: {error}") from None

    def _base(self, use: Use, values: Mapping[str, str], stages: Mapping[str, int]) -> _Edge:
        text = self._expanded(use.text, values, use.line)
        platform = self._expanded(use.platform, values, use.line)
        if not text or (use.platform and not platform):
            raise refusal(
                self.path,
                use.line,
                f"{use.platform if text else use.text} expands to nothing;"
                " give its ARG a default before the first FROM, or a value among the build-args",
            )
        if text in self.contexts:
            return _of_context(use, text)
        if text not in stages:
            self._check(text, use, stages)
        reference = Reference(text=text, platform=platform, line=use.line)
        return _Edge(use=use, stage=stages.get(text), reference=reference)

    def _source(self, use: Use, stages: Mapping[str, int]) -> _Edge:
        if use.text in self.contexts:
            return _of_context(use, use.text)
        stage = stages.get(use.text.lower())
        if use.kind == "COPY" and re.fullmatch("[0-9]{1,9}", use.text):
            stage = int(use.text)
            if stage >= len(self._syntax.stages):
                raise refusal(self.path, use.line, f"--from={use.text}: there is no such stage")
        if stage is None:
            self._check(use.text, use, stages)
        reference = Reference(text=use.text, platform="", line=use.line)
        return _Edge(use=use, stage=stage, reference=reference)

    def _check(self, text: str, use: Use, stages: Mapping[str, int]) -> None:
        """Raise UsageError if the engine would not accept ``text`` as the name of an image."""
        if _IMAGE.fullmatch(text):
            return
        if "$" in use.text and use.kind != "FROM":
            hint = "--from knows no variables; name a stage instead: FROM …$… AS name"
        elif text.lower() in stages:
            hint = f"FROM knows stages in lower case: {text.lower()}"
        else:
            hint = "look at the ARGs in it" if "$" in use.text else "correct it"
        raise refusal(self.path, use.line, f"{text!r} is no image name; {hint}")

    def _needed(self, graph: list[list[_Edge]], target: str) -> set[int]:
        """Return the numbers of the stages that ``target`` needs, including its own."""
        left = [self._target(target)]
        found: set[int] = set()
        while left:
            index = left.pop()
            found.add(index)
            for edge in graph[index]:
                if edge.stage is not None and edge.stage >= index:
                    name = edge.use.text
                    raise refusal(
                        self.path, edge.use.line, f"stage {name} must come before what uses it"
                    )
                if edge.stage is not None and edge.stage not in found:
                    left.append(edge.stage)
        return found

    def _target(self, name: str) -> int:
        if not name:
            return len(self._syntax.stages) - 1
        found = [i for i, stage in enumerate(self._syntax.stages) if stage.name == name.lower()]
        if not found:
            hint = did_you_mean(name, self.stages)
            raise UsageError(f"{self.path}: there is no stage {name!r}.{hint}")
        return found[-1]


def _of_context(use: Use, name: str) -> _Edge:
    """Return the edge for a use that names a folder: to no image."""
    none = Reference(text=NONE, platform="", line=use.line)
    return _Edge(use=use, stage=None, reference=none, context=name)


@lru_cache(maxsize=1)
def _platform_arguments() -> Mapping[str, str]:
    """Return BuildKit's predefined arguments (TARGETPLATFORM, …) for this machine."""
    machine = os.uname().machine
    architecture, _, variant = MACHINES.get(machine, machine).partition("/")
    platform = "/".join(part for part in ("linux", architecture, variant) if part)
    values = {"PLATFORM": platform, "OS": "linux", "ARCH": architecture, "VARIANT": variant}
    both = [(side + name, values[name]) for side in ("BUILD", "TARGET") for name in values]
    return dict(both)
