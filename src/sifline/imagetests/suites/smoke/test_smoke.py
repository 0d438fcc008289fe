"""The commands under ``smoke`` of image.toml: each has to exit with status 0."""

from __future__ import annotations

import json
import shlex

import pytest

from sifline.imagetests import Container, by_each_user


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    commands = json.loads(metafunc.config.getoption("--sifline-smoke"))
    by_each_user(metafunc)
    metafunc.parametrize("command", commands, ids=[shlex.join(words) for words in commands])


def test_smoke(container: Container, command: list[str]) -> None:
    ran = container.run(command)
    assert ran.returncode == 0, ran.stderr or ran.stdout
