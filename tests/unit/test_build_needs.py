"""What an image needs is asked for before anything is begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.engines.docker.images import EngineImage
from sifline.errors import MissingError
from sifline.model import Feature, Image
from sifline.stages.build.needs import Surroundings, need

HERE = Feature(what="a here-document", line=3, buildkit=10)


def image(frontend: str = "", *features: Feature) -> Image:
    return Image(name="x", folder=Path("x"), tag="", frontend=frontend, features=features)


def holding(*tags: str) -> EngineImage:
    return EngineImage(image_id="sha256:a", tags=tags, digests=(), size=1, created=1, labels={})


def test_a_line_that_the_engine_is_too_old_for_is_named_with_what_to_do() -> None:
    with pytest.raises(MissingError) as error:
        need(image("", HERE), Surroundings(buildkit=8), ())

    assert error.value.message == (
        "x: a here-document in line 3 of its Dockerfile needs BuildKit 0.10 (Docker 23.0) or"
        " newer, and this engine has 0.8; write it without, begin it with #"
        " syntax=docker/dockerfile:1, or install a newer Docker engine and see invoke doctor"
    )


def test_an_offline_site_is_not_sent_to_a_hub() -> None:
    with pytest.raises(MissingError, match="write it without, or install a newer"):
        need(image("", HERE), Surroundings(buildkit=8, offline=True), ())


@pytest.mark.parametrize("version", [10, 26, None])
def test_a_new_enough_engine_or_an_unknown_one_is_tried(version: int | None) -> None:
    need(image("", HERE), Surroundings(buildkit=version), ())


def test_a_reader_of_its_own_knows_what_the_engine_does_not() -> None:
    need(image("docker/dockerfile:1", HERE), Surroundings(buildkit=8), ())


def test_offline_a_reader_of_its_own_has_to_be_in_the_engine() -> None:
    offline = Surroundings(offline=True)

    with pytest.raises(MissingError, match="load that image, or remove that line"):
        need(image("docker/dockerfile:1"), offline, (holding("docker/dockerfile:2"),))
    need(image("docker.io/docker/dockerfile:1"), offline, (holding("docker/dockerfile:1"),))


def asking(*agents: tuple[str, str], required: bool = True) -> Image:
    ssh = (("default", required), ("deploy", required))
    return Image(name="x", folder=Path("x"), tag="", ssh=ssh, agents=agents)


def test_an_agent_that_is_required_is_missed_before_anything_is_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = tmp_path / "key"
    key.touch()

    with pytest.raises(MissingError, match="for the id default; start one"):
        need(asking(), Surroundings(), ())
    with pytest.raises(MissingError, match="for the id deploy"):
        need(asking(("default", str(key))), Surroundings(), ())
    with pytest.raises(MissingError, match=r"ssh.deploy: there is no /no/such"):
        need(asking(("deploy", "/no/such")), Surroundings(), ())
    need(asking(required=False), Surroundings(), ())
    need(asking(("default", str(key)), ("deploy", str(key))), Surroundings(), ())

    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    need(asking(), Surroundings(), ())
