"""The digest of a build context: content counts, owner and time do not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sifline.contents.build_context import digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text("FROM a")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_text("content")
    (tmp_path / "link").symlink_to("sub/file")
    return tmp_path


def test_time_stamps_do_not_count(folder: Path) -> None:
    before = digest(folder)
    os.utime(folder / "sub" / "file", (1, 1))

    assert digest(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "sub" / "file").write_text("other"),
        lambda folder: (folder / "sub" / "file").chmod(0o755),
        lambda folder: (folder / "sub" / "file").rename(folder / "sub" / "name"),
        lambda folder: (folder / "sub" / "new").mkdir(),
        lambda folder: (folder / "Dockerfile").write_text("FROM b"),
        lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("sub")),
    ],
    ids=["content", "execute bit", "name", "empty folder", "Dockerfile", "link target"],
)
def test_every_change_of_content_counts(folder: Path, change: Callable[[Path], object]) -> None:
    before = digest(folder)
    change(folder)

    assert digest(folder) != before


def test_what_dockerignore_leaves_out_does_not_count(folder: Path) -> None:
    (folder / ".dockerignore").write_text("sub\n")
    before = digest(folder)
    (folder / "sub" / "file").write_text("other")

    assert digest(folder) == before


def test_dockerignore_and_dockerfile_always_count(folder: Path) -> None:
    (folder / ".dockerignore").write_text("*\n")
    before = digest(folder)
    (folder / "Dockerfile").write_text("FROM b")

    assert digest(folder) != before
