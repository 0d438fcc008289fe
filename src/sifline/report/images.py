"""Results about images: built, tested, converted, removed; their states, facts and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sifline.model import NOT_TESTED
from sifline.model.units import megabytes
from sifline.report import screen
from sifline.report.tables import broken_line, fitting, short, table

if TYPE_CHECKING:
    from sifline.config.settings import Setting
    from sifline.model import (
        BuiltImage,
        Cleaned,
        Deployed,
        ImageState,
        Sif,
        TestReport,
    )

# Facts whose names in JSON are read by people as well, and those that count bytes.
FACTS = frozenset(
    {
        *("built_on", "file_system", "image_digest", "image_id"),
        *("sif_budget", "sif_size", "sif_tests"),
    }
)


SIZES = frozenset({"sif_budget", "sif_size", "size"})


def settings(found: Mapping[str, Sequence[Setting]]) -> str:
    """Return each setting, its value and where that came from, a table for each image."""
    return "\n\n".join(
        table(
            (name or "site", "value", "from"),
            [(item.key, _setting(item.value), item.origin) for item in items],
        )
        for name, items in found.items()
    )


def _setting(value: Any) -> str:
    return "-" if value in (None, "", [], {}) else json.dumps(value).strip('"')


def cleaned(item: Cleaned, *, dry: bool) -> str:
    """Return what was removed, and what that frees."""
    verb = "would remove" if dry else "removed"
    lines = [f"{verb} {thing}" for thing in sized(item)]
    lines += [f"kept {what}" for what in item.kept]
    if not item.removed:
        return fitting([*lines, "nothing to remove"])
    if dry:
        return fitting(lines)
    shared = (
        "; images share layers"
        if any(what.startswith("image ") for what, _ in item.removed)
        else ""
    )
    return fitting([*lines, f"freed {megabytes(item.freed, 0)}{shared}"])


def cleaned_values(item: Cleaned, *, dry: bool) -> dict[str, Any]:
    """Return what was removed, or with ``dry`` would be, for JSON; sizes in bytes."""
    return {
        "dry": dry,
        "removed": [{"what": what, "size": size} for what, size in item.removed],
        "kept": list(item.kept),
        "freed": item.freed,
    }


def sized(item: Cleaned) -> list[str]:
    """Return each thing that was or would be removed, with its size."""
    return [f"{what} ({megabytes(size, 0)})" for what, size in item.removed]


def built(images: Sequence[BuiltImage]) -> str:
    """Return a table of images in the engine."""
    rows = [
        (
            item.image.name,
            "up to date" if item.reused else "built",
            short(item.image_id),
            megabytes(item.size, 0),
        )
        for item in images
    ]
    return table(("image", "state", "id", "size"), rows)


def tested(
    reports: Sequence[TestReport],
    *,
    earlier: Set[str],
    told: Set[str] = frozenset(),  # noqa: PT028 - no test
) -> str:
    """Return what the tests said, each skip with its reason.

    :param earlier: the names of those that did not run now, as nothing has changed since.
    :param told: warnings that were printed before: only their tests are named.
    """
    lines = []
    for item in reports:
        when = " (earlier run)" if item.name in earlier else ""
        lines.append(f"{item.name} ({item.runtime}): {item.summary}, {item.seconds:.1f} s{when}")
        if not item.passed + item.skipped:
            lines.append(f"note: {item.name} has no tests; add images/{item.name}/tests/test_*.py")
        lines += [f"  skipped: {reason}" for reason in item.skip_reasons]
        for warning in item.warnings:
            test, _, _ = warning.partition(": ")
            lines.append(f"  warning: {f'{test}, see above' if warning in told else warning}")
        if set(item.warnings) - told:
            place = f"[tests.skip] in images/{item.name}/image.toml"
            lines.append(f"  to skip a test, give its reason under {place}")
    return fitting(lines)


def converted(sifs: Sequence[Sif]) -> str:
    """Return a table of SIFs."""
    rows = [
        (
            item.name,
            "up to date" if item.reused else "converted",
            short(item.sha256),
            megabytes(item.size, 0),
            str(item.path),
        )
        for item in sifs
    ]
    return table(("image", "state", "sha256", "size", "file"), rows)


def states(items: Sequence[ImageState]) -> str:
    """Return the state of each image."""
    rows = [
        (
            item.name,
            megabytes(item.size, 0) if item.size else "-",
            "broken" if item.error else _stale(item.build, item.stale),
            "-" if item.error else _tests(item),
            "-" if item.error else _stale(item.sif_state, item.sif),
            "yes" if item.signed else "no",
            ", ".join(map(_deployed_to, item.deployed)) or "-",
        )
        for item in items
    ]
    head = ("image", "size", "build", "tests", "sif", "signed", "deployed to")
    # Below: the width of a column is not that of a message.
    errors = [broken_line(item.name, item.error) for item in items if item.error]
    return "\n".join([table(head, rows), *errors])


def _tests(item: ImageState) -> str:
    """How the tests ended, of the image and of its SIF, if there is one."""
    if item.tests == "passed" and item.sif_state == "current" and item.sif_tests != "passed":
        return "failed (SIF)" if item.sif_tests == "failed" else "untested (SIF)"
    return "untested" if item.tests == NOT_TESTED else item.tests


def _stale(word: str, reason: str) -> str:
    return f"{word}: {reason}" if word == "stale" else word


def _deployed_to(item: Deployed) -> str:
    if item.error:
        return f"{item.cluster} (failed)"
    have, every = len(item.nodes), len(item.nodes) + len(item.missing)
    notes = [*([] if item.current else ["stale"])]
    notes += [f"{have} of {every} nodes"] if item.missing else []
    return f"{item.cluster} ({', '.join(notes)})" if notes else item.cluster


def state_values(items: Sequence[ImageState]) -> list[dict[str, Any]]:
    """Return the same for JSON, sizes in bytes."""
    return [{**asdict(item), "build": item.build, "sif_state": item.sif_state} for item in items]


def facts(items: Sequence[Mapping[str, Any]]) -> str:
    """Return nested facts as indented lines; sizes in the units that people read."""
    return "\n\n".join("\n".join(_lines(item)) for item in items)


def _lines(values: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in values.items():
        name = key.replace("_", " ") if key in FACTS else key
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            lines.append(screen.folded(f"{indent}{name}: {_fact(key, value)}", indent + "  "))
    return lines


def _fact(key: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if key in SIZES and isinstance(value, int):
        return f"{megabytes(value, 0)} ({value} bytes)" if value else "-"
    return "-" if value in (None, "") else str(value)
