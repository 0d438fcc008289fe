"""What is wrong in a configuration file of Slurm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from sifline.formats.slurm_conf.lines import File


class Effect(Enum):
    """What the daemons do about it."""

    FATAL = "fatal"  # they do not start
    DRAINS = "drains"  # the node takes no jobs
    ERROR = "error"  # they log an error and go on without the key
    IGNORED = "ignored"  # they go on without a word
    ADVICE = "advice"  # it matters on some clusters
    USELESS = "no effect"  # they accept it, and it does nothing, or not what people expect


@dataclass(frozen=True, kw_only=True, order=True)
class Finding:
    """One thing that is wrong: where, what the daemons do, and what to write instead."""

    file: str
    line: int
    what: str
    does: str
    write: str
    effect: Effect

    @property
    def message(self) -> str:
        """The whole in one line."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.what}: {self.does}; {self.write}"


# What is wrong with files of these kinds together, for one release.
Rule = Callable[[Mapping[str, File], str], Iterator[Finding]]
