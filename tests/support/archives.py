"""Images put together entry by entry, and loaded into the engine: a build cannot make all of them.

Format: https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import IO, Any

# 2023-11-14, and not a time that anything here is made at.
DAY = 1_700_000_000
CREATED = "2024-02-29T12:34:56.789Z"
XATTR = "SCHILY.xattr."


@dataclass(frozen=True, kw_only=True)
class Item:
    """One entry of a layer."""

    info: tarfile.TarInfo
    content: bytes = b""


def item(
    name: str | bytes,
    kind: bytes = tarfile.REGTYPE,
    *,
    mode: int = 0o644,
    owner: tuple[int, int] = (0, 0),
    content: bytes = b"",
    target: str | bytes = "",
    device: tuple[int, int] = (0, 0),
    mtime: int = DAY,
    xattrs: Mapping[str, bytes] | None = None,
) -> Item:
    """Return an entry of any kind; a file unless said."""
    info = tarfile.TarInfo(_text(name))
    info.type, info.mode, info.mtime, info.size = kind, mode, mtime, len(content)
    info.uid, info.gid = owner
    info.linkname = _text(target)
    info.devmajor, info.devminor = device
    info.pax_headers = {XATTR + key: _text(value) for key, value in (xattrs or {}).items()}
    return Item(info=info, content=content)


def folder(name: str | bytes, mode: int = 0o755, **options: Any) -> Item:
    return item(name, tarfile.DIRTYPE, mode=mode, **options)


def hard(name: str | bytes, first: Item) -> Item:
    """Return one more name of ``first``; engines give an inode what its last name says."""
    info = copy(first.info)
    info.name, info.type, info.linkname, info.size = _text(name), tarfile.LNKTYPE, info.name, 0
    return Item(info=info)


def soft(name: str | bytes, target: str | bytes, **options: Any) -> Item:
    return item(name, tarfile.SYMTYPE, mode=0o777, target=target, **options)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def layer(items: Iterable[Item]) -> bytes:
    """Return a layer of an image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in items:
            tar.addfile(entry.info, io.BytesIO(entry.content))
    return buffer.getvalue()


def load(tag: str, layers: Sequence[bytes], config: Mapping[str, Any], **more: Any) -> None:
    """Make an image of the name ``tag`` in the engine; ``more`` is of its description."""
    argv = ["docker", "load", "--quiet"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        with process.stdin as stream:
            archive(stream, tag, layers, config, **more)
    assert process.returncode == 0


def archive(
    stream: IO[bytes], tag: str, layers: Sequence[bytes], config: Mapping[str, Any], **more: Any
) -> None:
    """Write an image as ``docker save`` does."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    description = {
        "architecture": "amd64",
        "os": "linux",
        "created": CREATED,
        "config": config,
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers],
        },
        "history": [{"created": CREATED, "created_by": "a test"} for _ in layers],
        **more,
    }
    manifest = [{"Config": "config.json", "RepoTags": [f"{tag}:latest"], "Layers": names}]
    files = {
        "config.json": json.dumps(description).encode(),
        "manifest.json": json.dumps(manifest).encode(),
        **dict(zip(names, layers, strict=True)),
    }
    with tarfile.open(fileobj=stream, mode="w|") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
