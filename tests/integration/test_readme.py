"""The commands of the README, as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from sifline.model import Cluster

from .conftest import ROOT

# nox is what runs this test: running it from here would never end.
ABOUT_TO_RUN = {"scripts/bootstrap nox"}


def commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_two_commands_of_a_new_user_are_there() -> None:
    assert {"scripts/bootstrap invoke quickstart", "scripts/bootstrap nox"} <= set(commands())
