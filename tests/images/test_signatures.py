"""Signing with the real Apptainer and keys of the tests' own: what is proved, and what is not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from sifline.contents import sif_records
from sifline.contents.build_context import file_digest
from sifline.contents.sif_records import Stamp
from sifline.engines.apptainer.keys import Keyring
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.toolbox import TOOLBOX
from sifline.engines.docker.engine import LABEL_PURPOSE
from sifline.errors import StepFailed
from sifline.formats import sif, squashfs
from sifline.formats.sif import Kind, Part
from sifline.machine.passphrase import passphrase_of
from sifline.machine.process import ProcessRunner
from sifline.model import Workspace
from sifline.stages import convert, keys, sign
from tests.support import processes
from tests.support.contexts import context_of
from tests.support.conversion import built
from tests.support.engine import docker, make
from tests.support.recipes import EMPTY
from tests.support.sif_files import labels_object
from tests.support.toolbox import toolbox

# The one that must not be seen; those of others are none of our business.
SECRET = f"correct horse {uuid4().hex}"
LABELS = Part(
    kind=Kind.JSON,
    name=sif.LABELS_OBJECT,
    content=labels_object({"org.example.note": "a word"})[2],
)
PATIENCE = 120  # seconds

# A signing in a process of its own, so that it can be killed or run beside another.
PROGRAM = """
import sys
from pathlib import Path
from tests.support.contexts import context_of
from sifline.stages import sign
{before}
done = sign.sign(Path(sys.argv[1]), context_of(Path(sys.argv[2])))
print(done.sha256, done.reused)
"""
# Killed by itself, right after the signed copy took the name of the SIF.
KILLED_AFTERWARDS = """
import os, signal
rename = Path.replace
def renamed(self, target):
    rename(self, target)
    if ".signing-" in self.name:
        os.kill(os.getpid(), signal.SIGKILL)
Path.replace = renamed
"""
# Killed by itself, before or after it started its n-th process: "before 3".
KILLED = """
import itertools, os, signal
from sifline.machine import process
started, numbers = process._started, itertools.count(1)
def dying(*arguments, **options):
    number = next(numbers)
    if f"before {number}" == "MOMENT":
        os.kill(os.getpid(), signal.SIGKILL)
    process = started(*arguments, **options)
    if f"after {number}" == "MOMENT":
        os.kill(os.getpid(), signal.SIGKILL)
    return process
process._started = dying
"""
# Runs that take long, for another worker than the rest.
several = pytest.mark.xdist_group("several runs sign")


def write(path: Path, size: int = 8192) -> Path:
    """Write a SIF that can be signed: its file system only begins like one, of ``size`` bytes."""
    start = sif.room([LABELS])
    path.write_bytes(bytes(start) + squashfs.MAGIC + bytes(size - len(squashfs.MAGIC)))
    sif.complete(path, [LABELS], identity=UUID(int=1), created=1, architecture="amd64")
    return path


@dataclass(frozen=True, kw_only=True)
class Ring:
    """A keyring with one key pair of its own."""

    folder: Path
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Rings:
    """Ada and Bob know each other's public keys; ``locked`` has a passphrase."""

    ada: Ring
    bob: Ring
    stranger: Ring
    locked: Ring


def apptainer(*words: str, ring: Path) -> None:
    """Run Apptainer as it is, with ``ring``, which lies where the toolbox sees it."""
    own, variable = shutil.which("apptainer"), {"APPTAINER_KEYSDIR": str(ring)}
    # Where it asks which key, there is only one.
    argv = ["sh", "-c", 'echo 0 | "$0" "$@"', own or "apptainer", *words]
    if own:
        env = {**os.environ, **variable}
        done = subprocess.run(argv, env=env, capture_output=True, check=False)
    else:
        done = toolbox().run(*argv, env=variable)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def alter(path: Path, *commands: tuple[str, ...], ring: Path) -> None:
    """Let Apptainer alter a SIF, called ``{sif}`` in the commands; ``{extra}`` is a file."""
    with toolbox().place() as folder:
        names = {"sif": shutil.copyfile(path, folder / "x.sif"), "extra": folder / "extra"}
        names["extra"].write_text("overlay")
        for words in commands:
            apptainer(*(word.format_map(names) for word in words), ring=ring)
        shutil.copyfile(names["sif"], path)


