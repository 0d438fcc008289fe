"""Reads an archive of one image (docker or OCI), and streams it for an engine to load.

The image is loaded without its names, which would be taken from images in the engine. Names in OCI
archives are not read.

Formats: https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md and
https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from sifline.errors import UsageError

# The engine itself unpacks the layers; chunks are at most this large.
_CHUNK = 1 << 20
# Magic number of zstd, see https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1.
ZSTD = b"\x28\xb5\x2f\xfd"
_DEPTH = 4  # of indexes that name indexes
# Exceptions that reading a damaged file may raise.
_DAMAGE = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
    *(KeyError, ValueError, TypeError, AttributeError, RecursionError),
)
_NAME = re.compile(r"[A-Za-z0-9_./:@-]+")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """The image in an archive: ``image_id`` is its id in an engine; ``size`` in bytes.

    ``config`` and ``layers`` are members of the archive; ``names`` are its names there.
    """

    path: Path
    image_id: str
    config: str
    layers: tuple[str, ...]
    size: int
    names: tuple[str, ...] = ()


def read(path: Path, *, platform: str) -> Archive:
    """Return the single image in the archive.

    :param platform: such as ``linux/amd64``; selects the image in an OCI archive of several.
    :raises UsageError: if the file is no such archive, damaged, or contains several images.
    """
    try:
        if path.is_fifo():
            raise UsageError(f"{path}: is a pipe, and is read twice; write the archive to a file")
        with path.open("rb") as file:
            start = file.read(len(ZSTD))
        if start == ZSTD:
            raise UsageError(
                f"{path}: is compressed with zstd as a whole, and only layers in it may be;"
                f" zstd --decompress {path} makes one that is not"
            )
        with tarfile.open(path) as tar:
            members = {name.removeprefix("./") for name in tar.getnames()}
            if "manifest.json" in members:
                config, layers, names = _of_docker(tar, path)
            elif {"index.json", "oci-layout"} <= members:
                config, layers, names = _of_oci(tar, path, platform)
            else:
                raise UsageError(
                    f"{path}: is no archive of an image; docker save, or skopeo with oci-archive:,"
                    " writes one"
                )
            digest = hashlib.sha256(_read(tar, config)).hexdigest()
            size = sum(_size(_member(tar, name)) for name in layers)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    return Archive(
        path=path,
        image_id=f"sha256:{digest}",
        config=config,
        layers=layers,
        size=size,
        names=names,
    )


def stream(archive: Archive) -> Iterator[bytes]:
    """Yield a docker-archive of the image, without a name.

    :raises UsageError: if the file is damaged.
    """
    layers = {name: f"layer{number}.tar" for number, name in enumerate(archive.layers)}
    try:
        with tarfile.open(archive.path) as tar:
            yield from _packed("config.json", BytesIO(_read(tar, archive.config)))
            for member, name in layers.items():
                yield from _packed(name, _member(tar, member), plain=True)
    except _DAMAGE as error:
        raise _damaged(archive.path, error) from None
    manifest = [
        {"Config": "config.json", "RepoTags": None, "Layers": [layers[x] for x in archive.layers]}
    ]
    yield from _packed("manifest.json", BytesIO(json.dumps(manifest).encode()))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _damaged(path: Path, error: Exception) -> UsageError:
    # tarfile puts a colon and a line for each kind of tar behind what failed.
    cause = next(iter(str(error).splitlines()), type(error).__name__).rstrip(": ")
    return UsageError(f"{path}: is damaged, or no archive of an image: {cause}; save it again")


def _packed(name: str, file: IO[bytes], *, plain: bool = False) -> Iterator[bytes]:
    """Yield one member of a tar in chunks.

    :param plain: decompress zstd, which engines before 23.0 cannot.
    """
    info = tarfile.TarInfo(name)
    unpacks = plain and file.read(len(ZSTD)) == ZSTD
    info.size = sum(map(len, _unpacked(file))) if unpacks else _size(file)
    yield info.tobuf(tarfile.GNU_FORMAT)
    file.seek(0)
    if unpacks:
        yield from _unpacked(file)
    else:
        yield from iter(partial(file.read, _CHUNK), b"")
    yield bytes(-info.size % tarfile.BLOCKSIZE)


def _unpacked(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of a zstd file, of one frame or several."""
    from zstandard import ZstdDecompressor, ZstdError

    file.seek(0)
    # A truncated file ends early here; the engine checks the digest of each layer.
    reader = ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)
    try:
        yield from iter(partial(reader.read, _CHUNK), b"")
    except ZstdError as error:
        raise ValueError(str(error)) from None


def _of_docker(tar: tarfile.TarFile, path: Path) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    images = json.loads(_read(tar, "manifest.json"))
    if len(images) != 1:
        raise UsageError(f"{path}: holds {len(images)} images; save only the one that you need")
    (image,) = images
    names = tuple(image.get("RepoTags") or ())
    if not all(_NAME.fullmatch(name) for name in names):
        raise ValueError("a name in it is none")
    return image["Config"], tuple(image["Layers"] or ()), names


def _of_oci(
    tar: tarfile.TarFile, path: Path, platform: str
) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    found = _for_platform(tar, json.loads(_read(tar, "index.json")), platform)
    if len(found) != 1:
        what = "no image" if not found else f"{len(found)} images"
        raise UsageError(f"{path}: holds {what} for {platform}; save only the one that you need")
    (manifest,) = found
    layers = tuple(_blob(layer["digest"]) for layer in manifest["layers"])
    return _blob(manifest["config"]["digest"]), layers, ()


def _for_platform(
    tar: tarfile.TarFile, index: Mapping[str, Any], platform: str, depth: int = 0
) -> list[dict[str, Any]]:
    """Return the manifests of images for ``platform``; an entry may have no platform."""
    if depth > _DEPTH:
        raise ValueError("its indexes name each other")
    found = []
    for entry in index["manifests"]:
        if not for_platform(entry, platform):
            continue
        content = json.loads(_checked(tar, entry["digest"]))
        if "manifests" in content:
            found += _for_platform(tar, content, platform, depth + 1)
        elif for_platform({"platform": _config(tar, content)}, platform):
            found.append(content)
    return found


def for_platform(entry: Mapping[str, Any], platform: str) -> bool:
    """Return whether an entry of an index, or a configuration, may be for ``platform``."""
    said: Mapping[str, str] = entry.get("platform") or {}
    wanted = platform.split("/")
    return [said.get("os") or wanted[0], said.get("architecture") or wanted[1]] == wanted[:2]


def _config(tar: tarfile.TarFile, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(_checked(tar, manifest["config"]["digest"])))


def _checked(tar: tarfile.TarFile, digest: str) -> bytes:
    content = _read(tar, _blob(digest))
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise ValueError(f"{digest} has another content")
    return content


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    with _member(tar, name) as file:
        return file.read()


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open a member; some engines write a repeated layer as a link."""
    try:
        file = tar.extractfile(name)
    except KeyError:
        file = tar.extractfile(f"./{name}")  # the name if tar was given a folder
    if file is None:
        raise ValueError(f"{name} is no file")
    return file


def _size(file: IO[bytes]) -> int:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    return size
