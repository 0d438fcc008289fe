"""A plan asks the engine once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sifline.engines.docker import engine, images
from sifline.errors import MissingError
from sifline.machine.process import Runner
from sifline.pipeline import Pipeline
from sifline.pipeline.plans import BUILD
from sifline.report.terminal import Terminal
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer

DOCKERFILE = "FROM scratch\nRUN --mount=type=secret,id=token,required=true true\n"


def test_a_plan_and_what_it_lacks_ask_the_engine_for_its_images_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Runner]()

    def none_held(runner: Runner) -> list[dict[str, Any]]:
        asked.append(runner)
        return []

    monkeypatch.setattr(images, "all_images", none_held)
    monkeypatch.setattr(engine, "is_local", lambda: True)
    (tmp_path / "images" / "x").mkdir(parents=True)
    (tmp_path / "images" / "x" / "Dockerfile").write_text(DOCKERFILE)
    pipeline = Pipeline(
        context_of(tmp_path, RecordingRunner({("git",): answer("0123")})), Terminal()
    )

    planned = pipeline.work.dry(BUILD, ["x"])

    assert [step.needed for step in planned.steps] == [True]
    with pytest.raises(MissingError, match="x needs the secret token"):
        planned.check()
    assert len(asked) == 1
