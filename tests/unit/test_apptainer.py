from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sifline.engines.apptainer.build import Builder, definition
from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.engines.apptainer.squashfs import Compression
from sifline.engines.docker import engine
from sifline.engines.docker.engine import mount
from sifline.errors import MissingError, StepFailed
from sifline.machine.process import CommandFailed, Result
from sifline.machine.streams import Argv
from sifline.model import Bind, Opening
from tests.support.recording import RecordingRunner, answer

SIF = Path("/data/a b/x.sif")


def toolbox(
    answers: dict[tuple[str, ...], object] | None = None, user: tuple[int, int] = (1000, 100)
) -> tuple[Apptainer, RecordingRunner]:
    runner = RecordingRunner(answers or {("docker",): answer()}, tools={"docker"})  # type: ignore[arg-type]
    return Apptainer(runner, user=user), runner


def native(version: str, tool: str = "apptainer") -> tuple[Apptainer, RecordingRunner]:
    runner = RecordingRunner(
        {
            (f"/usr/bin/{tool}", "--version"): answer(version),
            (f"/usr/bin/{tool}",): answer("out"),
            ("docker",): answer(version),
        },
        tools={tool, "docker"},
    )
    return Apptainer(runner, user=(1000, 100)), runner


@pytest.mark.parametrize(
    ("tool", "version", "used"),
    [
        ("apptainer", "apptainer version 1.4.5\n", True),
        ("singularity", "singularity-ce version 4.1.0-1\n", True),
        ("singularity", "singularity-ce version 3.11.4\n", False),
        ("singularity", "something else\n", False),
    ],
)
def test_program_of_the_machine_is_used_where_it_is_able(
    tool: str, version: str, used: bool
) -> None:
    apptainer, _ = native(version, tool)
    assert (apptainer.native is not None) == used


def test_description_names_the_way() -> None:
    assert native("apptainer version 1.4.5")[0].description() == "apptainer 1.4.5 of this machine"
    way, _ = toolbox({("docker",): answer("apptainer version 1.4.5\n")})
    assert way.description() == "apptainer 1.4.5 in sifline/toolbox"


def test_native_exec_passes_environment_and_binds() -> None:
    apptainer, runner = native("apptainer version 1.4.5")
    bind = Bind(source=Path("/in"), target="/data", writable=True)
    Sifs(apptainer).exec(SIF, ["id"], env={"A": "1,2"}, binds=[bind], workdir="/data")
    call = runner.calls[-1]
    assert call.argv == (
        *("/usr/bin/apptainer", "exec", "--cleanenv", "--contain"),
        *("--mount", '"type=bind","source=/in","target=/data"'),
        *("--pwd", "/data", "--no-eval", str(SIF), "id"),
    )
    assert call.env == {"APPTAINERENV_A": "1,2"}


def test_singularity_gets_its_own_variable_names() -> None:
    apptainer, runner = native("singularity-ce version 4.1.0", "singularity")
    Sifs(apptainer).exec(SIF, ["id"], env={"A": "1"})
    assert runner.calls[-1].env == {"SINGULARITYENV_A": "1"}


def test_the_callers_own_settings_of_apptainer_have_no_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = {
        *("APPTAINERENV_A", "SINGULARITYENV_PATH", "APPTAINER_BIND", "SINGULARITY_CONTAIN"),
        *("APPTAINERENV_PREPEND_PATH", "SINGULARITY_BINDPATH", "APPTAINER_NO_MOUNT"),
    }
    stay = {"APPTAINER_CACHEDIR", "SINGULARITY_TMPDIR", "APPTAINER_CONFIGDIR", "HOME"}
    for name in gone | stay:
        monkeypatch.setenv(name, "x")
    apptainer, runner = native("apptainer version 1.4.5")
    Sifs(apptainer).exec(SIF, ["env", "-0"], env={"A": "1"})
    call = runner.calls[-1]
    assert gone <= call.without
    assert not stay & call.without
    assert call.env == {"APPTAINERENV_A": "1"}


def after(argv: tuple[str, ...], word: str) -> list[str]:
    return [argv[at + 1] for at, found in enumerate(argv) if found == word]


