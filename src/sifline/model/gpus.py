"""The GPUs of a node, as Slurm's gres.conf describes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from sifline.model.patterns import GRES_TYPE

if TYPE_CHECKING:
    from sifline.fields.keys import Key
    from sifline.fields.kinds import Several, Text

_FILE = r"/dev/[A-Za-z0-9/_.-]*[A-Za-z0-9]"
_NUMBERS = "[0-9]{1,4}(?:-[0-9]{1,4})?(?:,[0-9]{1,4}(?:-[0-9]{1,4})?)*"
_LISTED = re.compile(rf"(?P<start>[^\[]*)\[(?P<numbers>{_NUMBERS})\]")
TYPED = "letters, digits, -, _ and ., and no number, which Slurm takes for a count"
# How GPUs are found: as described, or by slurmd (AutoDetect of gres.conf).
DETECTED = ("off", "nvml", "nvidia")


@dataclass(frozen=True, kw_only=True)
class GpuDevices:
    """GPUs of one type: one for each device file of ``file``, or one of ``multiple_files``."""

    type: Annotated[
        str,
        Key(
            kind=Text(what=TYPED, pattern=f"(?:{GRES_TYPE})?", called="type"),
            help="GRES type, by which jobs can ask for them.",
            example="a100",
        ),
    ] = ""
    file: Annotated[
        str,
        Key(
            kind=Text(
                what="a device file such as /dev/nvidia0 or /dev/nvidia[0-3]",
                pattern=rf"(?:{_FILE}(?:\[{_NUMBERS}\])?)?",
                called="file",
            ),
            help="Their device files, one for each GPU.",
            example="/dev/nvidia[0-3]",
        ),
    ] = ""
    multiple_files: Annotated[
        tuple[str, ...],
        Key(
            kind=Several(item=Text(what="a device file", pattern=_FILE, called="multiple_files")),
            help="Instead of `file`: the device files of one GPU, such as those of a MIG device.",
            example=["/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap21"],
        ),
    ] = ()
    cores: Annotated[
        str,
        Key(
            kind=Text(
                what="core numbers such as 0-15", pattern=f"(?:{_NUMBERS})?", called="cores"
            ),
            help="Cores next to them, in Slurm's numbering (`slurmd -G` prints it): each socket's"
            " cores one after another, without hardware threads.",
            example="0-15",
        ),
    ] = ""

    @property
    def files(self) -> tuple[str, ...]:
        """All device files, each by itself."""
        return self.multiple_files or tuple(_expanded(self.file))

    @property
    def count(self) -> int:
        """How many GPUs these are."""
        return 1 if self.multiple_files else len(self.files)


def _expanded(text: str) -> Iterator[str]:
    """Yield the files of ``/dev/nvidia[0-3]``."""
    if listed := _LISTED.fullmatch(text):
        for part in listed["numbers"].split(","):
            first, _, last = part.partition("-")
            for number in range(int(first), int(last or first) + 1):
                yield f"{listed['start']}{number}"
    elif text:
        yield text
