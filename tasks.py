"""The tasks of this repository; `invoke --list` shows them."""

from pathlib import Path

from sifline.tasks import namespace

ns = namespace(Path(__file__).parent)
