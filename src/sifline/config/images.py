"""``images/<name>/image.toml``: what a Dockerfile cannot say about its image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sifline.errors import UsageError, did_you_mean
from sifline.model import Prepare

CATEGORIES = ("ml-frameworks", "custom-images", "base-images")


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """The content of one image.toml; the defaults are those of a folder without one."""

    description: str = ""
    category: str = "custom-images"
    build_args: tuple[tuple[str, str], ...] = ()
    prepare: Prepare | None = None


def load_image_settings(path: Path) -> ImageSettings:
    """Read ``path``; a missing file means defaults.

    :raises UsageError: naming file, key and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ImageSettings()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    return _settings(_Table(path, _parse(path, text)))


def _parse(path: Path, text: str) -> dict[str, Any]:
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise UsageError(f"{path}: is not TOML: {error}; mend that line") from None


def _settings(table: _Table) -> ImageSettings:
    table.only("description", "category", "build-args", "prepare")
    category = table.text("category", "custom-images")
    if category not in CATEGORIES:
        raise table.wrong("category", f"one of {', '.join(CATEGORIES)}", category)
    prepare = None
    if "prepare" in table.values:
        sub = table.sub("prepare")
        sub.only("suite", "packages")
        prepare = Prepare(suite=sub.text("suite"), packages=sub.texts("packages"))
    arguments = table.sub("build-args")
    return ImageSettings(
        description=table.text("description", ""),
        category=category,
        build_args=tuple(sorted((key, arguments.text(key)) for key in arguments.values)),
        prepare=prepare,
    )


class _Table:
    """A TOML table that knows its file and its own name, so that errors can say both."""

    def __init__(self, path: Path, values: Mapping[str, Any], name: str = "") -> None:
        self.path = path
        self.values = values
        self.name = name

    def only(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                raise UsageError(
                    f"{self.path}: unknown key {self._full(key)};"
                    f" allowed are {', '.join(known)}.{did_you_mean(key, known)}"
                )

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a string", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of strings", value)
        return tuple(value)

    def sub(self, key: str) -> _Table:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.wrong(key, "a table", value)
        return _Table(self.path, value, self._full(key))

    def wrong(self, key: str, allowed: str, value: object) -> UsageError:
        found = "nothing" if value is None else repr(value)
        return UsageError(f"{self.path}: {self._full(key)} must be {allowed}, found {found}")

    def _full(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key
