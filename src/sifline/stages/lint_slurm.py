"""Lint: what is wrong with the configuration files of a Slurm cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sifline.errors import MissingError, UsageError
from sifline.formats import slurm_conf
from sifline.formats.slurm_conf import File, Finding, Line

FOLDER = Path("/etc/slurm")
# Files that include others have no end; no site nests them deeper.
DEEPEST = 8


@dataclass(frozen=True, kw_only=True)
class Linted:
    """What was found in ``files``, for one release of Slurm."""

    release: str
    files: tuple[str, ...]
    findings: tuple[Finding, ...]


def standing() -> list[Path]:
    """Return the configuration files of this machine.

    :raises MissingError: where it has none.
    """
    found = [FOLDER / name for name in slurm_conf.FILES if (FOLDER / name).is_file()]
    if not found:
        raise MissingError(f"there is no configuration of Slurm in {FOLDER}; name the files")
    return found


def lint(paths: Sequence[Path], release: str) -> Linted:
    """Return what is wrong with the files at ``paths``, which belong to one cluster.

    :param release: such as ``24.11`` or ``24.11.5``.
    :raises UsageError: for an unknown release, a file that cannot be read, or that is no file of
        Slurm's.
    """
    series = slurm_conf.release(release)
    files: dict[str, File] = {}
    for path in paths:
        if path.name not in slurm_conf.FILES:
            raise UsageError(f"{path}: takes files that are called {', '.join(slurm_conf.FILES)}")
        if path.name in files:
            raise UsageError(
                f"{path}: there is another {path.name}; name the files of one cluster"
            )
        files[path.name] = _read(path)
    found = slurm_conf.check(files, series)
    return Linted(release=series, files=tuple(map(str, paths)), findings=found)


def _read(path: Path) -> File:
    """Return the file at ``path`` with the files that it includes."""
    text = _text(path)
    file = slurm_conf.read(text, kind=path.name, path=str(path))
    cluster = file.last("ClusterName")
    name = cluster[1] if cluster else ""
    return replace(file, lines=tuple(_whole(file, path.parent, cluster=name)))


def _whole(file: File, folder: Path, *, cluster: str, depth: int = 0) -> Iterator[Line]:
    """Yield the lines of a file and of those that it includes; %c is the cluster's name."""
    for line in file.lines:
        if not line.include:
            yield line
            continue
        path = line.include.replace("%c", cluster)
        # Of files that were copied from a node, those beside them are meant.
        beside = folder / Path(path).name
        place = beside if beside.is_file() else folder / path
        if depth == DEEPEST:
            raise UsageError(f"{file.path}:{line.number}: {place}: too many files in each other")
        other = slurm_conf.read(_text(place), kind=file.kind, path=str(place))
        # Told at the line that includes it.
        lines = _whole(other, folder, cluster=cluster, depth=depth + 1)
        yield from (replace(item, number=line.number) for item in lines)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"{path}: cannot be read: {why}") from None
