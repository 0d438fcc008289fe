"""What of the engine's own folders a conversion gets, where some of them are missing."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sifline.machine.process import Result
from sifline.machine.streams import Argv
from sifline.model import BuiltImage, Image, SifOptions
from sifline.stages.convert.stream import _Stream
from sifline.stages.convert.work import ImageWork
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

LAYER, HEADERS = "/d/overlay2/one/diff", "/d/image/overlay2/layerdb/sha256"
IMAGE = {"Id": "i", "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": LAYER}}}


class Engine(RecordingRunner):
    """An engine on whose machine folders are missing."""

    missing: tuple[str, ...] = ()

    def run(self, argv: Argv, **more: Any) -> Result:
        lost = [path for path in self.missing if any(path in word for word in argv)]
        if argv[1] == "run" and lost:
            super().run(argv, **more)
            said = (
                f"docker: Error response from daemon: bind source path does not exist: {lost[0]}"
            )
            return answer(stderr=said, returncode=125)
        return super().run(argv, **more)


@pytest.mark.parametrize("missing", [(), (HEADERS,), (LAYER,), (LAYER, HEADERS)])
def test_what_is_missing_is_gone_without_and_nothing_else(
    tmp_path: Path, missing: tuple[str, ...]
) -> None:
    engine = Engine(
        {("docker", "image", "inspect"): answer(json.dumps(IMAGE)), ("docker",): answer()},
        tools={"docker"},
    )
    engine.missing = missing
    image = Image(name="x", folder=Path("x"), tag="x", sif=SifOptions())
    work = ImageWork(
        held=BuiltImage(image=image, image_id="i", fingerprint="f", size=1, reused=True),
        context=context_of(tmp_path, engine),
        options=SifOptions(),
        scratch=tmp_path / "scratch",
        partial=tmp_path / "x.sif",
        log=tmp_path / "x.log",
    )
    with ExitStack() as open_:
        made = _Stream(work, open_)
    assert made._layers == (() if LAYER in missing else (Path(LAYER),))
    assert made._headers == (None if HEADERS in missing else Path(HEADERS))
    assert [LAYER in note for note in made._notes] == [True] * (LAYER in missing)
    last = [" ".join(argv) for argv in engine.argvs if argv[1] == "run"][-1]
    assert [path in last for path in (LAYER, HEADERS)] == [
        path not in missing for path in (LAYER, HEADERS)
    ]
