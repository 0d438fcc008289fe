from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sifline.contents.build_context import file_digest
from sifline.contents.sif_records import Stamp
from sifline.engines.apptainer.squashfs import Compression
from sifline.errors import MissingError, StepFailed, UsageError
from sifline.formats import oci_layout, sif
from sifline.formats.platforms import MACHINES
from sifline.formats.sif import Kind, Part
from sifline.machine import architectures, records
from sifline.machine.context import Context
from sifline.machine.facts import Machine
from sifline.model import BuiltImage, Image, SifOptions
from sifline.stages import convert
from sifline.stages.convert import stream
from sifline.stages.convert.state import FORMAT, KEPT, changed
from sifline.stages.convert.work import ImageWork, Made, read_provenance
from tests.support import sif_files
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

LOG = Path("x.log")


def image(size: int = 100, **options: Any) -> BuiltImage:
    return BuiltImage(
        image=Image(name="x", folder=Path("x"), tag="sifline/x:latest", sif=SifOptions(**options)),
        image_id="sha256:1",
        fingerprint="f1",
        size=size,
        reused=True,
    )


@pytest.fixture
def made(tmp_path: Path) -> Context:
    """A workspace with a finished conversion."""
    here = context_of(tmp_path, RecordingRunner())
    path = here.workspace.sif("x")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    records.write(
        here.workspace.record("x", "convert"),
        {
            "format": FORMAT,
            "image_id": "sha256:1",
            "image_digest": "sha256:d",
            "fingerprint": "f1",
            "commit": "c1",
            "sha256": file_digest(path),
            "size": 7,
            "stamp": vars(Stamp.of(path)),
            "compression": Compression().mksquashfs,
            "method": "stream",
        },
    )
    return here


def test_untouched_sif_of_the_same_image_is_reused(made: Context) -> None:
    found = convert.convert(image(), made)
    assert (found.reused, found.commit, found.size) == (True, "c1", 7)
    assert found.image_digest == "sha256:d"  # not what the engine calls the image


def test_whoever_plans_changes_no_record(made: Context) -> None:
    made.workspace.sif("x").touch()
    record = made.workspace.record("x", "convert")
    before = record.read_bytes()
    assert convert.standing(image().image, made.workspace).size == 7
    assert record.read_bytes() == before
    assert convert.settled(image().image, made.workspace).size == 7
    assert record.read_bytes() != before


def test_touched_but_equal_sif_is_reused_and_looked_at_once(made: Context) -> None:
    path = made.workspace.sif("x")
    path.touch()
    assert convert.convert(image(), made).reused
    record = records.read(made.workspace.record("x", "convert")) or {}
    assert record["stamp"] == vars(Stamp.of(path))


def needs_work(here: Context, **options: Any) -> bool:
    """Whether the conversion begins; it begins by sweeping up after a killed run."""
    try:
        convert.convert(image(**options), replace(here, runner=RecordingRunner(tools={"docker"})))
    except AssertionError as error:
        return "docker ps" in str(error) or "'docker', 'ps'" in str(error)
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
    assert needs_work(made, compression="gzip", level=None)


def test_other_method_means_work_only_where_it_is_asked_for(made: Context) -> None:
    assert not needs_work(made)
    assert not needs_work(made, method="stream")
    assert needs_work(made, method="apptainer")


def test_a_sif_over_a_new_budget_means_work_where_that_is_an_error(made: Context) -> None:
    assert needs_work(made, budget=6)
    assert not needs_work(made, budget=6, over_budget="warning")
    assert not needs_work(made, budget=7)


XZ = "its compression: -comp xz → -comp zstd -Xcompression-level 3"
ZSTD = {"image_id": "sha256:1", "compression": "-comp zstd -Xcompression-level 3"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "no record of its conversion"),
        ({"image_id": "sha256:2"}, "the image was built again since"),
        ({"image_id": "sha256:1", "compression": "-comp xz"}, XZ),
        (ZSTD, ""),
    ],
)
def test_reason_to_convert_is_given(record: dict[str, str] | None, reason: str) -> None:
    whole = {**dict.fromkeys(KEPT, ""), "size": 1, "format": FORMAT}

    assert changed(record and {**whole, **record}, image()) == reason


@pytest.mark.parametrize("format_", [None, 1, "2"])
def test_a_sif_of_an_older_sifline_is_made_anew(made: Context, format_: object) -> None:
    path = made.workspace.record("x", "convert")
    record = {**(records.read(path) or {}), "format": format_}
    if format_ is None:
        del record["format"]
    records.write(path, record)
    assert (
        convert.stale("x", image(), made.workspace)
        == "the SIF is out of date: made by an older sifline"
    )
    assert needs_work(made)


def test_a_record_that_says_too_little_is_none() -> None:
    assert changed(ZSTD, image()) == "no record of its conversion"


def test_the_space_needed_is_that_of_each_copy_and_a_reserve() -> None:
    assert convert.space_needed(1000, 2) - convert.space_needed(1000, 1) == 1000
    assert convert.space_needed(0, 1) == convert.RESERVE


HERE = MACHINES.get(os.uname().machine, os.uname().machine).partition("/")[0]


def at_work(root: Path, architecture: str = HERE) -> Context:
    """A workspace with an engine that has nothing left over, and no toolbox."""
    answers: dict[tuple[str, ...], Any] = {
        ("docker", "ps"): answer(),
        ("docker", "image"): answer(),
        ("docker", "image", "inspect"): answer(json.dumps({"Architecture": architecture})),
    }
    return context_of(root, RecordingRunner(answers, tools={"docker"}))


@pytest.fixture
def without_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "impossible", lambda _: "there are no tools")


