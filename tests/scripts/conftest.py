"""What tests of several scripts share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's own, with a space in its name."""
    yield from _folder("sifline test ")


@pytest.fixture
def plain() -> Iterator[Path]:
    """A folder that other users can enter, with no space in its name."""
    yield from _folder("sifline-test-")


def _folder(prefix: str) -> Iterator[Path]:
    with TemporaryDirectory(prefix=prefix, dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)
