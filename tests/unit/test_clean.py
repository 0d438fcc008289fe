"""Which files ``clean`` removes, and which say that an image in the engine is ours."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from sifline.engines.docker.builds import id_files
from sifline.errors import MissingError, UsageError
from sifline.machine import records
from sifline.machine.process import Result
from sifline.model import Cleaned, Image
from sifline.pipeline.cleaning import Cleaner
from sifline.pipeline.plans import Planner
from sifline.report.terminal import Terminal
from sifline.stages.clean import Parts, clean, sources
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

MARK = "f" * 64
DAY = 86400
STATE = Parts(docker=False, sifs=False)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the engine nor the locks of this machine."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def listed(image_id: str, *tags: str) -> dict[str, object]:
    """What the engine says of an image of ours."""
    return {
        "Id": image_id,
        "RepoTags": list(tags),
        "RepoDigests": [],
        "Size": 1,
        "Created": "2026-01-01T00:00:00Z",
        "Config": {"Labels": {"sifline.image": "x", "sifline.fingerprint": MARK}},
    }


NAMED = listed("sha256:a", f"sifline/x:{MARK[:12]}", "sifline/x:latest")
UNNAMED = listed("sha256:b")


def engine(
    *held: Sequence[dict[str, object]], tagged: float = 0, used: str = ""
) -> RecordingRunner:
    """An engine that holds one list of images after the other."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(tagged))
    ids = [" ".join(str(image["Id"]) for image in images) for images in held]
    shown: list[Result | Exception] = [answer(json.dumps([*images])) for images in held if images]
    return RecordingRunner(
        {
            ("docker", "image", "ls"): [answer(text) for text in ids],
            ("docker", "image", "inspect"): shown or [answer("[]")],
            ("docker", "image", "inspect", "--format"): answer(f'sha256:a "{when}"\n'),
            ("docker", "image", "rm"): answer(),
            ("docker", "container", "ls"): answer("c" if used else ""),
            ("docker", "container", "inspect"): answer(used),
        }
    )


def left(root: Path) -> set[str]:
    """The names of what is left of records and logs."""
    kinds = ("records", "logs")
    return {path.name for kind in kinds for path in (root / "build" / kind).rglob("*.*")}


def cleaned(
    root: Path, parts: Parts, runner: RecordingRunner, *, age: float = 0, dry: bool = False
) -> Cleaned:
    """What is removed of an image with a record, two files with ids and a log."""
    here = context_of(root, runner)
    space = here.workspace
    records.write(space.record("x", f"build-{MARK[:12]}"), {"image_id": "sha256:a"})
    records.write(space.record("x", "build-0123456789ab"), {"image_id": "sha256:gone"})
    space.logs.mkdir()
    (space.logs / "x.build.0123abcd.id").write_text("sha256:b")
    (space.logs / "x.build.4567abcd.id").write_text("sha256:gone")
    (space.logs / "x.build.log").write_text("log")
    for path in space.build.rglob("*.*"):
        os.utime(path, (time.time() - age,) * 2)
    return clean(
        [Image(name="x", folder=root / "x", tag="sifline/x:latest")], parts, here, dry=dry
    )


PROOFS = {f"build-{MARK[:12]}.json", "x.build.0123abcd.id"}


@pytest.mark.parametrize("dry", [False, True])
def test_what_says_that_an_image_in_the_engine_is_ours_stays_with_it(
    tmp_path: Path, dry: bool
) -> None:
    done = cleaned(tmp_path, STATE, engine([NAMED, UNNAMED]), dry=dry)

    told = {Path(path).name for path, _ in done.removed}
    assert told == {"build-0123456789ab.json", "x.build.4567abcd.id", "x.build.log"}
    assert left(tmp_path) == (PROOFS | told if dry else PROOFS)


def test_it_goes_with_the_image(tmp_path: Path) -> None:
    cleaned(tmp_path, Parts(), engine([NAMED, UNNAMED], []))

    assert left(tmp_path) == set()


def test_it_stays_where_the_image_is_younger_than_its_record(tmp_path: Path) -> None:
    tagged = engine([NAMED], tagged=time.time() - DAY)

    cleaned(tmp_path, Parts(older_than=7 * DAY), tagged, age=10 * DAY)

    assert left(tmp_path) == {f"build-{MARK[:12]}.json"}


