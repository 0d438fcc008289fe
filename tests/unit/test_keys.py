from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sifline.engines.apptainer.keys import Keyring
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.engines.apptainer.signatures import Key
from sifline.errors import MissingError, UsageError
from sifline.model import Bind
from sifline.stages import keys
from tests.support.recording import RecordingRunner, answer

SIF = Path("/data/a b/x.sif")
KEY = Key(index=3, fingerprint="AD" * 20, name="Ada")
SECRET = "correct horse"  # noqa: S105 - the one that must not be seen


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("APPTAINER_KEYSDIR", "SINGULARITY_KEYSDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".apptainer" / "keys"


def toolbox() -> tuple[Keyring, RecordingRunner]:
    runner = RecordingRunner({("docker",): answer("apptainer version 1.4.5")}, tools={"docker"})
    return Keyring(Apptainer(runner, user=(1000, 100))), runner


def native(tool: str = "apptainer") -> tuple[Keyring, RecordingRunner]:
    path = f"/usr/bin/{tool}"
    version = "apptainer version 1.4.5" if tool == "apptainer" else "singularity-ce version 4.1.0"
    runner = RecordingRunner(
        {(path, "--version"): answer(version), (path,): answer()}, tools={tool}
    )
    return Keyring(Apptainer(runner)), runner


def after(argv: tuple[str, ...], word: str) -> list[str]:
    return [argv[at + 1] for at, found in enumerate(argv) if found == word]


def test_keyring_is_apptainers_own(ring: Path) -> None:
    assert toolbox()[0].folder == ring


def test_keyring_of_singularity_is_its_own(ring: Path) -> None:
    found = native("singularity")[0].folder
    assert found == ring.parent.parent / ".singularity" / "keys"


@pytest.mark.parametrize("name", ["APPTAINER_KEYSDIR", "SINGULARITY_KEYSDIR"])
def test_keyring_is_where_the_environment_says(
    ring: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, str(ring.parent / "other"))
    assert toolbox()[0].folder == ring.parent / "other"


def test_apptainers_variable_counts_first(ring: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINGULARITY_KEYSDIR", "/old")
    monkeypatch.setenv("APPTAINER_KEYSDIR", str(ring))
    assert toolbox()[0].folder == ring


def test_keyring_that_is_not_there_holds_nothing_and_is_not_made(ring: Path) -> None:
    keyring, runner = toolbox()
    assert keyring.secret_keys() == ()
    assert runner.calls == []
    assert not ring.exists()


def test_sif_and_keyring_are_all_that_signing_can_write_to(ring: Path) -> None:
    keyring, runner = toolbox()
    keyring.sign(SIF, KEY)
    (argv,) = runner.argvs
    assert after(argv, "--mount") == [
        f'"type=bind","source={ring}","target={ring}"',
        f'"type=bind","source={SIF}","target={SIF}"',
    ]
    assert after(argv, "--env") == [f"APPTAINER_KEYSDIR={ring}"]
    assert after(argv, "--network") == ["none"]
    assert argv[-4:] == ("sign", "--keyidx", "3", str(SIF))


@pytest.mark.parametrize("way", [toolbox, native])
@pytest.mark.usefixtures("ring")
def test_passphrase_goes_through_standard_input_alone(
    way: Callable[[], tuple[Keyring, RecordingRunner]],
) -> None:
    keyring, runner = way()
    keyring.sign(SIF, KEY, passphrase=SECRET)
    call = runner.calls[-1]
    assert call.input == f"{SECRET}\n"
    assert SECRET not in " ".join(call.argv)
    assert SECRET not in str(call.env)


@pytest.mark.usefixtures("ring")
def test_toolbox_listens_where_it_is_told_something() -> None:
    keyring, runner = toolbox()
    keyring.sign(SIF, KEY)
    Sifs(Apptainer(runner)).list_objects(SIF)
    assert ["--interactive" in argv for argv in runner.argvs] == [True, False]


def test_new_keyring_is_closed_to_others(ring: Path) -> None:
    toolbox()[0].sign(SIF, KEY)
    assert ring.stat().st_mode & 0o777 == 0o700


def test_keyring_that_cannot_be_made_is_told(ring: Path) -> None:
    ring.parent.write_text("a file")
    with pytest.raises(MissingError, match="cannot be created"):
        toolbox()[0].sign(SIF, KEY)


def test_verifying_sees_public_keys_alone_and_writes_nothing(ring: Path) -> None:
    ring.mkdir(parents=True)
    (ring / "pgp-public").write_bytes(b"")
    (ring / "pgp-secret").write_bytes(b"")
    keyring, runner = toolbox()
    keyring.verify(SIF)
    (argv,) = runner.argvs
    public = ring / "pgp-public"
    assert after(argv, "--mount") == [
        f'"type=bind","source={public}","target={public}","readonly"',
        f'"type=bind","source={SIF}","target={SIF}","readonly"',
    ]


def test_verifying_makes_no_keyring(ring: Path) -> None:
    keyring, runner = toolbox()
    keyring.verify(SIF)
    assert not ring.exists()
    assert len(after(runner.argvs[0], "--mount")) == 1


@pytest.mark.usefixtures("ring")
def test_key_server_is_asked_only_on_demand() -> None:
    keyring, runner = toolbox()
    keyring.verify(SIF)
    keyring.verify(SIF, online=True)
    offline, online = runner.argvs
    assert ("--local" in offline, after(offline, "--network")) == (True, ["none"])
    assert ("--local" in online, after(online, "--network")) == (False, [])


def test_native_program_gets_the_keyring(ring: Path) -> None:
    keyring, runner = native()
    keyring.verify(SIF)
    call = runner.calls[-1]
    assert call.argv == ("/usr/bin/apptainer", "verify", "--json", "--local", str(SIF))
    assert call.env == {"APPTAINER_KEYSDIR": str(ring)}


@pytest.mark.usefixtures("ring")
def test_native_singularity_gets_its_own_variable() -> None:
    keyring, runner = native("singularity")
    keyring.sign(SIF, KEY)
    assert set(runner.calls[-1].env or {}) == {"SINGULARITY_KEYSDIR"}


def test_keys_are_managed_on_the_terminal_without_a_network(ring: Path) -> None:
    keyring, runner = toolbox()
    keyring.attach_key(["newpair"], binds=[], terminal=True, online=False)
    argv = runner.argvs[-1]
    assert {"--interactive", "--tty"} <= set(argv)
    assert after(argv, "--network") == ["none"]
    assert after(argv, "--env") == [f"APPTAINER_KEYSDIR={ring}"]
    assert argv[argv.index("sifline/toolbox") + 1 :] == (
        *("as-user", "1000:100", "apptainer", "key", "newpair"),
    )


@pytest.mark.usefixtures("ring")
def test_key_server_is_reached_where_it_is_meant() -> None:
    keyring, runner = toolbox()
    keyring.attach_key(["pull", "X"], binds=[], terminal=False, online=True)
    assert after(runner.argvs[-1], "--network") == []


def test_missing_toolbox_is_told_before_the_terminal_is_taken() -> None:
    failed = answer(stderr="docker: Error: No such image: sifline/toolbox.", returncode=125)
    runner = RecordingRunner({("docker",): failed}, tools={"docker"})
    with pytest.raises(MissingError, match=r"run invoke build\.toolbox"):
        Keyring(Apptainer(runner)).attach_key(["list"], binds=[], terminal=False, online=False)


def test_words_go_to_apptainer_as_they_are() -> None:
    words = ["newpair", "--name", "A B", "--bit-length", "2048"]
    assert keys.arguments(words) == (words, [])


def test_imported_file_is_seen_and_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "k.asc").write_text("")
    file = tmp_path / "k.asc"
    assert keys.arguments(["import", "k.asc"]) == (
        ["import", str(file)],
        [Bind(source=file, target=str(file))],
    )


def test_export_writes_to_the_folder_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert keys.arguments(["export", "--armor", "k.asc"]) == (
        ["export", "--armor", str(tmp_path / "k.asc")],
        [Bind(source=tmp_path, target=str(tmp_path), writable=True)],
    )


def test_import_of_nothing_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        keys.arguments(["import", str(tmp_path / "k.asc")])


@pytest.mark.parametrize(
    "words",
    [
        ["newpair", f"--password={SECRET}"],
        ["newpair", "--password", SECRET],
        ["newpair", f"-P{SECRET}"],
        ["newpair", "-P", SECRET],
    ],
)
def test_passphrase_on_the_command_line_is_refused_and_not_repeated(words: list[str]) -> None:
    with pytest.raises(UsageError, match="can be read by every user") as caught:
        keys.arguments(words)
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--global"], "not touched from here"),
        (["list", "-d", "/x"], "set APPTAINER_KEYSDIR"),
        (["lists"], "Did you mean list"),
        ([], "keys needs a command. Say one of newpair"),
    ],
)
def test_other_words_are_refused_with_the_way_out(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        keys.arguments(words)
