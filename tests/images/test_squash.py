"""The judge of file systems: it tells what is there, and sees each fault that is put in."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import squash
from tests.support.archives import DAY
from tests.support.samples import CAPABILITY
from tests.support.squash import Entry
from tests.support.toolbox import toolbox

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="owners, devices and capabilities can be made by root alone"
)

HOLE = 3 << 20
ODD = os.fsdecode(b"odd \n\xff name")


def tree(top: Path) -> Path:
    """Make one of everything in the new folder ``top``."""
    top.mkdir(mode=0o755)
    for name in ("d", "d/empty"):
        (top / name).mkdir()
    for name in ("file", "other", "hard-1", "d/alone", ODD):
        (top / name).write_text("one content")
    (top / "d/hard-2").hardlink_to(top / "hard-1")
    (top / "hard-3").hardlink_to(top / "hard-1")
    (top / "none").touch()
    with (top / "sparse").open("wb") as file:
        file.truncate(HOLE)
        file.seek(HOLE // 2)
        file.write(b"middle")
    (top / "link").symlink_to("file")
    os.mkfifo(top / "fifo")
    os.mknod(top / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(top / "disk", 0o660 | stat.S_IFBLK, os.makedev(259, 70000))
    os.setxattr(top / "file", "user.note", b"text")
    os.setxattr(top / "d", "user.note", b"text")
    os.setxattr(top / "other", "security.capability", CAPABILITY)
    os.setxattr(top / "other", "trusted.note", b"text")
    for path in (*top.rglob("*"), top):
        os.utime(path, (DAY, DAY), follow_symlinks=False)
    return top


def packed(top: Path) -> dict[bytes, Entry]:
    """Return what the judge tells of a squashfs of ``top``, which the toolbox sees."""
    made = top.with_suffix(".squashfs")
    words = ("-quiet", "-no-progress", "-noappend", "-xattrs")
    toolbox().output("mksquashfs", str(top), str(made), *words)
    return squash.read(made, 0)


@pytest.fixture(scope="module")
def whole() -> dict[bytes, Entry]:
    with toolbox().place() as folder:
        return packed(tree(folder / "tree"))


@pytest.fixture
def place() -> Iterator[Path]:
    with toolbox().place() as folder:
        yield folder


def test_all_of_an_entry_is_told(whole: dict[bytes, Entry]) -> None:
    file, other = whole[b"file"], whole[b"other"]
    assert (file.kind, file.mode, file.uid, file.gid) == ("file", "0644", 0, 0)
    assert (file.size, file.mtime, file.xattrs) == (11, DAY, (("user.note", b"text"),))
    assert other.xattrs == (("security.capability", CAPABILITY), ("trusted.note", b"text"))
    assert (whole[b"null"].kind, whole[b"null"].device) == ("character device", (1, 3))
    assert (whole[b"disk"].kind, whole[b"disk"].device) == ("block device", (259, 70000))
    assert (whole[b"link"].kind, whole[b"link"].target) == ("symbolic link", b"file")
    assert {whole[name].linked for name in (b"hard-1", b"hard-3", b"d/hard-2")} == {b"d/hard-2"}
    assert whole[b"fifo"].kind == "fifo"
    assert os.fsencode(ODD) in whole
    assert (whole[b""].kind, whole[b"d/empty"].kind) == ("folder", "folder")


def test_contents_are_one_exactly_where_they_are_the_same(whole: dict[bytes, Entry]) -> None:
    groups = [{b"file", b"other", b"hard-1", b"d/alone", os.fsencode(ODD)}, {b"none"}, {b"sparse"}]
    digests = [{whole[name].content for name in group} for group in groups]
    assert [len(found) for found in digests] == [1, 1, 1]
    assert len(set.union(*digests)) == 3


def remade(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in the place of ``path``."""
    path.unlink() if not path.is_dir() else path.rmdir()
    make(path)
    os.utime(path, (DAY, DAY), follow_symlinks=False)


