"""Runs a command in a deployed image: the program behind the command of each module file.

``pytorch python train.py`` on a node starts it by way of a link

    <root>/.registry/commands/<category>/<name>/<version>/<command>

whose path says which image and which version of its module is meant; the node's catalog says the
rest. Without words it runs what the image runs by default. Python 3.9's standard library only, and
few modules of it: it starts before each task of a job. Provisioning installs it as a program.

In a job all steps use one version: that which was in place when the job began, which Slurm tells
each step (SLURM_JOB_START_TIME). Outside of a job it is the newest.
"""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# What a program ends with that cannot start another one (POSIX.1, "Command Search and Execution").
CANNOT_START, NOT_FOUND = 126, 127
ENGINES = ("apptainer", "singularity")
DRIVER = "/dev/nvidiactl"
SHARED_MEMORY = "/dev/shm"
UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
PLACE = re.compile(
    r"(?P<root>/.*)/\.registry/commands"
    r"/(?P<category>[^/]+)/(?P<name>[^/]+)/(?P<version>[^/]+)/(?P<command>[^/]+)"
)


class LaunchError(Exception):
    """Why the command was not started; ``status`` is the exit status."""

    def __init__(self, message: str, status: int = CANNOT_START) -> None:
        super().__init__(message)
        self.status = status


def main(argv: list[str], environ: dict[str, str]) -> int:
    """Replace this process by Apptainer's; return only if that fails.

    :param argv: the path by which it was called, and the words behind it.
    """
    command = os.path.basename(argv[0])
    try:
        place = PLACE.fullmatch(os.path.abspath(argv[0]))
        if not place:
            raise LaunchError("is not called by the link of a module; run: module load NAME")
        words, notes = line(place, argv[1:], environ)
        for note in notes if environ.get("SLURM_PROCID", "0") == "0" else ():
            sys.stderr.write(f"{command}: note: {note}\n")
        os.execv(words[0], words)
    except LaunchError as error:
        sys.stderr.write(f"{command}: error: {error}\n")
        return error.status
    except OSError as error:
        sys.stderr.write(f"{command}: error: {error}\n")
    return CANNOT_START


def line(
    place: re.Match[str], words: list[str], environ: dict[str, str]
) -> tuple[list[str], list[str]]:
    """Return the command line of Apptainer, and what its user should know."""
    chosen, notes = version(history(place), place["version"], started(environ))
    sif = "/".join(
        (
            place["root"],
            ".registry/versions",
            place["category"],
            place["name"],
            f"{chosen['sha256']}.sif",
        )
    )
    if not os.path.exists(sif):
        raise LaunchError(
            f"version {chosen['sha256'][:12]} of {place['name']}, which this job uses, is not on"
            " this node; start the job anew, or ask whoever deploys images"
        )
    options, more = defaults(chosen, environ)
    return [
        engine(environ),
        "exec" if words else "run",
        *options,
        sif,
        *words,
    ], [*notes, *more]


def history(place: re.Match[str]) -> list[dict[str, Any]]:
    """Return which versions of the image were put in place on this node, the last one first."""
    path = f"{place['root']}/.registry/catalog.json"
    try:
        with open(path, encoding="utf-8") as file:
            catalog, key = json.load(file), f"{place['category']}/{place['name']}"
        found = catalog["images"][key]
        # All that was deployed, in its order; older catalogs have the last versions alone.
        events = [each for each in catalog.get("history", {}).get(key, []) if "module" in each]
        placed = [each for each in events if each["event"] != "undeployed"][::-1]
        return placed or [found, *found.get("previous", ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = error if isinstance(error, (OSError, ValueError)) else "has no such image"
        raise LaunchError(f"{path}: {told}; ask whoever deploys images") from None


def version(
    known: list[dict[str, Any]], module: str, start: float | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the version to use, of those with this version of the module, and notes.

    :param start: when the job began, in seconds since the epoch; None outside of a job.
    """
    same = [each for each in known if str(each.get("module", "")).endswith(f"/{module}")]
    if not same:
        raise LaunchError(f"module version {module} is no longer on this node; see: module avail")
    for each in same:
        if start is None or placed(each) <= start:
            return each, []
    oldest = same[-1]
    # Slurm tells whole seconds.
    if start is not None and placed(oldest) < start + 1:
        return oldest, []
    note = f"this job began before version {oldest['sha256'][:12]} was deployed, which it uses now"
    return oldest, [note]


def placed(each: dict[str, Any]) -> float:
    """Return when a version was deployed, in seconds since the epoch."""
    try:
        return datetime.fromisoformat(each["when"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        # Put there by an old release: before all others.
        return 0.0


def started(environ: dict[str, str]) -> float | None:
    """Return when the job began; None outside of a job."""
    try:
        return float(environ["SLURM_JOB_START_TIME"])
    except (KeyError, ValueError):
        return None


def engine(environ: dict[str, str]) -> str:
    """Return the path of Apptainer."""
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    for name in ENGINES:
        for folder in folders:
            path = os.path.join(folder, name)
            if os.path.isabs(path) and os.access(path, os.X_OK) and os.path.isfile(path):
                return path
    raise LaunchError(f"neither {' nor '.join(ENGINES)} is in PATH", NOT_FOUND)


def defaults(chosen: dict[str, Any], environ: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return Apptainer's options for what the image asks for by default, and notes."""
    try:
        run = json.loads(chosen.get("run") or "{}")
    except ValueError:
        raise LaunchError("the catalog's defaults of this image are not JSON") from None
    options, notes = gpus(environ) if run.get("gpus") else ([], [])
    for bind in run.get("binds", ()):
        more, note = bound(bind, environ.get("HOME", ""))
        options += more
        notes += note
    if wanted := run.get("shared_memory", ""):
        there = os.statvfs(SHARED_MEMORY)
        if there.f_blocks * there.f_frsize < size(wanted):
            notes.append(f"{SHARED_MEMORY} of this node has less than the {wanted} asked for")
    return options, notes


def gpus(environ: dict[str, str]) -> tuple[list[str], list[str]]:
    """Return the option that hands in NVIDIA's driver, where there is one, and notes."""
    if os.path.exists(DRIVER):
        return ["--nv"], []
    if environ.get("SLURM_JOB_GPUS") or environ.get("SLURM_STEP_GPUS"):
        return [], [f"Slurm gave this job GPUs, but this node has no {DRIVER}: without them"]
    return [], []


def bound(bind: str, home: str) -> tuple[list[str], list[str]]:
    """Return the option for one of the image's binds, and notes."""
    source, _, target = bind.partition(":")
    source = f"{home}{source[1:]}" if source.startswith("~/") else source
    # Apptainer separates binds by a comma.
    if "," in source + target or ":" in source:
        return [], [f"{source} cannot be bound"]
    if not os.path.exists(source):
        return [], [f"there is no {source} on this node, so it is not bound"]
    return ["--bind", f"{source}:{target}"], []


def size(text: str) -> int:
    """Return the number of bytes of ``text``, such as "8g"."""
    unit = UNITS.get(text[-1:].lower())
    return int(text[:-1]) * unit if unit else int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv, dict(os.environ)))
