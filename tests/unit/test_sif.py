from __future__ import annotations

import os
import struct
from datetime import datetime, timezone
from pathlib import Path

import pytest

from sifline.errors import UsageError
from sifline.formats import sif
from sifline.stages.convert.state import info
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner
from tests.support.sif_files import DATA, SQUASHFS, TABLE, labels_object, write


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "whole.sif", [labels_object({"org.sifline.commit": "abc"}), SQUASHFS])


def test_whole_file_is_read(whole: Path) -> None:
    found = sif.read(whole)
    assert (found.version, found.architecture, found.created) == ("01", "amd64", 1_700_000_000)
    assert found.id == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert found.size == whole.stat().st_size
    assert [(item.id, item.kind) for item in found.objects] == [(1, 0x4006), (2, 0x4004)]


def test_labels_are_those_that_were_stored(whole: Path) -> None:
    assert sif.labels(sif.read(whole)) == {"org.sifline.commit": "abc"}


def test_file_without_label_object_has_no_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "plain.sif", [SQUASHFS])
    assert sif.labels(sif.read(path)) == {}


def test_label_object_without_labels_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "none.sif", [labels_object(None), SQUASHFS])
    assert sif.labels(sif.read(path)) == {}


def test_labels_that_are_no_json_are_damage(tmp_path: Path) -> None:
    broken = (int(sif.Kind.JSON), "inspect-metadata.json", b"{broken")
    path = write(tmp_path / "broken.sif", [broken, SQUASHFS])
    with pytest.raises(UsageError, match=r"broken\.sif: is a damaged SIF: its labels"):
        sif.labels(sif.read(path))


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"hsqs" + bytes(9000), b"x" * 32 + b"SIF_MAGI"]
)
def test_other_files_are_no_sif(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.sif"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"other\.sif: is not a SIF"):
        sif.read(path)


def test_every_shorter_file_is_truncated(whole: Path) -> None:
    content = whole.read_bytes()
    for length in (42, 100, 127, 128, TABLE, DATA - 1, DATA, DATA + 50, len(content) - 1):
        whole.write_bytes(content[:length])
        with pytest.raises(UsageError, match="is truncated"):
            sif.read(whole)


def test_object_beyond_the_end_is_truncation_whatever_the_header_says(tmp_path: Path) -> None:
    path = write(tmp_path / "short.sif", [SQUASHFS], length=0)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="is truncated"):
        sif.read(path)


@pytest.mark.parametrize(
    "header", [{"total": 0}, {"total": -1}, {"total": 1 << 40}, {"table": -5}, {"length": -1}]
)
def test_header_that_makes_no_sense_is_damage(tmp_path: Path, header: dict[str, int]) -> None:
    path = write(tmp_path / "odd.sif", [SQUASHFS], **header)
    with pytest.raises(UsageError, match=r"odd\.sif: is a damaged SIF"):
        sif.read(path)


def test_file_without_a_file_system_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "empty.sif", [labels_object({})])
    with pytest.raises(UsageError, match="it holds no file system"):
        sif.read(path)


def test_partition_that_is_no_squashfs_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "zeros.sif", [(int(sif.Kind.PARTITION), "", bytes(5000))])
    with pytest.raises(UsageError, match="object 1 is not the squashfs"):
        sif.read(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.sif: cannot be read: No such file"):
        sif.read(tmp_path / "gone.sif")


@pytest.mark.parametrize("created", [-1, 1 << 62, sif.LATEST + 1])
def test_a_time_that_no_calendar_has_is_none(tmp_path: Path, created: int) -> None:
    path = write(tmp_path / "old.sif", [SQUASHFS], created=created)
    assert sif.read(path).created == 0


def test_the_last_time_of_the_calendar_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "late.sif", [SQUASHFS], created=sif.LATEST)
    assert sif.read(path).created == sif.LATEST
    datetime.fromtimestamp(sif.LATEST, timezone.utc)


def test_a_pipe_is_no_sif_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.sif")
    with pytest.raises(UsageError, match=r"pipe\.sif: is no ordinary file"):
        sif.read(tmp_path / "pipe.sif")


def test_a_link_to_a_sif_is_read_and_one_to_nothing_named(whole: Path) -> None:
    link = whole.with_name("link.sif")
    link.symlink_to(whole.name)
    assert sif.read(link).size == whole.stat().st_size
    whole.unlink()
    with pytest.raises(UsageError, match=r"link\.sif: cannot be read: No such file"):
        sif.read(link)


def test_a_folder_is_no_sif(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        sif.read(tmp_path)


def of_another_system(path: Path, system: int, *more: tuple[int, str, bytes]) -> Path:
    """Write a SIF whose file system, its first object, is said to be of that kind."""
    content = bytearray(write(path, [SQUASHFS, *more]).read_bytes())
    # The first word of what the kind of the first object has of its own.
    struct.pack_into("<i", content, TABLE + struct.calcsize("<i?III7q128s"), system)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("system", "name"), [(2, "ext3"), (5, "encrypted"), (77, "unknown")])
def test_info_says_that_the_file_system_is_none_it_reads(
    tmp_path: Path, system: int, name: str
) -> None:
    path = of_another_system(tmp_path / "old.sif", system)
    with pytest.raises(
        UsageError, match=rf"old\.sif: its file system is no plain squashfs \({name}"
    ):
        # A runner that starts nothing: nobody asks Apptainer.
        info(path, context_of(tmp_path, RecordingRunner()))


@pytest.mark.parametrize(("system", "name"), [(1, "squashfs"), (5, "encrypted squashfs")])
def test_info_names_the_file_system_beside_the_labels(
    tmp_path: Path, system: int, name: str
) -> None:
    path = of_another_system(tmp_path / "x.sif", system, labels_object({"a": "b"}))

    found = info(path, context_of(tmp_path, RecordingRunner()))

    assert (found["file_system"], found["labels"]) == (name, {"a": "b"})
