"""image.toml: what is wrong is named with file, key and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.config.images import (
    ImageSettings,
    load_image_settings,
    size_in_bytes,
)
from sifline.errors import UsageError
from sifline.model import Prepare, Run, SifOptions

ALL_KEYS = """
description = "d"
category = "ml-frameworks"
target = "runtime"
foreign-bases = ["docker.io/library/*"]
size-budget = "5GB"
smoke = [["python3", "-c", "import torch\\nprint(1)"], ["true"]]

[build-args]
B = "2"
A = "1"

[labels]
"org.opencontainers.image.licenses" = "MIT"

[prepare]
suite = "trixie"
packages = ["p", "q=1.0+b~1"]

[run]
gpus = "all"
shared-memory = "8g"
binds = ["/scratch:/scratch", "~/data:/data:ro"]

[convert]
compression = "gzip"
level = 9
processors = 4
"""


def settings_of(folder: Path, text: str) -> ImageSettings:
    path = folder / "image.toml"
    path.write_text(text)
    return load_image_settings(path)


def test_no_file_means_defaults(tmp_path: Path) -> None:
    assert load_image_settings(tmp_path / "image.toml") == ImageSettings()


def test_an_empty_file_means_defaults(tmp_path: Path) -> None:
    assert settings_of(tmp_path, "") == ImageSettings()


def test_all_keys_are_read(tmp_path: Path) -> None:
    assert settings_of(tmp_path, ALL_KEYS) == ImageSettings(
        description="d",
        category="ml-frameworks",
        target="runtime",
        build_args=(("A", "1"), ("B", "2")),
        labels=(("org.opencontainers.image.licenses", "MIT"),),
        foreign_bases=("docker.io/library/*",),
        prepare=Prepare(suite="trixie", packages=("p", "q=1.0+b~1")),
        run=Run(gpus="all", shared_memory="8g", binds=("/scratch:/scratch", "~/data:/data:ro")),
        size_budget=5_000_000_000,
        smoke=(("python3", "-c", "import torch\nprint(1)"), ("true",)),
        convert=SifOptions(compression="gzip", level=9, processors=4),
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("0B", 0),
        ("1kB", 1_000),
        ("2.01kB", 2_010),
        ("5GB", 5_000_000_000),
        ("2.3 GB", 2_300_000_000),
        ("4.5GiB", 4_831_838_208),
        ("1TiB", 1_099_511_627_776),
    ],
)
def test_sizes_have_decimal_and_binary_units(size: str, expected: int) -> None:
    assert size_in_bytes(size) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("descripton = 'x'", "unknown key descripton; allowed are description,"),
        ("descripton = 'x'", "Did you mean description?"),
        ('"a\\nb" = "x"', r'unknown key "a\nb"; allowed are'),
        ("description = 'a\\nb'\n[run]\ngpus = 2", 'run.gpus must be "all" or a number such as'),
        ('description = "a\\nb"', "description must be one line of text, found 'a\\nb'"),
        ("category = 'x'", "category must be one of ml-frameworks,"),
        ("category = 3", "category must be one of ml-frameworks, custom-images, base-images, fo"),
        ("target = ''", "target must be the name of a stage, found ''"),
        ("target = '-x'", "target must be the name of a stage, found '-x'"),
        ("[prepare]\nsuit = 'x'", "unknown key prepare.suit"),
        (
            "[prepare]\npackages = ['x']",
            'prepare.suite must be a Debian suite such as "trixie", f',
        ),
        ("[prepare]\nsuite = '--x'", "prepare.suite must be a Debian suite"),
        ("[prepare]\nsuite = 'x'\npackages = 'x'", "prepare.packages must be a list of strings"),
        (
            "[prepare]\nsuite = 'x'\npackages = ['a', 'b,c']",
            "prepare.packages[1] must be the name",
        ),
        ("build-args = 3", "build-args must be a table of strings, found 3"),
        ("[build-args]\nA = 12.1", "build-args.A must be a string, found 12.1"),
        ("[build-args]\nA-B = 'x'", "build-args.A-B: the name must be letters, digits and _"),
        ("[build-args]\nhttp_proxy = 'x'", "build-args.http_proxy is not allowed: "),
        ("[build-args]\nNO_PROXY = 'x'", "write it under [proxies] of a site profile"),
        ("[labels]\n'sifline.image' = 'x'", 'labels."sifline.image" is not allowed: sifline'),
        ("[labels]\n'a=b' = 'x'", 'labels."a=b": the name must be'),
        ("foreign-bases = ['a b']", "foreign-bases[0] must be a word without spaces"),
        ("[run]\nshared-memory = '8 GB'", "run.shared-memory must be a size"),
        ("[run]\nbinds = ['/a']", 'run.binds[0] must be "/HOST:/CONTAINER"'),
        ("[run]\nbinds = ['a:/b']", 'run.binds[0] must be "/HOST:/CONTAINER"'),
        ("size-budget = 5", 'size-budget must be a number and a unit such as "5GB"'),
        ("size-budget = '5'", 'size-budget must be a number and a unit such as "5GB"'),
        ("smoke = ['true']", "smoke[0] must be a list of words such as"),
        ("smoke = [[]]", "smoke[0] must be a list of words such as"),
        ("smoke = [['a', 1]]", "smoke[0][1] must be a word, found 1"),
        ("[convert]\ncompression = 'lz4'", "convert.compression must be one of zstd, gzip, f"),
        ("[convert]\nlevel = 3", "convert.level needs convert.compression beside it"),
        (
            "[convert]\ncompression = 'gzip'\nlevel = 10",
            "convert.level must be at most 9 where compression is gzip, found 10",
        ),
        (
            "[convert]\ncompression = 'zstd'\nlevel = 23",
            "convert.level must be a whole number from 1 to 22, found 23",
        ),
        ("[convert]\nprocessors = true", "convert.processors must be a whole number from 1 to"),
        ("description = 'x'\na = = b", "is not TOML: Invalid value (at line 2, column 5)"),
        (f"a = {'9' * 5000}", "is not TOML"),
        (f"a = {'[' * 5000}", "is not TOML"),
        (f"description = ['{'x' * 500}']", "found ['xxxx"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        settings_of(tmp_path, text)

    assert error.value.message.startswith(f"{tmp_path / 'image.toml'}: ")
    assert message in error.value.message
    assert "\n" not in error.value.message
    assert len(error.value.message) < len(str(tmp_path)) + 320


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "image.toml"
    path.write_bytes(b"description = '\xff'")

    with pytest.raises(UsageError, match=r"image\.toml: cannot be read: "):
        load_image_settings(path)


@pytest.mark.parametrize("key", ["target = 'a\\n'", "size-budget = '5GB\\n'", "category = 'x\\n'"])
def test_a_line_end_behind_a_good_value_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError):
        settings_of(tmp_path, key.replace("'", '"'))
