"""Reads the superblock of a squashfs: its magic, its number of inodes, its compression.

Format: ``Documentation/filesystems/squashfs.rst`` of Linux and ``fs/squashfs/squashfs_fs.h``.
"""

from __future__ import annotations

import re
import struct

from sifline.errors import StepFailed

MAGIC = b"hsqs"
# magic, inodes, time, block size, fragments; compression, block log, flags, ids, major, minor;
# root inode, bytes used, and the positions of the tables.
_SUPERBLOCK = struct.Struct("<4s4I6H8q")
HEAD = _SUPERBLOCK.size
COMPRESSIONS = {1: "gzip", 2: "lzma", 3: "lzo", 4: "xz", 5: "lz4", 6: "zstd"}
_VERSION = re.compile(r"version (\d[\w.-]*)")


def inodes(head: bytes) -> int:
    """Return the number of inodes in the superblock of a squashfs.

    :raises StepFailed: if it is not a superblock.
    """
    if len(head) < HEAD or not head.startswith(MAGIC):
        raise StepFailed("what was packed is no squashfs; is the disk sound? Run it again")
    return int(_SUPERBLOCK.unpack(head)[1])


def compression(head: bytes) -> str:
    """Return how a squashfs is compressed, such as ``zstd``; "" if that is unknown."""
    if len(head) < HEAD or not head.startswith(MAGIC):
        return ""
    return COMPRESSIONS.get(_SUPERBLOCK.unpack(head[:HEAD])[5], "")


def version(printed: str) -> str:
    """Return the version of squashfs-tools from the output of ``sqfstar -version``."""
    match = _VERSION.search(printed)
    return match[1] if match else printed.strip()
