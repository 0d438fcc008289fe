"""Prints the architecture and the compression in a SIF's head; Python 3.9's standard library only.

``sif_head.py FILE`` prints ``{"architecture": "02", "compression": 6}``: the numbers of the SIF
and squashfs formats; null where the file names none. Layout: ``sifline/formats/sif.py``.
"""

from __future__ import annotations

import json
import struct
import sys

_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<i?III7q128s384s")
_PARTITION, _MOST = 0x4004, 4096
# Where the superblock of a squashfs has the number of its compression.
_COMPRESSION = 20


def main(arguments: list[str]) -> int:
    """Print the head of the SIF."""
    with open(arguments[0], "rb") as file:
        head = _HEADER.unpack(file.read(_HEADER.size))
        count, place = min(head[8], _MOST), head[9]
        file.seek(place)
        table = file.read(count * _DESCRIPTOR.size)
        rows = (
            _DESCRIPTOR.unpack_from(table, at)
            for at in range(0, len(table) - _DESCRIPTOR.size + 1, _DESCRIPTOR.size)
        )
        start = next((row[5] for row in rows if row[1] and row[0] == _PARTITION), None)
        compression = None
        if start is not None:
            file.seek(start)
            block = file.read(_COMPRESSION + 2)
            if block.startswith(b"hsqs"):
                compression = struct.unpack_from("<H", block, _COMPRESSION)[0]
    print(json.dumps({"architecture": head[3][:2].decode("ascii"), "compression": compression}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
