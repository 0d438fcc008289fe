from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sifline.errors import StepFailed
from sifline.formats import oci_layout
from tests.support.engine_archives import LAYER, OTHER, archive, digest


def layers_of(layout: Path) -> list[dict[str, Any]]:
    """The layers' descriptors, found as a reader of the format finds them."""
    index = json.loads((layout / "index.json").read_text())
    return list(json.loads(blob(layout, index["manifests"][0]["digest"]))["layers"])


def blob(layout: Path, name: str) -> bytes:
    return layout.joinpath("blobs", *name.split(":")).read_bytes()


def test_layers_stay_as_they_are_and_in_order(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    oci_layout.from_archive(archive(tmp_path / "image.tar", [LAYER, OTHER]), layout)

    found = layers_of(layout)

    assert [blob(layout, layer["digest"]) for layer in found] == [LAYER, OTHER]
    assert [layer["size"] for layer in found] == [len(LAYER), len(OTHER)]
    assert {layer["mediaType"] for layer in found} == {"application/vnd.oci.image.layer.v1.tar"}


def test_every_blob_has_the_digest_that_names_it(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    oci_layout.from_archive(archive(tmp_path / "image.tar", [LAYER, OTHER]), layout)
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
    oci_layout.from_archive(made, layout)
    assert [layer["digest"] for layer in layers_of(layout)] == [digest(LAYER)] * 2


def test_a_compressed_layer_is_declared_as_such(tmp_path: Path) -> None:
    layout, packed = tmp_path / "layout", gzip.compress(LAYER)
    oci_layout.from_archive(archive(tmp_path / "image.tar", [packed], [digest(LAYER)]), layout)
    (layer,) = layers_of(layout)
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert layer["digest"] == digest(packed)


def test_a_layer_with_another_content_is_refused(tmp_path: Path) -> None:
    made = archive(tmp_path / "image.tar", [LAYER], [digest(OTHER)])
    with pytest.raises(StepFailed, match=f"is damaged: layer {digest(OTHER)} has the digest"):
        oci_layout.from_archive(made, tmp_path / "layout")


def test_an_archive_that_lacks_a_layer_is_refused(tmp_path: Path) -> None:
    made = archive(tmp_path / "image.tar", [LAYER], [digest(LAYER), digest(OTHER)])
    with pytest.raises(StepFailed, match="has 1 layers instead of 2"):
        oci_layout.from_archive(made, tmp_path / "layout")


@pytest.mark.parametrize("keep", [0, 700, 1600])
def test_a_truncated_archive_is_refused(tmp_path: Path, keep: int) -> None:
    made = archive(tmp_path / "image.tar", [LAYER, OTHER])
    made.write_bytes(made.read_bytes()[:keep])
    with pytest.raises(StepFailed, match="is damaged"):
        oci_layout.from_archive(made, tmp_path / "layout")


IMAGE = {
    "Id": "sha256:1",
    "Created": "2024-02-29T12:34:56.789Z",
    "Architecture": "amd64",
    "Os": "linux",
    "Config": {"Env": ["A=1"], "Labels": {"a": "b"}, "Cmd": ["x"]},
    "RootFS": {"Type": "layers", "Layers": ["sha256:2"]},
    "Size": 5,
}
# What some engines tell of a configuration, empty or not, and others do not.
OTHERS = {
    "Hostname": "",
    "Image": "sha256:3",
    "AttachStdin": False,
    "OnBuild": None,
    "Entrypoint": None,
    "Volumes": {},
    "User": "",
    "WorkingDir": "",
}


@pytest.mark.parametrize(
    "changes",
    [
        {"Id": "sha256:9"},
        {"Size": 6, "Parent": "sha256:4", "GraphDriver": {"Name": "overlay2"}},
        {"Created": "2024-02-29T12:34:56.789000000Z"},
        {"Config": {**OTHERS, "Cmd": ["x"], "Labels": {"a": "b"}, "Env": ["A=1"]}},
    ],
)
def test_an_image_has_one_identity_on_every_engine(changes: dict[str, Any]) -> None:
    assert oci_layout.identity(IMAGE | changes) == oci_layout.identity(IMAGE)


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00Z", "", None])
def test_an_image_without_a_time_has_one_identity_on_every_engine(created: str | None) -> None:
    timeless = {key: value for key, value in IMAGE.items() if key != "Created"}
    assert oci_layout.identity(timeless | {"Created": created}) == oci_layout.identity(timeless)


@pytest.mark.parametrize(
    "changes",
    [
        {"Config": {"Env": ["A=2"], "Labels": {"a": "b"}, "Cmd": ["x"]}},
        {"Config": {"Env": ["A=1"], "Labels": {"a": "b"}, "Cmd": ["x"], "User": "1"}},
        {"Config": None},
        {"RootFS": {"Layers": ["sha256:2", "sha256:5"]}},
        {"RootFS": {}},
        {"Created": "2024-02-29T12:34:57Z"},
        {"Architecture": "arm64"},
    ],
)
def test_another_image_has_another_identity(changes: dict[str, Any]) -> None:
    assert oci_layout.identity(IMAGE | changes) != oci_layout.identity(IMAGE)
