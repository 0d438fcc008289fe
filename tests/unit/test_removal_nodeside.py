"""What a node removes from its registry, what it keeps and why, and what a killed run leaves."""

from __future__ import annotations

import fcntl
import grp
import io
import json
import mmap
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.engines.registry import removal_source
from sifline.nodeside import registry, removal
from tests.unit.test_registry_nodeside import CATEGORY, deploy, of, run, sha, temporary_files

KEY = f"{CATEGORY}/hello"
HELLO = (f"--category={CATEGORY}", "--name=hello")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in registry.FOLDERS:
        (tmp_path / name).mkdir()
    return tmp_path


def words(root: Path, verb: str, *more: str) -> list[str]:
    owner = pwd.getpwuid(os.getuid()).pw_name
    group = grp.getgrgid(os.getgid()).gr_name
    return [verb, f"--root={root}", f"--owner={owner}", f"--group={group}", *more]


def call(root: Path, verb: str, *more: str) -> dict[str, Any]:
    with redirect_stdout(io.StringIO()) as out:
        removal.main(words(root, verb, *more))
    return dict(json.loads(out.getvalue()))


def which(*contents: bytes, uploads: tuple[str, ...] = ()) -> str:
    pairs = [[KEY, sha(content)] for content in contents]
    return "--which=" + json.dumps({"versions": pairs, "uploads": uploads})


def file_of(root: Path, content: bytes) -> Path:
    return root / ".registry" / "versions" / KEY / f"{sha(content)}.sif"


