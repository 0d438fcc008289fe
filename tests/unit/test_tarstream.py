from __future__ import annotations

import io
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sifline.formats import tar_stream
from sifline.formats.tar_stream import BLOCK, Damaged, Tally

FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
SIZES = (0, 1, 511, 512, 513, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 3 << 20)
Member = tuple[tarfile.TarInfo, bytes]


def item(name: str, content: bytes = b"", **changes: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def archive(members: Sequence[Member], format: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w", format=format, encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def through(stream: bytes, **options: Any) -> tuple[bytes, Tally]:
    """Pass a stream through real descriptors; return what came out, and the tally."""
    ours, theirs = socket.socketpair()
    end, start = os.pipe()
    got = list[bytes]()

    def feed() -> None:
        with theirs:
            theirs.sendall(stream)

    def drain() -> None:
        with os.fdopen(end, "rb") as file:
            got.append(file.read())

    threads = [threading.Thread(target=work) for work in (feed, drain)]
    for thread in threads:
        thread.start()
    try:
        with ours:
            tally = tar_stream.copy(ours, start, **options)
    finally:
        os.close(start)
        for thread in threads:
            thread.join(10)
    return got[0], tally


def read(stream: bytes) -> list[tuple[str, bytes, int, str, bytes, Mapping[str, str]]]:
    with tarfile.open(fileobj=io.BytesIO(stream), errors="surrogateescape") as tar:
        found = list[tuple[str, bytes, int, str, bytes, Mapping[str, str]]]()
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            xattrs = {key: text for key, text in info.pax_headers.items() if "xattr" in key}
            content = file.read() if file else b""
            mtime = int(info.mtime)
            found.append((info.name, info.type, mtime, info.linkname, content, xattrs))
        return found


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_what_goes_in_comes_out(format: int) -> None:
    members = [item(f"d/{size}", bytes([size % 251]) * size) for size in SIZES]
    members += [
        item("d", type=tarfile.DIRTYPE),
        item("link", type=tarfile.SYMTYPE, linkname="d/1"),
        item("hard", type=tarfile.LNKTYPE, linkname="d/1"),
        item("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    ]
    stream = archive(members, format)
    out, _ = through(stream)
    assert read(out) == read(stream)


@pytest.mark.parametrize("length", [1, 99, 100, 101, 155, 255, 256, 257, 1100])
@pytest.mark.parametrize("format", ["pax", "gnu"])
def test_names_of_any_length_are_known(length: int, format: str) -> None:
    name = ("x" * 200 + "/") * (length // 201) + "y" * (length % 201)
    stream = archive([item(name, b"1"), item("other", b"2")], FORMATS[format])
    out, _ = through(stream, without={name.strip("/").encode()})
    assert [entry[0] for entry in read(out)] == ["other"]


def test_a_name_that_is_no_text_is_known_and_kept() -> None:
    stream = archive([item("a\udcff", b"1"), item("b\udcff", b"2")])
    out, _ = through(stream, without={b"a\xff"})
    assert [entry[0] for entry in read(out)] == ["b\udcff"]


def test_what_is_left_out_takes_its_content_along() -> None:
    large = bytes(3 << 20)
    stream = archive([item("large", large), item("kept", b"content")])
    out, tally = through(stream, without={b"large"})
    assert [entry[4] for entry in read(out)] == [b"content"]
    assert tally.inodes == 2


@pytest.mark.parametrize("name", ["short", "n" * 150, "ü"])
@pytest.mark.parametrize("format", ["pax", "gnu"])
def test_attributes_are_added_whatever_the_name_and_value(name: str, format: str) -> None:
    stream = archive([item(name, b"1"), item("other", b"2")], FORMATS[format])
    value = b"\x00=\n\xff"
    out, _ = through(stream, xattrs={name.encode(): {b"user.a": value}})
    first, second = read(out)
    text = value.decode("utf-8", "surrogateescape")
    assert (first[0], first[5]) == (name, {"SCHILY.xattr.user.a": text})
    assert second[5] == {}


def test_attributes_join_those_that_an_entry_has() -> None:
    own = {"SCHILY.xattr.security.capability": "cap"}
    stream = archive([item("f", b"1", pax_headers=own)])
    out, _ = through(stream, xattrs={b"f": {b"user.a": b"b"}})
    assert read(out)[0][5] == {**own, "SCHILY.xattr.user.a": "b"}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        *((0, 0), (-1, 0), (-(10**9), 0), (2**32 + 5, 5), (2**33 + 7, 7)),
        # The nanoseconds since 1970 of the first have 63 bits, those of the others more.
        *((9_223_372_035, 633_437_443), (9_223_372_036, 0), (2**34 + 7, 0)),
    ],
)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_times_are_those_that_a_squashfs_holds(seconds: int, expected: int, form: int) -> None:
    stream = archive([item("f", mtime=seconds), item("n" * 120, mtime=seconds)], form)
    out, _ = through(stream)
    assert [entry[2] for entry in read(out)] == [expected, expected]
    assert [entry[0] for entry in read(out)] == ["f", "n" * 120]


def test_a_folder_from_a_time_that_engines_do_not_know_is_not_just_newer_than_the_image() -> None:
    stream = archive([item("d", type=tarfile.DIRTYPE, mtime=2**34)])
    out, _ = through(stream, newest=100)
    assert [entry[2] for entry in read(out)] == [0]


def test_only_folders_newer_than_the_image_get_its_time() -> None:
    stream = archive([item("d", type=tarfile.DIRTYPE, mtime=200), item("f", mtime=200)])
    out, _ = through(stream, newest=100)
    assert [entry[2] for entry in read(out)] == [100, 200]


def test_entries_put_first_are_first_and_counted_by_who_made_them() -> None:
    info, content = item("first", b"1")
    tally = Tally()
    tally.add(b"first", tarfile.REGTYPE)
    head = info.tobuf(tarfile.PAX_FORMAT) + content + bytes(BLOCK - 1)
    out, found = through(archive([item("later", b"2")]), first=head, tally=tally)
    assert [entry[0] for entry in read(out)] == ["first", "later"]
    assert found.inodes == 3


PART = st.sampled_from(["a", "b", "c"])
PATHS = st.sets(st.lists(PART, min_size=1, max_size=4).map("/".join), max_size=12)


@settings(max_examples=50)
@given(paths=PATHS)
def test_inodes_are_those_of_the_tree(paths: set[str]) -> None:
    inner = {path.rpartition("/")[0] for path in paths}
    members = [
        item(path, type=tarfile.DIRTYPE)
        if any(one == path or one.startswith(f"{path}/") for one in inner)
        else item(path, b"x")
        for path in sorted(paths)
    ]
    everything = {""}
    for path in paths:
        parts = path.split("/")
        everything |= {"/".join(parts[:end]) for end in range(len(parts) + 1)}
    assert through(archive(members))[1].inodes == len(everything)


def test_hard_links_are_no_inodes() -> None:
    members = [item("a", b"x"), item("b", type=tarfile.LNKTYPE, linkname="a")]
    assert through(archive(members))[1].inodes == 2


STREAM = archive([item("n" * 150, b"x" * 1000), item("large", bytes(1 << 17))])
WHOLE = len(STREAM.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK


@pytest.mark.parametrize("end", [0, 1, *range(BLOCK, 8 * BLOCK, 256), 100_000, (1 << 17) + 2000])
def test_a_stream_that_ends_early_is_damaged(end: int) -> None:
    with pytest.raises(Damaged, match="ended half-way"):
        through(STREAM[:end])


def checked(block: bytearray) -> bytes:
    """Give a header the sum of what it holds."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def with_size(text: bytes) -> bytes:
    block = bytearray(item("f")[0].tobuf())
    block[124:136] = text.ljust(12, b"\0")
    return checked(block) + bytes(2 * BLOCK)


def with_record(body: bytes) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(body)
    padded = body + bytes(-len(body) % BLOCK)
    return info.tobuf(tarfile.USTAR_FORMAT) + padded + item("f")[0].tobuf() + bytes(2 * BLOCK)


@pytest.mark.parametrize(
    "stream",
    [
        b"error: no such container".ljust(BLOCK, b"\0") + bytes(2 * BLOCK),
        with_size(b"what"),
        with_size(b"-1"),
        with_record(b"0 a=b\n"),
        with_record(b"x a=b\n"),
        with_record(b"-5 a=b\n"),
        with_record(b"900 a=b\n"),
        with_record(b"5 a=b\n"),
        with_record(b"11 size=-1\n"),
        with_record(b"14 mtime=soon\n"),
        with_record(b"13 mtime=inf\n"),
    ],
)
def test_what_is_no_tar_is_damaged(stream: bytes) -> None:
    with pytest.raises(Damaged, match="no file system"):
        through(stream)


@pytest.mark.parametrize("told", [b"\x80" + bytes(6) + b"\x02" + bytes(4)])
def test_a_size_over_8_gib_in_binary_is_read(told: bytes) -> None:
    # All of it would take a while: that more is wanted shows that the size was understood.
    with pytest.raises(Damaged, match="ended half-way"):
        through(with_size(told))


def test_a_reader_that_goes_away_is_told() -> None:
    ours, theirs = socket.socketpair()
    end, start = os.pipe()
    os.close(end)

    def feed() -> None:
        with theirs:
            theirs.sendall(archive([item("large", bytes(1 << 21))]))

    thread = threading.Thread(target=guarded(feed))
    thread.start()
    try:
        with ours, pytest.raises(BrokenPipeError):
            tar_stream.copy(ours, start)
    finally:
        os.close(start)
        thread.join(10)


def guarded(work: Callable[[], None]) -> Callable[[], None]:
    """Let the other end go away."""

    def call() -> None:
        with suppress(OSError):
            work()

    return call
