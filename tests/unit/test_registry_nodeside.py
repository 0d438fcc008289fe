"""The registry script: run as a node runs it, its source on standard input of Python, where its
life as a process counts; called in this process, which is a tenth of the time, where its answer
alone does.
"""

from __future__ import annotations

import fcntl
import grp
import hashlib
import io
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sifline.nodeside import registry
from tests.support.waiting import until

SOURCE = Path(registry.__file__).read_text(encoding="utf-8")
CATEGORY = "custom-images"
VISIBLE = f"{CATEGORY}/hello.sif"

# Ends the process, as the kernel would, before the n-th change to the file system.
KILLER = """
import os, signal, sys
_left = [int(os.environ["KILL_BEFORE"])]
def _count(event, arguments):
    if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        return
    if event == "open" or event.removeprefix("os.") in (
        "rename", "remove", "symlink", "mkdir", "chmod", "chown"
    ):
        _left[0] -= 1
        if _left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(_count)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in registry.FOLDERS:
        (tmp_path / name).mkdir()
    return tmp_path


def start(
    root: Path, verb: str, *words: str, kill_before: int | None = None
) -> subprocess.Popen[str]:
    source, env = SOURCE, dict(os.environ)
    if kill_before is not None:
        future = "from __future__ import annotations\n"
        source = SOURCE.replace(future, future + KILLER, 1)
        env["KILL_BEFORE"] = str(kill_before)
    process = subprocess.Popen(
        [sys.executable, "-", *arguments(root, verb, *words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        umask=0o077,  # it must not depend on this
    )
    assert process.stdin
    process.stdin.write(source)
    process.stdin.close()
    process.stdin = None
    return process


def arguments(root: Path, verb: str, *words: str) -> list[str]:
    owner = pwd.getpwuid(os.getuid()).pw_name
    group = grp.getgrgid(os.getgid()).gr_name
    return [verb, f"--root={root}", f"--owner={owner}", f"--group={group}", *words]


def on_node(root: Path, verb: str, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the script as a node does; return its status and its answer."""
    process = start(root, verb, *words)
    out, err = process.communicate()
    assert out, err
    return process.returncode, json.loads(out)


