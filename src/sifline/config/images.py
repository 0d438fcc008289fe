"""``images/<name>/image.toml``: what a Dockerfile cannot say about its image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sifline.config.table import Table
from sifline.errors import UsageError
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
    return _settings(Table(path, _parse(path, text)))


def _parse(path: Path, text: str) -> dict[str, Any]:
    import tomli

    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise UsageError(f"{path}: is not TOML: {error}; mend that line") from None


def _settings(table: Table) -> ImageSettings:
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
