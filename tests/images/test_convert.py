"""Converting with the real engine: what is verified, and what killed or failed runs leave."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from sifline import ocilayout, records, sif
from sifline.adapters.apptainer import Apptainer, Compression
from sifline.adapters.docker import Docker
from sifline.buildcontext import file_digest
from sifline.engine import LABEL_PURPOSE, SOCKET, remove_left_over
from sifline.errors import SiflineError, StepFailed, UsageError
from sifline.model import Workspace
from sifline.runner import ProcessRunner
from sifline.stages import convert
from sifline.stages.convert import stream
from tests.support import processes
from tests.support.contexts import context_of
from tests.support.conversion import at_work, built, left_over
from tests.support.engine import docker, make
from tests.support.recipes import EMPTY, TINY, TRIXIE

MOMENTS = 20

# A conversion in a process of its own, so that it can be killed or run beside another.
PROGRAM = """
import sys
from pathlib import Path
from tests.support.contexts import context_of
from tests.support.conversion import built
from sifline.stages import convert
done = convert.convert(built(sys.argv[1], sys.argv[2]), context_of(Path(sys.argv[3])))
print(done.sha256, done.fresh)
"""


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("recipes")
    made = {
        name: make(folder / name, f"sifline-test-{name}-{os.getpid()}", text)
        for name, text in (("tiny", TINY), ("empty", EMPTY))
    }
    yield made
    docker("image", "rm", "--force", *made.values())


def start(name: str, tag: str, root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, name, tag, str(root)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


METHODS = ("stream", "apptainer")


@pytest.mark.parametrize("method", METHODS)
def test_the_sif_says_where_it_came_from(
    tmp_path: Path, tags: dict[str, str], method: str
) -> None:
    image = replace(built("tiny", tags["tiny"], method=method), commit="c0ffee")

    done = convert.convert(image, context_of(tmp_path))

    found = convert.info(done.path, context_of(tmp_path))
    assert found["image id"] == image.image_id
    assert (found["fingerprint"], found["commit"]) == ("f" * 64, "c0ffee")
    assert found["labels"]["org.example.note"] == "two words"
    assert found["labels"]["org.sifline.name"] == "tiny"
    assert (found["sha256"], found["size"]) == (done.sha256, done.size)
    read = convert.read_sif(done.path)
    assert (read.sha256, read.image_id, read.commit) == (done.sha256, image.image_id, "c0ffee")
    told = found["provenance"]
    assert (told["image"]["id"], told["commit"]) == (image.image_id, "c0ffee")
    assert told["conversion"]["method"] == method
    assert told["tools"]["apptainer"].startswith("1.")


@pytest.mark.parametrize("method", METHODS)
def test_the_labels_read_here_are_those_apptainer_reads(
    tmp_path: Path, tags: dict[str, str], method: str
) -> None:
    done = convert.convert(built("tiny", tags["tiny"], method=method), context_of(tmp_path))
    theirs = Apptainer(ProcessRunner()).inspect(done.path)["labels"]
    assert sif.labels(sif.read(done.path)) == theirs


def test_an_image_without_a_shell_is_run(tmp_path: Path, tags: dict[str, str]) -> None:
    convert.convert(built("tiny", tags["tiny"]), context_of(tmp_path))
    record = records.read(tmp_path / "build" / "records" / "tiny" / "convert.json") or {}
    assert record["verified"] == "ran true"


def test_an_image_without_any_program_is_no_broken_image(
    tmp_path: Path, tags: dict[str, str]
) -> None:
    convert.convert(built("empty", tags["empty"]), context_of(tmp_path))
    record = records.read(tmp_path / "build" / "records" / "empty" / "convert.json") or {}
    assert record["verified"] == "mounted; it holds no true"


def test_the_second_conversion_leaves_the_file_alone(tmp_path: Path, tags: dict[str, str]) -> None:
    image, here = built("tiny", tags["tiny"]), context_of(tmp_path)
    first = convert.convert(image, here)
    before = first.path.stat()

    second = convert.convert(image, here)

    assert (first.fresh, second.fresh) == (False, True)
    assert second.sha256 == first.sha256
    assert second.path.stat() == before


def test_a_damaged_sif_is_noticed_and_made_anew(tmp_path: Path, tags: dict[str, str]) -> None:
    image, here = built("tiny", tags["tiny"]), context_of(tmp_path)
    path = convert.convert(image, here).path
    with path.open("r+b") as file:
        file.seek(-5000, os.SEEK_END)
        file.write(b"damage")

    again = convert.convert(image, here)

    assert not again.fresh
    assert b"damage" not in path.read_bytes()


def test_a_truncated_sif_is_refused(tmp_path: Path, tags: dict[str, str]) -> None:
    path = convert.convert(built("tiny", tags["tiny"]), context_of(tmp_path)).path
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UsageError, match="is truncated"):
        convert.read_sif(path)


def test_another_image_under_the_name_is_converted(tmp_path: Path, tags: dict[str, str]) -> None:
    here = context_of(tmp_path)
    first = convert.convert(built("same", tags["tiny"]), here)
    second = convert.convert(built("same", tags["empty"]), here)
    assert not second.fresh
    assert second.sha256 != first.sha256


def test_killed_at_twenty_moments_no_file_looks_finished_and_the_next_run_succeeds(
    tmp_path: Path,
) -> None:
    image = built("big", TRIXIE)
    expected = convert.convert(image, context_of(tmp_path / "quiet")).sha256
    started = time.monotonic()  # the engine has looked at the image by now
    assert start("big", TRIXIE, tmp_path / "timed").communicate()[0].split()[0] == expected
    seconds = time.monotonic() - started
    path, died, littered = Workspace(root=tmp_path).sif("big"), 0, 0
    for moment in range(MOMENTS):
        process = start("big", TRIXIE, tmp_path)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds * (moment + random.random()) / MOMENTS)  # noqa: S311
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        died += process.returncode == -signal.SIGKILL
        if path.parent.is_dir():
            littered += bool(left_over(tmp_path))
        if path.exists():
            assert file_digest(path) == expected
            path.unlink()

    done = convert.convert(image, context_of(tmp_path))

    assert died > MOMENTS // 2  # else nothing was disturbed
    assert littered
    assert (done.sha256, done.fresh) == (expected, False)
    assert (left_over(tmp_path), at_work(tmp_path)) == ([], [])
    assert docker("image", "ls", "--quiet", "sifline-convert").stdout == ""


class Way:
    """A way to the engine's socket that ends for good when it is cut, as if the engine stopped."""

    def __init__(self, place: Path) -> None:
        self._ends = list[socket.socket]()
        self._listener = socket.socket(socket.AF_UNIX)
        self._place, self._threads = place, list[threading.Thread]()
        self._listener.bind(str(place))
        self._listener.listen(64)
        self._do(self._serve)

    def _do(self, work: Callable[..., None], *words: socket.socket) -> None:
        thread = threading.Thread(target=work, args=words, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Cut it, and keep nothing."""
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for end in (self._listener, *self._ends):
            end.close()

    def cut(self) -> None:
        """End what is open, and let nothing in again."""
        self._place.unlink(missing_ok=True)
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                engine = socket.socket(socket.AF_UNIX)
                engine.connect(str(SOCKET))
                self._ends += [client, engine]
                for pair in ((client, engine), (engine, client)):
                    self._do(self._pump, *pair)

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while received := source.recv(1 << 16):
                target.sendall(received)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    found = Way(tmp_path / "engine.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'engine.sock'}")
    yield found
    found.close()


@pytest.mark.parametrize("mounted", [True, False])
def test_an_engine_that_stops_half_way_leaves_no_sif(
    tmp_path: Path, way: Way, monkeypatch: pytest.MonkeyPatch, mounted: bool
) -> None:
    root = tmp_path / "here"
    if not mounted:
        monkeypatch.setattr(Docker, "layers", lambda *_: ())

    def stop_at_the_stream(text: str) -> None:
        if text.startswith("packing"):
            way.cut()

    monkeypatch.setattr(stream, "TELL_SECONDS", 0)
    with pytest.raises(SiflineError, match=r"engine|ended half-way"):
        convert.convert(
            built("big", TRIXIE), replace(context_of(root), progress=stop_at_the_stream)
        )
    assert list(Workspace(root=root).sifs.iterdir()) == []

    monkeypatch.delenv("DOCKER_HOST")
    assert at_work(root)  # nobody could remove them
    assert not convert.convert(built("big", TRIXIE), context_of(root)).fresh
    assert (left_over(root), at_work(root)) == ([], [])


def test_layers_that_are_read_no_further_leave_no_sif(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []

    def kill_the_reader(text: str) -> None:
        if text.startswith("packing") and not killed:
            for pid, command in processes.read_all("cmdline"):
                if command.startswith(b"tar\0--create\0--blocking-factor"):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    monkeypatch.setattr(stream, "TELL_SECONDS", 0)
    with pytest.raises(SiflineError, match="ended half-way"):
        convert.convert(
            built("big", TRIXIE), replace(context_of(tmp_path), progress=kill_the_reader)
        )
    assert killed
    assert (left_over(tmp_path), at_work(tmp_path)) == ([], [])
    assert list(Workspace(root=tmp_path).sifs.iterdir()) == []


@pytest.mark.parametrize("layer", ["missing", "file"])
def test_layers_that_cannot_be_mounted_are_had_through_the_engine(
    tmp_path: Path, tags: dict[str, str], monkeypatch: pytest.MonkeyPatch, layer: str
) -> None:
    image = built("tiny", tags["tiny"])
    expected = convert.convert(image, context_of(tmp_path / "first"))
    (tmp_path / "file").touch()
    monkeypatch.setattr(Docker, "layers", lambda *_: (tmp_path / layer,))

    done = convert.convert(image, context_of(tmp_path / "second"))

    assert done.sha256 == expected.sha256
    assert (len(expected.notes), len(done.notes)) == (0, 1)
    assert "layers cannot be read" in done.notes[0]
    assert (left_over(tmp_path / "second"), at_work(tmp_path / "second")) == ([], [])


def test_the_same_image_gives_the_same_bytes_in_another_place_at_another_time(
    tmp_path: Path,
) -> None:
    first = convert.convert(built("same", TRIXIE, processors=1), context_of(tmp_path / "one"))
    time.sleep(1.1)  # what a clock wrote would differ
    there = tmp_path / "another folder"
    second = convert.convert(built("same", TRIXIE, processors=2), context_of(there))
    assert first.sha256 == second.sha256


def test_another_compression_gives_another_file(tmp_path: Path, tags: dict[str, str]) -> None:
    here = context_of(tmp_path)
    plain = convert.convert(built("tiny", tags["tiny"]), here)
    gzip = convert.convert(built("tiny", tags["tiny"], compression="gzip", level=9), here)
    assert (plain.fresh, gzip.fresh) == (False, False)
    head = Apptainer(ProcessRunner()).exec(gzip.path, ["true"])
    assert head.ok
    with gzip.path.open("rb") as file:
        file.seek(sif.system(sif.read(gzip.path)).offset)
        # The compression's number stands behind five numbers of 32 bits: 1 is gzip, 6 zstd.
        assert int.from_bytes(file.read(22)[20:], "little") == 1


@pytest.mark.parametrize("over", ["error", "warning"])
def test_a_sif_over_its_budget_is_an_error_or_a_warning(
    tmp_path: Path, tags: dict[str, str], over: str
) -> None:
    here = context_of(tmp_path)
    image = built("tiny", tags["tiny"], budget=1000, over_budget=over)
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
    tmp_path: Path, tags: dict[str, str]
) -> None:
    label = f"{LABEL_PURPOSE}={tmp_path / 'build' / 'tmp' / 'tiny.convert'}"
    options = ("--detach", "--rm", "--label", label, "--label", "sifline.test=1")
    docker("run", *options, TRIXIE, "sleep", "300")
    assert len(at_work(tmp_path)) == 1

    convert.convert(built("tiny", tags["tiny"]), context_of(tmp_path))

    assert at_work(tmp_path) == []


def test_containers_that_end_while_they_are_removed_are_no_failure(tmp_path: Path) -> None:
    label = f"{LABEL_PURPOSE}={tmp_path}"
    options = ("--detach", "--rm", "--label", label, "--label", "sifline.test=1")
    for _ in range(6):
        docker("run", *options, TRIXIE, "sleep", "300")
    assert len(at_work(tmp_path)) == 6

    purpose = str(tmp_path)
    with ThreadPoolExecutor(3) as pool:  # each finds some gone, and some that are going
        running = [pool.submit(remove_left_over, ProcessRunner(), purpose) for _ in range(3)]
        for done in running:
            done.result()

    assert at_work(tmp_path) == []


def test_an_interrupted_run_cleans_up_after_itself(tmp_path: Path) -> None:
    process = start("big", TRIXIE, tmp_path)
    deadline = time.monotonic() + 60
    while not at_work(tmp_path):
        assert time.monotonic() < deadline, "the conversion never began"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()

    assert process.returncode != 0
    assert not Workspace(root=tmp_path).sif("big").exists()
    assert (left_over(tmp_path), at_work(tmp_path)) == ([], [])


@pytest.mark.parametrize("user", [(0, 0), (12345, 12345)], ids=["root", "ordinary"])
def test_the_toolbox_builds_and_runs_for_any_user(
    tmp_path: Path, tags: dict[str, str], user: tuple[int, int]
) -> None:
    apptainer = Apptainer(ProcessRunner(), user=user)
    if apptainer.native:
        pytest.skip(f"{apptainer.native} is used here, so the toolbox is not")
    if os.geteuid() != 0:
        pytest.skip("giving a folder to another user needs root")
    archive, layout, made = (tmp_path / name for name in ("image.tar", "layout", "made.sif"))
    Docker(ProcessRunner()).save(f"{tags['tiny']}:latest", archive)
    ocilayout.from_archive(archive, layout)
    # pytest's folders above are closed to others: only what is bound has to be open.
    os.chown(tmp_path, *user)

    apptainer.build_from_layout(layout, made, labels={}, compression=Compression())

    assert (made.stat().st_uid, made.stat().st_gid) == user
    assert apptainer.exec(made, ["true"]).ok
    assert apptainer.exec(made, ["false"], check=False).returncode != 0


def test_of_two_conversions_at_once_one_does_the_work(
    tmp_path: Path, tags: dict[str, str]
) -> None:
    processes = [start("tiny", tags["tiny"], tmp_path) for _ in range(2)]
    said = [process.communicate()[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert said[0][0] == said[1][0]
    assert sorted(words[1] for words in said) == ["False", "True"]


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


@pytest.mark.parametrize("small_disk", ["300m"], indirect=True)
@pytest.mark.parametrize(
    ("method", "filled", "step"),
    [
        ("apptainer", 40, "extracting oci image"),
        ("apptainer", 140, "reading the image's layers"),
        ("apptainer", 240, "saving the image"),
        ("stream", 280, "looking at the image, and asking Apptainer for its part"),
    ],
)
def test_a_disk_that_fills_up_leaves_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, method: str, filled: int, step: str
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 0, 1 << 40))
    (small_disk / "other").write_bytes(bytes(filled << 20))
    said = list[str]()

    def say(text: str) -> None:
        said.append(text)

    image = built("big", TRIXIE, method=method)
    with pytest.raises(StepFailed, match="converting big failed: the disk is full"):
        convert.convert(image, replace(context_of(small_disk), progress=say))

    assert [text for text in said if not text.startswith("packing")][-1] == step
    assert list((small_disk / "build" / "sif").iterdir()) == []
    assert (left_over(small_disk), at_work(small_disk)) == ([], [])


LARGE = """
FROM docker.io/sifline/debian-bookworm
RUN head --bytes 1536M /dev/urandom > /random && mkdir /many && cd /many \\
    && seq 20000 | split --lines 1 --suffix-length 4
"""
LIMIT = 1 << 30


def test_memory_stays_below_the_image_s_size(tmp_path: Path) -> None:
    """What all processes of a conversion hold at most, as the kernel counts it for each."""
    tag = make(tmp_path / "recipe", f"sifline-test-large-{os.getpid()}", LARGE)
    peaks: dict[int, int] = {}
    try:
        process = start("large", tag, tmp_path)
        while process.poll() is None:
            for pid, status in processes.read_all("status"):
                with suppress(OSError):
                    if pid == process.pid or converts(pid):
                        peaks[pid] = peak(status.decode())
            time.sleep(0.05)
        assert process.communicate()[0].endswith("False\n")
    finally:
        docker("image", "rm", "--force", tag)

    assert Workspace(root=tmp_path).sif("large").stat().st_size > LIMIT
    assert any(value > 100 << 20 for value in peaks.values())  # the caches of sqfstar were seen
    assert sum(peaks.values()) < LIMIT


def converts(pid: int) -> bool:
    """Tell whether a process is a program of the toolbox that converts."""
    program = Path("/proc", str(pid), "cmdline").read_bytes().partition(b"\0")[0]
    return program.rpartition(b"/")[2] in (b"sqfstar", b"tar", b"apptainer", b"unsquashfs")


def peak(status: str) -> int:
    """Return the most memory that a process held, in bytes."""
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0
