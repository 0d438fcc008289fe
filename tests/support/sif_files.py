"""SIFs written object by object: whole ones, and broken ones on purpose."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from sifline.formats import sif

TABLE, DATA = 4096, 32176
DESCRIPTOR = "<i?III7q128s384s"


def descriptor(kind: int, number: int, offset: int, size: int, name: str = "") -> bytes:
    extra = struct.pack("<ii3s", 1, 2, b"02") if kind == sif.Kind.PARTITION else b""
    return struct.pack(
        DESCRIPTOR,
        *(kind, True, number, 0xF0000001, 0, offset, size, size, 7, 7, 0, 0),
        *(name.encode(), extra),
    )


def write(path: Path, objects: list[tuple[int, str, bytes]], **header: int) -> Path:
    """Write a SIF as Apptainer lays it out, with ``header`` values put in on purpose."""
    table, data, place = b"", b"", DATA
    for number, (kind, name, content) in enumerate(objects, start=1):
        table += descriptor(kind, number, place, len(content), name)
        data += content
        place += len(content)
    start = struct.pack(
        "<32s10s3s3s16s8q",
        *(b"#!/usr/bin/env run-singularity\n", b"SIF_MAGIC", b"01", b"02", bytes(range(16))),
        *(header.get("created", 1_700_000_000), 1_700_000_000),
        *(48 - len(objects), header.get("total", 48)),
        *(header.get("table", TABLE), len(table), DATA, header.get("length", len(data))),
    )
    path.write_bytes(start.ljust(TABLE, b"\0") + table.ljust(DATA - TABLE, b"\0") + data)
    return path


def labels_object(labels: object) -> tuple[int, str, bytes]:
    content = json.dumps({"data": {"attributes": {"labels": labels}}, "type": "container"})
    return sif.Kind.JSON, "inspect-metadata.json", content.encode()


SQUASHFS = (int(sif.Kind.PARTITION), "", b"hsqs" + bytes(5000))
