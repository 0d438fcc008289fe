"""Scratch folders go, whatever was put into them, and while somebody still writes there."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

from sifline import scratch


def test_a_folder_is_removed_whatever_its_modes(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "b" / "file").write_text("")
    (folder / "link").symlink_to(tmp_path)
    for name in ("a/b", "a", ""):
        (folder / name).chmod(0)
    scratch.remove(folder)
    assert not folder.exists()
    assert tmp_path.exists()


def test_a_folder_is_removed_while_somebody_still_writes_there(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()

    def write() -> None:
        with suppress(FileNotFoundError):
            for number in range(100_000):  # it ends, should the folder never go
                (folder / str(number)).touch()

    writer = threading.Thread(target=write)
    writer.start()
    while len(list(folder.iterdir())) < 100:
        time.sleep(0.01)
    scratch.remove(folder)
    writer.join(10)
    assert not folder.exists()


def test_what_a_killed_removal_left_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / ".tree.going" / "a").mkdir(parents=True)
    (tmp_path / "tree").mkdir()
    scratch.remove(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_stays_and_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    (tmp_path / ".tree.going").write_text("no folder")
    scratch.remove(folder)
    assert folder.exists()
