"""Converting with the real engine: what is verified, and what killed or failed runs leave."""

from __future__ import annotations

import functools
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import pytest

from sifline.contents.build_context import file_digest
from sifline.engines.apptainer.build import Builder
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.engines.apptainer.squashfs import Compression
from sifline.engines.docker import image_files
from sifline.engines.docker.engine import LABEL_PURPOSE, remove_left_over
from sifline.engines.docker.images import Docker
from sifline.errors import SiflineError, StepFailed, UsageError
from sifline.formats import oci_layout, sif
from sifline.machine import records
from sifline.machine.process import ProcessRunner
from sifline.model import BuiltImage, Sif, Workspace
from sifline.stages import convert
from sifline.stages.convert import stream
from tests.support.contexts import context_of
from tests.support.conversion import at_work, built, converting, left_over
from tests.support.engine import docker, make
from tests.support.recipes import EMPTY, TINY, TRIXIE
from tests.support.way import Way

MOMENTS = 20
METHODS = ("stream", "apptainer")
BULK = 24 << 20
# In seconds, on a very busy machine: what takes longer hangs.
LONGEST = 600
# Tests that share an image; the others of this module share a SIF.
WITH_BULK = pytest.mark.xdist_group("test_convert.py bulk")

# A conversion in a process of its own, so that it can be killed or run beside another. It prints
# a line for each command that it starts, and when it began and ended.
PROGRAM = """
import pickle, sys, time
from pathlib import Path
from sifline.engines.docker import image_files
from sifline.model import Workspace
from sifline.machine.context import Context
from sifline.machine.process import ProcessRunner
from sifline.stages import convert

def say(text):
    print(" ".join(text.split()), flush=True)

image, mounted = pickle.load(sys.stdin.buffer)
if not mounted:
    image_files.layers = lambda *_: ()
began = time.monotonic()
context = Context(
    workspace=Workspace(root=Path(sys.argv[1])), runner=ProcessRunner(echo=say), progress=say
)
done = convert.convert(image, context)
say(f"converted: {done.sha256} {done.reused} {began} {time.monotonic()}")
sys.stdin.buffer.read()  # alive until somebody closes this end
"""


# Commands that look for what killed runs left: there are more of them where there is something.
SWEEPING = (b"+ docker ps ", b"+ docker rm ")


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of a conversion, and when it began and ended; ``reused``: there was a SIF."""

    sha256: str
    reused: bool
    began: float
    ended: float


class Conversion:
    """A conversion that runs in a process of its own."""

    def __init__(self, image: BuiltImage, root: Path, *, mounted: bool = True) -> None:
        """Begin; without ``mounted`` it finds no layers of the image that it can mount."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(pickle.dumps((image, mounted)))
        self.process.stdin.flush()
        self.printed, self.times = list[str](), list[float]()
        self._news, self._ended = threading.Condition(), False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(SWEEPING):
                continue
            with self._news:
                self.printed.append(line.decode().rstrip())
                self.times.append(time.monotonic())
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def wait_for(self, lines: int, seconds: float = LONGEST) -> bool:
        """Wait until it has printed so many lines; return whether it did within ``seconds``."""
        with self._news:
            return self._news.wait_for(lambda: len(self.printed) >= lines, seconds)

    def said(self, text: str) -> bool:
        """Tell whether it printed a line that holds ``text``, or can print no more."""
        return any(text in line for line in self.printed) or self._ended

    def wait_for_text(self, text: str) -> None:
        """Wait until it prints a line that holds ``text``; fail where it never does."""
        with self._news:
            self._news.wait_for(lambda: self.said(text), LONGEST)
        assert any(text in line for line in self.printed), self.printed

    def signal(self, number: int) -> int:
        """Send a signal to its whole group; return how it ended."""
        assert self.process.poll() is None, "it ended before"
        os.killpg(self.process.pid, number)
        return self._end()

    def result(self) -> Done:
        """Wait for its end and return what came of it."""
        self.wait_for_text("converted: ")
        assert self._end() == 0
        _, sha256, reused, began, ended = self.printed[-1].split()
        times = float(began), float(ended)
        return Done(sha256=sha256, reused=reused == "True", began=times[0], ended=times[1])

    def _end(self) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        status = self.process.wait(LONGEST)
        self._reader.join(LONGEST)
        self.process.stdout.close()
        return status


