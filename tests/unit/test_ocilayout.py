from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sifline import ocilayout
from sifline.errors import StepFailed

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


def layers_of(layout: Path) -> list[dict[str, Any]]:
    """The layers' descriptors, found as a reader of the format finds them."""
    index = json.loads((layout / "index.json").read_text())
    return list(json.loads(blob(layout, index["manifests"][0]["digest"]))["layers"])


def blob(layout: Path, name: str) -> bytes:
    return layout.joinpath("blobs", *name.split(":")).read_bytes()


def test_layers_stay_as_they_are_and_in_order(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    ocilayout.from_archive(archive(tmp_path / "image.tar", [LAYER, OTHER]), layout)

    found = layers_of(layout)

    assert [blob(layout, layer["digest"]) for layer in found] == [LAYER, OTHER]
    assert [layer["size"] for layer in found] == [len(LAYER), len(OTHER)]
    assert {layer["mediaType"] for layer in found} == {"application/vnd.oci.image.layer.v1.tar"}


def test_every_blob_has_the_digest_that_names_it(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    ocilayout.from_archive(archive(tmp_path / "image.tar", [LAYER, OTHER]), layout)
    blobs = list((layout / "blobs" / "sha256").iterdir())
    assert len(blobs) == 4
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in blobs] == [
        path.name for path in blobs
    ]


def test_a_layer_that_occurs_again_as_a_link_is_followed(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    made = archive(
        tmp_path / "image.tar",
        [LAYER],
        [digest(LAYER), digest(LAYER)],
        {"1/layer.tar": "../0/layer.tar"},
    )
    ocilayout.from_archive(made, layout)
    assert [layer["digest"] for layer in layers_of(layout)] == [digest(LAYER)] * 2


def test_a_compressed_layer_is_declared_as_such(tmp_path: Path) -> None:
    layout, packed = tmp_path / "layout", gzip.compress(LAYER)
    ocilayout.from_archive(archive(tmp_path / "image.tar", [packed], [digest(LAYER)]), layout)
    (layer,) = layers_of(layout)
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert layer["digest"] == digest(packed)


def test_a_layer_with_another_content_is_refused(tmp_path: Path) -> None:
    made = archive(tmp_path / "image.tar", [LAYER], [digest(OTHER)])
    with pytest.raises(StepFailed, match=f"is damaged: layer {digest(OTHER)} has the digest"):
        ocilayout.from_archive(made, tmp_path / "layout")


def test_an_archive_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    made = archive(tmp_path / "image.tar", [LAYER], [digest(LAYER), digest(OTHER)])
    with pytest.raises(StepFailed, match="has 1 layers instead of 2"):
        ocilayout.from_archive(made, tmp_path / "layout")


@pytest.mark.parametrize("keep", [0, 700, 1600])
def test_a_truncated_archive_is_refused(tmp_path: Path, keep: int) -> None:
    made = archive(tmp_path / "image.tar", [LAYER, OTHER])
    made.write_bytes(made.read_bytes()[:keep])
    with pytest.raises(StepFailed, match="is damaged"):
        ocilayout.from_archive(made, tmp_path / "layout")
