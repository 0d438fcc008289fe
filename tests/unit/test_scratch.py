"""Scratch folders go, whatever was put into them, and while somebody still writes there."""

from __future__ import annotations

import threading
from pathlib import Path

from sifline.engines.apptainer import scratch
from tests.support.waiting import PATIENCE, until


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

    stopped = list[int]()

    def write() -> None:
        number = 0
        try:
            for number in range(1_000_000):  # it ends, should the folder never go
                (folder / str(number)).touch()
        except FileNotFoundError:
            stopped.append(number)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    until(lambda: len(list(folder.iterdir())) > 99, "100 files")
    assert writer.is_alive()
    scratch.remove(folder)
    writer.join(PATIENCE)

    assert not folder.exists()
    assert len(stopped) == 1, "it wrote to its end, and the folder was still there"


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
