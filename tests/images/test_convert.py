"""Converting with the real engine: what is verified, and what killed or failed runs leave."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sifline import ocilayout, records, sif
from sifline.adapters.apptainer import LABEL_PURPOSE, Apptainer, Compression
from sifline.adapters.docker import Docker
from sifline.errors import StepFailed, UsageError
from sifline.model import BuiltImage, Image, Workspace
from sifline.runner import Context, ProcessRunner
from sifline.stages import convert

from .conftest import docker

TRIXIE = "sifline/debian-trixie"
# No shell, no /etc: a program, its library and its loader.
TINY = f"""
FROM {TRIXIE} AS base
FROM scratch
COPY --from=base /usr/bin/true /usr/bin/
COPY --from=base /usr/lib/x86_64-linux-gnu/libc.so.6 /usr/lib/x86_64-linux-gnu/
COPY --from=base /usr/lib64/ld-linux-x86-64.so.2 /lib64/
LABEL org.example.note="two words"
"""
EMPTY = "FROM scratch\nLABEL a=b\nCOPY Dockerfile /file\n"

# A conversion in a process of its own, so that it can be killed or run beside another.
PROGRAM = """
import sys
from pathlib import Path
from tests.images.test_convert import built, context
from sifline.stages import convert
done = convert.convert(built(sys.argv[1], sys.argv[2]), context(Path(sys.argv[3])))
print(done.sha256, done.fresh)
"""


def context(root: Path) -> Context:
    return Context(workspace=Workspace(root=root), runner=ProcessRunner(), progress=lambda _: None)


def built(name: str, tag: str) -> BuiltImage:
    entry = Docker(ProcessRunner()).images([f"{tag}:latest"])[f"{tag}:latest"]
    return BuiltImage(
        image=Image(name=name, folder=Path(name), tag=f"{tag}:latest"),
        image_id=entry.image_id,
        fingerprint="f" * 64,
        size=entry.size,
        fresh=True,
    )


def make(folder: Path, tag: str, dockerfile: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    docker("buildx", "build", "--tag", tag, "--label", "sifline.test=1", str(folder))
    return tag


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


def at_work(root: Path) -> list[str]:
    """The containers that convert in this workspace."""
    listed = docker("ps", "--all", "--format", f'{{{{.ID}}}} {{{{.Label "{LABEL_PURPOSE}"}}}}')
    pairs = (line.partition(" ") for line in listed.stdout.splitlines())
    return [number for number, _, purpose in pairs if purpose.startswith(str(root))]


def left_over(root: Path) -> list[Path]:
    """Everything besides SIFs under their own names, records, logs and locks."""
    space = Workspace(root=root)
    hidden = [path for path in space.sifs.iterdir() if path.name.startswith(".")]
    return hidden + [path for path in (space.build / "tmp").rglob("*") if path.is_file()]


def test_the_sif_says_where_it_came_from(tmp_path: Path, tags: dict[str, str]) -> None:
    image = built("tiny", tags["tiny"])

    done = convert.convert(image, context(tmp_path), commit="c0ffee")

    found = convert.info(done.path, context(tmp_path))
    assert found["image id"] == image.image_id
    assert (found["fingerprint"], found["commit"]) == ("f" * 64, "c0ffee")
    assert found["labels"]["org.example.note"] == "two words"
    assert found["labels"]["org.sifline.name"] == "tiny"
    assert (found["sha256"], found["size"]) == (done.sha256, done.size)
    read = convert.read_sif(done.path)
    assert (read.sha256, read.image_id, read.commit) == (done.sha256, image.image_id, "c0ffee")


def test_the_labels_read_here_are_those_apptainer_reads(
    tmp_path: Path, tags: dict[str, str]
) -> None:
    done = convert.convert(built("tiny", tags["tiny"]), context(tmp_path))
    theirs = Apptainer(ProcessRunner()).inspect(done.path)["labels"]
    assert sif.labels(sif.read(done.path)) == theirs


def test_an_image_without_a_shell_is_run(tmp_path: Path, tags: dict[str, str]) -> None:
    convert.convert(built("tiny", tags["tiny"]), context(tmp_path))
    record = records.read(tmp_path / "build" / "records" / "tiny" / "convert.json") or {}
    assert record["verified"] == "ran true"


def test_an_image_without_any_program_is_no_broken_image(
    tmp_path: Path, tags: dict[str, str]
) -> None:
    convert.convert(built("empty", tags["empty"]), context(tmp_path))
    record = records.read(tmp_path / "build" / "records" / "empty" / "convert.json") or {}
    assert record["verified"] == "mounted; it holds no true"


def test_the_second_conversion_leaves_the_file_alone(tmp_path: Path, tags: dict[str, str]) -> None:
    image, here = built("tiny", tags["tiny"]), context(tmp_path)
    first = convert.convert(image, here)
    before = first.path.stat()

    second = convert.convert(image, here)

    assert (first.fresh, second.fresh) == (False, True)
    assert second.sha256 == first.sha256
    assert second.path.stat() == before


def test_a_damaged_sif_is_noticed_and_made_anew(tmp_path: Path, tags: dict[str, str]) -> None:
    image, here = built("tiny", tags["tiny"]), context(tmp_path)
    path = convert.convert(image, here).path
    with path.open("r+b") as file:
        file.seek(-5000, os.SEEK_END)
        file.write(b"damage")

    again = convert.convert(image, here)

    assert not again.fresh
    assert b"damage" not in path.read_bytes()


def test_a_truncated_sif_is_refused(tmp_path: Path, tags: dict[str, str]) -> None:
    path = convert.convert(built("tiny", tags["tiny"]), context(tmp_path)).path
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(UsageError, match="is truncated"):
        convert.read_sif(path)


def test_another_image_under_the_name_is_converted(tmp_path: Path, tags: dict[str, str]) -> None:
    here = context(tmp_path)
    first = convert.convert(built("same", tags["tiny"]), here)
    second = convert.convert(built("same", tags["empty"]), here)
    assert not second.fresh
    assert second.sha256 != first.sha256


def test_what_a_killed_run_leaves_is_no_sif_and_goes_with_the_next(tmp_path: Path) -> None:
    process = start("big", TRIXIE, tmp_path)
    deadline = time.monotonic() + 60
    while not at_work(tmp_path):
        assert time.monotonic() < deadline, "the conversion never began"
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    space = Workspace(root=tmp_path)
    assert not space.sif("big").exists()
    assert [path for path in (space.build / "tmp").rglob("*") if path.is_file()] != []

    done = convert.convert(built("big", TRIXIE), context(tmp_path))

    assert not done.fresh
    assert (left_over(tmp_path), at_work(tmp_path)) == ([], [])


def test_a_container_that_still_builds_for_a_killed_run_is_ended(
    tmp_path: Path, tags: dict[str, str]
) -> None:
    label = f"{LABEL_PURPOSE}={tmp_path / 'build' / 'tmp' / 'tiny.convert'}"
    options = ("--detach", "--rm", "--label", label, "--label", "sifline.test=1")
    docker("run", *options, TRIXIE, "sleep", "300")
    assert len(at_work(tmp_path)) == 1

    convert.convert(built("tiny", tags["tiny"]), context(tmp_path))

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


@pytest.mark.parametrize("small_disk", ["300m"], indirect=True)
def test_too_small_a_disk_is_refused_with_figures(small_disk: Path) -> None:
    with pytest.raises(StepFailed, match=r"needs 0\.\d\d GB free in .*, and there are 0\.3\d GB"):
        convert.convert(built("big", TRIXIE), context(small_disk))
    assert left_over(small_disk) == []


@pytest.mark.parametrize("small_disk", ["300m"], indirect=True)
@pytest.mark.parametrize(
    ("filled", "step"),
    [
        (40, "extracting oci image"),
        (140, "reading the image's layers"),
        (240, "saving the image"),
    ],
)
def test_a_disk_that_fills_up_leaves_nothing(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, filled: int, step: str
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 0, 1 << 40))
    (small_disk / "other").write_bytes(bytes(filled << 20))
    said = list[str]()

    def say(text: str) -> None:
        said.append(text)

    with pytest.raises(StepFailed, match="converting big failed: the disk is full"):
        convert.convert(built("big", TRIXIE), replace(context(small_disk), progress=say))

    assert said[-1] == step
    assert list((small_disk / "build" / "sif").iterdir()) == []
    assert (left_over(small_disk), at_work(small_disk)) == ([], [])
