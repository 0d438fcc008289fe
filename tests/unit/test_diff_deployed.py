"""Which image or SIF of this machine is the version that is deployed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from sifline.contents import sif_records
from sifline.errors import MissingError
from sifline.model import Workspace
from sifline.model.catalog import Version
from sifline.pipeline.sifs import Sifs

PATH = PurePosixPath("/opt/containers/custom-images/hello.sif")
NOW, BEFORE = SimpleNamespace(fingerprint="now"), SimpleNamespace(fingerprint="before")


class Held(Sifs):
    """The SIFs of a machine whose engine holds two versions of an image."""

    def __init__(self, root: Path) -> None:
        self._workspace = Workspace(root=root)

    def _versions(self, names: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        return dict.fromkeys(names, (NOW, BEFORE))

    def _difference(self, old: Any, new: Any) -> Any:
        return old, new


def deployed(*, sha256: str = "a" * 64, fingerprint: str = "") -> Version:
    return Version(sha256=sha256, fingerprint=fingerprint)


def test_a_version_that_the_engine_holds_is_compared_as_an_image(tmp_path: Path) -> None:
    found: Any = Held(tmp_path).diff_deployed("hello", deployed(fingerprint="before"), PATH)

    assert found == (BEFORE, NOW)


def test_a_version_whose_sif_is_here_is_compared_as_that(tmp_path: Path) -> None:
    sifs = Held(tmp_path)
    path = Workspace(root=tmp_path).sif("hello")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"sif")
    digest = hashlib.sha256(b"sif").hexdigest()
    sif_records.write("hello", Workspace(root=tmp_path), {"sha256": digest})

    found: Any = sifs.diff_deployed("hello", deployed(sha256=digest, fingerprint="gone"), PATH)

    assert found == (path, NOW)


@pytest.mark.parametrize("fingerprint", ["gone", ""])
def test_a_version_that_is_nowhere_here_is_said_to_be(tmp_path: Path, fingerprint: str) -> None:
    with pytest.raises(MissingError, match=rf"no longer have that version; copy {PATH} from"):
        Held(tmp_path).diff_deployed("hello", deployed(fingerprint=fingerprint), PATH)
