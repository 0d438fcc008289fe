from __future__ import annotations

import os
from pathlib import Path

import pytest

from sifline import records
from sifline.adapters.apptainer import Compression
from sifline.buildcontext import file_digest
from sifline.errors import StepFailed
from sifline.model import BuiltImage, Image, Workspace
from sifline.runner import Context
from sifline.stages import convert
from tests.unit.recording import RecordingRunner, answer

LOG = Path("x.log")


def image(size: int = 100) -> BuiltImage:
    return BuiltImage(
        image=Image(name="x", folder=Path("x"), tag="sifline/x:latest"),
        image_id="sha256:1",
        fingerprint="f1",
        size=size,
        fresh=True,
    )


def context(root: Path) -> Context:
    """A workspace whose runner fails any test that starts something."""
    return Context(
        workspace=Workspace(root=root), runner=RecordingRunner(), progress=lambda _: None
    )


@pytest.fixture
def made(tmp_path: Path) -> Context:
    """A workspace with a finished conversion."""
    here = context(tmp_path)
    path = here.workspace.sif("x")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    records.write(
        here.workspace.record("x", "convert"),
        {
            "image_id": "sha256:1",
            "fingerprint": "f1",
            "commit": "c1",
            "sha256": file_digest(path),
            "size": 7,
            "stamp": vars(convert.Stamp.of(path)),
            "compression": Compression().mksquashfs,
        },
    )
    return here


def test_untouched_sif_of_the_same_image_is_fresh(made: Context) -> None:
    found = convert.convert(image(), made)
    assert (found.fresh, found.commit, found.size) == (True, "c1", 7)


def test_touched_but_equal_sif_is_fresh_and_looked_at_once(made: Context) -> None:
    path = made.workspace.sif("x")
    path.touch()
    assert convert.convert(image(), made).fresh
    record = records.read(made.workspace.record("x", "convert")) or {}
    assert record["stamp"] == vars(convert.Stamp.of(path))


def needs_work(here: Context, compression: Compression | None = None) -> bool:
    """Whether the conversion begins; it begins by looking for a machine's own apptainer."""
    try:
        convert.convert(image(), here, compression=compression)
    except AssertionError as error:
        return "--version" in str(error)
    return False


def test_altered_sif_is_made_anew_though_size_and_time_are_the_same(made: Context) -> None:
    path = made.workspace.sif("x")
    before = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert needs_work(made)


def test_removed_sif_is_noticed(made: Context) -> None:
    made.workspace.sif("x").unlink()
    assert needs_work(made)


def test_lost_record_means_work(made: Context) -> None:
    (made.workspace.record("x", "convert")).unlink()
    assert needs_work(made)


def test_other_compression_means_work(made: Context) -> None:
    assert needs_work(made, Compression(name="gzip", level=None))


XZ = "its compression: -comp xz → -comp zstd -Xcompression-level 3"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "no record of its conversion"),
        ({"image_id": "sha256:2"}, "the image is another"),
        ({"image_id": "sha256:1", "compression": "-comp xz"}, XZ),
        ({"image_id": "sha256:1", "compression": "-comp zstd -Xcompression-level 3"}, ""),
    ],
)
def test_reason_to_convert_is_given(record: dict[str, str] | None, reason: str) -> None:
    whole = dict.fromkeys(convert.KEPT, "")

    assert convert.changed(record and {**whole, **record}, image(), Compression()) == reason


def test_a_record_that_says_too_little_is_none() -> None:
    record = {"image_id": "sha256:1", "compression": Compression().mksquashfs}

    assert convert.changed(record, image(), Compression()) == "no record of its conversion"


def test_space_that_suffices_is_no_shortage() -> None:
    assert convert.shortage(1000, convert.space_needed(1000)) == 0


def test_shortage_is_what_is_missing() -> None:
    assert convert.shortage(1000, convert.space_needed(1000) - 7) == 7


def test_too_little_space_stops_before_anything_is_started(tmp_path: Path) -> None:
    here = Context(
        workspace=Workspace(root=tmp_path),
        runner=RecordingRunner({("docker", "ps"): answer()}, tools={"docker"}),
        progress=lambda _: None,
    )
    with pytest.raises(StepFailed, match=r"x \(1000000\.00 GB\) needs .* GB free in .* there are"):
        convert.convert(image(size=10**15), here)
    assert list(here.workspace.sifs.iterdir()) == []


def test_full_disk_is_named() -> None:
    error = convert.failure("x", answer(stderr="write: No space left on device"), LOG)
    assert (
        error.message == "converting x failed: the disk is full; make room; the whole log is x.log"
    )


@pytest.mark.parametrize(
    ("stderr", "status", "proof"),
    [
        ("", 0, "ran true"),
        ('FATAL: "true": executable file not found in $PATH', 255, "mounted; it holds no true"),
        ("FATAL: while mounting image: squashfs: bad", 255, None),
    ],
)
def test_proof_that_the_sif_runs(stderr: str, status: int, proof: str | None) -> None:
    assert convert.verdict(answer(stderr=stderr, returncode=status)) == proof