def test_toolbox_sees_the_sifs_alone_and_read_only() -> None:
    apptainer, runner = toolbox()
    Sifs(apptainer).exec(SIF, ["id"])
    (argv,) = runner.argvs
    assert after(argv, "--mount") == [
        '"type=bind","source=/data/a b/x.sif","target=/data/a b/x.sif","readonly"'
    ]


def test_toolbox_gets_the_named_rights_and_no_more() -> None:
    apptainer, runner = toolbox()
    Sifs(apptainer).exec(SIF, ["id"])
    (argv,) = runner.argvs
    assert "--privileged" not in argv
    assert after(argv, "--cap-add") == ["SYS_ADMIN"]
    assert not any("docker.sock" in word for word in argv)
    assert after(argv, "--pull") == ["never"]


def test_toolbox_works_as_the_caller() -> None:
    apptainer, runner = toolbox(user=(1000, 100))
    Sifs(apptainer).exec(SIF, ["id"])
    argv = runner.argvs[0]
    inside = argv[argv.index("sifline/toolbox") + 1 :]
    assert inside == (
        *("as-user", "1000:100", "apptainer", "exec", "--cleanenv", "--contain"),
        *(str(SIF), "id"),
    )


def test_root_in_the_toolbox_mounts_in_a_user_namespace() -> None:
    apptainer, runner = toolbox(user=(0, 0))
    Sifs(apptainer).exec(SIF, ["id"])
    argv = runner.argvs[0]
    inside = argv[argv.index("sifline/toolbox") + 1 :]
    assert inside[:5] == ("apptainer", "exec", "--cleanenv", "--contain", "--userns")


def test_build_binds_its_two_folders_and_has_no_network(tmp_path: Path) -> None:
    apptainer, runner = toolbox()
    Builder(apptainer).build_from_layout(
        tmp_path / "layout",
        Path("/out/x.sif"),
        labels={"a": "1"},
        compression=Compression(name="gzip", level=9),
    )
    (argv,) = runner.argvs
    assert after(argv, "--mount") == [
        '"type=bind","source=/out","target=/sifline/0"',
        f'"type=bind","source={tmp_path}","target=/sifline/1"',
    ]
    assert after(argv, "--network") == ["none"]
    assert after(argv, "--mksquashfs-args") == ["-comp gzip -Xcompression-level 9 -mem 256M"]
    assert argv[-2:] == ("/sifline/0/x.sif", "/sifline/1/.definition")
    assert (tmp_path / ".definition").read_text() == definition("layout", {"a": "1"}, {})


def test_definition_leaves_out_labels_without_value() -> None:
    assert definition("layout", {"a": "1 2", "b": ""}, {}) == (
        "Bootstrap: oci\nFrom: layout\n\n%labels\n    a 1 2\n"
    )


def test_missing_toolbox_says_how_to_get_it() -> None:
    failed = answer(stderr="docker: Error: No such image: sifline/toolbox.", returncode=125)
    apptainer, _ = toolbox({("docker",): failed})
    with pytest.raises(MissingError, match=r"run invoke build\.toolbox"):
        Sifs(apptainer).exec(SIF, ["id"], check=False)


def test_engine_that_does_not_answer_is_named() -> None:
    failed = answer(stderr="Cannot connect to the Docker daemon at unix:///x.", returncode=125)
    apptainer, _ = toolbox({("docker",): failed})
    with pytest.raises(MissingError, match="no Docker engine answers"):
        Sifs(apptainer).list_objects(SIF)


def test_container_that_does_not_start_is_a_failed_step() -> None:
    failed = answer(stderr="docker: Error response: no such device /dev/fuse", returncode=125)
    apptainer, _ = toolbox({("docker",): failed})
    words = r"did not start sifline/toolbox: Error response: no such device /dev/fuse; run invoke"
    with pytest.raises(StepFailed, match=words):
        Sifs(apptainer).exec(SIF, ["id"], check=False)


def test_status_of_the_command_inside_is_no_error_of_ours() -> None:
    apptainer, _ = toolbox({("docker",): answer(stderr="No such image: q", returncode=3)})
    assert Sifs(apptainer).exec(SIF, ["false"], check=False).returncode == 3


