"""A plan asks the engine once, and redoes what was asked for and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sifline.engines.docker import engine, images
from sifline.errors import MissingError
from sifline.machine.process import Runner
from sifline.pipeline import Pipeline
from sifline.pipeline.options import Options
from sifline.pipeline.plans import BUILD, TOOLBOX
from sifline.report.terminal import Terminal
from tests.support.contexts import context_of
from tests.support.fake_engine import fake_engine
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


def test_force_is_about_what_was_asked_for_and_not_about_the_toolbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_engine(tmp_path, monkeypatch)
    (tmp_path / "images" / TOOLBOX).mkdir(parents=True)
    (tmp_path / "images" / TOOLBOX / "Dockerfile").write_text("FROM scratch\n")
    pipeline = Pipeline(context_of(tmp_path), Terminal(), Options(force=True))

    assert [image.reused for image in pipeline.work.build([TOOLBOX])] == [False]
    assert [image.reused for image in pipeline.work.build([TOOLBOX])] == [True]
    forced = pipeline.work.run(BUILD, [TOOLBOX]).check().built
    assert [image.reused for image in forced.values()] == [False]
