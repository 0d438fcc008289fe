"""What the caller's environment and docker's settings may say, and what nobody shall read."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from sifline.config import docker_client
from sifline.config.docker_client import WITHOUT, credentials, hidden, need_no_other, proxies
from sifline.errors import UsageError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "environment.md"


def need(environment: dict[str, str], *, engine: str = "linux/amd64", local: bool = True) -> None:
    need_no_other(environment, local=local, engine=lambda: engine, machine="x86_64")


@pytest.mark.parametrize(
    ("environment", "engine", "said"),
    [
        ({"DOCKER_DEFAULT_PLATFORM": "linux/arm64"}, "linux/amd64", "own platform, linux/amd64"),
        ({"DOCKER_DEFAULT_PLATFORM": "nonsense"}, "linux/amd64", "unset it"),
        ({"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": "/p"}, "linux/amd64", "under [bases] of a site"),
        ({"DOCKER_HOST": "tcp://x:1"}, "linux/arm64", "the engine runs linux/arm64"),
        ({"DOCKER_DEFAULT_PLATFORM": "linux/arm64"}, "linux/arm64", "this machine linux/amd64"),
    ],
)
def test_what_would_build_another_image_is_refused(
    environment: dict[str, str], engine: str, said: str
) -> None:
    with pytest.raises(UsageError) as error:
        need(environment, engine=engine, local="DOCKER_HOST" not in environment)

    assert said in error.value.message


@pytest.mark.parametrize("platform", ["", "linux/amd64", "linux/x86_64", "Linux/AMD64/v1"])
def test_the_engines_own_platform_may_be_named(platform: str) -> None:
    need({"DOCKER_DEFAULT_PLATFORM": platform})


@pytest.mark.parametrize(
    ("machine", "engine", "fits"),
    [
        ("armv7l", "linux/arm", True),
        ("i686", "linux/386", True),
        ("aarch64", "linux/arm64", True),
        ("aarch64", "linux/arm", False),
    ],
)
def test_an_engine_elsewhere_has_to_be_of_the_platform_of_this_machine(
    machine: str, engine: str, *, fits: bool
) -> None:
    def ask() -> None:
        need_no_other({}, local=False, engine=lambda: engine, machine=machine)

    if fits:
        ask()
    else:
        with pytest.raises(UsageError, match="use an engine of this platform"):
            ask()


def test_a_local_engine_is_not_asked_for_its_platform() -> None:
    need_no_other({}, local=True, engine=lambda: pytest.fail("asked"), machine="x86_64")


LOGIN = "us%40er:pass%21word"
PLAIN = "us@er:pass!word"


def test_a_proxys_password_is_hidden_however_it_is_written() -> None:
    found = credentials([f"http://{LOGIN}@proxy.example.org:1", "http://proxy.example.org:1"])

    encoded = b64encode(PLAIN.encode()).decode()
    assert set(found) == {LOGIN, PLAIN, encoded, "pass!word"}


def test_a_short_word_alone_is_not_hidden() -> None:
    assert credentials(["http://user@proxy:1", "http://a:b@proxy:1"]) == ("YTpi", "a:b")


def settings(folder: Path, monkeypatch: pytest.MonkeyPatch, content: Any) -> None:
    (folder / "config.json").write_text(json.dumps(content))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


def test_proxies_of_every_engine_and_of_the_environment_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = {"httpProxy": "http://a:first@p:1", "noProxy": "x"}, {"ftpProxy": "f:second@p"}
    settings(tmp_path, monkeypatch, {"proxies": {"default": first, "tcp://x:1": second}})

    found = hidden({"HTTPS_PROXY": "http://b:third@p:1", "all_proxy": "socks5://c:fourth@p"})

    assert {"a:first", "f:second", "b:third", "c:fourth"} <= set(found)


@pytest.mark.parametrize(
    "content", [{}, [], {"proxies": []}, {"proxies": {"default": 1}}, {"proxies": {"x": {}}}]
)
def test_settings_of_any_shape_name_no_proxies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    settings(tmp_path, monkeypatch, content)

    assert proxies() == ()


def test_the_reference_names_each_variable_and_what_becomes_of_it() -> None:
    rows = re.findall(r"^\| (.+?) \| (removed|refused|kept|[^|]*) \|", PAGE.read_text(), re.M)
    told = {name: what for names, what in rows for name in re.findall(r"`([A-Z_]+)`", names)}

    assert {name for name, what in told.items() if what == "removed"} == {
        *WITHOUT - {docker_client.PLATFORM},
        docker_client.EPOCH,
    }
    assert {name for name, what in told.items() if what == "refused"} == {
        docker_client.PLATFORM,
        docker_client.POLICY,
    }