def test_it_stays_where_a_container_uses_the_image_or_takes_it_meanwhile(tmp_path: Path) -> None:
    for name, runner in {
        "before": engine([NAMED], used="sha256:a"),
        "meanwhile": engine([NAMED]),
    }.items():
        (tmp_path / name).mkdir()
        cleaned(tmp_path / name, Parts(), runner)
        assert left(tmp_path / name) == {f"build-{MARK[:12]}.json"}


def test_it_stays_where_no_engine_says_what_it_holds(tmp_path: Path) -> None:
    silent = RecordingRunner({("docker",): MissingError("no Docker engine answers")})

    cleaned(tmp_path, STATE, silent)

    assert left(tmp_path) == {*PROOFS, "build-0123456789ab.json", "x.build.4567abcd.id"}


def test_nothing_of_an_image_goes_while_another_run_builds_it(tmp_path: Path) -> None:
    """Until it has a name, it looks like one that a killed run left."""
    runner = engine([UNNAMED])
    lock = records.build_lock(context_of(tmp_path).workspace, "x")

    with records.locked(lock):
        done = cleaned(tmp_path, Parts(), runner)

    assert done == Cleaned(removed=(), kept=("x: another run builds it",), freed=0)
    assert not any(argv[:3] == ("docker", "image", "rm") for argv in runner.argvs)
    with records.locked_if_free(lock) as free:
        assert free


def test_an_id_that_its_build_removes_meanwhile_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.build.0123abcd.id").symlink_to("gone")

    assert id_files(tmp_path / "x.build.log") == {tmp_path / "x.build.0123abcd.id": ""}


def test_a_memory_of_a_named_context_says_nothing_of_images(tmp_path: Path) -> None:
    memory = tmp_path / "build" / "cache" / "x.context-a.id"
    memory.parent.mkdir(parents=True)
    memory.write_bytes(b"\xff")

    cleaned(tmp_path, STATE, engine([NAMED]))

    assert not memory.exists()


# SIFs of other sources


def converted(root: Path, name: str, *, fingerprint: str = "") -> list[Path]:
    """Leave what the conversion of a source leaves; return the SIF, its record and its log."""
    space = context_of(root).workspace
    record = space.record(name, "convert")
    paths = [space.sif(name), record, space.logs / f"{name}.convert.log"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    records.write(record, {"fingerprint": fingerprint})
    return paths


def test_sifs_of_other_sources_are_known_by_their_records(tmp_path: Path) -> None:
    for name in ("a", "b", "known"):
        converted(tmp_path, name)
    converted(tmp_path, "built", fingerprint=MARK)
    assert sources({"known"}, context_of(tmp_path).workspace) == ["a", "b"]


@pytest.mark.parametrize(
    ("parts", "left"),
    [
        (Parts(docker=False), []),
        (Parts(docker=False, state=False), [2]),
        (Parts(docker=False, sifs=False), [0, 1]),
    ],
)
def test_sifs_of_other_sources_are_removed_with_their_records(
    tmp_path: Path, parts: Parts, left: list[int]
) -> None:
    paths = converted(tmp_path, "a")
    runner = engine([])
    dry = clean([], parts, context_of(tmp_path, runner), sources=["a"], dry=True)
    assert all(path.is_file() for path in paths)
    done = clean([], parts, context_of(tmp_path, engine([])), sources=["a"])
    assert [number for number, path in enumerate(paths) if path.is_file()] == left
    assert done.removed == dry.removed


def test_a_sif_file_of_this_checkout_is_removed_and_no_other(tmp_path: Path) -> None:
    sif, record, _ = converted(tmp_path, "a")
    other = tmp_path / "other.sif"
    other.write_text("x")
    cleaner = Cleaner(Planner(context_of(tmp_path, RecordingRunner({})), Terminal()))
    with pytest.raises(UsageError, match=r"is not in .*; remove it with rm"):
        cleaner.clean_files([other], dry=False)
    with pytest.raises(UsageError, match="there is no such file"):
        cleaner.clean_files([sif.with_name("b.sif")], dry=False)
    cleaner.clean_files([sif], dry=False)
    assert [path.is_file() for path in (sif, record, other)] == [False, False, True]
