"""Reads and writes SIF files without Apptainer: integrity, data objects, labels.

The layout is that of the reference implementation, ``pkg/sif/sif.go`` in apptainer/sif and
sylabs/sif: a global header, a table of descriptors, the data objects. All numbers are little
endian and unaligned. One module, because reading and writing share these structures.
"""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from sifline.errors import UsageError
from sifline.formats import squashfs

MAGIC = b"SIF_MAGIC"
LABELS_OBJECT = "inspect-metadata.json"
# Label with the digest of the image; SIFs of older versions have the engine's id instead.
_IMAGE_LABELS = ("org.sifline.image-digest", "org.sifline.image-id")
CONFIGURATION = "oci-config.json"

# launch 32s, magic 10s, version 3s, architecture 3s, id 16s; times of creation and change;
# descriptors free and in all; offset and size of the descriptors, offset and size of the data.
_HEADER = struct.Struct("<32s10s3s3s16s8q")
# kind, used, id, group, link; offset, size, size with alignment; two times, owner, group; name,
# and fields of the kind.
_DESCRIPTOR = struct.Struct("<i?III7q128s384s")
# Fields of a partition: file system, purpose, architecture.
_PARTITION = struct.Struct("<ii3s")
# A larger table means a damaged file: tables are created with 48 descriptors.
_MOST_DESCRIPTORS = 4096
_SQUASHFS = 1
# Types of file systems, ``Fstype`` of the reference implementation.
_SYSTEMS = {1: "squashfs", 2: "ext3", 3: "archive", 4: "raw data", 5: "encrypted squashfs"}
ARCHITECTURES = {"01": "386", "02": "amd64", "03": "arm", "04": "arm64", "06": "ppc64le"} | {
    "11": "s390x",
    "12": "riscv64",
}
# The last second of the year 9999, the last that Python's calendar has.
LATEST = 253_402_300_799
# Values that Apptainer writes into files of its own.
_TABLE, _DATA, _DESCRIPTORS, _PAGE = 4096, 32176, 48, 4096
_LAUNCH, _VERSION, _GROUP, _SYSTEM = b"#!/usr/bin/env run-singularity\n", b"01", 0xF0000001, 2
MODE = 0o755


class Kind(IntEnum):
    """The type of a data object; unknown numbers are kept as they are."""

    DEFINITION = 0x4001
    ENVIRONMENT = 0x4002
    LABELS = 0x4003
    PARTITION = 0x4004
    SIGNATURE = 0x4005
    JSON = 0x4006
    GENERIC = 0x4007


@dataclass(frozen=True, kw_only=True)
class SifObject:
    """One data object. ``offset`` and ``size`` in bytes; ``extra`` belongs to its kind."""

    id: int
    kind: int
    name: str
    offset: int
    size: int
    extra: bytes


@dataclass(frozen=True, kw_only=True)
class SifFile:
    """A complete SIF.

    ``size`` in bytes, ``created`` in seconds since 1970: 0 for times outside the calendar.
    """

    path: Path
    version: str
    architecture: str
    id: str
    created: int
    size: int
    objects: tuple[SifObject, ...]


def read(path: Path) -> SifFile:
    """Read header and descriptors of ``path``, and check that the file is complete.

    :raises UsageError: if it cannot be read, is not a SIF, or is truncated or damaged.
    """
    try:
        # Opening a pipe would wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"{path}: is no ordinary file, so no SIF; name the SIF itself")
            return _read(path, file)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def labels(sif: SifFile) -> dict[str, str]:
    """Return the labels that Apptainer stored when it built the file; {} if there are none.

    :raises UsageError: if they cannot be read.
    """
    for item in sif.objects:
        if item.kind == Kind.JSON and item.name == LABELS_OBJECT:
            with sif.path.open("rb") as file:
                file.seek(item.offset)
                return _labels(sif.path, file.read(item.size))
    return {}


def image_digest(found: Mapping[str, str]) -> str:
    """Return the digest of the SIF's image, from its labels; "" if they have none."""
    return next((found[name] for name in _IMAGE_LABELS if name in found), "")


def configuration(sif: SifFile) -> dict[str, Any] | None:
    """Return the configuration of the OCI image of a SIF; None if it contains none.

    :raises UsageError: if it cannot be read.
    """
    for part in parts(sif):
        if part.name == CONFIGURATION:
            with suppress(ValueError):
                found = json.loads(part.content)
                if isinstance(found, dict):
                    return found
            raise UsageError(
                f"{sif.path}: is a damaged SIF: its configuration cannot be read;"
                " copy or convert it again"
            )
    return None


