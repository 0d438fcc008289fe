from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sifline.errors import UsageError
from sifline.formats import image_archive, oci_layout
from tests.support.engine_archives import LAYER, OTHER, archive, digest

PLATFORM = "linux/amd64"


def handed_on(path: Path) -> dict[str, bytes]:
    """What an engine is given of the archive, by name."""
    content = b"".join(image_archive.stream(image_archive.read(path, platform=PLATFORM)))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        members = [(info.name, tar.extractfile(info)) for info in tar]
        return {name: file.read() for name, file in members if file}


def loaded(path: Path) -> tuple[dict[str, Any], list[bytes]]:
    """The configuration and the layers, as an engine finds them; no name is left."""
    held = handed_on(path)
    ((image,),) = (json.loads(held["manifest.json"]),)
    assert image["RepoTags"] is None
    return json.loads(held[image["Config"]]), [held[name] for name in image["Layers"]]


def oci(path: Path, *platforms: str, nested: bool = False) -> Path:
    """An OCI archive of one image for each platform, in one index or in one more below."""
    blobs: dict[str, bytes] = {}

    def blob(content: bytes) -> dict[str, Any]:
        blobs[digest(content)] = content
        return {"digest": digest(content), "size": len(content)}

    entries = []
    for platform in platforms:
        system, machine = platform.split("/")
        layer = f"layer of {platform}".encode()
        config = {"os": system, "architecture": machine, "rootfs": {"diff_ids": [digest(layer)]}}
        manifest = {"config": blob(json.dumps(config).encode()), "layers": [blob(layer)]}
        entry = blob(json.dumps(manifest).encode())
        entries.append({**entry, "platform": {"os": system, "architecture": machine}})
    index = json.dumps({"manifests": entries}).encode()
    if nested:
        index = json.dumps({"manifests": [blob(index)]}).encode()
    members = {"oci-layout": b"{}", "index.json": index}
    members |= {f"blobs/{name.replace(':', '/')}": content for name, content in blobs.items()}
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_the_image_of_a_docker_archive_is_known_by_its_configuration(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [LAYER, OTHER])

    found = image_archive.read(path, platform=PLATFORM)

    with tarfile.open(path) as tar:
        config = tar.extractfile("config.json")
        assert config
        assert found.image_id == f"sha256:{hashlib.sha256(config.read()).hexdigest()}"
    assert found.size == len(LAYER) + len(OTHER)


def test_an_engine_is_given_configuration_and_layers_in_order(tmp_path: Path) -> None:
    config, layers = loaded(archive(tmp_path / "a.tar", [LAYER, OTHER]))

    assert layers == [LAYER, OTHER]
    assert config["rootfs"]["diff_ids"] == [digest(LAYER), digest(OTHER)]


def test_a_layer_that_occurs_again_as_a_link_is_followed(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [LAYER], links={"again/layer.tar": "../0/layer.tar"})

    assert loaded(path)[1] == [LAYER, LAYER]


@pytest.mark.parametrize("nested", [False, True])
def test_the_image_of_the_platform_is_taken_from_an_oci_archive(
    tmp_path: Path, nested: bool
) -> None:
    path = oci(tmp_path / "a.tar", "linux/arm64", PLATFORM, nested=nested)

    config, layers = loaded(path)

    assert layers == [b"layer of linux/amd64"]
    assert config["architecture"] == "amd64"


def test_what_the_engine_saved_as_a_layout_gives_the_same(tmp_path: Path) -> None:
    saved, layout = archive(tmp_path / "a.tar", [LAYER, OTHER]), tmp_path / "layout"
    oci_layout.from_archive(saved, layout)
    with tarfile.open(tmp_path / "oci.tar", "w") as tar:
        tar.add(layout, arcname="")

    assert loaded(tmp_path / "oci.tar") == loaded(saved)


@pytest.mark.parametrize("platforms", [(), ("linux/arm64",), (PLATFORM, PLATFORM)])
def test_an_oci_archive_without_one_image_for_the_platform(
    tmp_path: Path, platforms: tuple[str, ...]
) -> None:
    path = oci(tmp_path / "a.tar", *platforms)

    with pytest.raises(UsageError, match="for linux/amd64; save only the one that you need"):
        image_archive.read(path, platform=PLATFORM)


