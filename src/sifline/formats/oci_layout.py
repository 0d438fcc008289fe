"""Converts docker-archives to OCI image layouts, without compressing the layers.

Apptainer reads both, but converts an archive to a layout and gzips every layer, only to unpack
them in the next step: giving it a layout saves most of a conversion's time.

Formats: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md and, for the
archive, https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from sifline.errors import StepFailed
from sifline.formats.image_archive import ZSTD

_OCI = "application/vnd.oci.image."
# How a compressed layer begins.
_COMPRESSIONS = ((b"\x1f\x8b", "+gzip"), (ZSTD, "+zstd"))
_CHUNK = 1 << 20
# The creation time that some engines report for an image without one.
_NO_TIME = "0001-01-01T00:00:00"
# Those of https://github.com/opencontainers/image-spec/blob/v1.1.0/config.md.
_SETTINGS = (
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels"),
    "StopSignal",
)


def from_archive(archive: Path, layout: Path) -> None:
    """Write the image of the docker-archive ``archive`` as an OCI layout, the folder ``layout``.

    :raises StepFailed: if the archive is damaged: each layer is compared with its digest.
    :raises OSError: if the disk is full.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            manifest = _manifest(tar, blobs)
    except (tarfile.TarError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise StepFailed(
            f"the image the engine saved as {archive} is damaged: {error}; convert it again"
        ) from None
    _finish(layout, manifest)


def without_files(layout: Path, image: Mapping[str, Any]) -> None:
    """Write an OCI layout of an image with the settings of ``image`` and no files.

    :param image: the engine's metadata: ``Architecture``, ``Os`` and ``Config``.
    """
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer = _blob(blobs, bytes(2 * tarfile.BLOCKSIZE), f"{_OCI}layer.v1.tar")
    config = _configuration(image, [layer["digest"]])
    _finish(layout, _image(blobs, json.dumps(config).encode(), [layer]))


def identity(image: Mapping[str, Any]) -> str:
    """Return a digest of an image's layers and configuration, the same on every engine.

    An engine's id is the digest of its configuration file, manifest or index, and may differ after
    each build.

    :param image: the engine's metadata of the image.
    """
    layers = (image.get("RootFS") or {}).get("Layers") or []
    created = str(image.get("Created") or "")[:19]
    told = _configuration(image, layers) | {"created": "" if created == _NO_TIME else created}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _configuration(image: Mapping[str, Any], diff_ids: Sequence[str]) -> dict[str, Any]:
    """Return an image's configuration without fields that some engines omit or leave empty."""
    config = image.get("Config") or {}
    return {
        "architecture": image.get("Architecture", ""),
        "os": image.get("Os", ""),
        "config": {key: config[key] for key in _SETTINGS if config.get(key)},
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids]},
    }


def _manifest(tar: tarfile.TarFile, blobs: Path) -> dict[str, Any]:
    """Write the blobs of the archive's image; return the descriptor of its manifest."""
    (image,) = json.loads(_member(tar, "manifest.json").read())
    text = _member(tar, image["Config"]).read()
    config = json.loads(text)
    names, expected = image["Layers"] or [], config["rootfs"].get("diff_ids") or []
    if len(names) != len(expected):
        raise ValueError(f"it has {len(names)} layers instead of {len(expected)}")
    layers = [
        _layer(_member(tar, name), digest, blobs)
        for name, digest in zip(names, expected, strict=True)
    ]
    return _image(blobs, text, layers)


def _image(blobs: Path, config: bytes, layers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write an image's configuration and manifest; return the descriptor of the manifest."""
    kind = f"{_OCI}manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": _blob(blobs, config, f"{_OCI}config.v1+json"),
        "layers": layers,
    }
    return _blob(blobs, json.dumps(manifest).encode(), kind)


def _finish(layout: Path, manifest: dict[str, Any]) -> None:
    """Write the files that name the manifest, after everything they refer to."""
    _write(layout / "index.json", {"schemaVersion": 2, "manifests": [manifest]})
    _write(layout / "oci-layout", {"imageLayoutVersion": "1.0.0"})


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open a member; some engines write a repeated layer as a link."""
    file = tar.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file


def _layer(source: IO[bytes], expected: str, blobs: Path) -> dict[str, Any]:
    """Copy a layer; return its descriptor. ``expected`` is the digest of the plain layer."""
    temporary = blobs / "layer"
    hashed, size, start = hashlib.sha256(), 0, b""
    with source, temporary.open("wb") as file:
        while chunk := source.read(_CHUNK):
            start = start or chunk[:4]
            hashed.update(chunk)
            size += file.write(chunk)
    digest = f"sha256:{hashed.hexdigest()}"
    kinds = [name for magic, name in _COMPRESSIONS if start.startswith(magic)]
    if digest != expected and not kinds:
        raise ValueError(f"layer {expected} has the digest {digest}")
    temporary.replace(blobs / hashed.hexdigest())
    kind = "" if digest == expected else kinds[0]
    return {"mediaType": f"{_OCI}layer.v1.tar{kind}", "digest": digest, "size": size}


def _blob(blobs: Path, content: bytes, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    (blobs / digest).write_bytes(content)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
