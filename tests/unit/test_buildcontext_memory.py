"""What is remembered of a build context saves time and never tells of what was there before."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.contents import build_context
from sifline.contents.build_context import digest, entries
from sifline.errors import UsageError

AGED_NS = 10_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "context"
    made.mkdir()
    (made / "Dockerfile").write_text("FROM a")
    (made / "file").write_text("content")
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "image.context"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content is read, in order."""
    names: list[str] = []
    real = build_context.file_digest

    def counted(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(build_context, "file_digest", counted)
    return names


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks happen long after the files were written."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + AGED_NS)


@pytest.mark.usefixtures("aged")
def test_a_second_look_reads_no_file(folder: Path, cache: Path, read: list[str]) -> None:
    first = digest(folder, cache=cache)
    read.clear()

    assert digest(folder, cache=cache) == first
    assert read == []


@pytest.mark.usefixtures("aged")
def test_only_the_changed_file_is_read_again(folder: Path, cache: Path, read: list[str]) -> None:
    before = digest(folder, cache=cache)
    read.clear()
    (folder / "file").write_text("another")

    assert digest(folder, cache=cache) != before
    assert read == ["file"]


def test_a_file_as_young_as_the_look_is_read_again(
    folder: Path, cache: Path, read: list[str]
) -> None:
    digest(folder, cache=cache)
    read.clear()
    digest(folder, cache=cache)

    assert sorted(read) == ["Dockerfile", "file"]


def test_same_size_and_a_time_stamp_set_back_do_not_hide_a_change(
    folder: Path, cache: Path
) -> None:
    path = folder / "file"
    os.utime(path, ns=(1, 1))
    before = digest(folder, cache=cache)

    path.write_text("CONTENT")
    os.utime(path, ns=(1, 1))

    assert digest(folder, cache=cache) != before


@pytest.mark.usefixtures("aged")
def test_a_touched_file_is_read_once_and_is_no_change(
    folder: Path, cache: Path, read: list[str]
) -> None:
    before = digest(folder, cache=cache)
    (folder / "file").touch()
    read.clear()

    assert digest(folder, cache=cache) == before
    assert digest(folder, cache=cache) == before
    assert read == ["file"]


@pytest.mark.parametrize("content", ["", "{", "null\nnull\n", '{"listing": 1}\n[]\n'])
def test_a_damaged_memory_is_no_memory(folder: Path, cache: Path, content: str) -> None:
    cache.parent.mkdir()
    cache.write_text(content)

    assert digest(folder, cache=cache) == digest(folder)


@pytest.mark.usefixtures("aged")
def test_a_changed_dockerignore_counts_at_once(folder: Path, cache: Path) -> None:
    before = digest(folder, cache=cache)
    (folder / ".dockerignore").write_text("file\n.dockerignore\n")
    without = digest(folder, cache=cache)
    (folder / "file").unlink()

    assert without != before
    assert digest(folder, cache=cache) == without


def test_what_is_described_elsewhere_is_left_out(folder: Path, cache: Path) -> None:
    before = digest(folder, cache=cache)
    (folder / "rootfs.tar").write_text("x")

    assert digest(folder, without=frozenset({"rootfs.tar"}), cache=cache) == before
    assert "rootfs.tar" not in entries(folder, without=frozenset({"rootfs.tar"}))


def test_names_that_are_not_utf_8_are_read(folder: Path, cache: Path) -> None:
    os.close(os.open(os.fsencode(folder) + b"/\xff\xfe", os.O_CREAT))

    assert "\udcff\udcfe" in entries(folder, cache=cache)
    assert digest(folder, cache=cache) == digest(folder)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing: No such file"):
        digest(tmp_path / "missing")


def test_entries_say_kind_mode_and_content(folder: Path) -> None:
    (folder / "file").chmod(0o4751)
    (folder / "link").symlink_to("elsewhere")
    (folder / "sub").mkdir(mode=0o700)

    found = entries(folder)

    assert found["file"].startswith("file 4751 ed7002b439e9ac84")
    assert found["link"] == "link elsewhere"
    assert found["sub"] == "folder 0700"


# Properties: random trees, random changes

WORDS = st.sampled_from(["a", "b", "c d", "é", "sub/a", "sub/deep/b", "other/x"])
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4755])
TREES = st.dictionaries(WORDS, st.tuples(st.binary(max_size=5), MODES), min_size=1)


