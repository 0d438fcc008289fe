"""Copies of SIFs at paths that users name: what is replaced, and what never is."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from sifline.errors import StepFailed, UsageError
from sifline.machine.context import Context
from sifline.model import Sif
from sifline.stages.output import Output, check, place
from tests.support.contexts import context_of


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "checkout").mkdir()
    return context_of(tmp_path / "checkout")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "x.sif"


def sif(folder: Path, content: bytes = b"first") -> Sif:
    path = folder / f"{content.decode()}.sif"
    path.write_bytes(content)
    return Sif(name="x", path=path, sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def test_copy_has_the_content_and_stands_alone(
    context: Context, target: Path, tmp_path: Path
) -> None:
    assert place(sif(tmp_path), Output(path=target), context)
    assert target.read_bytes() == b"first"
    assert list(target.parent.iterdir()) == [target]
    assert not target.samefile(tmp_path / "first.sif")


def test_the_same_content_is_not_written_again(
    context: Context, target: Path, tmp_path: Path
) -> None:
    place(sif(tmp_path), Output(path=target), context)
    before = target.stat()
    assert not place(sif(tmp_path), Output(path=target), context)
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_was_written_here_is_replaced(
    context: Context, target: Path, tmp_path: Path
) -> None:
    place(sif(tmp_path), Output(path=target), context)
    assert place(sif(tmp_path, b"second"), Output(path=target), context)
    assert target.read_bytes() == b"second"


@pytest.mark.parametrize("where", ["check", "place"])
def test_a_file_of_others_is_left_alone(
    context: Context, target: Path, tmp_path: Path, where: str
) -> None:
    target.write_bytes(b"theirs")
    output = Output(path=target)
    with pytest.raises(UsageError, match=r"did not write it; choose another name, or .*--foreign"):
        check(output, context.workspace) if where == "check" else place(
            sif(tmp_path), output, context
        )
    assert target.read_bytes() == b"theirs"


def test_a_file_of_another_checkout_is_left_alone(
    context: Context, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    place(sif(tmp_path), Output(path=target), context_of(tmp_path / "other"))
    with pytest.raises(UsageError, match="did not write it"):
        place(sif(tmp_path, b"second"), Output(path=target), context)
    assert target.read_bytes() == b"first"


def test_a_file_that_was_changed_since_is_left_alone(
    context: Context, target: Path, tmp_path: Path
) -> None:
    place(sif(tmp_path), Output(path=target), context)
    target.write_bytes(b"signed")
    with pytest.raises(UsageError, match="changed since sifline wrote it"):
        place(sif(tmp_path, b"second"), Output(path=target), context)
    assert target.read_bytes() == b"signed"


def test_a_link_to_a_file_of_others_is_left_alone(
    context: Context, target: Path, tmp_path: Path
) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    target.symlink_to(tmp_path / "theirs")
    with pytest.raises(UsageError, match="did not write it"):
        place(sif(tmp_path), Output(path=target), context)
    assert (tmp_path / "theirs").read_bytes() == b"theirs"


def test_a_link_to_itself_is_a_file_of_others(
    context: Context, target: Path, tmp_path: Path
) -> None:
    target.symlink_to(target.name)
    with pytest.raises(UsageError, match="did not write it"):
        check(Output(path=target), context.workspace)
    assert place(sif(tmp_path), Output(path=target, foreign=True), context)
    assert not target.is_symlink()


def test_the_longest_name_is_written_and_a_longer_one_refused_before_the_work(
    context: Context, target: Path, tmp_path: Path
) -> None:
    longest = target.with_name("x" * 251 + ".sif")
    assert place(sif(tmp_path), Output(path=longest), context)
    with pytest.raises(UsageError, match="has 256 bytes, and may have 255 there"):
        check(Output(path=target.with_name("x" * 252 + ".sif")), context.workspace)


def test_a_file_of_others_is_replaced_where_that_is_asked_for(
    context: Context, target: Path, tmp_path: Path
) -> None:
    target.write_bytes(b"theirs")
    assert place(sif(tmp_path), Output(path=target, foreign=True), context)
    assert target.read_bytes() == b"first"
    # From now on it is one that was written here.
    assert place(sif(tmp_path, b"second"), Output(path=target), context)


def test_a_sif_that_another_run_replaced_is_said_to_be(
    context: Context, target: Path, tmp_path: Path
) -> None:
    replaced = sif(tmp_path)
    replaced.path.write_bytes(b"other")
    with pytest.raises(StepFailed, match="another run replaced it"):
        place(replaced, Output(path=target), context)
    assert not target.exists()


def test_a_copy_that_differs_takes_nobodys_place(
    context: Context, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(sif(tmp_path), Output(path=target), context)
    monkeypatch.setattr(
        "sifline.stages.output.shutil.copyfile", lambda _, to: Path(to).write_bytes(b"secund")
    )
    with pytest.raises(StepFailed, match="the copy differs"):
        place(sif(tmp_path, b"second"), Output(path=target), context)
    assert target.read_bytes() == b"first"
    assert list(target.parent.iterdir()) == [target]


def test_a_run_that_was_killed_behind_the_rename_has_written_the_file(
    context: Context, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As SIGKILL: nothing behind it is done."""

    def killed(folder: Path) -> None:
        if folder == target.parent:
            raise Killed

    monkeypatch.setattr("sifline.stages.output.records.sync_folder", killed)
    with pytest.raises(Killed):
        place(sif(tmp_path), Output(path=target), context)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert target.read_bytes() == b"first"
    assert place(sif(tmp_path, b"second"), Output(path=target), context)


def test_what_a_killed_run_left_is_removed(
    context: Context, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As SIGKILL, which also leaves the partial copy."""

    def killed(_path: Path, _partial: Path) -> None:
        _partial.write_bytes(b"fir")
        monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("sifline.stages.output.shutil.copyfile", killed)
        with pytest.raises(Killed):
            place(sif(tmp_path), Output(path=target), context)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(list(target.parent.iterdir())) == 1
    assert place(sif(tmp_path), Output(path=target), context)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("out/x.img", "takes FILE.sif"),
        ("out", "takes FILE.sif"),
        ("checkout/build/sif/x.sif", "keeps its own SIFs"),
    ],
)
@pytest.mark.usefixtures("target")
def test_what_is_no_output(context: Context, tmp_path: Path, path: str, said: str) -> None:
    (tmp_path / "checkout" / "build" / "sif").mkdir(parents=True)
    with pytest.raises(UsageError, match=said):
        check(Output(path=tmp_path / path), context.workspace)


def test_a_folder_that_cannot_be_written_is_refused(
    context: Context, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root, who runs tests, may write everywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="may not write"):
        check(Output(path=target), context.workspace)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "No space left on device; make room, or choose another place$"),
        (errno.EPERM, "Operation not permitted; choose another place$"),
    ],
)
def test_a_failed_copy_leaves_what_was_there(
    context: Context,
    target: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    number: int,
    said: str,
) -> None:
    place(sif(tmp_path), Output(path=target), context)

    def failing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("sifline.stages.output.shutil.copyfile", failing)
    with pytest.raises(StepFailed, match=f"cannot be written: {said}"):
        place(sif(tmp_path, b"second"), Output(path=target), context)
    assert target.read_bytes() == b"first"
