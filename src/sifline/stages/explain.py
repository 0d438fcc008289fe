"""Explain: why an image would be built, and what changed since the current build."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sifline.model import Explanation, Image, Step, Verb
from sifline.model.recipe import CONTEXT_CHANGED, differences, file_differences

UNTOLD = "which file is not known: this checkout has no record of that build"
NAMED_FILES = 20


def own_changes(
    step: Step, record: Mapping[str, Any] | None, files: Mapping[str, str]
) -> tuple[str, ...]:
    """Return what changed in the image itself since the current build.

    :param record: the record of that build; None if this checkout has none.
    :param files: the entries of the build context as they are now.
    """
    if step.held is None or step.recipe is None:
        return ()
    found = differences(step.held.recipe, step.recipe)
    changes = [item for item in found if item != CONTEXT_CHANGED]
    if CONTEXT_CHANGED not in found:
        return tuple(changes)
    return (*_files(record, files, partial(_there, step.image)), *changes)


def from_parents(
    name: str, parents_of: Mapping[str, Sequence[str]], own: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Return what changed in the parents of an image; each change once, by a shortest path.

    :param parents_of: for each image, those of its parents that will be rebuilt.
    :param own: the changes of each of these images.
    """
    found, seen, ways = list[str](), set[str](), deque([(name, "")])
    while ways:
        child, way = ways.popleft()
        for parent in parents_of[child]:
            if parent not in seen:
                seen.add(parent)
                there = f"{way}parent {parent}: "
                found += [f"{there}{change}" for change in own[parent]]
                ways.append((parent, there))
    return tuple(found)


def changes(
    builds: Sequence[Step], found: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Return what changed in each image and in all its parents, by name.

    If an image has no known change, the reason of its build counts as one, so that its children
    can name a cause.

    :param builds: the steps of a plan that build, parents first.
    :param found: the changes of each image itself.
    """
    changing = {step.image.name for step in builds if step.changes}
    parents, own = dict[str, list[str]](), dict[str, Sequence[str]]()
    told = dict[str, tuple[str, ...]]()
    for step in builds:
        name = step.image.name
        parents[name] = [parent for parent in step.image.parents if parent in changing]
        inherited = from_parents(name, parents, own)
        alone = not found[name] and not inherited and step.reason
        own[name] = (step.reason,) if alone else found[name]
        told[name] = (*own[name], *inherited)
    return told


def later(name: str, steps: Sequence[Step]) -> tuple[str, ...]:
    """Return the steps after the build of an image, each with its reason."""
    return tuple(
        f"{step.verb.value}: {step.reason or 'up to date'}"
        for step in steps
        if step.image.name == name and step.verb is not Verb.BUILD
    )


def explain(
    step: Step,
    record: Mapping[str, Any] | None,
    changes: Sequence[str],
    *,
    tools: Mapping[str, str],
    commit: str,
) -> Explanation:
    """Return why an image would be built, and what changed since the current build.

    :param record: the record of that build; None if this checkout has none.
    :param changes: the changes of the image and of its parents.
    :param tools: the current versions of the build tools.
    """
    held = step.held
    before = record or {}
    notes = [
        f"{tool} was {old} then and is {tools[tool]} now; that alone is no reason to build"
        for tool, old in _table(before.get("tools")).items()
        if tool in tools and tools[tool] != old
    ]
    old = str(before.get("commit", ""))
    if old and commit and old != commit:
        notes.append(f"the commit was {_short(old)} then, now {_short(commit)}")
    return Explanation(
        name=step.image.name,
        needed=step.needed,
        reason=step.reason,
        image_id=held.image_id if held else "",
        built=before.get("built", held.created) if held else 0,
        changes=tuple(changes),
        notes=tuple(notes),
        words=step.image.words,
    )


def broken(name: str, error: str) -> Explanation:
    """Return the explanation of an image whose files, or whose parent's files, cannot be used."""
    return Explanation(
        name=name,
        needed=True,
        reason="",
        image_id="",
        built=0,
        changes=(),
        notes=(),
        error=error,
    )


def _table(value: object) -> Mapping[str, str]:
    """Return a table of a record; {} if the record is damaged."""
    return value if isinstance(value, dict) else {}


def _short(commit: str) -> str:
    number, dash, dirty = commit.partition("-")
    return f"{number[:12]}{dash}{dirty}"


def _there(image: Image, entry: str) -> bool:
    """Return whether the file of an entry exists, in the image's folder or in a named context."""
    name, colon, path = entry.partition(":")
    named = dict(image.contexts).get(name) if colon else None
    return os.path.lexists(named / path if named else image.folder / entry)


def _files(
    record: Mapping[str, Any] | None, now: Mapping[str, str], there: Callable[[str], bool]
) -> list[str]:
    before = record.get("files") if record else None
    if not isinstance(before, dict):
        return [f"{CONTEXT_CHANGED}; {UNTOLD}"]
    found = [f"file {line}" for line in file_differences(before, now, there)]
    more = len(found) - NAMED_FILES
    return [*found[:NAMED_FILES], *([f"and {more} more files"] if more > 0 else [])]