@dataclass(frozen=True, kw_only=True)
class Made:
    """A SIF that tests look at, and the checkout that it was made in; it stays as it is."""

    image: BuiltImage
    root: Path
    sif: Sif

    def copied(self, folder: Path) -> Path:
        """Return the root of a copy that a test may change."""
        return Path(shutil.copytree(self.root, folder / "copy"))


def temporary(folder: Path, name: str, dockerfile: str, bulk: bytes = b"") -> Iterator[str]:
    """Yield the tag of an image that goes with its tests."""
    (folder / "bulk").write_bytes(bulk)
    tag = make(folder, f"sifline-test-{name}-{uuid4().hex[:8]}", dockerfile)
    yield tag
    docker("image", "rm", "--force", tag)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from temporary(tmp_path_factory.mktemp("tiny"), "tiny", TINY)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from temporary(tmp_path_factory.mktemp("empty"), "empty", EMPTY)


@pytest.fixture(scope="module")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image that no pipe holds, nor is made much smaller; its id is that of no other."""
    recipe = f"{TINY}COPY bulk /\n"
    yield from temporary(tmp_path_factory.mktemp("bulk"), "bulk", recipe, os.urandom(BULK))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, tiny: str) -> Callable[[str], Made]:
    """Return what converts the small image by a method, once."""

    @functools.cache
    def made(method: str) -> Made:
        root = tmp_path_factory.mktemp(method)
        image = replace(built("tiny", tiny, method=method), commit="c0ffee")
        return Made(image=image, root=root, sif=convert.convert(image, context_of(root)))

    return made


@pytest.fixture(scope="module")
def by_stream(converted: Callable[[str], Made]) -> Made:
    return converted("stream")


@pytest.fixture(scope="module")
def replaced(tmp_path_factory: pytest.TempPathFactory, by_stream: Made, empty: str) -> Made:
    """An image without any program, converted where the SIF of another of its name was."""
    root = by_stream.copied(tmp_path_factory.mktemp("replaced"))
    image = built("tiny", empty)
    return Made(image=image, root=root, sif=convert.convert(image, context_of(root)))


@pytest.mark.parametrize("method", METHODS)
def test_the_sif_says_where_it_came_from(
    converted: Callable[[str], Made], tmp_path: Path, method: str
) -> None:
    image, done = converted(method).image, converted(method).sif

    found = convert.info(done.path, context_of(tmp_path))

    digest = oci_layout.identity(Docker(ProcessRunner()).inspect(image.image_id))
    assert found["image_digest"] == digest
    assert image.image_id.partition(":")[2] not in json.dumps(found)
    assert (found["fingerprint"], found["commit"]) == ("f" * 64, "c0ffee")
    assert found["labels"]["org.example.note"] == "two words"
    assert found["labels"]["org.sifline.name"] == "tiny"
    assert (found["sha256"], found["size"]) == (done.sha256, done.size)
    read = convert.read_sif(done.path)
    assert (read.sha256, read.image_digest, read.commit) == (done.sha256, digest, "c0ffee")
    assert done.image_digest == digest
    told = found["provenance"]
    assert (told["image"]["digest"], told["commit"]) == (digest, "c0ffee")
    assert told["conversion"]["method"] == method
    assert told["tools"]["apptainer"].startswith("1.")


@pytest.mark.parametrize("method", METHODS)
def test_the_labels_read_here_are_those_apptainer_reads(
    converted: Callable[[str], Made], method: str
) -> None:
    path = converted(method).sif.path
    theirs = Sifs(Apptainer(ProcessRunner())).inspect(path)["labels"]
    assert sif.labels(sif.read(path)) == theirs


def verified(made: Made) -> object:
    """Return what a conversion remembers that its look at the new SIF proved."""
    record = records.read(made.root / "build" / "records" / "tiny" / "convert.json") or {}
    return record["verified"]


def test_an_image_without_a_shell_is_run(by_stream: Made) -> None:
    assert verified(by_stream) == "ran true"


def test_an_image_without_any_program_is_no_broken_image(replaced: Made) -> None:
    assert verified(replaced) == "mounted; it holds no true"


def test_the_second_conversion_leaves_the_file_alone(by_stream: Made) -> None:
    first = by_stream.sif
    before = first.path.stat()

    second = convert.convert(by_stream.image, context_of(by_stream.root))

    assert (first.reused, second.reused) == (False, True)
    assert second.sha256 == first.sha256
    assert second.path.stat() == before


def test_a_damaged_sif_is_noticed_and_made_anew(by_stream: Made, tmp_path: Path) -> None:
    here = context_of(by_stream.copied(tmp_path))
    path = here.workspace.sif("tiny")
    with path.open("r+b") as file:
        file.seek(-5000, os.SEEK_END)
        file.write(b"damage")

    again = convert.convert(by_stream.image, here)

    assert not again.reused
    assert again.path == path
    assert b"damage" not in path.read_bytes()


def test_a_truncated_sif_is_refused(by_stream: Made, tmp_path: Path) -> None:
    path = Path(shutil.copy(by_stream.sif.path, tmp_path))
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UsageError, match="is truncated"):
        convert.read_sif(path)


def test_another_image_under_the_name_is_converted(by_stream: Made, replaced: Made) -> None:
    assert not replaced.sif.reused
    assert replaced.sif.sha256 != by_stream.sif.sha256
    assert file_digest(Workspace(root=replaced.root).sif("tiny")) == replaced.sif.sha256


# What a conversion prints when a part of it begins, in their order.
PARTS = ("reading the image", "sqfstar", "verifying the SIF")


def part(printed: list[str]) -> str:
    """Return the last of PARTS that was begun; "" before the first."""
    begun = [text for text in PARTS if any(text in line for line in printed)]
    return begun[-1] if begun else ""


@pytest.mark.long
@pytest.mark.xdist_group("test_convert.py killed")
def test_killed_at_twenty_moments_no_file_looks_finished_and_the_next_run_succeeds(
    tmp_path: Path, bulk: str
) -> None:
    image = built("big", bulk)
    quiet = Conversion(image, tmp_path / "quiet")
    expected = quiet.result().sha256
    # Counted in what it prints, a moment is the same one on a busy machine.
    lines, times = len(quiet.printed) - 1, quiet.times
    path, killed_in, finished, littered = Workspace(root=tmp_path).sif("big"), set[str](), 0, 0
    for moment in range(MOMENTS):
        running = Conversion(image, tmp_path)
        line = moment * lines // MOMENTS
        assert running.wait_for(line + 1)
        longest = times[line + 1] - times[line]
        running.wait_for(line + 2, longest * random.random())  # noqa: S311
        assert running.signal(signal.SIGKILL) == -signal.SIGKILL
        killed_in.add(part(running.printed[: line + 1]))
        if path.parent.is_dir():
            littered += bool(left_over(tmp_path))
        if path.exists():
            finished += 1
            assert file_digest(path) == expected
            path.unlink()

    done = convert.convert(image, context_of(tmp_path))

    assert killed_in == {"", *PARTS}
    assert finished < MOMENTS // 2  # else nothing was disturbed
    assert littered
    assert (done.sha256, done.reused) == (expected, False)
    assert (left_over(tmp_path), at_work(tmp_path)) == ([], [])
    assert names(bulk) == [f"{bulk}:latest"]


def names(tag: str) -> list[str]:
    """Return all tags of the image that has this one."""
    shown = docker("image", "inspect", "--format", "{{json .RepoTags}}", tag).stdout
    return list(json.loads(shown))


@WITH_BULK
def test_the_name_that_a_killed_run_gave_the_image_goes_with_the_next(
    tmp_path: Path, bulk: str
) -> None:
    image = built("big", bulk)
    killed = Conversion(image, tmp_path, mounted=False)
    killed.wait_for_text("docker buildx build")
    killed.signal(signal.SIGKILL)
    assert [name.partition(":")[0] for name in sorted(names(bulk))] == ["sifline-convert", bulk]

    assert not Conversion(image, tmp_path, mounted=False).result().reused

    assert names(bulk) == [f"{bulk}:latest"]


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    found = Way(tmp_path / "engine.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'engine.sock'}")
    yield found
    found.close()


@WITH_BULK
@pytest.mark.parametrize("mounted", [True, False])
def test_an_engine_that_stops_half_way_leaves_no_sif(
    tmp_path: Path, bulk: str, way: Way, monkeypatch: pytest.MonkeyPatch, mounted: bool
) -> None:
    root, image = tmp_path / "here", built("big", bulk)
    if not mounted:
        monkeypatch.setattr(image_files, "layers", lambda *_: ())

    def stop_at_the_stream(text: str) -> None:
        if text.startswith("packing"):
            way.cut()

    monkeypatch.setattr(stream, "TELL_SECONDS", 0)
    with pytest.raises(SiflineError, match=r"engine|ended half-way"):
        convert.convert(image, context_of(root, progress=stop_at_the_stream))
    assert list(Workspace(root=root).sifs.iterdir()) == []

    monkeypatch.delenv("DOCKER_HOST")
    assert at_work(root)  # nobody could remove them
    assert not convert.convert(image, context_of(root)).reused
    assert (left_over(root), at_work(root)) == ([], [])


@WITH_BULK
def test_layers_that_are_read_no_further_leave_no_sif(
    tmp_path: Path, bulk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    def kill_the_reader(text: str) -> None:
        # Meanwhile nobody empties the pipe, so that it cannot have come to its end.
        if text.startswith("packing") and not killed:
            for pid in converting(tmp_path, "tar"):
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    monkeypatch.setattr(stream, "TELL_SECONDS", 0)
    with pytest.raises(SiflineError, match="ended half-way"):
        convert.convert(built("big", bulk), context_of(tmp_path, progress=kill_the_reader))
    assert len(killed) == 1
    assert (left_over(tmp_path), at_work(tmp_path)) == ([], [])
    assert list(Workspace(root=tmp_path).sifs.iterdir()) == []


@pytest.mark.parametrize("layer", ["missing", "file"])
def test_layers_that_cannot_be_mounted_are_had_through_the_engine(
    tmp_path: Path, by_stream: Made, monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(image_files, "layers", lambda *_: (tmp_path / layer,))

    done = convert.convert(by_stream.image, context_of(tmp_path / "second"))

    assert done.sha256 == by_stream.sif.sha256
    assert (len(by_stream.sif.notes), len(done.notes)) == (0, 1)
    assert "layers cannot be read" in done.notes[0]
    assert (left_over(tmp_path / "second"), at_work(tmp_path / "second")) == ([], [])


@pytest.mark.spread
def test_the_same_image_gives_the_same_bytes_in_another_place_at_another_time(
    tmp_path: Path,
) -> None:
    first = convert.convert(built("same", TRIXIE, processors=1), context_of(tmp_path / "one"))
    ended = int(time.time())
    while int(time.time()) == ended:  # what a clock wrote would differ
        time.sleep(0.01)
    there = tmp_path / "another folder"
    second = convert.convert(built("same", TRIXIE, processors=2), context_of(there))
    assert first.sha256 == second.sha256


def test_another_compression_gives_another_file(
    tmp_path: Path, by_stream: Made, tiny: str
) -> None:
    here = context_of(by_stream.copied(tmp_path))
    gzip = convert.convert(built("tiny", tiny, compression="gzip", level=9), here)
    assert not gzip.reused
    head = Sifs(Apptainer(ProcessRunner())).exec(gzip.path, ["true"])
    assert head.ok
    with gzip.path.open("rb") as file:
        file.seek(sif.system(sif.read(gzip.path)).offset)
        # The compression's number stands behind five numbers of 32 bits: 1 is gzip, 6 zstd.
        assert int.from_bytes(file.read(22)[20:], "little") == 1


@pytest.mark.parametrize("over", ["error", "warning"])
def test_a_sif_over_its_budget_is_an_error_or_a_warning(
    tmp_path: Path, tiny: str, over: str
) -> None:
    here = context_of(tmp_path)
    image = built("tiny", tiny, budget=1000, over_budget=over)
    if over == "error":
        with pytest.raises(StepFailed, match=r"tiny\.sif has 0\.00 GB, and its size-budget is"):
            convert.convert(image, here)
        assert left_over(tmp_path) == []
        assert not here.workspace.sif("tiny").exists()
    else:
        done = convert.convert(image, here)
        assert done.path.is_file()
        assert [note for note in done.notes if note.startswith("warning: tiny.sif has")]


def test_a_container_that_still_builds_for_a_killed_run_is_ended(
    tmp_path: Path, tiny: str
) -> None:
    start_sleeping(tmp_path / "build" / "tmp" / "tiny.convert")
    assert len(at_work(tmp_path)) == 1

    convert.convert(built("tiny", tiny), context_of(tmp_path))

    assert at_work(tmp_path) == []


def start_sleeping(purpose: Path) -> None:
    """Start a container that does nothing for this purpose."""
    options = ("--detach", "--rm", "--label", f"{LABEL_PURPOSE}={purpose}")
    docker("run", *options, "--label", "sifline.test=1", TRIXIE, "sleep", "300")


@pytest.mark.spread
def test_containers_that_end_while_they_are_removed_are_no_failure(tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(start_sleeping, [tmp_path] * 6))
    assert len(at_work(tmp_path)) == 6

    purpose = str(tmp_path)
    with ThreadPoolExecutor(3) as pool:  # each finds some gone, and some that are going
        running = [pool.submit(remove_left_over, ProcessRunner(), purpose) for _ in range(3)]
        for done in running:
            done.result()

    assert at_work(tmp_path) == []


@WITH_BULK
def test_an_interrupted_run_cleans_up_after_itself(tmp_path: Path, bulk: str) -> None:
    running = Conversion(built("big", bulk), tmp_path)
    deadline = time.monotonic() + LONGEST
    while not at_work(tmp_path):
        assert time.monotonic() < deadline, "the conversion never began"
        time.sleep(0.1)

    assert running.signal(signal.SIGINT) != 0

    assert not Workspace(root=tmp_path).sif("big").exists()
    assert (left_over(tmp_path), at_work(tmp_path)) == ([], [])


@pytest.mark.parametrize("user", [(0, 0), (12345, 12345)], ids=["root", "ordinary"])
def test_the_toolbox_builds_and_runs_for_any_user(
    tmp_path: Path, tiny: str, user: tuple[int, int]
) -> None:
    apptainer = Apptainer(ProcessRunner(), user=user)
    if apptainer.native:
        pytest.skip(f"{apptainer.native} is used here, so the toolbox is not")
    if os.geteuid() != 0:
        pytest.skip("giving a folder to another user needs root")
    archive, layout, made = (tmp_path / name for name in ("image.tar", "layout", "made.sif"))
    Docker(ProcessRunner()).save(f"{tiny}:latest", archive)
    oci_layout.from_archive(archive, layout)
    # pytest's folders above are closed to others: only what is bound has to be open.
    os.chown(tmp_path, *user)

    Builder(apptainer).build_from_layout(layout, made, labels={}, compression=Compression())

    assert (made.stat().st_uid, made.stat().st_gid) == user
    assert Sifs(apptainer).exec(made, ["true"]).ok
    assert Sifs(apptainer).exec(made, ["false"], check=False).returncode != 0


def test_of_two_conversions_at_once_one_does_the_work(tmp_path: Path, tiny: str) -> None:
    running = [Conversion(built("tiny", tiny), tmp_path) for _ in range(2)]
    first, second = (one.result() for one in running)

    assert max(first.began, second.began) < min(first.ended, second.ended)
    assert first.sha256 == second.sha256
    assert {first.reused, second.reused} == {True, False}


@pytest.mark.spread
@pytest.mark.parametrize(
    ("small_disk", "method", "copies"),
    [("150m", "stream", 1), ("300m", "apptainer", 3.7)],
    indirect=["small_disk"],
)
def test_too_small_a_disk_is_refused_with_figures(
    small_disk: Path, method: str, copies: float
) -> None:
    needed = f"{(copies * built('big', TRIXIE).size + (64 << 20)) / 1e9:.2f}"
    with pytest.raises(
        StepFailed, match=rf"needs {needed} GB free in .*, and there are 0\.\d\d GB"
    ):
        convert.convert(built("big", TRIXIE, method=method), context_of(small_disk))
    assert left_over(small_disk) == []


@pytest.fixture
def unforeseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a conversion believe that there is room enough."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 0, 1 << 40))


@WITH_BULK
@pytest.mark.usefixtures("unforeseen")
@pytest.mark.parametrize("small_disk", ["80m"], indirect=True)
@pytest.mark.parametrize(
    ("method", "filled", "step"),
    [
        ("apptainer", 25, "extracting oci image"),
        ("apptainer", 45, "reading the image's layers"),
        ("apptainer", 65, "saving the image"),
        ("stream", 65, "reading the image"),
    ],
)
def test_a_disk_that_fills_up_leaves_nothing(
    small_disk: Path, bulk: str, method: str, filled: int, step: str
) -> None:
    (small_disk / "other").write_bytes(bytes(filled << 20))
    said = list[str]()

    def say(text: str) -> None:
        said.append(text)

    image = built("big", bulk, method=method)
    with pytest.raises(StepFailed, match="converting big failed: the disk is full"):
        convert.convert(image, context_of(small_disk, progress=say))

    assert [text for text in said if not text.startswith("packing")][-1] == step
    assert list((small_disk / "build" / "sif").iterdir()) == []
    assert (left_over(small_disk), at_work(small_disk)) == ([], [])


LARGE = f"""
FROM {TRIXIE}
RUN head --bytes 544M /dev/urandom > /random && mkdir /many && cd /many \\
    && seq 20000 | split --lines 1 --suffix-length 4
