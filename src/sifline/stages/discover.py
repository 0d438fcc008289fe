"""Discover: finds the images, the folders of ``images/`` that contain a Dockerfile."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from sifline.config import docker_client
from sifline.config.image_names import found
from sifline.config.images import PROXY_ARGUMENTS, load_image_settings
from sifline.config.own_references import PREFIX, OwnReferences
from sifline.config.project import own_references
from sifline.config.settings import conversion, resolve
from sifline.config.sites import Site
from sifline.contents.build_context import DOCKERFILE
from sifline.errors import UsageError, did_you_mean
from sifline.formats.dockerfile.stages import Dockerfile, Reference
from sifline.model import Image, SifOptions, Source, Workspace

NOTHING_SAID = SifOptions()


class Catalog(Mapping[str, Image]):
    """All images by name; each is read on first use.

    So a broken one stops only the images that are built on it. A folder with an invalid name is
    included, as a broken image.

    :param pairs: ``NAME=value`` build arguments from the command line.
    :param conversion: the flags about how SIFs are made.
    """

    def __init__(
        self,
        workspace: Workspace,
        site: Site,
        pairs: Sequence[str] = (),
        conversion: SifOptions = NOTHING_SAID,
    ) -> None:
        there = found(workspace)
        self._names, self._refused = there.names, there.refused
        self._workspace, self._site = workspace, site
        self._own = OwnReferences(self._names, own_references(workspace))
        self._flags, self._conversion = arguments(pairs), conversion
        self._read: dict[str, Image] = {}
        for name in self._flags:
            self._need_declared(name)
        for name, _ in site.images:
            if name not in self._names:
                raise UsageError(
                    f"{site.origin}: images.{name}: there is no such image."
                    f"{did_you_mean(name, self._names)}"
                )

    def __getitem__(self, name: str) -> Image:
        """Return the image of that name.

        :raises UsageError: if the name, the Dockerfile or the image.toml is invalid.
        """
        if name in self._refused:
            raise self._refused[name]
        if name not in self._read:
            if name not in self._names:
                raise KeyError(name)
            folder = self._workspace.images / name
            image = _image(folder, self._own, self._site, self._flags)
            self._read[name] = replace(image, sif=_sif(folder, self._site, self._conversion))
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._names, *self._refused))

    def __len__(self) -> int:
        return len(self._names) + len(self._refused)

    def __contains__(self, name: object) -> bool:
        return name in self._names or name in self._refused

    def _need_declared(self, argument: str) -> None:
        """Raise an error for a build argument of the command line that no Dockerfile declares."""
        known = set[str]()
        for name in self._names:
            # A broken image raises its own error elsewhere.
            with suppress(UsageError):
                known.update(Dockerfile.read(self._workspace.images / name / DOCKERFILE).arguments)
        if argument not in known:
            raise UsageError(
                f"--build-arg {argument}: no Dockerfile declares it with ARG."
                f"{did_you_mean(argument, known)}"
            )


def foreign(name: str, workspace: Workspace, site: Site, flags: SifOptions) -> Image:
    """Return a placeholder for an image without a folder here, with the conversion flags."""
    folder = workspace.images / name
    return Image(name=name, folder=folder, tag="", sif=_sif(folder, site, flags))


def tag_of(name: str) -> str:
    """Return the common tag of the image ``name`` in the engine."""
    return f"{PREFIX}/{name}:latest"


def _image(folder: Path, own: OwnReferences, site: Site, flags: Mapping[str, str]) -> Image:
    settings = load_image_settings(folder / "image.toml")
    dockerfile = Dockerfile.read(folder / DOCKERFILE, dict(settings.contexts))
    _refuse_proxies(dockerfile, site)
    declared = resolve(settings, site, flags, dockerfile.arguments, folder.name)
    given = {item.key: item.value for item in declared}
    prepare = settings.prepare
    sources = [
        _source(reference, folder, own, settings.foreign_bases, site)
        for reference in dockerfile.references(given, target=settings.target)
    ]
    begin = dockerfile.base(given, target=settings.target).text
    return Image(
        name=folder.name,
        folder=folder,
        tag=tag_of(folder.name),
        sources=tuple(sources),
        base=next((item.image for item in sources if item.written == begin), ""),
        description=settings.description,
        build_args=tuple(given.items()),
        target=settings.target,
        labels=settings.labels,
        secrets=dockerfile.secrets,
        ssh=dockerfile.ssh,
        agents=settings.ssh,
        # Not Path.resolve, which fails if links lead to themselves.
        contexts=tuple(
            (name, Path(os.path.realpath(folder / path))) for name, path in settings.contexts
        ),
        # This argument overrides the line # syntax=.
        frontend=given.get("BUILDKIT_SYNTAX", "").partition(" ")[0] or dockerfile.frontend,
        features=dockerfile.features,
        prepare=prepare and replace(prepare, sources=site.sources(prepare.suite)),
        category=settings.category,
        run=settings.run,
        module=settings.module,
        smoke=settings.smoke,
        skip=settings.tests.skip,
    )


def _sif(folder: Path, site: Site, flags: SifOptions) -> SifOptions:
    """Return how the SIF of an image is made."""
    settings = load_image_settings(folder / "image.toml")
    compression, level = conversion(settings, site, folder.name, flags)
    said = settings.convert
    return replace(
        said,
        compression=compression.value,
        level=level.value,
        processors=flags.processors or said.processors,
        budget=settings.size_budget,
        method=flags.method,
        definition=folder / said.definition if said.definition else None,
    )


def _refuse_proxies(dockerfile: Dockerfile, site: Site) -> None:
    """Raise an error if the Dockerfile would write proxies, with passwords, into the history."""
    declared = [name for name in dockerfile.arguments if name in PROXY_ARGUMENTS]
    proxies = site.proxy_arguments()
    whose = "the site's proxy" if proxies else "the proxy of docker's config.json"
    if declared and (proxies or docker_client.proxies()):
        raise UsageError(
            f"{dockerfile.path}: declares ARG {declared[0]}, by which {whose} would stay in the"
            " image; remove that line: build steps have the proxy without it"
        )


def _source(
    used: Reference, folder: Path, own: OwnReferences, foreign: Sequence[str], site: Site
) -> Source:
    """Return the image of ours, or the foreign one, that a reference names."""
    text, instead = used.text, site.replacement(used.text)
    place = f"{folder / DOCKERFILE}: line {used.line}"
    try:
        name = own.image(text, beside=folder.name, foreign=foreign)
        if not name and instead != text:
            place = f"{site.origin}: bases: in place of {text} in {place}"
            name = own.image(instead)
            if name == folder.name:
                # It cannot be built on itself, so the site's entry does not apply to it.
                name, instead = "", text
    except UsageError as error:
        raise UsageError(f"{place}: {error.message}") from None
    if name:
        return Source(written=text, image=name)
    return Source(written=text, reference=instead, platform=used.platform)


def arguments(pairs: Sequence[str]) -> dict[str, str]:
    """Read ``NAME=value`` pairs of the command line."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise UsageError(f"--build-arg {pair!r}: takes NAME=value")
        if name in PROXY_ARGUMENTS:
            raise UsageError(
                f"--build-arg {name}: would stay in the image; name it under [proxies] of a site"
            )
        found[name] = value
    return found
