"""image.toml: what is wrong is named with file, key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.config.images import ImageSettings, load_image_settings
from sifline.errors import UsageError
from sifline.model import Prepare


def test_no_file_means_defaults(tmp_path: Path) -> None:
    assert load_image_settings(tmp_path / "image.toml") == ImageSettings()


def test_all_keys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "image.toml"
    path.write_text(
        'description = "d"\ncategory = "ml-frameworks"\n[build-args]\nB = "2"\nA = "1"\n'
        '[prepare]\nsuite = "trixie"\npackages = ["p"]\n'
    )

    assert load_image_settings(path) == ImageSettings(
        description="d",
        category="ml-frameworks",
        build_args=(("A", "1"), ("B", "2")),
        prepare=Prepare(suite="trixie", packages=("p",)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("descripton = 'x'", "unknown key descripton; allowed are description,"),
        ("descripton = 'x'", "Did you mean description?"),
        ("category = 'x'", "category must be one of ml-frameworks,"),
        ("category = 3", "category must be a string, found 3"),
        ("[prepare]\nsuit = 'x'", "unknown key prepare.suit"),
        ("[prepare]\npackages = ['x']", "prepare.suite must be a string, found nothing"),
        ("[prepare]\nsuite = 'x'\npackages = 'x'", "prepare.packages must be a list of strings"),
        ("build-args = 3", "build-args must be a table, found 3"),
        ("a = = b", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "image.toml"
    path.write_text(text)

    with pytest.raises(UsageError) as error:
        load_image_settings(path)

    assert str(path) in error.value.message
    assert message in error.value.message
