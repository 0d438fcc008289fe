from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from sifline.contents import excerpt
from sifline.contents.excerpt import Listing, Sought
from sifline.errors import StepFailed

BLOCK = tarfile.BLOCKSIZE
# Longer than a header has room for, and no UTF-8.
ODD = b"a/".decode() * 80 + os.fsdecode(b"\xff \n.keep")


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    head = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return head + content + bytes(-len(content) % BLOCK)


def tar(*entries: bytes) -> bytes:
    return b"".join(entries) + bytes(2 * BLOCK)


def keep(name: str) -> bool:
    return name.endswith("keep")


SOUGHT = Sought(wanted=keep)
# A database that is read, and one that is named, in folders that may be links.
DATABASES = Sought(
    wanted=lambda path: path == "var/lib/read/keep",
    named=lambda path: path == "var/lib/named/x.db",
    folders=("var/lib/read", "var/lib/named"),
    elsewhere=lambda path: path.endswith("/keep"),
    named_elsewhere=lambda path: path.endswith("/x.db"),
)


def pick(content: bytes, sought: Sought = SOUGHT) -> excerpt.Excerpt:
    return excerpt.of_tar(io.BytesIO(content), sought)


def test_wanted_files_come_out_of_a_stream() -> None:
    found = pick(
        tar(entry("a/keep", b"1"), entry("a/other", bytes(9000)), entry("./b.keep", b"2"))
    )
    assert found == excerpt.Excerpt(files={"a/keep": b"1", "b.keep": b"2"})


def test_long_names_that_are_no_utf8_are_kept() -> None:
    assert pick(tar(entry(ODD, b"x"))).files == {ODD: b"x"}


def test_folder_of_a_wanted_name_is_no_file() -> None:
    assert pick(tar(entry("x.keep/", kind=tarfile.DIRTYPE))) == excerpt.Excerpt(files={})


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "../lib/b.keep"),
        (tarfile.SYMTYPE, "/lib/b.keep"),
        (tarfile.LNKTYPE, "lib/b.keep"),
    ],
)
def test_link_has_the_content_of_what_it_names(kind: bytes, link: str) -> None:
    found = pick(tar(entry("lib/b.keep", b"x"), entry("etc/a.keep", kind=kind, link=link)))
    assert found.files["etc/a.keep"] == b"x"


# Links to other folders, as tar entries: path and target.
FOLDER_LINKS = [
    [("var/lib/read", "../../usr/share/store"), ("var/lib/named", "/usr/share/store")],
    [("var/lib", "/usr/lib"), ("usr/lib/read", "../share/store"), ("usr/lib/named", "read")],
    [("var", "state"), ("state/lib/read", "/usr/share/store"), ("state/lib/named", "read")],
    [
        *[("var/lib/read", "/a"), ("a", "b"), ("b", "usr/share/store")],
        ("var/lib/named", "/b"),
    ],
]


@pytest.mark.parametrize("links", FOLDER_LINKS)
def test_a_database_behind_a_linked_folder_is_found_in_a_stream(
    links: list[tuple[str, str]],
) -> None:
    ends = [entry(name, kind=tarfile.SYMTYPE, link=target) for name, target in links]
    files = [entry("usr/share/store/keep", b"x"), entry("usr/share/store/x.db", b"y")]
    more = [entry("usr/share/other/keep", b"z"), entry("usr/share/other/x.db")]
    expected = excerpt.Excerpt(files={"var/lib/read/keep": b"x"}, names=("var/lib/named/x.db",))
    assert pick(tar(*files, *more, *ends), DATABASES) == expected
    assert pick(tar(*ends, *more, *files), DATABASES) == expected


@pytest.mark.parametrize("links", FOLDER_LINKS)
def test_a_database_behind_a_linked_folder_is_found_in_a_listing(
    links: list[tuple[str, str]], tmp_path: Path
) -> None:
    lines = [line("lrwxrwxrwx", len(to), f"/{name} -> {to}") for name, to in links]
    lines += [line("-rw-r--r--", 1, f"/usr/share/store/{name}") for name in ("keep", "x.db")]
    listing = excerpt.listed("\n".join(lines).encode(), DATABASES)
    folder = unpacked(tmp_path, *listing.files)
    assert excerpt.of_folder(folder, listing, DATABASES) == excerpt.Excerpt(
        files={"var/lib/read/keep": b"usr/share/store/keep"}, names=("var/lib/named/x.db",)
    )


def test_a_database_behind_a_linked_folder_that_is_no_small_file_is_counted() -> None:
    link = entry("var/lib/read", kind=tarfile.SYMTYPE, link="/usr/store")
    odd = entry("usr/store/keep", kind=tarfile.FIFOTYPE)
    assert pick(tar(odd, link), DATABASES).unread == ("var/lib/read/keep",)


def test_folders_that_link_to_each_other_lead_nowhere() -> None:
    links = [("var/lib/read", "named"), ("var/lib/named", "read"), ("usr/share", "share")]
    ends = [entry(name, kind=tarfile.SYMTYPE, link=target) for name, target in links]
    assert pick(tar(*ends, entry("x/keep", b"x")), DATABASES) == excerpt.Excerpt(files={})


def test_folders_may_be_what_is_named() -> None:
    stored = Sought(wanted=keep, named=lambda path: path.startswith("store/"))
    folder = entry("store/a/", kind=tarfile.DIRTYPE)
    assert pick(tar(folder), stored).names == ("store/a",)
    listing = excerpt.listed(line("drwxr-xr-x", 3, "/store/a").encode(), stored)
    assert listing.names == ("store/a",)