def test_container_of_an_interrupted_command_is_removed() -> None:
    class Interrupted(RecordingRunner):
        def run(self, argv: Argv, **options: Any) -> Result:
            result = super().run(argv, **options)
            if argv[1] == "run":
                raise KeyboardInterrupt
            return result

    runner = Interrupted({("docker",): answer()}, tools={"docker"})
    with pytest.raises(KeyboardInterrupt):
        Sifs(Apptainer(runner, user=(0, 0))).exec(SIF, ["sleep", "9"])
    name = after(runner.argvs[0], "--name")[0]
    assert runner.argvs[1] == ("docker", "rm", "--force", "--volumes", name)


def test_failed_command_keeps_what_it_printed() -> None:
    apptainer, _ = toolbox({("docker",): answer(stderr="FATAL: broken", returncode=255)})
    with pytest.raises(CommandFailed) as caught:
        Sifs(apptainer).list_objects(SIF)
    assert "FATAL: broken" in caught.value.details


def test_builds_of_a_killed_run_are_ended(tmp_path: Path) -> None:
    apptainer, runner = toolbox({("docker", "ps"): answer("a1\nb2\n"), ("docker", "rm"): answer()})
    apptainer.stop_builds(tmp_path)
    assert after(runner.argvs[0], "--filter") == [f"label=sifline.apptainer={tmp_path}"]
    assert runner.argvs[1] == ("docker", "rm", "--force", "--volumes", "a1", "b2")


def test_a_build_that_ends_by_itself_while_it_is_removed_is_no_failure(tmp_path: Path) -> None:
    gone = answer(stderr="Error: No such container: a1", returncode=1)
    listed = [answer("a1\nb2\n"), answer("b2\n"), answer("")]
    apptainer, runner = toolbox({("docker", "ps"): listed, ("docker", "rm"): gone})
    apptainer.stop_builds(tmp_path)
    removed = [argv[4:] for argv in runner.argvs if argv[1] == "rm"]
    assert removed == [("a1", "b2"), ("b2",)]


def test_a_build_that_cannot_be_ended_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "REMOVE_SECONDS", 0)
    stuck = answer(stderr="Error: driver failed: device or resource busy", returncode=1)
    apptainer, _ = toolbox({("docker", "ps"): answer("a1\n"), ("docker", "rm"): stuck})
    with pytest.raises(StepFailed, match=r"resource busy; .*docker rm --force a1"):
        apptainer.stop_builds(tmp_path)


def test_nothing_is_removed_where_nothing_was_left(tmp_path: Path) -> None:
    apptainer, runner = toolbox({("docker", "ps"): answer("")})
    apptainer.stop_builds(tmp_path)
    assert len(runner.calls) == 1


def test_inspect_returns_the_attributes() -> None:
    apptainer, _ = toolbox(
        {("docker",): answer('{"data": {"attributes": {"labels": {"a": "b"}}}}')}
    )
    assert Sifs(apptainer).inspect(SIF) == {"labels": {"a": "b"}}


def test_inspect_that_prints_no_json_fails() -> None:
    apptainer, _ = toolbox({("docker",): answer("WARNING")})
    with pytest.raises(StepFailed, match="printed no JSON"):
        Sifs(apptainer).inspect(SIF)