"""
LIMIT = 512 << 20
PROGRAMS = ("sqfstar", "tar", "apptainer", "unsquashfs")


@pytest.mark.long
@pytest.mark.xdist_group("test_convert.py memory")
def test_memory_stays_below_the_image_s_size(tmp_path: Path) -> None:
    """What the processes that run at once for a conversion hold at most, as the kernel says."""
    tag = make(tmp_path / "recipe", f"sifline-test-large-{uuid4().hex[:8]}", LARGE)
    programs, most = set[str](), 0
    try:
        running = Conversion(built("large", tag), tmp_path)
        deadline = time.monotonic() + LONGEST
        while not running.said("converted: "):
            assert time.monotonic() < deadline, running.printed
            peaks = []
            for pid in (running.process.pid, *converting(tmp_path, *PROGRAMS)):
                with suppress(OSError):  # it ended
                    status = Path("/proc", str(pid), "status").read_text()
                    programs.add(status.splitlines()[0].removeprefix("Name:").strip())
                    peaks.append(peak(status))
            most = max(most, sum(peaks))
            running.wait_for(len(running.printed) + 1, 0.05)
        assert not running.result().reused
    finally:
        docker("image", "rm", "--force", tag)

    assert Workspace(root=tmp_path).sif("large").stat().st_size > LIMIT
    # How much of its caches it fills depends on what else the machine does.
    assert "sqfstar" in programs
    assert most > 50 << 20
    assert most < LIMIT


def peak(status: str) -> int:
    """Return the most memory that a process held, in bytes."""
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0
