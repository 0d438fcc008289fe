from __future__ import annotations

from pathlib import Path

import pytest

from sifline.contents import environment
from sifline.engines.apptainer.program import Apptainer
from sifline.errors import StepFailed
from sifline.machine.process import Result
from sifline.machine.streams import Argv
from sifline.model import BuiltImage, Image, SifOptions
from sifline.stages.convert.proof import Proof, prove
from sifline.stages.convert.work import ImageWork, Made
from tests.support import sif_files
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

ENV = ("A=1", 'B={"a": "b"}')
MISSING = answer(stderr='FATAL: "env": executable file not found in $PATH', returncode=255)


def proved(
    tmp_path: Path,
    *,
    env: Result,
    true: Result | None = None,
    method: str = "stream",
    ours: bool = True,
) -> Proof:
    """Look at a SIF in which ``env -0`` and ``true`` end like this."""

    class Answering(RecordingRunner):
        def run(self, argv: Argv, **_: object) -> Result:
            if "-dest" in argv:
                return unpacked(*argv[argv.index("-c") + 2 :])
            return env if tuple(argv[-2:]) == ("env", "-0") else true or answer()

    def unpacked(names: str, *words: str) -> Result:
        assert Path(names).read_text() == f"{environment.SCRIPT}\0"
        script = Path(words[words.index("-dest") + 1]) / environment.SCRIPT
        script.parent.mkdir(parents=True)
        script.write_bytes(environment.script(ENV) if ours else b"other")
        return answer()

    tmp_path.mkdir(exist_ok=True)
    image = Image(name="x", folder=Path("x"), tag="x", sif=SifOptions())
    work = ImageWork(
        held=BuiltImage(image=image, image_id="i", fingerprint="f", size=1, reused=True),
        context=context_of(tmp_path, RecordingRunner()),
        options=SifOptions(),
        scratch=tmp_path,
        partial=sif_files.write(tmp_path / "x.sif", [sif_files.SQUASHFS]),
        log=tmp_path / "x.log",
    )
    apptainer = Apptainer(Answering(tools={"docker"}))
    return prove(work, Made(method=method, tools={}, env=ENV), apptainer)


def printed(*variables: str) -> Result:
    return answer("\0".join([*variables, "APPTAINER_CONTAINER=x.sif", ""]))


def test_env_that_arrived_is_what_was_proved(tmp_path: Path) -> None:
    assert proved(tmp_path, env=printed(*ENV)) == Proof(verified="ran env")


def test_env_that_did_not_arrive_is_an_error_with_its_names(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="not those of the image: B;"):
        proved(tmp_path, env=printed("A=1", 'B={\\"a\\": \\"b\\"}'))


@pytest.mark.parametrize("ours", [True, False])
def test_scripts_of_the_image_may_change_env_and_that_is_told(tmp_path: Path, ours: bool) -> None:
    found = printed("A=2", ENV[1])
    if ours:
        done = proved(tmp_path, env=found, method="apptainer")
        assert done.notes == ("warning: scripts of the image in /.singularity.d/env change A",)
    else:
        with pytest.raises(StepFailed, match="not those of the image: A;"):
            proved(tmp_path, env=found, method="apptainer", ours=False)


@pytest.mark.parametrize("env", [MISSING, answer("something else")])
def test_without_env_the_script_itself_is_looked_at(tmp_path: Path, env: Result) -> None:
    found = proved(tmp_path / "ours", env=env)
    assert found == Proof(verified="ran true")
    with pytest.raises(StepFailed, match="not those of the image: all;"):
        proved(tmp_path / "other", env=env, ours=False)


def test_what_does_not_run_is_an_error(tmp_path: Path) -> None:
    bad = answer(stderr="FATAL: while mounting image: squashfs: bad", returncode=255)
    with pytest.raises(StepFailed, match="nothing runs in the new SIF"):
        proved(tmp_path, env=bad, true=bad)
