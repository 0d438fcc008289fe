from __future__ import annotations

import struct

import pytest

from sifline.errors import StepFailed
from sifline.formats import squashfs

HEAD = struct.pack("<4s4I", b"hsqs", 4711, 0, 131072, 0).ljust(squashfs.HEAD, b"\0")


def test_inodes_are_those_of_the_superblock() -> None:
    assert squashfs.inodes(HEAD) == 4711


@pytest.mark.parametrize("head", [b"", HEAD[:-1], b"x" + HEAD[1:], bytes(squashfs.HEAD)])
def test_what_is_no_squashfs_is_refused(head: bytes) -> None:
    with pytest.raises(StepFailed, match="no squashfs"):
        squashfs.inodes(head)


def test_the_version_is_read_off_the_first_line() -> None:
    assert squashfs.version("sqfstar version 4.6.1 (2023/03/25)\n") == "4.6.1"
