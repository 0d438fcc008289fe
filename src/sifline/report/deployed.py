"""What is deployed to a cluster, as tables and as values for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sifline.model.catalog import (
    Catalog,
    CatalogImage,
    Removal,
    Removed,
    RolledBack,
    Version,
)
from sifline.model.units import megabytes, size_text
from sifline.report.tables import fitting, short, table

NONE = "-"


def catalog(found: Catalog, *, wide: bool = False) -> str:
    """Return a row for each version of each image, and a line for each node that is behind.

    :param wide: also digests in full, and who deployed what it was made of.
    """
    deployed = [image for image in found.images if image.current]
    rows = [row for image in deployed for row in _rows(image, len(found.cluster.nodes), wide)]
    head: tuple[str, ...] = ("image", "state", "version", "size", "deployed", "tests", "nodes")
    if wide:
        head = (*head, "by", "commit", "fingerprint", "signed", "category")
    name = found.cluster.name
    lines = [table(head, rows) if rows else f"nothing is deployed to {name}"]
    lines += [line for image in deployed for line in _behind(image)]
    lines += _notes(found.silent, found.foreign)
    if found.cluster.left_out:
        names = ", ".join(node.name for node in found.cluster.left_out)
        lines.append(f"not asked: {names}")
    return fitting(lines)


def _rows(image: CatalogImage, nodes: int, wide: bool) -> Iterator[tuple[str, ...]]:
    for version in (*([image.current] if image.current else []), *image.previous):
        current = version is image.current
        state = "current" if current else "earlier"
        row: tuple[str, ...] = (
            image.name if current else "",
            state,
            version.sha256 if wide else short(version.sha256),
            megabytes(version.size, 0),
            _minute(version.when),
            version.tests or NONE,
            f"{len(version.nodes)} of {nodes}",
        )
        if wide:
            row = (
                *row,
                version.who or NONE,
                version.commit or NONE,
                version.fingerprint or NONE,
                {True: "yes", False: "no", None: NONE}[version.signed],
                image.category if current else "",
            )
        yield row


def _behind(image: CatalogImage) -> Iterator[str]:
    """Yield a line for each way in which nodes are behind."""
    ways: dict[tuple[str, str], list[str]] = {}
    for item in image.behind:
        ways.setdefault((item.why, item.sha256), []).append(item.node)
    for (why, sha256), nodes in ways.items():
        if why != "no answer":
            what = {
                "missing": "have none of it",
                "damaged": f"have a damaged or foreign file ({short(sha256)})",
                "other version": f"have {short(sha256)}",
            }[why]
            yield f"{image.name}: behind: {', '.join(nodes)} {what}"


def _notes(
    silent: Iterable[tuple[str, str]], foreign: Iterable[tuple[str, str]] = ()
) -> Iterator[str]:
    for node, why in silent:
        yield f"no answer: {node}: {why.removeprefix(f'{node}: ')}"
    for node, path in foreign:
        yield f"foreign file, in no catalog: {node}:{path}"


def _minute(when: str) -> str:
    """Return a time for people, in UTC without seconds."""
    return when[:16].replace("T", " ") or NONE


def catalog_values(found: Catalog) -> dict[str, Any]:
    """Return the same for JSON."""
    return {
        "cluster": found.cluster.name,
        "nodes": [node.name for node in found.cluster.nodes],
        "left_out": [node.name for node in found.cluster.left_out],
        "images": [_image(image) for image in found.images if image.current],
        "silent": _silent(found.silent),
        "foreign": [{"node": node, "path": path} for node, path in found.foreign],
    }


def _image(image: CatalogImage) -> dict[str, Any]:
    return {
        "name": image.name,
        "category": image.category,
        "path": image.path,
        "current": image.current and asdict(image.current),
        "previous": [asdict(version) for version in image.previous],
        "behind": [asdict(item) for item in image.behind],
    }


def _silent(items: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"node": node, "error": why} for node, why in items]


def history(found: Catalog, image: CatalogImage, *, wide: bool = False) -> str:
    """Return a row for each event of an image, the first one first."""
    rows = []
    for event in image.history:
        version = event.version
        rows.append(
            (
                _minute(version.when),
                event.what,
                version.sha256 if wide else short(version.sha256),
                version.who or NONE,
                (version.commit if wide else short(version.commit)) or NONE,
                version.tests or NONE,
                _where(event.in_place, event.kept),
            )
        )
    head = ("when", "event", "version", "by", "commit", "tests", "file")
    return fitting([table(head, rows), *_behind(image), *_notes(found.silent)])


def _where(in_place: Sequence[str], kept: Sequence[str]) -> str:
    words = [f"in place on {len(in_place)}"] if in_place else []
    words += [f"kept on {len(kept)}"] if kept else []
    return ", ".join(words) or "gone"


def history_values(found: Catalog, image: CatalogImage) -> dict[str, Any]:
    """Return the same for JSON."""
    return {
        "cluster": found.cluster.name,
        "image": image.name,
        "category": image.category,
        "path": image.path,
        "events": [
            {
                "event": event.what,
                **asdict(event.version),
                "in_place": event.in_place,
                "kept": event.kept,
            }
            for event in image.history
        ],
        "silent": _silent(found.silent),
    }


def rolled_back(done: RolledBack, *, dry: bool) -> str:
    """Return what was switched, or would be, by node."""
    words = {"switch": "would switch" if dry else "switched", "keep": "in place already"}
    before = done.image.current
    rows = [(node, words[action], short(done.version.sha256)) for node, action in done.actions]
    lines = [table(("node", "state", "version"), rows)]
    old = short(before.sha256) if before else "nothing"
    lines.append(
        f"{done.image.name}: from {old} to {_described(done.version)};"
        f" file on each node: {done.image.path}"
    )
    lines += _notes(done.silent)
    if done.cluster.left_out:
        names = ", ".join(node.name for node in done.cluster.left_out)
        lines.append(f"left out, unchanged: {names}")
    return fitting(lines)


def _described(version: Version) -> str:
    told = [f"of {_minute(version.when)}"] if version.when else []
    told += [f"commit {short(version.commit)}"] if version.commit else []
    return f"{short(version.sha256)} ({', '.join(told)})" if told else short(version.sha256)


def rolled_back_values(done: RolledBack, *, dry: bool) -> dict[str, Any]:
    """Return the same for JSON."""
    return {
        "dry": dry,
        "cluster": done.cluster.name,
        "image": done.image.name,
        "category": done.image.category,
        "path": done.image.path,
        "from": done.image.current.sha256 if done.image.current else None,
        "version": asdict(done.version),
        "nodes": [{"node": node, "action": action} for node, action in done.actions],
        "behind": _silent(done.silent),
        "left_out": [node.name for node in done.cluster.left_out],
    }


def things(found: Removed) -> list[str]:
    """Return what would be removed, a line for each thing with the nodes that have it."""
    return [_thing(items) for items in _alike(found.removed)]


def kept(found: Removed) -> list[str]:
    """Return what stays although it is surplus, and why; and the nodes that gave no answer."""
    lines = [f"kept {_thing(items)}: {items[0].why}" for items in _alike(found.kept)]
    lines += [f"note: {job} names the image" for job in found.jobs]
    return [*lines, *_notes(found.silent)]


def removed(found: Removed, *, dry: bool) -> str:
    """Return what was removed, or would be, what was kept and why, and how much it is."""
    verb = "would remove" if dry else "removed"
    lines = [f"{verb} {thing}" for thing in things(found)]
    freed = sum(item.size for item in found.removed)
    lines = lines or ["nothing to remove"]
    lines += kept(found)
    if freed:
        lines.append(
            f"{'would free' if dry else 'freed'} {size_text(freed)} on all nodes together"
        )
    return fitting(lines)


def removed_values(found: Removed, *, dry: bool) -> dict[str, Any]:
    """Return the same for JSON."""
    return {
        "dry": dry,
        "cluster": found.cluster.name,
        "removed": [_removal(item) for item in found.removed],
        "kept": [{**_removal(item), "why": item.why} for item in found.kept],
        "jobs": found.jobs,
        "freed": sum(item.size for item in found.removed),
        "behind": _silent(found.silent),
    }


def _removal(item: Removal) -> dict[str, Any]:
    return {name: value for name, value in asdict(item).items() if name != "why"}


def _alike(items: Iterable[Removal]) -> list[list[Removal]]:
    """Return things in groups that differ by the node alone."""
    groups: dict[tuple[str, ...], list[Removal]] = {}
    for item in items:
        groups.setdefault((item.kind, item.image, item.what, item.why), []).append(item)
    return [*groups.values()]


def _thing(items: Sequence[Removal]) -> str:
    first, nodes = items[0], ", ".join(item.node for item in items)
    if first.kind == "name":
        return f"the name {first.what} on {nodes}"
    what = f"version {short(first.what)} of {first.image}" if first.image else first.what
    what = what if first.kind == "version" else f"the upload {first.what}"
    return f"{what} ({size_text(first.size)}) on {nodes}"