def here(
    root: Path, verb: str, *words: str, fixed: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Call the script in this process; return its status and its answer."""
    before = os.umask(0o077)  # it must not depend on this
    try:
        with redirect_stdout(io.StringIO()) as out:
            status = registry.main(arguments(root, verb, *words), fixed)
    finally:
        os.umask(before)
    return status, json.loads(out.getvalue())


def run(root: Path, verb: str, *words: str) -> dict[str, Any]:
    return here(root, verb, *words)[1]


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of(content: bytes, name: str = "hello", category: str = CATEGORY) -> tuple[str, ...]:
    return (f"--category={category}", f"--name={name}", f"--sha256={sha(content)}")


def upload(root: Path, content: bytes) -> dict[str, Any]:
    answer = run(root, "status", *of(content))
    Path(answer["upload"]).write_bytes(content)
    return answer


def deploy(root: Path, content: bytes, *words: str) -> dict[str, Any]:
    upload(root, content)
    return run(root, "install", *of(content), *words)


def entry(root: Path) -> dict[str, Any]:
    answer = run(root, "list")["images"][f"{CATEGORY}/hello"]
    assert isinstance(answer, dict)
    return answer


def temporary_files(root: Path) -> list[str]:
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.name.endswith((".partial", ".new"))
    )


@pytest.mark.parametrize("call", [on_node, here])
def test_a_node_and_this_process_get_the_same_answers(
    root: Path, call: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    """What the other tests see here is what a node does, from no upload to a catalogue."""
    refused, why = call(root, "install", *of(b"one"))
    asked, answer = call(root, "status", *of(b"one"))
    Path(answer["upload"]).write_bytes(b"one")
    installed, _ = call(root, "install", *of(b"one"))
    listed, found = call(root, "list")

    assert (refused, why["error"]) == (1, "no-upload")
    assert (asked, installed, listed) == (0, 0, 0)
    assert found["images"][f"{CATEGORY}/hello"]["found"] == sha(b"one")
    assert (root / VISIBLE).stat().st_mode & 0o7777 == 0o644
    assert (root / ".registry" / "versions").stat().st_mode & 0o7777 == 0o755


def test_an_empty_registry_holds_nothing(root: Path) -> None:
    answer = run(root, "status", *of(b"one"))

    assert (answer["current"], answer["held"], answer["settled"]) == (None, False, False)
    assert answer["free"] > 0


def test_an_installed_file_is_visible_and_catalogued(root: Path) -> None:
    deploy(root, b"one", '--meta={"who": "somebody", "commit": "abc"}')

    assert (root / VISIBLE).read_bytes() == b"one"
    found = entry(root)
    assert (found["sha256"], found["found"], found["size"]) == (sha(b"one"), sha(b"one"), 3)
    assert (found["who"], found["commit"]) == ("somebody", "abc")
    assert temporary_files(root) == []


def test_a_registry_is_ready_whatever_its_images_are(root: Path) -> None:
    deploy(root, b"one")
    (root / VISIBLE).unlink()
    assert run(root, "ready")["free"] > 0


def test_without_folders_no_registry_is_ready(root: Path) -> None:
    (root / "base-images").rmdir()
    status, told = here(root, "ready")
    assert (status, told["error"]) == (1, "no-registry")


def test_how_its_tests_ended_can_be_noted_later(root: Path) -> None:
    told = '"when": "2026-05-01T00:00:00+00:00"'
    deploy(root, b"one", f'--meta={{"who": "somebody", "tests": "untested", {told}}}')
    assert run(root, "status", *of(b"one"))["told"]["tests"] == "untested"

    deploy(root, b"one", '--meta={"who": "other", "tests": "7 passed, 0 skipped"}')

    assert run(root, "status", *of(b"one"))["told"]["tests"] == "7 passed, 0 skipped"
    found = entry(root)
    assert (found["who"], found["tests_by"], found["found"]) == ("somebody", "other", sha(b"one"))
    assert temporary_files(root) == []


def test_an_installed_file_is_readable_by_all_and_writable_by_its_owner(root: Path) -> None:
    deploy(root, b"one")

    assert (root / VISIBLE).stat().st_mode & 0o7777 == 0o644


def test_a_verified_file_is_not_read_again(root: Path) -> None:
    deploy(root, b"one")

    answer = run(root, "status", *of(b"one"))

    assert (answer["current"], answer["settled"], answer["read"]) == (sha(b"one"), True, False)


def test_a_flipped_byte_is_noticed_even_with_its_times_set_back(root: Path) -> None:
    deploy(root, b"one")
    path = root / VISIBLE
    before = path.stat()
    path.write_bytes(b"onf")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    answer = run(root, "status", *of(b"one"))

    assert (answer["current"], answer["held"], answer["settled"]) == (sha(b"onf"), False, False)


def test_a_changed_mode_is_noticed_and_mended_without_an_upload(root: Path) -> None:
    deploy(root, b"one")
    (root / VISIBLE).chmod(0o600)
    answer = run(root, "status", *of(b"one"))

    run(root, "install", *of(b"one"))

    assert (answer["held"], answer["settled"]) == (True, False)
    assert (root / VISIBLE).stat().st_mode & 0o7777 == 0o644
    assert run(root, "status", *of(b"one"))["settled"] is True


def test_a_wrong_upload_is_refused_and_removed(root: Path) -> None:
    deploy(root, b"one")
    answer = upload(root, b"two")
    Path(answer["upload"]).write_bytes(b"twx")

    refused = run(root, "install", *of(b"two"))

    assert refused["error"] == "digest-mismatch"
    assert (root / VISIBLE).read_bytes() == b"one"
    assert temporary_files(root) == []


def test_a_running_job_keeps_the_file_it_opened(root: Path) -> None:
    deploy(root, b"one")
    with (root / VISIBLE).open("rb") as job:
        for content in (b"two", b"three", b"four", b"five"):
            deploy(root, content, "--keep=0")

        assert job.read() == b"one"


def test_as_many_previous_versions_are_kept_as_asked_for(root: Path) -> None:
    contents = (b"one", b"two", b"three", b"four")
    done = [deploy(root, content, "--keep=2") for content in contents]

    kept = [known["sha256"] for known in entry(root)["previous"]]
    files = {path.stem for path in (root / ".registry/versions" / CATEGORY / "hello").iterdir()}
    assert kept == [sha(b"three"), sha(b"two")]
    # Who has the others open is asked on all nodes, before they are removed.
    assert files == {sha(content) for content in contents}
    assert [answer["surplus"] for answer in done] == [False, False, False, True]


def test_a_version_that_is_held_needs_no_upload(root: Path) -> None:
    deploy(root, b"one")
    deploy(root, b"two")
    answer = run(root, "status", *of(b"one"))

    run(root, "install", *of(b"one"))

    assert (answer["held"], answer["read"]) == (True, False)
    assert (root / VISIBLE).read_bytes() == b"one"
    assert [known["sha256"] for known in entry(root)["previous"]] == [sha(b"two")]


def test_a_damaged_previous_version_does_not_count_as_held(root: Path) -> None:
    deploy(root, b"one")
    deploy(root, b"two")
    (root / ".registry/versions" / CATEGORY / "hello" / f"{sha(b'one')}.sif").write_bytes(b"onx")

    assert run(root, "status", *of(b"one"))["held"] is False


def test_the_sender_is_told_what_an_interrupted_upload_left(root: Path) -> None:
    upload(root, b"one")

    assert run(root, "status", *of(b"one"))["uploaded"] == 3


def test_the_leftover_of_another_digest_is_removed(root: Path) -> None:
    upload(root, b"one")

    run(root, "status", *of(b"two"))

    assert temporary_files(root) == []


def test_the_upload_of_another_sender_stays_until_it_is_abandoned(root: Path) -> None:
    theirs = Path(run(root, "status", *of(b"one"), "--token=beef")["upload"])
    theirs.write_bytes(b"on")
    run(root, "status", *of(b"two"))
    stayed = theirs.exists()

    os.utime(theirs, (0, 0))
    run(root, "status", *of(b"two"))

    assert stayed
    assert not theirs.exists()


def test_a_run_killed_at_any_step_leaves_a_whole_file_and_the_next_run_mends_the_rest(
    tmp_path: Path,
) -> None:
    killed, status = 0, -9
    while status == -9:
        root = tmp_path / str(killed)
        for name in registry.FOLDERS:
            (root / name).mkdir(parents=True)
        deploy(root, b"one", "--keep=0")
        upload(root, b"two")
        process = start(root, "install", *of(b"two"), "--keep=0", kill_before=killed)
        process.communicate()
        status = process.returncode

        assert (root / VISIBLE).read_bytes() in (b"one", b"two"), f"killed before step {killed}"
        json.loads((root / ".registry/catalog.json").read_text())
        mend(root, b"two")
        assert (root / VISIBLE).read_bytes() == b"two"
        assert (entry(root)["sha256"], entry(root)["found"]) == (sha(b"two"), sha(b"two"))
        assert temporary_files(root) == []
        versions = root / ".registry/versions" / CATEGORY / "hello"
        assert {path.stem for path in versions.iterdir()} == {sha(b"one"), sha(b"two")}
        killed += 1

    assert status == 0
    assert killed > 8  # steps: owner, mode, lock, rename, link, rename, catalog, rename


def mend(root: Path, content: bytes) -> None:
    """What a deployment does: ask, and act on the answer."""
    answer = run(root, "status", *of(content))
    if answer["current"] == sha(content) and answer["settled"]:
        return
    if not answer["held"]:
        Path(answer["upload"]).write_bytes(content)
    assert "error" not in run(root, "install", *of(content), "--keep=0")


def test_concurrent_installs_lose_no_entry(root: Path) -> None:
    """All have come to the lock, with all that they may have read before, when one may go on."""
    names = [f"image-{number}" for number in range(6)]
    for name in names:
        answer = run(root, "status", *of(name.encode(), name))
        Path(answer["upload"]).write_bytes(name.encode())

    lock = root / ".registry" / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        processes = [start(root, "install", *of(name.encode(), name)) for name in names]
        for process in processes:
            until(partial(has_open, process.pid, lock), f"{process.pid} at the lock")
    for process in processes:
        process.communicate()
    codes = [process.returncode for process in processes]

    found = run(root, "list")["images"]
    assert codes == [0] * 6
    assert {key: value["found"] for key, value in found.items()} == {
        f"{CATEGORY}/{name}": sha(name.encode()) for name in names
    }


def has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open."""
    with suppress(FileNotFoundError):  # one that was closed meanwhile
        return any(file.readlink() == path for file in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_files_that_nobody_catalogued_are_listed(root: Path) -> None:
    (root / CATEGORY / "stray.sif").write_bytes(b"x")

    assert run(root, "list")["unknown"] == [str(root / CATEGORY / "stray.sif")]


def test_list_reads_files_when_asked_to(root: Path) -> None:
    deploy(root, b"one")
    (root / VISIBLE).write_bytes(b"onf")

    assert run(root, "list", "--read=yes")["images"][f"{CATEGORY}/hello"]["found"] == sha(b"onf")


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/b", "a b", "-x", ".hidden", "x;y", "x\ny", "ä", "x" * 129]
)
def test_bad_names_are_refused(root: Path, name: str) -> None:
    assert run(root, "status", *of(b"one", name=name))["error"] == "bad-argument"


@pytest.mark.parametrize("category", ["", "..", "other", "custom-images/..", ".registry"])
def test_bad_categories_are_refused(root: Path, category: str) -> None:
    assert run(root, "status", *of(b"one", category=category))["error"] == "bad-argument"


def test_a_bad_digest_is_refused(root: Path) -> None:
    process = start(root, "status", f"--category={CATEGORY}", "--name=x", "--sha256=../../x")

    assert (process.communicate()[0], process.returncode) == ("", 2)


def test_missing_folders_are_named(root: Path) -> None:
    (root / "base-images").rmdir()

    answer = run(root, "status", *of(b"one"))

    assert answer["error"] == "no-registry"
    assert "base-images" in answer["message"]


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"images": []}', '{"images": {"x": {}}}', '{"images": {"custom-images/a": 1}}'],
)
def test_a_catalog_that_makes_no_sense_is_kept_aside_and_made_of_the_files(
    root: Path, text: str
) -> None:
    deploy(root, b"one")
    catalog = root / ".registry" / "catalog.json"
    catalog.write_text(text)

    # Whoever only looks changes nothing.
    assert run(root, "list")["error"] == "bad-catalog"
    assert run(root, "status", *of(b"one"), "--look=yes")["error"] == "bad-catalog"
    assert catalog.read_text() == text
    answer = run(root, "status", *of(b"one"))

    assert (answer["current"], answer["held"], answer["settled"]) == (sha(b"one"), True, False)
    (kept,) = catalog.parent.glob("catalog.json.*~")
    assert kept.read_text() == text
    assert entry(root)["found"] == sha(b"one")


