"""The settings that apply if several files and flags set a value, and the origin of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sifline.config.images import (
    IMAGE,
    LEVELS,
    ImageSettings,
    load_image_settings,
)
from sifline.config.images import origin as image_origin
from sifline.config.sites import SITE, Site
from sifline.errors import UsageError, did_you_mean
from sifline.fields.keys import Keys, Named
from sifline.fields.kinds import Kind
from sifline.fields.table import quoted, read_toml
from sifline.model import SifCompression, SifOptions, Workspace
from sifline.model.recipe import masked

DEFAULT = "default"
FLAG = "--build-arg"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and where it came from: a file, a flag, a variable, or ``default``."""

    key: str
    value: Any
    origin: str


def resolve(
    settings: ImageSettings,
    site: Site,
    flags: Mapping[str, str],
    declared: Sequence[str],
    name: str,
) -> tuple[Setting, ...]:
    """Return the build arguments of the image ``name``; unset arguments are left out.

    A flag overrides the site's value for this image, that overrides the site's value for all
    images, and that overrides image.toml. An argument for this image alone must be declared in its
    Dockerfile; one for all images is used where it is declared.

    :param declared: the arguments that the Dockerfile declares.
    :raises UsageError: naming file and argument, with the nearest declared one.
    """
    own, mine = dict(settings.build_args), site.image_args(name)
    _need_declared(own, "build-args", image_origin(name), declared, name)
    _need_declared(mine, f"images.{name}.build-args", site.origin, declared, name)
    layers = (
        (image_origin(name), own),
        (site.origin, dict(site.build_args)),
        (site.origin, mine),
        (FLAG, flags),
    )
    found = {
        key: Setting(key=key, value=value, origin=origin)
        for origin, values in layers
        for key, value in values.items()
        if key in declared
    }
    return tuple(found[key] for key in sorted(found))


def _need_declared(
    arguments: Iterable[str], table: str, origin: str, declared: Sequence[str], name: str
) -> None:
    for argument in arguments:
        if argument not in declared:
            raise UsageError(
                f"{origin}: {table}.{argument}: images/{name}/Dockerfile declares no such"
                f" argument; add ARG {argument} there.{did_you_mean(argument, declared)}"
            )


def conversion(
    settings: ImageSettings, site: Site, name: str, flags: SifOptions | None = None
) -> tuple[Setting, Setting]:
    """Return compression and level of a SIF, from flags, image.toml, the site or the default.

    The level belongs to the compression of the same origin; None is the tool's own default. A flag
    may set the level alone.

    :raises UsageError: for a level that the compression does not have.
    """
    given = flags or SifCompression()
    said: tuple[tuple[SifCompression, str], ...] = (
        (given, "--compression"),
        (settings.convert, image_origin(name)),
        (site.apptainer, site.origin),
    )
    chosen, origin = next(
        (item for item in said if item[0].compression), (SifCompression(), DEFAULT)
    )
    compression, usual = chosen.packing
    whose = DEFAULT if chosen.level is None else origin
    level = Setting(key="convert.level", value=usual, origin=whose)
    if given.level is not None:
        most = LEVELS.most[compression]
        if not 1 <= given.level <= most:
            raise UsageError(f"--level {given.level}: {compression} takes 1 to {most}")
        level = Setting(key="convert.level", value=given.level, origin="--level")
    return Setting(key="convert.compression", value=compression, origin=origin), level


def everything(
    workspace: Workspace,
    site: Site,
    *,
    name: str = "",
    flags: Mapping[str, str] | None = None,
    declared: Sequence[str] = (),
) -> tuple[Setting, ...]:
    """Return each setting of the image ``name``, or without a name those of the site.

    Credentials in URLs are left out; secrets are listed with their location only.

    :param flags: build arguments of the command line.
    :param declared: the arguments that the image's Dockerfile declares.
    """
    which = Setting(key="site", value=site.name, origin=site.chosen)
    if name:
        found = _of_image(workspace, site, name, flags or {}, declared)
    else:
        found = list(_of_file(SITE, site.path, site.origin))
    return tuple(
        Setting(key=item.key, value=_shown(item.value), origin=item.origin)
        for item in (which, *found)
    )


def _of_image(
    workspace: Workspace,
    site: Site,
    name: str,
    flags: Mapping[str, str],
    declared: Sequence[str],
) -> list[Setting]:
    """Yield image.toml's own settings, except those that the site and flags can override."""
    path = workspace.images / name / "image.toml"
    settings = load_image_settings(path)
    arguments = [
        Setting(key=f"build-args.{item.key}", value=item.value, origin=item.origin)
        for item in resolve(settings, site, flags, declared, name)
    ]
    decided = {item.key: item for item in conversion(settings, site, name)}
    own = [
        decided.get(item.key, item)
        for item in _of_file(IMAGE, path, image_origin(name))
        if not item.key.startswith("build-args.")
    ]
    return [*own, *arguments]


def _of_file(kind: Keys[Any], path: Path | None, origin: str) -> Iterator[Setting]:
    """Yield every key that the file can have, with its value or its default."""
    table = read_toml(path) if path else None
    for key, value, there in _flat(kind, table.values if table else {}):
        yield Setting(key=key, value=value, origin=origin if there else DEFAULT)


def _flat(
    kind: Keys[Any], values: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, bool]]:
    """Yield the full name of each key of checked ``values``, its value, and whether it is set.

    Unset keys have their default; an unset table with a required key is left out.
    """
    for key in kind.keys:
        name, inner = f"{prefix}{key.name}", key.kind
        if key.name in values:
            yield from _there(inner, name, values[key.name])
        elif isinstance(inner, Keys):
            needed = any(item.required for item in inner.keys)
            yield from () if needed else _flat(inner, {}, f"{name}.")
        elif not (kind.one or isinstance(inner, Named)):
            yield name, key.plain, False


def _there(kind: Kind | None, name: str, value: Any) -> Iterator[tuple[str, Any, bool]]:
    if isinstance(kind, Keys):
        yield from _flat(kind, value, f"{name}.")
    elif isinstance(kind, Named):
        for entry, inner in sorted(value.items()):
            yield from _there(kind.kind_of(entry), f"{name}.{quoted(entry)}", inner)
    else:
        yield name, value, True


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value)
    return [_shown(item) for item in value] if isinstance(value, list) else value
