"""Archives of images as the engine saves them, of layers that need be no layers."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

LAYER = b"not really a tar"
OTHER = b"another one"


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def archive(
    path: Path,
    layers: list[bytes],
    diff_ids: list[str] | None = None,
    links: dict[str, str] | None = None,
) -> Path:
    """A docker-archive as the engine writes it: layers first, what describes them last."""
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    diff_ids = [digest(layer) for layer in layers] if diff_ids is None else diff_ids
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": diff_ids}}
    manifest = [{"Config": "config.json", "Layers": [*names, *(links or {})]}]
    files = {
        **dict(zip(names, layers, strict=True)),
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return path