def test_a_catalog_of_another_release_is_left_alone(root: Path) -> None:
    deploy(root, b"one")
    text = '{"version": 99, "images": []}'
    (root / ".registry/catalog.json").write_text(text)

    assert run(root, "status", *of(b"one"))["error"] == "other-catalog"
    assert (root / ".registry/catalog.json").read_text() == text


def held_to(root: Path, **changes: str) -> dict[str, str]:
    """What an installed copy is held to: this root, and this user and group."""
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    return {"root": str(root), "owner": owner, "group": group, "who": "alice@node", **changes}


def send(root: Path, content: bytes, fixed: dict[str, str]) -> Path:
    """Upload as a deployer does."""
    place = Path(here(root, "status", *of(content), fixed=fixed)[1]["upload"])
    place.write_bytes(content)
    return place


def test_each_deployer_has_uploads_of_their_own(root: Path) -> None:
    mine, theirs = (send(root, b"one", held_to(root, who=who)) for who in ("ada@n", "bob@n"))

    assert mine != theirs
    assert upload(root, b"one")["upload"] not in {str(mine), str(theirs)}


def test_a_deployer_chooses_neither_the_time_nor_that_nothing_is_kept(root: Path) -> None:
    fixed = held_to(root)
    for content in (b"one", b"two"):
        send(root, content, fixed)
        words = [*of(content), '--meta={"when": "9999"}', "--keep=0"]
        assert here(root, "install", *words, fixed=fixed)[0] == 0

    assert entry(root)["when"].startswith("20")
    assert [known["sha256"] for known in entry(root)["previous"]] == [sha(b"one")]


