"""Bills of materials, compatibility and differences, as tables and as values for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sifline.contents.comparison import Change, Difference, Side
from sifline.contents.compatibility import Compatibility
from sifline.formats.packages import Found
from sifline.model.units import counted, megabytes
from sifline.report.tables import fitting, short, table
from sifline.stages.inventory import Bill

KINDS = {"deb": "Debian", "python": "Python"}
UNKNOWN_DRIVER = "unknown here; see NVIDIA's release notes"
# Number of unreadable files to name; the bill itself lists all of them.
NAMED_FILES = 20


def bills(items: Sequence[Bill]) -> str:
    """Return a table of bills of materials, and notes about what may be missing in each."""
    rows = [
        (
            item.contents.name,
            item.contents.kind,
            short(item.contents.version),
            *(str(_counts(item)[kind]) for kind in KINDS),
            item.contents.found.distribution.name or "-",
            str(item.path),
        )
        for item in items
    ]
    head = ("name", "kind", "id", *KINDS.values(), "distribution", "file")
    notes = [line for item in items for line in _notes(item.contents.name, item.contents.found)]
    return fitting([table(head, rows), *notes])


def bill_values(items: Sequence[Bill]) -> list[dict[str, Any]]:
    """Return the bills as values for JSON; the packages themselves are in the bills."""
    return [
        {
            "name": item.contents.name,
            "kind": item.contents.kind,
            "version": item.contents.version,
            "size": item.contents.size,
            "fingerprint": item.contents.fingerprint,
            "packages": {kind: _counts(item)[kind] for kind in KINDS},
            "distribution": asdict(item.contents.found.distribution),
            "not_understood": list(item.contents.found.broken),
            "unread": [str(database) for database in item.contents.found.unread],
            "complete": item.contents.found.complete,
            "file": str(item.path),
        }
        for item in items
    ]


def compatibility(items: Sequence[tuple[str, Compatibility]]) -> str:
    """Return what each image needs and contains, a line for each kind."""
    return "\n\n".join(fitting([*_needs(name, found)]) for name, found in items)


def compatibility_values(items: Sequence[tuple[str, Compatibility]]) -> list[dict[str, Any]]:
    """Return the same as values for JSON."""
    return [{"name": name, **asdict(found)} for name, found in items]


def _needs(name: str, found: Compatibility) -> Iterator[str]:
    driver = f"at least {found.least_driver}" if found.least_driver else UNKNOWN_DRIVER
    told = {
        "architecture": found.architecture,
        "C library": found.libc,
        "MPI": ", ".join(found.mpi),
        "PMIx": ", ".join(found.pmix),
        "CUDA run time": ", ".join(found.cuda),
        "NVIDIA driver": driver if found.cuda else "",
        "cuda-compat": found.cuda_compat,
        "NCCL": ", ".join(found.nccl),
        "Python": ", ".join(found.python),
        **found.frameworks,
    }
    yield name
    width = max(map(len, told))
    for kind, text in told.items():
        if text:
            yield f"  {kind.ljust(width)}  {text}"
    if found.complete is None:
        yield _unknown("it")
    yield from _incomplete("it", found.not_understood, found.unread)


def difference(found: Difference) -> str:
    """Return the differences of two images or SIFs, a line for each package and setting."""
    old, new = found.old, found.new
    rows = [_side("old", old), _side("new", new)]
    parts = [table(("", "name", "kind", "id", "size", "packages"), rows), _size(old, new)]
    lines = [*_packages(found), *_settings(found)]
    alike = "the same packages and settings"
    if found.same is None:
        alike = "no difference in what sifline can read; whether they are the same is unknown"
    parts.append(table(("what", "name", "old", "new"), lines) if lines else alike)
    return fitting([*parts, *_unread("the old one", old), *_unread("the new one", new)])


def difference_values(found: Difference) -> dict[str, Any]:
    """Return the same as values for JSON."""
    return {"same": found.same, **asdict(found)}


def _counts(item: Bill) -> Counter[str]:
    return Counter(package.kind for package in item.contents.found.packages)


def _side(which: str, side: Side) -> tuple[str, ...]:
    size = megabytes(side.size, 0)
    return which, side.name, side.kind, short(side.version), size, str(side.packages)


def _size(old: Side, new: Side) -> str:
    grown = new.size - old.size
    if old.kind != new.kind:  # one of them is compressed
        return "an image and a SIF: their sizes do not compare"
    percent = f" ({100 * grown / old.size:+.1f} %)" if old.size else ""
    return f"size {grown / 1e6:+.1f} MB{percent}"


def _packages(found: Difference) -> Iterator[tuple[str, ...]]:
    for package in found.removed:
        yield KINDS[package.kind], package.name, package.version, "-"
    for package in found.added:
        yield KINDS[package.kind], package.name, "-", package.version
    for upgrade in found.changed:
        versions = (", ".join(upgrade.before), ", ".join(upgrade.after))
        yield KINDS[upgrade.kind], upgrade.name, *versions


def _settings(found: Difference) -> Iterator[tuple[str, ...]]:
    for what, changes in (
        ("environment", found.environment),
        ("label", found.labels),
        ("start", found.start),
    ):
        for change in changes:
            yield what, change.name, *_values(change)


def _values(change: Change) -> tuple[str, str]:
    """An empty value is not a missing one."""
    before, after = (
        "-" if value is None else value or '""' for value in (change.before, change.after)
    )
    return before, after


def _notes(name: str, found: Found) -> Iterator[str]:
    if found.complete is None:
        yield _unknown(name)
    elif found.complete and not found.packages:
        yield f"note: the package database of {name} has no packages"
    yield from _incomplete(name, found.broken, [*map(str, found.unread)])


def _unknown(name: str) -> str:
    """Say that there may be packages, and that nothing tells of them."""
    return (
        f"incomplete: {name} has no package database that sifline knows; whether it has packages"
        " is unknown"
    )


def _unread(name: str, side: Side) -> Iterator[str]:
    if side.complete is None:
        yield _unknown(name)
    yield from _incomplete(name, side.broken, side.unread)


def _incomplete(name: str, files: Sequence[str], databases: Sequence[str]) -> Iterator[str]:
    """Say what may be missing: files that were not understood, databases that are not read."""
    if databases:
        yield (
            f"incomplete: {name} has packages that sifline cannot read; package databases:"
            f" {', '.join(databases)}"
        )
    if not files:
        return
    yield (
        f"note: {name} may hold more packages: sifline cannot read"
        f" {counted(len(files), 'file')} of package databases"
    )
    yield from (f"  /{path}" for path in files[:NAMED_FILES])
    if len(files) > NAMED_FILES:
        yield f"  and {len(files) - NAMED_FILES} more"