def opened(
    apptainer: Apptainer, runner: RecordingRunner, opening: Opening, *, terminal: bool = False
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What the shell runs: its argv, and the variables that it gets."""
    status = Sifs(apptainer).shell(
        SIF, ["bash", "-l"], opening, workdir="/work", terminal=terminal
    )
    assert status == 0
    call = runner.calls[-1]
    if call.argv[:2] == ("docker", "rm"):  # of the toolbox
        call = runner.calls[-2]
    return call.argv, dict(call.env or {})


def test_shell_keeps_the_folders_of_the_toolbox_from_those_of_the_host() -> None:
    binds = (Bind(source=Path("/etc"), target="/b"), Bind(source=Path("/x"), target="/home/ann"))
    argv, _ = opened(*toolbox(), Opening(binds=binds, home="/home/ann", user=(1000, 100)))
    outside, inside = argv[: argv.index("apptainer")], argv[argv.index("apptainer") :]
    assert after(outside, "--mount")[1:] == [
        '"type=bind","source=/etc","target=/sifline/0","readonly"',
        '"type=bind","source=/x","target=/sifline/1","readonly"',
    ]
    assert after(inside, "--mount")[0] == (
        '"type=bind","source=/sifline/0","target=/b","readonly"'
    )
    assert after(inside, "--home") == ["/sifline/1:/home/ann"]


def test_shell_of_a_machine_with_apptainer_binds_what_is_there() -> None:
    opening = Opening(binds=(Bind(source=Path("/etc"), target="/b", writable=True),))
    argv, env = opened(*native("apptainer version 1.4.5"), opening)
    assert argv == (
        *("/usr/bin/apptainer", "exec", "--cleanenv", "--contain"),
        *("--mount", '"type=bind","source=/etc","target=/b"', "--pwd", "/work"),
        *(str(SIF), "bash", "-l"),
    )
    assert env == {}


@pytest.mark.parametrize(("asked", "begins"), [("", "/work"), ("/opt", "/opt")])
def test_shell_begins_in_the_folder_of_the_image_unless_told(asked: str, begins: str) -> None:
    argv, _ = opened(*toolbox(), Opening(workdir=asked))
    assert after(argv, "--pwd") == [begins]


def test_shell_tells_no_list_of_processes_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN", "its value")
    argv, env = opened(*toolbox(), Opening(env={"A": "$(id)", "OWN": None}))
    assert env == {"APPTAINERENV_A": "$(id)", "APPTAINERENV_OWN": "its value"}
    assert after(argv, "--env") == ["APPTAINERENV_A", "APPTAINERENV_OWN"]
    # Else Apptainer would run what the value says.
    assert "--no-eval" in argv[argv.index("apptainer") :]


@pytest.mark.parametrize(("terminal", "given"), [(True, True), (False, False)])
def test_shell_gets_a_terminal_where_there_is_one(terminal: bool, given: bool) -> None:
    argv, _ = opened(*toolbox(), Opening(), terminal=terminal)
    assert ("--tty" in argv) == given


@pytest.mark.parametrize(
    ("gpus", "seen"),
    [("all", None), ("2", "0,1"), ("device=1,3", "1,3"), ("device=GPU-a", "GPU-a")],
)
def test_shell_hands_in_all_gpus_and_shows_cuda_those_that_are_meant(
    gpus: str, seen: str | None
) -> None:
    argv, env = opened(*toolbox(), Opening(gpus=gpus))
    assert after(argv, "--gpus") == ["all"]
    assert "--nv" in argv
    assert env.get("APPTAINERENV_CUDA_VISIBLE_DEVICES") == seen
    assert env.get("APPTAINERENV_CUDA_DEVICE_ORDER") == (None if seen is None else "PCI_BUS_ID")


def test_shell_without_gpus_asks_for_none() -> None:
    argv, env = opened(*toolbox(), Opening())
    assert {"--gpus", "--nv"}.isdisjoint(argv)
    assert env == {}


def test_shell_passes_on_how_the_command_ended() -> None:
    apptainer, _ = toolbox({("docker",): answer(returncode=7)})
    assert Sifs(apptainer).shell(SIF, ["x"], Opening(), workdir="/", terminal=False) == 7


def test_mount_survives_commas_and_quotes() -> None:
    bind = Bind(source=Path('/a,"b'), target="/c", writable=True)
    assert mount(bind) == '"type=bind","source=/a,""b","target=/c"'


def test_a_label_cannot_begin_a_section() -> None:
    assert definition("layout", {"a": "one\n%setup\n    touch /x", "b": "\r\n"}, {}) == (
        "Bootstrap: oci\nFrom: layout\n\n%labels\n    a one %setup touch /x\n"
    )


@pytest.mark.parametrize(
    ("runs", "network", "used"),
    [
        (False, False, "/usr/bin/apptainer"),  # it only packs
        (True, True, "/usr/bin/apptainer"),
        (True, False, "docker"),  # the machine's own could not be kept from the network
    ],
)
def test_what_may_not_use_the_network_runs_where_there_is_none(
    tmp_path: Path, runs: bool, network: bool, used: str
) -> None:
    apptainer, runner = native("apptainer version 1.4.5")
    Builder(apptainer).build(
        lambda _: "Bootstrap: scratch\n",
        tmp_path / "x.sif",
        scratch=tmp_path,
        compression=Compression(),
        runs=runs,
        network=network,
    )
    argv = runner.argvs[-1]
    assert argv[0] == used
    assert after(argv, "--network") == (["none"] if used == "docker" else [])