def new_ring(folder: Path, name: str, password: str = "") -> Ring:
    folder.mkdir(mode=0o700)
    apptainer(
        *("key", "newpair", "--name", name, "--email", f"{name}@example.org", "--comment", ""),
        *("--bit-length", "2048", f"--password={password}", "--push=false"),
        ring=folder,
    )
    (key,) = keyring_of(folder).secret_keys()
    return Ring(folder=folder, fingerprint=key.fingerprint)


def keyring_of(folder: Path, user: tuple[int, int] | None = None) -> Keyring:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPTAINER_KEYSDIR", str(folder))
        made = Keyring(Apptainer(ProcessRunner(), user=user))
        assert made.folder == folder  # looked up once
    return made


@pytest.fixture(scope="module")
def rings() -> Iterator[Rings]:
    with toolbox().place() as root:
        found = Rings(
            ada=new_ring(root / "ada", "ada"),
            bob=new_ring(root / "bob", "bob"),
            stranger=new_ring(root / "stranger", "stranger"),
            locked=new_ring(root / "locked", "locked", SECRET),
        )
        for giver, taker in ((found.ada, found.bob), (found.bob, found.ada)):
            public = root / "public.asc"
            apptainer("key", "export", str(public), ring=giver.folder)
            apptainer("key", "import", str(public), ring=taker.folder)
            public.unlink()
        yield found