def test_a_blob_with_another_content_is_damage(tmp_path: Path) -> None:
    path = oci(tmp_path / "a.tar", PLATFORM)
    content = path.read_bytes()
    assert content.count(b'"architecture": "amd64", "rootfs"') == 1
    path.write_bytes(content.replace(b'"amd64", "rootfs"', b'"amd65", "rootfs"'))

    with pytest.raises(UsageError, match="has another content"):
        image_archive.read(path, platform=PLATFORM)


def test_a_pipe_is_refused_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(UsageError, match=r"a\.tar: is a pipe"):
        image_archive.read(tmp_path / "a.tar", platform=PLATFORM)


def test_indexes_that_name_each_other_end(tmp_path: Path) -> None:
    path = oci(tmp_path / "a.tar", PLATFORM, nested=True)
    for depth in range(6):
        inner = path.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(inner)) as tar:
            members = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
        name = digest(members["index.json"])
        members[f"blobs/{name.replace(':', '/')}"] = members["index.json"]
        members["index.json"] = json.dumps({"manifests": [{"digest": name}]}).encode()
        path = tmp_path / f"deeper{depth}.tar"
        with tarfile.open(path, "w") as tar:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

    with pytest.raises(UsageError, match="its indexes name each other"):
        image_archive.read(path, platform=PLATFORM)


@pytest.mark.parametrize(
    "manifest", [b"", b"{}", b"[]", b"[1]", b'[{"Config": 1}]', b'[{"Config": "x"}]', b"[{}, {}]"]
)
def test_a_manifest_that_is_none(tmp_path: Path, manifest: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))

    with pytest.raises(UsageError, match=r"a\.tar: "):
        image_archive.read(tmp_path / "a.tar", platform=PLATFORM)


@pytest.mark.parametrize("names", [["x\n%setup\n    touch /y"], ["a b"], [5]])
def test_names_that_are_none_are_refused(tmp_path: Path, names: object) -> None:
    path = archive(tmp_path / "a.tar", [LAYER])
    with tarfile.open(path) as tar:
        held = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    manifest = json.loads(held["manifest.json"])
    held["manifest.json"] = json.dumps([{**manifest[0], "RepoTags": names}]).encode()
    with tarfile.open(path, "w") as tar:
        for member, content in held.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

    with pytest.raises(UsageError, match=r"a\.tar: is damaged"):
        image_archive.read(path, platform=PLATFORM)


def zstd(content: bytes) -> bytes:
    """Compress it in two frames, as tools that work side by side do."""
    half = len(content) // 2
    return b"".join(zstandard.compress(piece) for piece in (content[:half], content[half:]))


def test_layers_that_are_compressed_with_zstd_are_unpacked_for_old_engines(
    tmp_path: Path,
) -> None:
    layer = b"".join(digest(b"%d" % number).encode() for number in range(3000))
    packed = [zstd(layer), gzip.compress(OTHER), LAYER]
    path = archive(tmp_path / "a.tar", packed, [digest(one) for one in (layer, OTHER, LAYER)])

    assert loaded(path)[1] == [layer, packed[1], LAYER]


def test_a_damaged_layer_in_zstd_is_damage(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [zstd(LAYER)[:4] + b"damage" * 20], [digest(LAYER)])

    with pytest.raises(UsageError, match=r"a\.tar: is damaged"):
        loaded(path)


def test_what_is_no_archive_at_all_is_said_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"garbage" * 100)

    with pytest.raises(UsageError, match=r"could not be opened successfully; save it again$"):
        image_archive.read(path, platform=PLATFORM)


def test_an_archive_in_zstd_as_a_whole_is_told(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.tar", [LAYER])
    path.write_bytes(zstd(path.read_bytes()))

    with pytest.raises(UsageError, match=r"zstd --decompress \S+a\.tar makes one that is not"):
        image_archive.read(path, platform=PLATFORM)


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_a_flipped_bit_in_a_compressed_archive_is_damage(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    layer = b"".join(digest(b"%d" % number).encode() for number in range(3000))
    path = archive(tmp_path / "a.tar", [layer])
    content = bytearray(compress(path.read_bytes()))
    for at in range(len(content) // 4, len(content) // 4 + 64):
        content[at] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(UsageError, match=r"a\.tar: is damaged"):
        for _ in image_archive.stream(image_archive.read(path, platform=PLATFORM)):
            pass