def test_an_image_of_an_architecture_that_runs_nothing_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(architectures, "runs", lambda *_: False)
    with pytest.raises(MissingError, match=f"for s390x, and this machine runs {HERE}"):
        convert.convert(image(), at_work(tmp_path, "s390x"))


def test_an_image_without_an_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"names no architecture, .* use --method apptainer"):
        convert.convert(image(), at_work(tmp_path, ""))
    # Apptainer takes this machine's; that there is no room here is said behind it.
    with pytest.raises(StepFailed, match="GB free"):
        convert.convert(image(size=10**15, method="apptainer"), at_work(tmp_path, ""))


@pytest.mark.usefixtures("without_tools")
def test_too_little_space_stops_before_anything_is_made(tmp_path: Path) -> None:
    here = at_work(tmp_path)
    with pytest.raises(StepFailed, match=r"x \(1000000\.00 GB\) needs .* GB free in .* there are"):
        convert.convert(image(size=10**15), here)
    assert list(here.workspace.sifs.iterdir()) == []


@pytest.mark.usefixtures("without_tools")
def test_too_little_memory_stops_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "free_memory", lambda _: 10**8)
    with pytest.raises(StepFailed, match=r"x needs 0\.81 GB of memory, and 0\.10 GB are free"):
        convert.convert(image(), at_work(tmp_path))


@pytest.mark.usefixtures("without_tools")
def test_the_fast_road_that_cannot_be_taken_is_refused_where_it_is_asked_for(
    tmp_path: Path,
) -> None:
    with pytest.raises(UsageError, match="x cannot be converted so: there are no tools"):
        convert.convert(image(method="stream"), at_work(tmp_path))


def work(**options: Any) -> ImageWork:
    engine = RecordingRunner({("docker", "image", "inspect"): answer('{"Id": "sha256:1"}')})
    return ImageWork(
        held=replace(image(), commit="c1", recipe={"parents": {"p": "sha256:0"}}),
        context=context_of(Path("here"), engine),
        options=SifOptions(**options),
        scratch=Path("scratch"),
        partial=Path("x.partial"),
        log=LOG,
    )


def test_full_disk_is_named() -> None:
    error = work().failure(answer(stderr="write: No space left on device"))
    assert (
        error.message == "converting x failed: the disk is full; make room; the whole log is x.log"
    )


def test_what_a_tool_said_last_is_in_the_line() -> None:
    error = work().failure(answer(stderr="one\nFATAL: two\n\n", returncode=1))
    assert error.message == "converting x failed: FATAL: two; the whole log is x.log"
    assert error.details == "one\nFATAL: two"


def test_a_tool_that_said_nothing_has_a_status() -> None:
    assert "failed: status 7; the" in work().failure(answer(returncode=7)).message


def test_what_the_sif_says_of_its_making_is_read_back() -> None:
    made = Made(method="stream", tools={"apptainer": "1.4.5"})
    told = read_provenance((work(compression="gzip", level=6).provenance(made),))
    assert told["image"]["digest"] == oci_layout.identity({"Id": "sha256:1"})
    assert told["bases"] == {"p": "sha256:0"}
    assert (told["commit"], told["tools"]) == ("c1", {"apptainer": "1.4.5"})
    assert told["conversion"]["compression"] == "-comp gzip -Xcompression-level 6"


@pytest.mark.parametrize(
    ("labels", "digest"),
    [
        ({"org.sifline.image-digest": "sha256:d", "org.sifline.image-id": "sha256:i"}, "sha256:d"),
        ({"org.sifline.image-id": "sha256:i"}, "sha256:i"),  # of an older sifline
        ({"org.sifline.commit": "c"}, ""),
    ],
)
def test_labels_say_which_image_a_sif_is_of(
    tmp_path: Path, labels: dict[str, str], digest: str
) -> None:
    objects = [sif_files.labels_object(labels), sif_files.SQUASHFS]
    path = sif_files.write(tmp_path / "x.sif", objects)
    told = convert.info(path, context_of(tmp_path, RecordingRunner()))
    assert convert.read_sif(path).image_digest == told["image_digest"] == digest


@pytest.mark.parametrize("content", [b"", b"[1]", b"{"])
def test_what_a_sif_says_of_its_making_may_be_anything(content: bytes) -> None:
    part = Part(kind=Kind.JSON, name="sifline.json", content=content)
    assert read_provenance((part,)) == {}


def test_progress_tells_bytes_rate_and_time_left() -> None:
    told = stream.figures(10**9, 3 * 10**9, 5.0)
    assert told == "packing 1.00 of 3.00 GB, 200 MB/s, 10 s left"


def test_progress_guesses_no_time_where_it_cannot() -> None:
    assert stream.figures(0, 100, 0.0) == "packing 0.00 of 0.00 GB, 0 MB/s"


@pytest.mark.parametrize(
    ("created", "epoch", "seconds"),
    [
        ("2026-11-25T03:34:12.123456789Z", "", 1795577652),
        ("2026-11-25T03:34:12Z", "5", 5),
        ("2026-11-25T03:34:12Z", "tomorrow", 1795577652),
        ("2026-11-25T03:34:12Z", "9" * 30, sif.LATEST),
        ("0001-01-01T00:00:00Z", "", 0),
        ("", "", 0),
    ],
)
def test_the_time_is_the_image_s_or_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, created: str, epoch: str, seconds: int
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    assert stream.when(created) == seconds


def test_the_build_date_is_written_as_apptainer_does() -> None:
    assert stream.build_date(1795577652) == "Wednesday_25_November_2026_3:34:12_UTC"


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