@contextmanager
def reading(path: Path, script: str) -> Iterator[None]:
    """Another process that does ``script`` with the file ``sys.argv[1]``, and waits."""
    wait = "\nprint('ready', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys, mmap\n{script}{wait}", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    try:
        yield
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def test_the_source_that_is_sent_runs_without_the_package(root: Path) -> None:
    deploy(root, b"one")
    done = subprocess.run(
        [sys.executable, "-I", "-", *words(root, "look")],
        input=removal_source(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    assert json.loads(done.stdout)["images"][KEY]["current"] == sha(b"one")


def test_undeploy_removes_the_name_and_its_entry_and_remembers_it(root: Path) -> None:
    deploy(root, b"one")
    meta = json.dumps({"who": "ada@here", "when": "2026-01-02T00:00:00+00:00"})
    first = call(root, "undeploy", *HELLO, f"--meta={meta}")
    again = call(root, "undeploy", *HELLO)

    listed = run(root, "list")
    assert (first["removed"], again["removed"]) == (True, False)
    assert (listed["images"], listed["unknown"]) == ({}, [])
    assert [(item["event"], item["who"]) for item in listed["history"][KEY][-1:]] == [
        ("undeployed", "ada@here")
    ]
    assert not (root / f"{KEY}.sif").is_symlink()
    assert file_of(root, b"one").read_bytes() == b"one"


def test_undeploy_leaves_a_foreign_file_and_says_so(root: Path) -> None:
    (root / f"{KEY}.sif").write_bytes(b"theirs")

    answer = call(root, "undeploy", *HELLO)

    assert answer["error"] == "foreign"
    assert (root / f"{KEY}.sif").read_bytes() == b"theirs"


def test_a_killed_undeploy_is_finished_by_the_next(root: Path) -> None:
    deploy(root, b"one")
    (root / f"{KEY}.sif").unlink()

    assert call(root, "undeploy", *HELLO)["removed"] is True
    assert run(root, "list")["images"] == {}


def test_prune_removes_what_is_asked_for_and_its_entry(root: Path) -> None:
    for content in (b"one", b"two", b"three"):
        deploy(root, content)

    done = call(root, "prune", which(b"one"))

    assert [item["sha256"] for item in done["removed"]] == [sha(b"one")]
    assert not file_of(root, b"one").exists()
    entry = run(root, "list")["images"][KEY]
    assert [known["sha256"] for known in entry["previous"]] == [sha(b"two")]


def test_prune_keeps_what_is_in_place(root: Path) -> None:
    deploy(root, b"one")

    done = call(root, "prune", which(b"one"))

    assert (done["removed"], done["kept"][0]["why"]) == ([], "it is in place")
    assert (root / f"{KEY}.sif").read_bytes() == b"one"


@pytest.mark.parametrize("leases", [True, False], ids=["leases", "no leases"])
@pytest.mark.parametrize(
    "script",
    [
        "file = open(sys.argv[1])",
        "file = open(sys.argv[1], 'rb'); m = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ);"
        " file.close()",
    ],
    ids=["open", "mapped"],
)
def test_prune_keeps_what_a_process_uses_until_it_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch, script: str, leases: bool
) -> None:
    if not leases:
        # By its name alone: a file of another disk may have the same inode.
        uses = removal.process_uses
        monkeypatch.setattr(removal, "gives_leases", lambda _: False)
        monkeypatch.setattr(removal, "process_uses", lambda *_: uses({}, []))
    # Tests that run beside this one have files of other digests.
    big, two = f"{root}{'x' * mmap.PAGESIZE}".encode(), f"{root}".encode()
    for content in (big, two):
        deploy(root, content)
    with reading(file_of(root, big), script):
        seen = call(root, "look")["images"][KEY]["versions"]
        kept = call(root, "prune", which(big))["kept"]
    removed = call(root, "prune", which(big))["removed"]

    users = {item["sha256"]: item["users"] for item in seen}
    assert users[sha(two)] == []
    assert users[sha(big)]
    assert users[sha(big)][0] in kept[0]["why"]
    assert [item["sha256"] for item in removed] == [sha(big)]


def test_prune_keeps_what_a_process_has_open_by_another_name(root: Path, tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        deploy(root, content)
    os.link(file_of(root, b"one"), tmp_path / "other")
    with reading(tmp_path / "other", "file = open(sys.argv[1])"):
        kept = call(root, "prune", which(b"one"))["kept"]

    assert [item["sha256"] for item in kept] == [sha(b"one")]


def test_prune_keeps_what_is_open_where_proc_shows_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, whose root may not look at the processes of others."""
    monkeypatch.setattr(removal, "process_uses", lambda *_: ())
    for content in (b"one", b"two"):
        deploy(root, content)
    with reading(file_of(root, b"one"), "file = open(sys.argv[1])"):
        kept = call(root, "prune", which(b"one"))["kept"]
    removed = call(root, "prune", which(b"one"))["removed"]

    assert [item["why"] for item in kept] == [f"{removal.HIDDEN} has it open"]
    assert [item["sha256"] for item in removed] == [sha(b"one")]


def test_prune_keeps_all_where_nobody_can_tell(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hides(_: object, hidden: list[str]) -> tuple[()]:
        hidden.append("7")
        return ()

    monkeypatch.setattr(removal, "process_uses", hides)
    monkeypatch.setattr(removal, "gives_leases", lambda _: False)
    for content in (b"one", b"two"):
        deploy(root, content)

    (kept,) = call(root, "prune", which(b"one"))["kept"]

    assert kept["why"].startswith("perhaps one of 1 processes")


def test_prune_removes_uploads_that_nobody_writes_to(root: Path) -> None:
    old, held, new = (
        Path(run(root, "status", *of(content), "--look=yes")["upload"])
        for content in (b"one", b"two", b"three")
    )
    old.parent.mkdir()
    foreign = old.parent / "other.partial"
    for path in (old, held, new, foreign):
        path.write_bytes(b"half")
    past = time.time() - registry.ABANDONED_SECONDS - 60
    for path in (old, held, foreign):
        os.utime(path, (past, past))
    names = tuple(item["name"] for item in call(root, "look")["uploads"])
    with held.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = call(root, "prune", which(uploads=(*names, new.name, foreign.name)))

    assert names == tuple(sorted((old.name, held.name)))
    assert [item["name"] for item in done["uploads"] if item["removed"]] == [old.name]
    assert sorted(path.name for path in old.parent.iterdir()) == sorted(
        (held.name, new.name, foreign.name)
    )


def test_foreign_files_among_the_versions_are_no_versions(root: Path) -> None:
    deploy(root, b"one")
    folder = file_of(root, b"one").parent
    (folder / "notes.sif").write_text("mine")
    (folder / f"{'a' * 64}.sif").symlink_to("/etc/passwd")

    found = call(root, "look")["images"][KEY]["versions"]

    assert [item["sha256"] for item in found] == [sha(b"one")]


def test_nothing_temporary_is_left(root: Path) -> None:
    for content in (b"one", b"two"):
        deploy(root, content)
    call(root, "prune", which(b"one"))
    call(root, "undeploy", *HELLO)

    assert temporary_files(root) == []


SQUEUE = """#!/bin/sh
echo '7|alice|PENDING|/home/alice/train.sh'
echo '7|alice|PENDING|/home/alice/train.sh'
echo '8|bob|RUNNING|apptainer'
"""
SCONTROL = """#!/bin/sh
[ "$3" = 7 ] || exit 1
echo 'srun apptainer exec /opt/containers/custom-images/hello.sif python train.py'
"""


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin" if texts else str(folder))


def test_jobs_that_name_a_sif_in_their_script_are_found(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch, squeue=SQUEUE, scontrol=SCONTROL)

    found = call(root, "jobs")

    name = "/opt/containers/custom-images/hello.sif"
    assert found == {
        "slurm": True,
        "jobs": [{"job": "7", "user": "alice", "state": "PENDING", "names": [name]}],
    }


def test_a_node_without_slurm_has_no_jobs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch)

    assert call(root, "jobs") == {"slurm": False, "jobs": []}


def test_a_slurm_that_does_not_answer_is_an_error(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = "#!/bin/sh\necho 'squeue: error: Unable to contact slurm controller' >&2\nexit 1\n"
    programs(tmp_path, monkeypatch, squeue=down)

    answer = call(root, "jobs")

    assert answer["error"] == "slurm"
    assert "Unable to contact" in answer["message"]


@given(text=st.text())
def test_any_text_for_which_is_refused_or_read(text: str) -> None:
    refused = ""
    try:
        versions, uploads = removal.asked(text)
    except registry.RegistryError as error:
        refused, versions, uploads = error.kind, set(), set()

    assert refused in ("", "bad-argument")
    assert all(isinstance(name, str) for name in (*uploads, *(key for key, _ in versions)))
