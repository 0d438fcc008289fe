"""The values of the flags of the image verbs."""

from __future__ import annotations

from dataclasses import dataclass

from sifline.config.images import LEVELS
from sifline.errors import UsageError, did_you_mean
from sifline.model import SifOptions

METHODS = ("stream", "apptainer")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags' values: ``build_args`` as ``NAME=value``, ``jobs`` 0 for one per core."""

    site: str = ""
    build_args: tuple[str, ...] = ()
    jobs: int = 0
    keep_going: bool = False
    pull: bool = False
    force: bool = False
    method: str = ""
    compression: str = ""
    level: int = 0
    processors: int = 0
    gpu: bool = False

    def __post_init__(self) -> None:
        """Check the flags about conversion.

        :raises UsageError: naming the flag and what it takes.
        """
        for flag, value, allowed in (
            ("method", self.method, METHODS),
            ("compression", self.compression, tuple(LEVELS.most)),
        ):
            if value and value not in allowed:
                raise UsageError(
                    f"--{flag} {value!r}: takes {' or '.join(allowed)}."
                    f"{did_you_mean(value, allowed)}"
                )
        if self.processors < 0:
            raise UsageError("--processors: takes a number from 0 on; 0 means all of them")

    @property
    def conversion(self) -> SifOptions:
        """Return the conversion options of the flags; unset flags stay None."""
        return SifOptions(
            method=self.method or None,
            compression=self.compression or None,
            level=self.level or None,
            processors=self.processors or None,
        )