def written(path: Path, content: bytes, at: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def split(path: Path) -> None:
    """Make a file of its own of one of several names, the same in all else."""
    remade(path, lambda new: shutil.copyfile(path.parent / "hard-1", new))


def device(kind: int, major: int, minor: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        os.mknod(path, 0o666 | kind, os.makedev(major, minor))

    return make


# The fault, the path it is done to, and what the judge has to say.
FAULTS: dict[str, tuple[Callable[[Path], object], str, set[tuple[str, str]]]] = {
    "mode": (lambda path: path.chmod(0o640), "file", {("file", "mode")}),
    "set-uid": (lambda path: path.chmod(0o4644), "file", {("file", "mode")}),
    "set-gid": (lambda path: path.chmod(0o2755), "d", {("d", "mode")}),
    "sticky": (lambda path: path.chmod(0o1755), "d/empty", {("d/empty", "mode")}),
    "mode of the top": (lambda path: path.chmod(0o750), "", {("", "mode")}),
    "owner": (lambda path: os.chown(path, 7, 0), "none", {("none", "uid")}),
    "group": (lambda path: os.chown(path, 0, 7), "d", {("d", "gid")}),
    "owner of a link": (
        lambda path: os.chown(path, 7, 0, follow_symlinks=False),
        "link",
        {("link", "uid")},
    ),
    "content": (lambda path: written(path, b"two"), "d/alone", {("d/alone", "content")}),
    "content in a hole": (
        lambda path: written(path, b"x", HOLE - 9),
        "sparse",
        {("sparse", "content")},
    ),
    "content moved": (
        lambda path: written(path, b"\0middle", HOLE // 2),
        "sparse",
        {("sparse", "content")},
    ),
    "one zero more": (lambda path: os.truncate(path, HOLE + 1), "sparse", {("sparse", "size")}),
    "one byte less": (
        lambda path: os.truncate(path, 10),
        "d/alone",
        {("d/alone", "size"), ("d/alone", "content")},
    ),
    "attribute changed": (
        lambda path: os.setxattr(path, "user.note", b"TEXT"),
        "file",
        {("file", "xattrs")},
    ),
    "attribute gone": (lambda path: os.removexattr(path, "user.note"), "d", {("d", "xattrs")}),
    "attribute more": (
        lambda path: os.setxattr(path, "user.more", b""),
        "d/empty",
        {("d/empty", "xattrs")},
    ),
    "capability gone": (
        lambda path: os.removexattr(path, "security.capability"),
        "other",
        {("other", "xattrs")},
    ),
    "link split": (split, "hard-3", {("hard-3", "linked")}),
    "link joined": (
        lambda path: remade(path, lambda new: new.hardlink_to(path.parent.parent / "hard-1")),
        "d/alone",
        {("d/hard-2", "linked"), ("hard-1", "linked"), ("hard-3", "linked")},
    ),
    "link elsewhere": (
        lambda path: remade(path, lambda new: new.symlink_to("./file")),
        "link",
        {("link", "target")},
    ),
    "device minor": (
        lambda path: remade(path, device(stat.S_IFCHR, 1, 5)),
        "null",
        {("null", "device")},
    ),
    "device major": (
        lambda path: remade(path, device(stat.S_IFCHR, 2, 3)),
        "null",
        {("null", "device")},
    ),
    "kind of device": (
        lambda path: remade(path, device(stat.S_IFBLK, 1, 3)),
        "null",
        {("null", "kind")},
    ),
    "fifo for a file": (
        lambda path: remade(path, lambda new: new.touch(mode=0o644)),
        "fifo",
        {("fifo", "kind"), ("fifo", "content")},
    ),
    "file for a folder": (
        lambda path: remade(path, lambda new: new.mkdir()),
        "none",
        {("none", "kind"), ("none", "mode"), ("none", "content")},
    ),
    "empty folder gone": (lambda path: path.rmdir(), "d/empty", {("d/empty", "kind")}),
    "empty file gone": (lambda path: path.unlink(), "none", {("none", "kind")}),
    "file more": (lambda path: path.touch(), "d/more", {("d/more", "kind")}),
    "name": (
        lambda path: path.rename(path.with_name(os.fsdecode(b"odd \n\xfe name"))),
        ODD,
        {(ODD, "kind"), (os.fsdecode(b"odd \n\xfe name"), "kind")},
    ),
    "time": (lambda path: os.utime(path, (DAY, DAY + 1)), "file", {("file", "mtime")}),
    "time of a folder": (lambda path: os.utime(path, (0, 0)), "d/empty", {("d/empty", "mtime")}),
    "time of a link": (
        lambda path: os.utime(path, (DAY, DAY - 1), follow_symlinks=False),
        "link",
        {("link", "mtime")},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen_and_nothing_else(
    name: str, whole: dict[bytes, Entry], place: Path
) -> None:
    act, path, expected = FAULTS[name]
    top = tree(place / "tree")
    target = top / path
    act(target)
    if not name.startswith("time"):  # what was written to has another time, and so its folder
        for touched in (target, target.parent, top):
            if os.path.lexists(touched) and touched != place:
                os.utime(touched, (DAY, DAY), follow_symlinks=False)

    found = squash.differences(whole, packed(top))

    assert {(os.fsdecode(one.path), one.attribute) for one in found} == expected


def test_the_same_tree_has_no_faults(whole: dict[bytes, Entry], place: Path) -> None:
    assert squash.differences(whole, packed(tree(place / "tree"))) == []
