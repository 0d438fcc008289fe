"""What tests of several scripts share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's own, with a space in its name."""
    with TemporaryDirectory(prefix="sifline test ", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)
