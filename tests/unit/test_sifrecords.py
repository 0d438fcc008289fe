from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from sifline.contents import sif_records
from sifline.contents.sif_records import NEXT, Stamp
from sifline.model import Workspace


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "x.sif"
    found.write_bytes(b"one")
    return found


def record_of(path: Path) -> dict[str, object]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"sha256": digest, "size": 3, "stamp": vars(Stamp.of(path)), "commit": "c"}


def announced(content: bytes) -> dict[str, object]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def test_untouched_file_is_not_read(path: Path) -> None:
    record = {**record_of(path), "sha256": "of something else"}
    assert sif_records.current(path, record) == record


def test_touched_file_of_the_same_content_gets_a_new_stamp(path: Path) -> None:
    record = record_of(path)
    os.utime(path, (1, 1))
    assert sif_records.current(path, record) == {**record, "stamp": vars(Stamp.of(path))}


def test_other_content_is_another_file(path: Path) -> None:
    record = record_of(path)
    path.write_bytes(b"two")
    assert sif_records.current(path, record) is None
    assert not sif_records.untouched(path, record)


def test_same_size_and_time_do_not_hide_other_content(path: Path) -> None:
    record, times = record_of(path), path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert sif_records.current(path, record) is None


def test_announced_content_is_the_records_from_then_on(path: Path) -> None:
    record = {**record_of(path), NEXT: announced(b"more")}
    path.write_bytes(b"more")
    assert sif_records.current(path, record) == {
        "commit": "c",
        **announced(b"more"),
        "stamp": vars(Stamp.of(path)),
    }


def test_announcement_that_came_to_nothing_is_forgotten(path: Path) -> None:
    record = record_of(path)
    assert sif_records.current(path, {**record, NEXT: announced(b"more")}) == record


@pytest.mark.parametrize("odd", ["text", None, 7, {}])
def test_odd_announcement_is_survived(path: Path, odd: object) -> None:
    record = {**record_of(path), NEXT: odd}
    path.write_bytes(b"more")
    assert sif_records.current(path, record) is None


def test_sif_of_a_checkout_has_the_lock_of_its_conversion(tmp_path: Path) -> None:
    space = Workspace(root=tmp_path)
    assert sif_records.lock(space.sif("a.b"), space) == tmp_path / "build/locks/a.b.convert.lock"


def test_other_sif_has_one_lock_for_all_checkouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "elsewhere" / "x.sif"
    one, two = (sif_records.lock(path, Workspace(root=tmp_path / name)) for name in "ab")
    assert one == two
    assert one.parent == tmp_path / "cache" / "sifline" / "locks"


def test_files_of_one_name_have_locks_of_their_own(tmp_path: Path) -> None:
    space = Workspace(root=tmp_path)
    assert sif_records.lock(tmp_path / "a/x.sif", space) != sif_records.lock(
        tmp_path / "b/x.sif", space
    )


def test_lock_is_in_the_checkout_where_there_is_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    space = Workspace(root=tmp_path)
    assert sif_records.lock(tmp_path / "x.sif", space).parent == space.build / "locks"


def test_a_sif_is_that_of_an_image_under_whatever_name_it_is_linked(tmp_path: Path) -> None:
    """What is advised names the image, and no link to it; SIFs of other sources have none."""
    space = Workspace(root=tmp_path / "checkout")
    (space.images / "x").mkdir(parents=True)
    (space.images / "x" / "Dockerfile").write_text("")
    space.sifs.mkdir(parents=True)
    for place in (space.sif("x"), space.sif("ubuntu-22.04"), tmp_path / "x.sif"):
        place.write_text("")
    links = {
        tmp_path / "short.sif": space.sif("x"),
        tmp_path / "other.sif": space.sif("ubuntu-22.04"),
        space.sif("y"): tmp_path / "x.sif",
    }
    for link, target in links.items():
        link.symlink_to(target)

    found = {
        path.relative_to(tmp_path).name: sif_records.image_of(path, space)
        for path in (space.sif("x"), space.sif("ubuntu-22.04"), *links)
    }
    assert found == {"x.sif": "x", "ubuntu-22.04.sif": "", "short.sif": "x"} | dict.fromkeys(
        ("other.sif", "y.sif"), ""
    )
    assert sif_records.image_of(tmp_path / "x.sif", space) == ""
