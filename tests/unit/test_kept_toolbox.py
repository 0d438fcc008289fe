"""A container of the toolbox that is kept for many calls: what it sees, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.sif import Sifs
from sifline.engines.apptainer.toolbox import ALIVE, Box
from sifline.engines.docker.engine import mount
from sifline.errors import MissingError, StepFailed
from sifline.imagetests import plugin
from sifline.model import Bind
from tests.support import sif_files
from tests.support.recording import RecordingRunner, answer

HERE = Path("/data/here")
SIF = HERE / "x.sif"
HELD = Bind(source=HERE, target=str(HERE), writable=True)


def toolbox(**commands: object) -> RecordingRunner:
    answers = {("docker", verb): commands.get(verb, answer()) for verb in ("run", "exec", "rm")}
    return RecordingRunner(answers, tools={"docker"})  # type: ignore[arg-type]


def verbs(runner: RecordingRunner) -> list[str]:
    return [argv[1] for argv in runner.argvs]


@pytest.mark.parametrize(
    ("bind", "seen"),
    [
        (Bind(source=SIF, target=str(SIF)), True),
        (Bind(source=HERE, target=str(HERE), writable=True), True),
        (Bind(source=Path("/data"), target="/data"), False),
        (Bind(source=SIF, target="/elsewhere/x.sif"), False),
        (Bind(source=Path("/data/hereafter"), target="/data/hereafter"), False),
    ],
)
def test_a_box_sees_what_lies_in_its_folders_at_the_same_place(bind: Bind, seen: bool) -> None:
    assert Box(name="b", binds=(HELD,)).sees(bind) is seen


def test_a_box_that_may_not_write_does_not_stand_in_for_one_that_may() -> None:
    readable = Bind(source=HERE, target=str(HERE))

    assert not Box(name="b", binds=(readable,)).sees(HELD)


def test_all_calls_run_in_one_container_which_goes_in_the_end() -> None:
    runner = toolbox(exec=answer("apptainer version 1.4.5"))

    with Apptainer(runner, user=(0, 0)).held([HELD], purpose="p") as held:
        Sifs(held).exec(SIF, ["true"])
        Sifs(held).exec(SIF, ["false"])

    assert verbs(runner) == ["run", "exec", "exec", "rm"]
    name = runner.argvs[0][runner.argvs[0].index("--name") + 1]
    assert all(name in argv for argv in runner.argvs)
    assert "--network=none" in [
        f"{a}={b}" for a, b in zip(runner.argvs[0], runner.argvs[0][1:], strict=False)
    ]


def test_what_tells_that_we_live_lies_in_a_folder_that_is_handed_in(tmp_path: Path) -> None:
    runner = toolbox()
    folder = Bind(source=tmp_path, target=str(tmp_path), writable=True)

    with Apptainer(runner, user=(0, 0)).held([HELD, folder], purpose="p"):
        (alive,) = tmp_path.iterdir()

    assert mount(Bind(source=alive, target=ALIVE)) in runner.argvs[0]
    assert list(tmp_path.iterdir()) == []


def test_a_call_that_fails_leaves_the_container_to_the_others() -> None:
    runner = toolbox(exec=[answer(returncode=3), answer()])

    with Apptainer(runner, user=(0, 0)).held([HELD], purpose="p") as held:
        with pytest.raises(StepFailed):
            Sifs(held).exec(SIF, ["false"])
        Sifs(held).exec(SIF, ["true"])

    assert verbs(runner) == ["run", "exec", "exec", "rm"]


def test_what_a_box_does_not_see_is_a_mistake_of_the_caller() -> None:
    runner = toolbox()
    elsewhere = Path("/elsewhere/x.sif")

    with (
        Apptainer(runner, user=(0, 0)).held([HELD], purpose="p") as held,
        pytest.raises(AssertionError),
    ):
        Sifs(held).exec(elsewhere, ["true"])


def test_the_first_process_waits_for_a_lock_that_this_process_holds() -> None:
    runner = toolbox()

    with Apptainer(runner, user=(0, 0)).held([HELD], purpose="p"):
        started = runner.argvs[0]

    assert started[-3:] == ("flock", ALIVE, "true")
    assert "--detach" in started


@pytest.mark.parametrize(
    ("joins", "target"), [(0, "instance://sifline"), (255, str(SIF))], ids=["shell", "no shell"]
)
def test_a_sif_is_joined_where_it_can_become_an_instance(joins: int, target: str) -> None:
    runner = toolbox(exec=[answer(returncode=joins), answer()])

    with Sifs(Apptainer(runner, user=(0, 0))).opened(SIF, label="a=b") as run:
        run(["true"], workdir="/srv")

    assert verbs(runner) == ["run", "exec", "exec", "rm"]
    assert runner.argvs[2][-2:] == (target, "true")


def test_an_ordinary_user_gets_a_sif_that_only_root_may_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = sif_files.write(tmp_path / "x.sif", [sif_files.SQUASHFS])
    path.chmod(0o600)
    runner = toolbox()
    monkeypatch.setattr("sifline.machine.process.ProcessRunner", lambda: runner)
    monkeypatch.setattr(plugin, "engine_gpus", lambda _: (0, "none"))

    with plugin._sif("x", path, "a=b", plugin.ORDINARY_USER) as container:
        container.run(["true"])

    mounted, started, ran = (argv for argv in runner.argvs if argv[1] == "exec")
    assert "as-user" not in mounted  # root opens the file, and users see what is in it
    assert str(path) in mounted
    for argv in (started, ran):
        assert "as-user" in argv
        assert str(path) not in argv


def test_the_machine_s_own_apptainer_starts_a_container_for_each_command() -> None:
    version = answer("apptainer version 1.4.5")
    answers = {("apptainer", "--version"): version, ("/usr/bin/apptainer",): version}
    runner = RecordingRunner(answers, tools={"apptainer"})

    with Sifs(Apptainer(runner, user=(0, 0))).opened(SIF, label="a=b") as run:
        run(["true"])

    assert runner.argvs[-1][:2] == ("/usr/bin/apptainer", "exec")


def test_an_engine_without_the_toolbox_says_how_to_make_it() -> None:
    runner = toolbox(run=answer(stderr="No such image: sifline/toolbox", returncode=125))

    with (
        pytest.raises(MissingError, match=r"invoke build\.toolbox"),
        Apptainer(runner, user=(0, 0)).held([HELD], purpose="p"),
    ):
        pass
