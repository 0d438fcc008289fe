"""Which keys each release of Slurm knows, in which file, and what their values are.

Source: the options that Slurm's own parsers accept, of the last patch release of each series, and
the manual pages slurm.conf(5), gres.conf(5), cgroup.conf(5) and so on of these releases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from sifline.errors import UsageError, did_you_mean

RELEASES = ("22.05", "23.02", "23.11", "24.05", "24.11", "25.05", "25.11", "26.05")
FILES = (
    *("slurm.conf", "gres.conf", "cgroup.conf", "mpi.conf", "topology.conf", "slurmdbd.conf"),
    *("job_container.conf", "oci.conf", "acct_gather.conf"),
)
# Of values: text, yes or no, a whole number, any number, or the rest of the line.
TEXT, YES_NO, NUMBER, FRACTION, LINE = "text", "yes-no", "number", "fraction", "line"


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of a file. ``group`` is the key at the start of its line, "" where it stands alone.

    ``since`` and ``until`` are the first and the last release that know it; "" where that is the
    first or last of ``RELEASES``, or one outside. From ``obsolete`` on the daemons ignore it and
    log an error, from ``ignored`` on a warning at most; from ``fatal`` on they do not start with
    it, although they know it.
    """

    file: str
    group: str
    name: str
    kind: str
    since: str = ""
    until: str = ""
    obsolete: str = ""
    ignored: str = ""
    fatal: str = ""

    def known(self, release: str) -> bool:
        """Return whether the daemons of ``release`` accept it."""
        return (not self.since or at_least(release, self.since)) and (
            not self.until or at_least(self.until, release)
        )


def at_least(release: str, other: str) -> bool:
    """Return whether ``release`` is ``other`` or newer."""
    return RELEASES.index(release) >= RELEASES.index(other)


def release(text: str) -> str:
    """Return the release series that ``text`` names: ``24.11`` of ``24.11.5``.

    :raises UsageError: for one that the table does not have.
    """
    series = ".".join(text.split(".")[:2])
    if series not in RELEASES:
        raise UsageError(
            f"release {text!r}: takes {', '.join(RELEASES)}.{did_you_mean(series, RELEASES)}"
        )
    return series


def key(file: str, group: str, name: str) -> Key | None:
    """Return the key of that name, in any case, at lines that start with ``group``."""
    return _by_name().get((file, group.lower(), name.lower()))


def keys(file: str) -> tuple[Key, ...]:
    """Return all keys of ``file``, of all releases."""
    return tuple(found for found in _by_name().values() if found.file == file)


def plugin(setting: str, name: str) -> tuple[str, str]:
    """Return the first and the last release with the plugin ``name``, "" where that is open.

    Plugins that all releases have, or that are unknown (a site may have its own), give two "".
    """
    row = _data()["plugins"].get(setting, {}).get(name, {})
    return str(row.get("since", "")), str(row.get("until", ""))


@cache
def _data() -> Mapping[str, Any]:
    text = resources.files(__package__).joinpath("keys.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


@cache
def _by_name() -> Mapping[tuple[str, str, str], Key]:
    return {
        (file, group.lower(), name.lower()): Key(file=file, group=group, name=name, **row)
        for file, groups in _data()["keys"].items()
        for group, names in groups.items()
        for name, row in names.items()
    }