UPLOAD = f"custom-images.hello.sif.{'a' * 64}.ab.partial"
GOOD = ["--server", "-e.LsfxCIvu", "--inplace", "--timeout=120", "."]


def test_what_sends_the_content_of_one_upload_is_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(root, "status", *of(b"one"))
    before = os.umask(0)
    monkeypatch.chdir(root)
    try:
        command = registry.receiving(str(root), [*GOOD, UPLOAD])
        place = root / ".registry" / "uploads" / UPLOAD

        assert command == ["rsync", *GOOD, UPLOAD]
        assert Path.cwd() == place.parent
        assert place.stat().st_mode & 0o777 == 0o600
        # Whoever writes to it holds it, as rsync goes on to do.
        with pytest.raises(registry.RegistryError, match="is being sent"):
            registry.receiving(str(root), [*GOOD, UPLOAD])
        with pytest.raises(registry.RegistryError), registry.unwritten(place):
            pass
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    "words",
    [
        [],
        GOOD,
        [word for word in [*GOOD, UPLOAD] if word != "--inplace"],
        [*GOOD, "../x"],
        [*GOOD, f"/etc/{UPLOAD}"],
        [*GOOD, f"a/{UPLOAD}"],
        [*GOOD, UPLOAD, UPLOAD],
        ["--sender", *GOOD, UPLOAD],
        ["-pe.LsfxCIvu", *GOOD, UPLOAD],
        ["-r", *GOOD, UPLOAD],
        ["--perms", *GOOD, UPLOAD],
        ["--super", *GOOD, UPLOAD],
        ["--delete", *GOOD, UPLOAD],
        ["--backup", *GOOD, UPLOAD],
        ["--log-file=x", *GOOD, UPLOAD],
        ["--partial-dir=/etc", *GOOD, UPLOAD],
        ["--daemon", *GOOD, UPLOAD],
        ["--server --perms", *GOOD, UPLOAD],
        ["--server\n", *GOOD, UPLOAD],
    ],
    ids=" ".join,
)
def test_all_else_that_rsync_can_do_is_refused(root: Path, words: list[str]) -> None:
    run(root, "status", *of(b"one"))

    with pytest.raises(registry.RegistryError, match="receives one upload"):
        registry.receiving(str(root), words)
    assert list((root / ".registry" / "uploads").iterdir()) == []