@pytest.mark.parametrize(
    "odd",
    [
        entry("a.keep", kind=tarfile.SYMTYPE, link="../../../../etc/passwd"),
        entry("a.keep", kind=tarfile.SYMTYPE, link="a.keep"),
        entry("a.keep", kind=tarfile.LNKTYPE, link="other"),
        entry("a.keep", kind=tarfile.FIFOTYPE),
        entry("a.keep", bytes(excerpt.LARGEST + 1)),
    ],
    ids=["link out", "link to itself", "hard link", "fifo", "too large"],
)
def test_what_is_wanted_and_no_small_file_is_counted(odd: bytes) -> None:
    found = pick(tar(entry("other", b"x"), odd, entry("b.keep", b"y")))
    assert found == excerpt.Excerpt(files={"b.keep": b"y"}, unread=("a.keep",))


def test_stream_that_ends_before_its_mark_is_damaged() -> None:
    whole = tar(entry("a.keep", b"x" * 600), entry(ODD, bytes(BLOCK)), entry("c", bytes(3000)))
    marked = len(whole) - BLOCK  # one empty block is a mark
    for length in range(0, len(whole) - 2 * BLOCK + 1, BLOCK // 2):
        with pytest.raises(StepFailed, match="ended half-way"):
            pick(whole[:length])
    assert len(pick(whole[:marked]).files) == 2


@pytest.mark.parametrize("at", [0, 2 * BLOCK])
def test_stream_that_is_no_tar_is_damaged(at: int) -> None:
    whole = tar(entry("a.keep", b"x"), entry("b.keep", b"x"))
    with pytest.raises(StepFailed, match="ended half-way"):
        pick(whole[:at] + b"?" * BLOCK + whole[at + BLOCK :])


class Reset(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        raise ConnectionResetError


def test_connection_that_breaks_is_a_damaged_stream() -> None:
    with pytest.raises(StepFailed, match="ended half-way"):
        excerpt.of_tar(io.BufferedReader(Reset()), SOUGHT)


def test_reading_a_stream_can_be_interrupted() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        excerpt.of_tar(io.BytesIO(tar(entry("a"))), SOUGHT, check=stop)


def line(mode: str, size: int, rest: str) -> str:
    return f"{mode} 0/0 {size:>23} 2025-01-01 00:00 squashfs-root{rest}"


def listed(*lines: str) -> Listing:
    return excerpt.listed("\n".join(lines).encode("utf-8", "surrogateescape"), SOUGHT)


def test_wanted_files_are_found_in_a_listing() -> None:
    found = listed(
        line("drwxr-xr-x", 3, ""),
        line("drwxr-xr-x", 3, "/x.keep"),
        line("-rw-r--r--", 1, "/a b/keep"),
        line("-rw-r--r--", 1, "/other"),
        line("-rwsr-sr-t", 0, "/\udcff.keep"),
    )
    assert found == Listing(files=("a b/keep", "\udcff.keep"), links={})


@pytest.mark.parametrize("name", ["a.keep", "a -> b.keep"])
@pytest.mark.parametrize("target", ["b -> c", "/b -> c", "./b -> c"])
def test_links_of_a_listing_may_have_arrows_in_their_names(name: str, target: str) -> None:
    found = listed(line("lrwxrwxrwx", len(target), f"/{name} -> {target}"))
    assert found == Listing(files=(), links={name: "b -> c"})


def test_large_files_of_a_listing_are_counted_and_not_unpacked() -> None:
    found = listed(line("-rw-r--r--", excerpt.LARGEST + 1, "/a.keep"))
    assert found == Listing(files=(), links={}, unread=("a.keep",))


@pytest.mark.parametrize(
    "text", ["", "Parallel unsquashfs", "c------ 0/0 1,3 x", "-rw-r--r-- 0/0 1 squashfs-root/keep"]
)
def test_lines_that_list_nothing_do_not_count(text: str) -> None:
    assert listed(text) == Listing(files=(), links={})


def test_signs_are_no_wildcards() -> None:
    assert excerpt.patterns(["a/b-1.2_3", "[a]*?"]) == b"a/b-1.2_3\0\\[a\\]\\*\\?\0"


def unpacked(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def test_what_was_unpacked_is_read(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "a/b/keep", "more")
    found = excerpt.of_folder(
        folder, Listing(files=("a/b/keep",), links={"keep": "a/b/keep"}), SOUGHT
    )
    assert found.files == {"a/b/keep": b"a/b/keep", "keep": b"a/b/keep"}


def test_what_was_listed_and_not_unpacked_is_told(tmp_path: Path) -> None:
    listing = Listing(files=("b.keep",), links={"c.keep": "b.keep"}, unread=("a.keep",))
    assert excerpt.of_folder(tmp_path, listing, SOUGHT) == excerpt.Excerpt(
        files={}, unread=("a.keep", "b.keep", "c.keep")
    )


def test_modes_of_the_image_do_not_hide_files(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "tree", "a/b/keep")
    (folder / "a/b/keep").chmod(0)
    (folder / "a/b").chmod(0)
    (folder / "a").chmod(0)
    found = excerpt.of_folder(folder, Listing(files=("a/b/keep",), links={}), SOUGHT)
    assert found.files == {"a/b/keep": b"a/b/keep"}


def test_no_link_is_followed_out_of_what_was_unpacked(tmp_path: Path) -> None:
    secret = unpacked(tmp_path / "outside", "keep")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "keep").symlink_to(secret / "keep")
    (tree / "folder").symlink_to(secret)
    found = excerpt.of_folder(tree, Listing(files=("keep", "folder/keep"), links={}), SOUGHT)
    assert found == excerpt.Excerpt(files={}, unread=("folder/keep", "keep"))