def workdir(sif: SifFile) -> str:
    """Return the working directory (WORKDIR) of the image of a SIF."""
    return str((configuration(sif) or {}).get("WorkingDir") or "/")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A data object that fits in memory: all except the file system."""

    kind: int
    name: str = ""
    content: bytes


def parts(sif: SifFile) -> tuple[Part, ...]:
    """Return the data objects of ``sif`` except its file systems, in their order."""
    with sif.path.open("rb") as file:
        found = []
        for item in sif.objects:
            if item.kind != Kind.PARTITION:
                file.seek(item.offset)
                content = file.read(item.size)
                found.append(Part(kind=item.kind, name=item.name, content=content))
        return tuple(found)


def system(sif: SifFile) -> SifObject:
    """Return the object that holds the file system.

    :raises UsageError: if it is not a squashfs, but encrypted, or of an old kind.
    """
    for item in sif.objects:
        if item.kind == Kind.PARTITION and _PARTITION.unpack_from(item.extra)[0] == _SQUASHFS:
            return item
    raise UsageError(
        f"{sif.path}: its file system is no plain squashfs ({file_system(sif)}); it cannot be read"
    )


def file_system(sif: SifFile) -> str:
    """Return the type of the first file system in ``sif``, such as ``squashfs``."""
    (first, *_) = (item for item in sif.objects if item.kind == Kind.PARTITION)
    return _SYSTEMS.get(_PARTITION.unpack_from(first.extra)[0], "unknown")


def room(held: Sequence[Part]) -> int:
    """Return the offset of the squashfs in a SIF with these parts, in bytes."""
    end = _DATA + sum(len(part.content) for part in held)
    return -(-end // _PAGE) * _PAGE


def complete(
    path: Path, held: Sequence[Part], *, identity: UUID, created: int, architecture: str
) -> None:
    """Complete the SIF file ``path``, which has its squashfs at ``room(held)`` already.

    The bytes before the squashfs depend only on the arguments.

    :param created: seconds since 1970.
    :raises UsageError: for an architecture that the SIF format does not know.
    """
    numbers = {name: number for number, name in ARCHITECTURES.items()}
    if architecture not in numbers:
        what = f"the architecture {architecture}" if architecture else "an unnamed architecture"
        raise UsageError(f"a SIF cannot be made for {what}; use --method apptainer")
    code = numbers[architecture].encode()
    start, size, at = room(held), path.stat().st_size, _DATA
    table, data = b"", b""
    for number, part in enumerate(held, start=1):
        length = len(part.content)
        place = (at, length, length)
        table += _descriptor(number, part.kind, place, created, name=part.name)
        data += part.content
        at += length
    extra = _PARTITION.pack(_SQUASHFS, _SYSTEM, code)
    place = (start, size - start, size - at)
    table += _descriptor(len(held) + 1, Kind.PARTITION, place, created, extra=extra)
    free = _DESCRIPTORS - len(held) - 1
    length = _DESCRIPTORS * _DESCRIPTOR.size
    sizes = (created, created, free, _DESCRIPTORS, _TABLE, length, _DATA, size - _DATA)
    header = _HEADER.pack(_LAUNCH, MAGIC, _VERSION, code, identity.bytes, *sizes)
    front = header.ljust(_TABLE, b"\0") + table.ljust(length, b"\0") + data
    with path.open("r+b") as file:
        file.write(front.ljust(start, b"\0"))
    path.chmod(MODE)


def _descriptor(
    number: int,
    kind: int,
    place: tuple[int, int, int],
    created: int,
    *,
    name: str = "",
    extra: bytes = b"",
) -> bytes:
    """Return one entry of the table; ``place`` is offset, size, and size with alignment."""
    owner, linked = (0, 0), 0
    numbers = (kind, True, number, _GROUP, linked, *place, created, created, *owner)
    return _DESCRIPTOR.pack(*numbers, name.encode(), extra)


def _labels(path: Path, text: bytes) -> dict[str, str]:
    try:
        found = json.loads(text)["data"]["attributes"].get("labels") or {}
        return {str(key): str(value) for key, value in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path, "its labels cannot be read") from None


def _read(path: Path, file: IO[bytes]) -> SifFile:
    start = file.read(_HEADER.size)
    if start[32 : 32 + len(MAGIC)] != MAGIC:
        raise UsageError(f"{path}: is not a SIF; invoke convert.<image> makes one of an image")
    size = os.fstat(file.fileno()).st_size
    if len(start) < _HEADER.size:
        raise _truncated(path, size, _HEADER.size)
    _, _, version, architecture, identity, created, _, _, total, table, _, data, length = (
        _HEADER.unpack(start)
    )
    if not 0 < total <= _MOST_DESCRIPTORS or min(table, data, length) < 0:
        raise _damaged(path, "its header makes no sense")
    needed = max(table + total * _DESCRIPTOR.size, data + length)
    if size < needed:
        raise _truncated(path, size, needed)
    file.seek(table)
    objects = _objects(file.read(total * _DESCRIPTOR.size))
    _check_objects(path, file, objects, size)
    code = _text(architecture)
    return SifFile(
        path=path,
        version=_text(version),
        architecture=ARCHITECTURES.get(code, code),
        id=str(UUID(bytes=identity)),
        created=created if 0 <= created <= LATEST else 0,
        size=size,
        objects=objects,
    )


def _objects(table: bytes) -> tuple[SifObject, ...]:
    found = []
    for kind, used, number, _, _, offset, size, *_, name, extra in _DESCRIPTOR.iter_unpack(table):
        if used:
            found.append(
                SifObject(
                    id=number, kind=kind, name=_text(name), offset=offset, size=size, extra=extra
                )
            )
    return tuple(found)


def _check_objects(path: Path, file: IO[bytes], objects: tuple[SifObject, ...], size: int) -> None:
    for item in objects:
        if item.offset < 0 or item.size < 0:
            raise _damaged(path, f"object {item.id} has an impossible place")
        if item.offset + item.size > size:
            raise _truncated(path, size, item.offset + item.size)
    partitions = [item for item in objects if item.kind == Kind.PARTITION]
    if not partitions:
        raise _damaged(path, "it holds no file system")
    for item in partitions:
        file.seek(item.offset)
        system, _, _ = _PARTITION.unpack_from(item.extra)
        if system == _SQUASHFS and file.read(len(squashfs.MAGIC)) != squashfs.MAGIC:
            raise _damaged(path, f"object {item.id} is not the squashfs it should be")


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _truncated(path: Path, size: int, needed: int) -> UsageError:
    return UsageError(
        f"{path}: is truncated: {size} bytes of at least {needed}; copy or convert it again"
    )


def _damaged(path: Path, what: str) -> UsageError:
    return UsageError(f"{path}: is a damaged SIF: {what}; copy or convert it again")
