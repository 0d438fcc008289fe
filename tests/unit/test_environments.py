"""Environments and caches go where the checkout made them, and nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sifline.model import Workspace
from sifline.stages.environments import clean

MADE = (
    *(".venv/sifline-stamp", ".venv/lib/x.py", ".nox/environment/sifline-stamp"),
    *(
        ".nox/lock/pyvenv.cfg",
        ".hypothesis/x",
        ".mypy_cache/3.11/x.json",
        ".pytest_cache/v/x",
        ".ruff_cache/x",
    ),
    *("src/a/__pycache__/x.pyc", "src/__pycache__/y.pyc", "images/a/tests/__pycache__/x.pyc"),
)
OTHERS = ("src/a/x.py", "build/sif/a.sif", "build/ansible/x", "venv/pyvenv.cfg", "dist/x.whl")
NAMES = [
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    "byte code in images",
    "byte code in src",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (*MADE, *OTHERS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    return tmp_path


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_was_made_for_the_checkout_goes_and_nothing_else(root: Path) -> None:
    before = files(root)
    would = clean(Workspace(root=root), dry=True)
    assert files(root) == before
    done = clean(Workspace(root=root))

    assert files(root) == {*OTHERS}
    assert sorted(what for what, _ in done.removed) == [
        ".hypothesis",
        ".mypy_cache",
        ".nox",
        *sorted(
            [".pytest_cache", ".ruff_cache", ".venv", "byte code in images", "byte code in src"]
        ),
    ]
    assert would.removed == done.removed
    assert (would.freed, done.freed) == (0, len(MADE))
    assert clean(Workspace(root=root)).removed == ()


def test_environments_of_others_stay_and_are_named(root: Path) -> None:
    (root / ".venv" / "sifline-stamp").unlink()
    (root / ".nox" / "environment" / "sifline-stamp").unlink()
    done = clean(Workspace(root=root))

    assert [what for what, _ in done.removed] == NAMES
    assert done.kept == tuple(
        f"{name}: it was not made by scripts/bootstrap or this project's Nox"
        for name in (".venv", ".nox")
    )
    assert (root / ".venv" / "lib").exists()


def test_a_link_is_not_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "shared"
    (root / ".venv").rename(elsewhere)
    (root / ".venv").symlink_to(elsewhere)
    (root / ".ruff_cache" / "out").symlink_to(elsewhere)
    done = clean(Workspace(root=root))

    assert ".venv" not in dict(done.removed)
    assert "it is a link" in done.kept[0]
    assert files(elsewhere) == {"sifline-stamp", "lib/x.py"}


def test_the_environment_in_use_goes_last(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(root / ".nox" / "environment"))

    assert [what for what, _ in clean(Workspace(root=root)).removed][-1] == ".nox"


def test_byte_code_behind_links_stays(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "__pycache__"
    elsewhere.mkdir(parents=True)
    (elsewhere / "x.pyc").write_text("theirs")
    (root / "ansible").symlink_to(elsewhere.parent)
    (root / "src" / "linked").mkdir(parents=True)
    (root / "src" / "linked" / "__pycache__").symlink_to(elsewhere)
    clean(Workspace(root=root))
    assert (elsewhere / "x.pyc").read_text() == "theirs"
    assert (root / "src" / "linked" / "__pycache__").is_symlink()