def write(folder: Path, tree: Mapping[str, tuple[bytes, int]], order: list[str]) -> None:
    for name in order:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tree[name][0])
        path.chmod(tree[name][1])


@given(TREES, st.data())
def test_equal_content_has_an_equal_digest_however_it_came_about(
    tree: dict[str, tuple[bytes, int]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(sorted(tree)))
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        write(Path(one), tree, sorted(tree))
        write(Path(two), tree, order)
        for name in tree:
            os.utime(Path(two) / name, (1, 1))

        assert digest(Path(one)) == digest(Path(two))


def flip(path: Path) -> None:
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()) or b"x")


def become_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("a")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": flip,
    "mode": lambda path: path.chmod(stat.S_IMODE(path.stat().st_mode) ^ 0o001),
    "name": lambda path: path.rename(path.with_name("renamed")),
    "kind": become_link,
    "removal": Path.unlink,
    "new file": lambda path: path.with_name("new").touch(),
}


@given(TREES, st.data(), st.sampled_from(sorted(CHANGES)))
def test_any_single_change_is_another_digest_and_is_told_by_name(
    tree: dict[str, tuple[bytes, int]], data: st.DataObject, change: str
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, cache = Path(scratch, "context"), Path(scratch, "cache")
        write(folder, tree, sorted(tree))
        before, listed = digest(folder, cache=cache), entries(folder, cache=cache)

        CHANGES[change](folder / data.draw(st.sampled_from(sorted(tree))))

        assert digest(folder, cache=cache) != before
        assert digest(folder, cache=cache) == digest(folder)
        assert entries(folder, cache=cache) != listed


@pytest.mark.usefixtures("aged")
def test_what_a_linked_dockerfile_leads_to_counts(folder: Path, cache: Path) -> None:
    shared = folder.parent / "shared"
    shared.write_text("FROM a")
    (folder / "Dockerfile").unlink()
    (folder / "Dockerfile").symlink_to("../shared")
    before = digest(folder, cache=cache)

    shared.write_text("FROM b")

    assert digest(folder, cache=cache) != before


def test_rules_that_are_read_through_a_link_count_where_no_context_holds_them(
    folder: Path, cache: Path
) -> None:
    (folder / "rules").mkdir()
    (folder / "rules" / "file").write_text("rules\nfile\n")
    (folder / ".dockerignore").symlink_to("rules/file")
    without = digest(folder, cache=cache)
    assert digest(folder, cache=cache) == without

    (folder / "rules" / "file").write_text("rules\n")

    assert digest(folder, cache=cache) != without


def nobody(folder: Path, code: str) -> str:
    """Run ``code`` on ``folder`` as one who may not read what root keeps to itself."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    program = f"""
import os, sys
from pathlib import Path
from sifline.contents.build_context import digest, entries
# Folders above it are closed to others.
os.chdir(sys.argv[1])
folder = Path()
os.setresgid(4321, 4321, 4321)
os.setresuid(4321, 4321, 4321)
{code}
"""
    folder.chmod(0o755)
    argv = [sys.executable, "-c", program, str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def test_what_only_root_may_read_stops_nobody(folder: Path) -> None:
    (folder / "secret").write_text("x")
    (folder / "secret").chmod(0o600)
    (folder / "closed").mkdir(mode=0o700)
    (folder / "closed" / "inside").write_text("x")

    found = nobody(folder, "print(digest(folder), entries(folder))")

    assert "'secret': 'file 0600 unreadable'" in found
    assert "'closed': 'folder 0700 unreadable'" in found
    assert "inside" not in found
    assert digest(folder) not in found
