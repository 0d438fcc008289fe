"""The recipe of an image, its fingerprint, and the differences of two recipes in words."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sifline.model.image import Image

Recipe = Mapping[str, Any]

_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")

# Raise this when the recipe's format changes: all images are built again then.
FORMAT = 2
CONTEXT_CHANGED = "its Dockerfile or context changed"
SHAPE = {
    "format": int,
    "context": str,
    "arguments": dict,
    "target": str,
    "labels": dict,
    "prepare": list,
    "parents": dict,
    "bases": dict,
}
# A fingerprint's beginning names a version of an image in the engine and in the records.
SHORT = 12


def recipe(
    image: Image, *, context: str, parents: Mapping[str, str], bases: Mapping[str, str]
) -> dict[str, Any]:
    """Return everything that decides the content of ``image``; secrets and proxies do not.

    :param context: the digest of its build context.
    :param parents: the image ids of the images it is built on, by name.
    :param bases: the image ids of the foreign images it is built on, by reference.
    """
    prepare = image.prepare
    return {
        "format": FORMAT,
        "context": context,
        "arguments": {key: _covered(value) for key, value in image.build_args},
        "target": image.target,
        "labels": {key: _covered(value) for key, value in image.labels},
        "prepare": [_covered(word) for word in prepare.words] if prepare else [],
        "parents": {name: parents[name] for name in image.parents},
        "bases": {reference: bases[reference] for reference in image.bases},
    }


def fingerprint(made_of: Recipe) -> str:
    """Return the SHA-256 of a recipe; the order of its entries does not matter."""
    return hashlib.sha256(text(made_of).encode()).hexdigest()


def text(made_of: Recipe) -> str:
    """Return a recipe as one line of JSON; equal recipes give equal lines."""
    return json.dumps(made_of, sort_keys=True, separators=(",", ":"))


def parse(line: str) -> dict[str, Any]:
    """Read what ``text`` wrote; {} for anything else, since anybody may write labels."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    sound = isinstance(found, dict) and all(
        isinstance(found.get(key), kind) for key, kind in SHAPE.items()
    )
    tables = [found[key].values() for key, kind in SHAPE.items() if kind is dict] if sound else []
    sound = sound and all(isinstance(value, str) for table in tables for value in table)
    return found if sound else {}


def differences(before: Recipe, now: Recipe) -> list[str]:
    """Return what changed from one recipe to the other, one phrase per change."""
    if before.get("format") != now.get("format"):
        return ["it was built by another version of sifline"]
    return [
        *([CONTEXT_CHANGED] if before["context"] != now["context"] else []),
        *_changes("argument", before["arguments"], now["arguments"]),
        *_changes("target", _named(before["target"]), _named(now["target"])),
        *_changes("label", before["labels"], now["labels"]),
        *_changes("root file system", _listed(before["prepare"]), _listed(now["prepare"])),
        *_changes("parent", _short(before["parents"]), _short(now["parents"])),
        *_changes("base", _short(before["bases"]), _short(now["bases"])),
    ]


def file_differences(
    before: Mapping[str, str], now: Mapping[str, str], there: Callable[[str], bool]
) -> list[str]:
    """Return which entries of a build context changed, and how.

    :param there: whether the file exists: one that does and is no entry is excluded.
    """
    return [
        f"{name} {_file_change(name, before, now, there)}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def masked(text: str) -> str:
    """Return ``text`` without the credentials in its URLs."""
    return _CREDENTIALS.sub("", text)


def _covered(text: str) -> str:
    """Return ``text`` masked, with a digest of its credentials, whose change still counts."""
    shown = masked(text)
    mark = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:SHORT]
    return shown if shown == text else f"{shown} (with credentials {mark})"


def _changes(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        name = f"{what} {key}".rstrip()
        if old is None:
            yield f"{name} is new: {new}" if new else f"{name} is new"
        elif new is None:
            yield f"{name} is gone, it was {old}"
        elif old != new:
            yield f"{name}: {old} → {new}"


def _file_change(
    name: str,
    entries: Mapping[str, str],
    new_entries: Mapping[str, str],
    there: Callable[[str], bool],
) -> str:
    before, now = entries.get(name), new_entries.get(name)
    if before is None:
        return "is new in the build context"
    if now is None:
        return "is excluded by .dockerignore now" if there(name) else "is gone"
    (old_kind, *old), (new_kind, *new) = before.split(" "), now.split(" ")
    if old_kind != new_kind:
        return f"was a {old_kind} and is a {new_kind}"
    if old_kind == "link":
        return f"points elsewhere: {before[5:]} → {now[5:]}"
    mode = f"mode {old[0]} → {new[0]}" if old[0] != new[0] else ""
    content = "content changed" if old[1:] != new[1:] else ""
    return ", ".join(filter(None, [content, mode]))


def _named(target: str) -> dict[str, str]:
    return {"": target or "the last stage"}


def _listed(prepare: list[str]) -> dict[str, str]:
    return {"": " ".join(prepare)} if prepare else {}


def _short(ids: Mapping[str, str]) -> dict[str, str]:
    return {name: found.removeprefix("sha256:")[:SHORT] for name, found in ids.items()}
