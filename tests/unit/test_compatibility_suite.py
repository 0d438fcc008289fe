"""Suite compatibility: contradictions between predictions and what happened; heads of SIFs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sifline.contents.compatible import Refusal
from sifline.formats import sif, squashfs
from sifline.nodeside import sif_head
from sifline.validation.suites.compatibility import judge
from tests.support import sif_files

REFUSED = Refusal(node="n1", fact="PMIx", reason="they hang", way_out="another release")
UNKNOWN = Refusal(node="n1", fact="PMIx", reason="?", way_out="try it", known=False)


@pytest.mark.parametrize(
    ("found", "worked", "faults"),
    [
        ([], True, []),
        ([REFUSED], False, []),
        ([UNKNOWN], True, []),
        ([UNKNOWN], False, []),
        ([REFUSED, UNKNOWN], True, ["n1: runs, and is refused: PMIx: they hang"]),
        ([], False, ["n1: was predicted to work, and does not: no mount"]),
    ],
)
def test_a_contradiction_is_a_fault_and_the_unknown_predicts_nothing(
    found: list[Refusal], worked: bool, faults: list[str]
) -> None:
    assert judge("n1", found, worked=worked, why="no mount") == faults


def test_the_program_reads_the_head_as_the_reader_of_sifs_does(tmp_path: Path) -> None:
    path = sif_files.write(tmp_path / "x.sif", [sif_files.labels_object({}), sif_files.SQUASHFS])
    done = subprocess.run(
        [sys.executable, sif_head.__file__, str(path)], capture_output=True, text=True, check=True
    )
    found, file = json.loads(done.stdout), sif.read(path)
    with path.open("rb") as opened:
        opened.seek(sif.system(file).offset)
        compression = squashfs.compression(opened.read(squashfs.HEAD))

    assert sif.ARCHITECTURES[found["architecture"]] == file.architecture
    assert squashfs.COMPRESSIONS.get(found["compression"], "") == compression