@pytest.fixture(scope="module")
def signed_by_ada(rings: Rings, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a SIF that Ada signed."""
    path = write(tmp_path_factory.mktemp("signed") / "x.sif")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPTAINER_KEYSDIR", str(rings.ada.folder))
        sign.sign(path, context_of(path.parent))
    return path.read_bytes()


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Ring], None]:
    """Sets the keyring of what follows; never the user's own."""
    monkeypatch.setenv("APPTAINER_KEYSDIR", str(tmp_path / "no-keyring"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda ring: monkeypatch.setenv("APPTAINER_KEYSDIR", str(ring.folder))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A SIF with labels and a file system, such as it is, at a place that needs quotes."""
    folder = tmp_path / "a place"
    folder.mkdir()
    made = write(folder / "x, y.sif")
    made.chmod(0o750)
    return made


@pytest.fixture
def signed(path: Path, signed_by_ada: bytes, rings: Rings, use: Callable[[Ring], None]) -> Path:
    """The same SIF, signed by Ada, whose keyring is used."""
    use(rings.ada)
    path.write_bytes(signed_by_ada)
    return path


def start(path: Path, root: Path, before: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(before=before), str(path), str(root)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def at_work(path: Path) -> list[str]:
    """The containers that sign this file."""
    label = f"label={LABEL_PURPOSE}={path}"
    return docker("ps", "--all", "--quiet", "--filter", label).stdout.split()


def hidden(folder: Path) -> list[str]:
    return [found.name for found in folder.iterdir() if found.name.startswith(".")]


def place_of(path: Path, kind: Kind) -> int:
    """A byte in the middle of the first object of that kind."""
    item = next(item for item in sif.read(path).objects if item.kind == kind)
    return item.offset + item.size // 2


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_a_signed_sif_says_by_whom_and_that_it_is_all(signed: Path, rings: Rings) -> None:
    found = sign.verify_signature(signed, context_of(signed.parent))
    assert found.signers == (rings.ada.fingerprint,)
    assert [item.kind for item in found.objects] == ["JSON.Generic", "FS (Squashfs/*System/amd64)"]
    assert [item.name for item in found.signatures] == ["ada <ada@example.org>"]
    assert all(item.local for item in found.signatures)


def test_signing_keeps_mode_and_content_and_leaves_nothing(
    path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.ada)
    before, content = sif.parts(sif.read(path)), path.read_bytes()
    done = sign.sign(path, context_of(path.parent))

    assert (done.sha256, done.size) == (file_digest(path), path.stat().st_size)
    assert not done.reused
    assert sif.parts(sif.read(path))[: len(before)] == before
    assert path.read_bytes()[32176 : len(content)] == content[32176:]
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert hidden(path.parent) == []


def test_signing_again_leaves_the_file_alone(signed: Path) -> None:
    before = signed.stat()
    done = sign.sign(signed, context_of(signed.parent))
    assert done.reused
    assert done.sha256 == file_digest(signed)
    assert signed.stat().st_ino == before.st_ino


def test_a_link_goes_on_pointing_to_the_signed_file(
    path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.ada)
    link = path.with_name("link.sif")
    link.symlink_to(path)
    sign.sign(link, context_of(path.parent))
    assert link.is_symlink()
    assert sign.verify_signature(link, context_of(path.parent)).signers == (rings.ada.fingerprint,)


def test_a_second_signer_is_added(path: Path, rings: Rings, use: Callable[[Ring], None]) -> None:
    use(rings.bob)
    sign.sign(path, context_of(path.parent))
    use(rings.ada)
    sign.sign(path, context_of(path.parent))
    found = sign.verify_signature(path, context_of(path.parent))
    assert found.signers == (rings.bob.fingerprint, rings.ada.fingerprint)


@pytest.mark.parametrize("kind", [Kind.PARTITION, Kind.JSON, Kind.SIGNATURE])
def test_one_other_bit_in_an_object_is_damage(signed: Path, kind: Kind) -> None:
    flip(signed, place_of(signed, kind))
    with pytest.raises(StepFailed, match="is not what was signed") as caught:
        sign.verify_signature(signed, context_of(signed.parent))
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("place", [50, 4096 + 75], ids=["identity", "name-in-the-table"])
def test_one_other_bit_in_front_of_the_objects_is_damage(signed: Path, place: int) -> None:
    flip(signed, place)
    with pytest.raises(StepFailed, match="is not what was signed"):
        sign.verify_signature(signed, context_of(signed.parent))


def test_a_truncated_sif_is_damage(signed: Path) -> None:
    os.truncate(signed, signed.stat().st_size - 1)
    with pytest.raises(StepFailed, match="is truncated"):
        sign.verify_signature(signed, context_of(signed.parent))


def test_a_damaged_sif_is_not_signed_over(
    signed: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    flip(signed, place_of(signed, Kind.PARTITION))
    damaged = signed.read_bytes()
    with pytest.raises(StepFailed, match="is not what was signed"):
        sign.sign(signed, context_of(signed.parent))
    assert signed.read_bytes() == damaged


def test_a_sif_without_a_signature_says_how_to_sign_it(path: Path) -> None:
    with pytest.raises(StepFailed, match="is not signed; run invoke sign '") as caught:
        sign.verify_signature(path, context_of(path.parent))
    assert caught.value.exit_code == 1


def test_a_foreign_key_is_named(signed: Path, rings: Rings, use: Callable[[Ring], None]) -> None:
    use(rings.stranger)
    with pytest.raises(StepFailed, match=f"that is not in .*: it names {rings.ada.fingerprint};"):
        sign.verify_signature(signed, context_of(signed.parent))


def test_a_stranger_beside_a_known_signer_is_refused(signed: Path, rings: Rings) -> None:
    alter(signed, ("sign", "--keyidx", "0", "{sif}"), ring=rings.stranger.folder)
    with pytest.raises(StepFailed, match=f"it names .*, {rings.stranger.fingerprint};"):
        sign.verify_signature(signed, context_of(signed.parent))


def test_what_strangers_signed_is_not_signed(
    signed: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.stranger)
    before = signed.read_bytes()
    with pytest.raises(StepFailed, match="is signed by a key that is not in"):
        sign.sign(signed, context_of(signed.parent))
    assert (signed.read_bytes(), hidden(signed.parent)) == (before, [])


@pytest.mark.parametrize("group", [[], ["--groupid", "1"], ["--groupid", "2"]])
def test_an_object_put_in_afterwards_is_damage(
    signed: Path, rings: Rings, group: list[str]
) -> None:
    add = ("sif", "add", "--datatype", "7", *group, "{sif}", "{extra}")
    alter(signed, add, ring=rings.ada.folder)
    with pytest.raises(StepFailed, match="is not what was signed"):
        sign.verify_signature(signed, context_of(signed.parent))


def test_an_object_that_another_known_key_signed_is_not_the_first_ones(
    signed: Path, rings: Rings
) -> None:
    alter(
        signed,
        ("sif", "add", "--datatype", "7", "--groupid", "2", "{sif}", "{extra}"),
        ("sign", "--keyidx", "0", "--group-id", "2", "{sif}"),
        ring=rings.bob.folder,
    )
    here = context_of(signed.parent)
    found = sign.verify_signature(signed, here)

    assert [(item.fingerprint, item.objects) for item in found.signatures] == [
        (rings.ada.fingerprint, (1, 2)),
        (rings.bob.fingerprint, (4,)),
    ]
    assert found.signers == ()
    with pytest.raises(StepFailed, match=f"not as a whole by {rings.ada.fingerprint}"):
        sign.verify_signature(signed, here, signers=[rings.ada.fingerprint])


def test_the_demanded_signer_is_found_and_another_is_not(signed: Path, rings: Rings) -> None:
    here = context_of(signed.parent)
    sign.verify_signature(signed, here, signers=[rings.ada.fingerprint])
    with pytest.raises(StepFailed, match=f"not as a whole by {rings.bob.fingerprint}"):
        sign.verify_signature(signed, here, signers=[rings.bob.fingerprint])


def test_verifying_does_not_touch_the_keyring(
    signed: Path, rings: Rings, tmp_path: Path, use: Callable[[Ring], None]
) -> None:
    lent = tmp_path / "lent"
    lent.mkdir(mode=0o755)
    shutil.copy(rings.ada.folder / "pgp-public", lent)
    (lent / "pgp-public").chmod(0o644)
    use(replace(rings.ada, folder=lent))

    sign.verify_signature(signed, context_of(signed.parent))

    if Apptainer(ProcessRunner()).native:
        pytest.skip("the machine's own Apptainer mends a keyring, whatever is asked of it")
    assert [item.name for item in lent.iterdir()] == ["pgp-public"]
    assert stat.S_IMODE(lent.stat().st_mode) == 0o755


@contextmanager
def command_lines(*patterns: str) -> Iterator[dict[str, threading.Event]]:
    """Look at the command lines of all processes; yield what is set for each pattern found."""
    seen = {pattern: threading.Event() for pattern in patterns}
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            for _, line in processes.read_all("cmdline"):
                for pattern, event in seen.items():
                    if re.search(pattern.encode(), line):
                        event.set()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_a_passphrase_signs_and_is_seen_nowhere(
    path: Path, rings: Rings, use: Callable[[Ring], None], tmp_path: Path
) -> None:
    use(rings.locked)
    (tmp_path / "passphrase").write_text(f"{SECRET}\n")
    said = list[str]()
    here = replace(context_of(path.parent), runner=ProcessRunner(echo=said.append))
    source = passphrase_of(file=tmp_path / "passphrase")

    copy = path.with_name(f".{path.name}.signing-{os.getpid()}")
    signing = rf"--keyidx\x00\d+\x00{re.escape(str(copy))}"
    with command_lines(SECRET, signing) as seen:
        sign.sign(path, here, passphrase=source)

    assert seen[signing].is_set()
    assert not seen[SECRET].is_set()
    assert any("--keyidx" in line for line in said)
    assert SECRET not in "\n".join(said)
    assert sign.verify_signature(path, here).signers == (rings.locked.fingerprint,)


def test_command_lines_are_really_looked_at() -> None:
    word = f"sifline-{uuid4().hex}"
    waiting = ["sh", "-c", "read line", word]
    with command_lines(word) as seen, subprocess.Popen(waiting, stdin=subprocess.PIPE) as process:
        found = seen[word].wait(PATIENCE)
        assert process.poll() is None
        process.communicate()
    assert found


def test_a_key_with_a_passphrase_says_where_to_name_it(
    path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.locked)
    before = path.read_bytes()
    with pytest.raises(StepFailed, match="has a passphrase; give it with"):
        sign.sign(path, context_of(path.parent))
    assert (path.read_bytes(), hidden(path.parent)) == (before, [])


def test_a_wrong_passphrase_is_told_and_not_repeated(
    path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.locked)
    before, wrong = path.read_bytes(), f"not {SECRET}"
    with pytest.raises(StepFailed, match="is not the passphrase of the key") as caught:
        sign.sign(path, context_of(path.parent), passphrase=lambda: wrong)
    assert SECRET not in caught.value.message + caught.value.details
    assert (path.read_bytes(), hidden(path.parent)) == (before, [])


def test_a_key_without_a_passphrase_asks_for_none(
    path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.ada)

    def ask() -> str:
        pytest.fail("asked for a passphrase that there is not")

    assert not sign.sign(path, context_of(path.parent), passphrase=ask).reused


def test_an_exported_key_is_imported_by_a_script(
    path: Path, rings: Rings, use: Callable[[Ring], None], tmp_path: Path
) -> None:
    ring = Ring(folder=tmp_path / "new" / "ring", fingerprint=rings.locked.fingerprint)
    use(ring)
    exported = tmp_path / "secret.asc"
    # What apptainer key export --secret writes; that asks on a terminal alone.
    exported.write_bytes((rings.locked.folder / "pgp-secret").read_bytes())

    said = keys.import_secret(exported, context_of(path.parent), passphrase=lambda: SECRET)

    assert "successfully added to the private keyring" in said
    sign.sign(path, context_of(path.parent), passphrase=lambda: SECRET)
    keys.import_secret(exported, context_of(path.parent), passphrase=lambda: SECRET)


def test_an_import_with_another_passphrase_fails(
    rings: Rings, use: Callable[[Ring], None], tmp_path: Path
) -> None:
    use(replace(rings.ada, folder=tmp_path / "ring"))
    with pytest.raises(StepFailed, match="cannot be imported"):
        keys.import_secret(
            rings.locked.folder / "pgp-secret", context_of(tmp_path), passphrase=lambda: "other"
        )


@pytest.mark.parametrize("user", [(0, 0), (12345, 12345)], ids=["root", "ordinary"])
def test_the_toolbox_signs_and_verifies_for_any_user(
    path: Path, rings: Rings, tmp_path: Path, user: tuple[int, int]
) -> None:
    ring = tmp_path / "ring"
    shutil.copytree(rings.ada.folder, ring)
    there = keyring_of(ring, user)
    if native := Apptainer(ProcessRunner()).native:
        pytest.skip(f"{native} is used here, so the toolbox is not")
    if os.geteuid() != 0:
        pytest.skip("giving files to another user needs root")
    # pytest's folders above are closed to others: only what is bound has to be open.
    for owned in (path, ring, *ring.iterdir()):
        os.chown(owned, *user)

    (key,) = there.secret_keys()
    assert there.sign(path, key).ok
    assert there.verify(path).ok
    assert there.attach_key(["list"], binds=[], terminal=False, online=False) == 0
    owners = {(item.stat().st_uid, item.stat().st_gid) for item in (path, *ring.iterdir())}
    assert owners == {user}


def test_the_keyring_of_an_ordinary_user_is_made_by_their_first_key(
    tmp_path: Path,
) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving files to another user needs root")
    ring = tmp_path / "ring"
    ring.mkdir()
    os.chown(ring, 12345, 12345)
    there = keyring_of(ring, (12345, 12345))
    if native := Apptainer(ProcessRunner()).native:
        pytest.skip(f"{native} is used here, so the toolbox is not")
    words = ["newpair", "--name", "eve", "--email", "e@example.org", "--comment", ""]
    words += ["--password", "", "--bit-length", "2048"]
    assert there.attach_key(words, binds=[], terminal=False, online=False) == 0
    assert {item.name: item.stat().st_uid for item in ring.iterdir()} == {
        "pgp-public": 12345,
        "pgp-secret": 12345,
    }


@several
def test_of_two_signings_at_once_one_does_the_work(
    path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.ada)
    processes = [start(path, path.parent) for _ in range(2)]
    said = [process.communicate(timeout=PATIENCE)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(words[1] for words in said) == ["False", "True"]
    assert said[0][0] == said[1][0] == file_digest(path)


@several
def test_of_two_signers_at_once_none_is_lost(
    path: Path, rings: Rings, use: Callable[[Ring], None], tmp_path: Path
) -> None:
    processes = []
    for ring, checkout in ((rings.ada, "one"), (rings.bob, "two")):
        use(ring)
        processes.append(start(path, tmp_path / checkout))
    for process in processes:
        process.communicate(timeout=PATIENCE)
    assert [process.returncode for process in processes] == [0, 0]
    found = sign.verify_signature(path, context_of(path.parent))
    assert sorted(found.signers) == sorted([rings.ada.fingerprint, rings.bob.fingerprint])


@several
@pytest.mark.parametrize(
    ("moment", "copied"),
    [
        ("after 1", False),  # reads the keyring
        ("before 3", True),
        ("after 3", True),  # signs
        ("before 4", True),
        ("after 4", True),  # verifies
        ("after 5", True),  # lists what it signed
    ],
)
def test_killed_at_any_moment_the_sif_is_whole_and_the_next_run_signs(
    tmp_path: Path, rings: Rings, use: Callable[[Ring], None], moment: str, copied: bool
) -> None:
    use(rings.ada)
    here, (path, _) = context_of(tmp_path), remembered(tmp_path)
    unsigned = path.read_bytes()
    process = start(path, tmp_path, KILLED.replace("MOMENT", moment))
    process.communicate(timeout=PATIENCE)

    assert process.returncode == -signal.SIGKILL
    assert bool(hidden(path.parent)) == copied
    assert path.read_bytes() == unsigned
    assert sif_records.untouched(path, sif_records.read("x", here.workspace) or {})

    sign.sign(path, here)
    assert sign.verify_signature(path, here).signers == (rings.ada.fingerprint,)
    assert (hidden(path.parent), at_work(path)) == ([], [])


@several
def test_killed_right_after_the_rename_the_record_is_still_true(
    tmp_path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.ada)
    here, (path, before) = context_of(tmp_path), remembered(tmp_path)
    process = start(path, tmp_path, KILLED_AFTERWARDS)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL

    record = sif_records.current(path, sif_records.read("x", here.workspace) or {})

    assert record is not None
    assert record["sha256"] == file_digest(path) != before["sha256"]
    assert record["image_id"] == "sha256:1"
    assert sign.sign(path, here).reused


def remembered(root: Path) -> tuple[Path, dict[str, object]]:
    """A SIF where a checkout has it, and the record of its conversion."""
    space = Workspace(root=root)
    space.sifs.mkdir(parents=True)
    path = write(space.sif("x"))
    record: dict[str, object] = {
        "image_id": "sha256:1",
        "sha256": file_digest(path),
        "size": path.stat().st_size,
        "stamp": vars(Stamp.of(path)),
    }
    sif_records.write("x", space, record)
    return path, record


def test_the_record_of_a_signed_sif_is_that_of_the_file(
    tmp_path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.ada)
    path, _ = remembered(tmp_path)
    done = sign.sign(path, context_of(tmp_path))
    record = sif_records.read("x", Workspace(root=tmp_path)) or {}
    assert (record["sha256"], record["size"]) == (done.sha256, path.stat().st_size)
    assert record["stamp"] == vars(Stamp.of(path))
    assert sif_records.NEXT not in record


def test_a_sif_altered_since_its_conversion_is_not_signed(
    tmp_path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.ada)
    path, _ = remembered(tmp_path)
    flip(path, place_of(path, Kind.PARTITION))
    with pytest.raises(StepFailed, match=r"was altered since .* convert it again first"):
        sign.sign(path, context_of(tmp_path))

    dockerfile = tmp_path / "images" / "x" / "Dockerfile"
    dockerfile.parent.mkdir(parents=True)
    dockerfile.touch()
    with pytest.raises(StepFailed, match=r"was altered since .* run invoke convert\.x first"):
        sign.sign(path, context_of(tmp_path))


@several
def test_a_signed_sif_needs_no_conversion(
    tmp_path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.ada)
    tag = make(tmp_path / "recipe", f"sifline-test-signed-{uuid4().hex[:8]}", EMPTY)
    try:
        image, here = built("x", tag), context_of(tmp_path)
        first = convert.convert(image, here)
        done = sign.sign(first.path, here)
        again = convert.convert(image, here)
    finally:
        docker("image", "rm", "--force", tag)
    assert again.reused
    assert again.sha256 == done.sha256 != first.sha256
    assert sign.verify_signature(again.path, here).signers == (rings.ada.fingerprint,)


@several
def test_a_container_that_still_signs_for_a_killed_run_is_ended(
    path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    if Apptainer(ProcessRunner()).native:
        pytest.skip("the machine's own Apptainer needs no container")
    use(rings.ada)
    label = f"{LABEL_PURPOSE}={path}"
    options = ("--detach", "--rm", "--label", label, "--label", "sifline.test=1")
    docker("run", *options, TOOLBOX, "sleep", "300")
    assert len(at_work(path)) == 1
    sign.sign(path, context_of(path.parent))
    assert at_work(path) == []


def test_a_file_changed_meanwhile_is_left_as_it_is(
    path: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.ada)
    other = write(path.with_name("other.sif"), size=9000)

    def say(text: str) -> None:
        if text == "verifying the signature":
            other.replace(path)

    with pytest.raises(StepFailed, match="was changed while it was signed"):
        sign.sign(path, replace(context_of(path.parent), progress=say))
    assert [item.size for item in sif.read(path).objects][1:] == [9000]
    assert hidden(path.parent) == []


@pytest.mark.parametrize("small_disk", ["64m"], indirect=True)
def test_too_small_a_disk_is_refused_with_figures(
    small_disk: Path, rings: Rings, use: Callable[[Ring], None]
) -> None:
    use(rings.ada)
    path = write(small_disk / "x.sif", size=40 << 20)
    said = r"needs 43\.\d MB free in .*, and there are 2\d\.\d MB"
    with pytest.raises(StepFailed, match=said):
        sign.sign(path, context_of(small_disk))
    assert hidden(small_disk) == []


@pytest.mark.parametrize("small_disk", ["64m"], indirect=True)
@pytest.mark.parametrize("room", [10 << 20, 20 << 20], ids=["copying", "signing"])
def test_a_disk_that_fills_up_leaves_the_sif_as_it_was(
    small_disk: Path,
    rings: Rings,
    use: Callable[[Ring], None],
    monkeypatch: pytest.MonkeyPatch,
    room: int,
) -> None:
    use(rings.ada)
    path = write(small_disk / "x.sif", size=(20 << 20) - sif.room([LABELS]))
    (small_disk / "other").write_bytes(bytes(shutil.disk_usage(small_disk).free - room))
    before = file_digest(path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40, 0, 1 << 40))
    said = list[str]()

    def say(text: str) -> None:
        said.append(text)

    with pytest.raises(StepFailed, match="the disk is full; make room in"):
        sign.sign(path, replace(context_of(small_disk.parent), progress=say))

    assert said[-1] == ("copying the SIF" if room < path.stat().st_size else "signing")
    assert (file_digest(path), hidden(small_disk)) == (before, [])
