"""SIF files read without Apptainer: whether one is whole, what it holds, its labels.

The layout is that of the reference implementation, ``pkg/sif/sif.go`` in apptainer/sif and
sylabs/sif: a global header, a table of descriptors, the data objects. All numbers are little
endian and unaligned.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import IO
from uuid import UUID

from sifline.errors import UsageError

MAGIC = b"SIF_MAGIC"
SQUASHFS_MAGIC = b"hsqs"
LABELS_OBJECT = "inspect-metadata.json"

# launch 32s, magic 10s, version 3s, architecture 3s, id 16s; times of creation and change;
# descriptors free and in all; offset and size of the descriptors, offset and size of the data.
_HEADER = struct.Struct("<32s10s3s3s16s8q")
# kind, used, id, group, link; offset, size, size with alignment; two times, owner, group;
# name, and what the kind has of its own.
_DESCRIPTOR = struct.Struct("<i?III7q128s384s")
# Of a partition: file system, purpose, architecture.
_PARTITION = struct.Struct("<ii3s")
# A table larger than this is damage, not data: files are made with 48 descriptors.
_MOST_DESCRIPTORS = 4096
_SQUASHFS = 1
_ARCHITECTURES = {"01": "386", "02": "amd64", "03": "arm", "04": "arm64", "06": "ppc64le"}


class Kind(IntEnum):
    """What a data object is; other numbers occur and are kept as they are."""

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
    """A whole SIF. ``created`` is in seconds since 1970, ``size`` in bytes."""

    path: Path
    version: str
    architecture: str
    id: str
    created: int
    size: int
    objects: tuple[SifObject, ...]


def read(path: Path) -> SifFile:
    """Read header and descriptors of ``path`` and make sure that all of it is there.

    :raises UsageError: where it cannot be read, is no SIF, is truncated or damaged.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def labels(sif: SifFile) -> dict[str, str]:
    """Return the labels Apptainer stored when it built the file; {} where it stored none.

    :raises UsageError: where they cannot be read.
    """
    for item in sif.objects:
        if item.kind == Kind.JSON and item.name == LABELS_OBJECT:
            with sif.path.open("rb") as file:
                file.seek(item.offset)
                return _labels(sif.path, file.read(item.size))
    return {}


def _labels(path: Path, text: bytes) -> dict[str, str]:
    try:
        found = json.loads(text)["data"]["attributes"].get("labels") or {}
        return {str(key): str(value) for key, value in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _damaged(path, "its labels cannot be read") from None


def _read(path: Path, file: IO[bytes]) -> SifFile:
    start = file.read(_HEADER.size)
    if start[32 : 32 + len(MAGIC)] != MAGIC:
        raise UsageError(f"{path}: is not a SIF; invoke convert makes one of an image")
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
        architecture=_ARCHITECTURES.get(code, code),
        id=str(UUID(bytes=identity)),
        created=created,
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
        if system == _SQUASHFS and file.read(len(SQUASHFS_MAGIC)) != SQUASHFS_MAGIC:
            raise _damaged(path, f"object {item.id} is not the squashfs it should be")


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _truncated(path: Path, size: int, needed: int) -> UsageError:
    return UsageError(
        f"{path}: is truncated: {size} bytes of at least {needed}; copy or convert it again"
    )


def _damaged(path: Path, what: str) -> UsageError:
    return UsageError(f"{path}: is a damaged SIF: {what}; copy or convert it again")