def test_a_folder_among_the_uploads_stops_nobody(root: Path) -> None:
    run(root, "status", *of(b"one"))
    odd = root / ".registry" / "uploads" / "zz.partial"
    odd.mkdir()
    os.utime(odd, (0, 0))

    assert deploy(root, b"one")["sha256"] == sha(b"one")


def test_the_folder_of_uploads_is_roots_again(root: Path) -> None:
    run(root, "status", *of(b"one"))
    (root / ".registry" / "uploads").chmod(0o777)

    run(root, "status", *of(b"one"))

    assert (root / ".registry" / "uploads").stat().st_mode & 0o777 == 0o700


def test_an_installed_copy_says_itself_who_deploys(root: Path) -> None:
    fixed = held_to(root)
    send(root, b"one", fixed)
    words = [*of(b"one"), '--meta={"who": "somebody else", "tests": "untested"}']

    assert here(root, "install", *words, fixed=fixed)[0] == 0
    assert (entry(root)["who"], entry(root)["tests"]) == ("alice@node", "untested")
    again = [*of(b"one"), '--meta={"tests": "2 passed", "who": "somebody else"}']
    assert here(root, "install", *again, fixed=fixed)[0] == 0
    assert (entry(root)["tests"], entry(root)["tests_by"]) == ("2 passed", "alice@node")


@pytest.mark.parametrize("other", ["/etc", "{root}/", "{root}/../x", "."])
def test_an_installed_copy_has_one_root(root: Path, other: str) -> None:
    words = [f"--root={other.format(root=root)}"]

    status, told = here(root, "ready", *words, fixed=held_to(root))

    assert (status, told["error"]) == (1, "bad-argument")


def test_an_installed_copy_has_its_own_owner(root: Path) -> None:
    """The caller names root's name for it in vain: an account that is not there is asked for."""
    send(root, b"one", held_to(root))

    status, told = here(root, "install", *of(b"one"), fixed=held_to(root, owner="no-such-user"))

    assert (status, told["error"]) == (1, "no-registry")
    assert "no-such-user" in told["message"]


@pytest.mark.parametrize("words", [(), ("--new-option=1",)])
def test_a_copy_of_another_release_says_so_whatever_it_is_asked(
    root: Path, words: tuple[str, ...]
) -> None:
    status, told = here(root, "ready", f"--protocol={registry.PROTOCOL + 1}", *words)

    assert (status, told["error"]) == (1, "other-release")


@pytest.mark.parametrize("meta", ["{", "[]", "3", '{"who": 1}', '{"previous": []}'])
def test_what_the_catalog_is_to_keep_are_texts(root: Path, meta: str) -> None:
    upload(root, b"one")

    status, told = here(root, "install", *of(b"one"), f"--meta={meta}")

    assert (status, told["error"]) == (1, "bad-argument")
    assert run(root, "list")["images"] == {}


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_an_upload_that_is_no_file_is_refused(root: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"one")
    secret.chmod(0o600)
    place = Path(run(root, "status", *of(b"one"))["upload"])
    if kind == "link":
        place.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()

    status, told = here(root, "install", *of(b"one"))

    assert (status, bool(told["error"])) == (1, True)
    assert (secret.read_bytes(), secret.stat().st_mode & 0o777) == (b"one", 0o600)
    assert not (root / VISIBLE).exists()
