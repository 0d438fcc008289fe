"""Plan: which images must be built, in which order, and why; pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from sifline.errors import UsageError
from sifline.model import BuiltImage, Image, Step, Verb
from sifline.model.recipe import differences, fingerprint, recipe

NAMED_DIFFERENCES = 2
NOT_THERE = "not in the engine"


@dataclass(frozen=True, kw_only=True)
class Held:
    """What the engine holds: our images by name, the current one first; ids of foreign images.

    ``moved`` names the foreign images whose tag in the registry names another image now; ``tags``
    are all tags of the engine.
    """

    images: Mapping[str, Sequence[BuiltImage]] = field(default_factory=dict)
    bases: Mapping[str, str] = field(default_factory=dict)
    moved: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()


def order(images: Mapping[str, Image], wanted: Iterable[str]) -> tuple[str, ...]:
    """Return ``wanted`` and all their parents, parents first, otherwise by name.

    :raises UsageError: for a circle, showing its path.
    """
    done, opened = dict[str, None](), set[str]()
    left = sorted(set(wanted), reverse=True)
    while left:  # not recursive: a chain of images may exceed Python's recursion limit
        name = left[-1]
        parents = [parent for parent in images[name].parents if parent not in done]
        if not parents:
            done[left.pop()] = None
        elif name in opened:  # all that it needs was done above it, unless it needs itself
            raise UsageError(
                f"images are built on each other in a circle: {_circle(images, name)}"
            )
        opened.add(name)
        left += sorted(parents, reverse=True)
    return tuple(done)


def _circle(images: Mapping[str, Image], member: str) -> str:
    """Return the path of the circle that ``member`` is part of."""
    parents, left = dict[str, Sequence[str]](), [member]
    while left:
        name = left.pop()
        if name not in parents:
            parents[name] = images[name].parents
            left += parents[name]
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        return " → ".join(reversed(error.args[1]))
    return member


def builds(
    images: Mapping[str, Image],
    wanted: Iterable[str],
    held: Held,
    context_of: Callable[[Image], str],
    *,
    forced: Iterable[str] = (),
) -> tuple[Step, ...]:
    """Return one build step per image that ``wanted`` needs, in order.

    :param context_of: returns the digest of an image's build context.
    :param forced: images to build even if nothing changed.
    """
    anew, steps = frozenset(forced), dict[str, Step]()
    for name in order(images, wanted):
        steps[name] = _step(images[name], steps, held, context_of, forced=name in anew)
    return tuple(steps.values())


def _step(
    image: Image,
    before: Mapping[str, Step],
    held: Held,
    context_of: Callable[[Image], str],
    *,
    forced: bool,
) -> Step:
    versions = held.images.get(image.name, ())
    at_hand = versions[0] if versions else None
    new = [name for name in image.parents if before[name].changes]
    made_of = _recipe(image, before, held, at_hand, context_of)
    # If a parent is still to be built, the recipe names its present version.
    mark = fingerprint(made_of) if made_of and not new else ""
    same = next((item for item in versions if item.fingerprint == mark), None)
    reason = "" if same else _reason(at_hand, new, made_of)
    moved = sorted(held.moved.intersection(image.bases))
    if not reason and moved:
        reason = f"{', '.join(moved)} has moved in its registry"
    if not reason and forced:
        reason = "--force"
    retag = not reason and image.tag not in held.tags
    if retag:
        reason = f"its tag {image.tag} is gone"
    return Step(
        verb=Verb.BUILD,
        image=image,
        reason=reason,
        needed=bool(reason),
        needs=tuple(before[name].key for name in image.parents),
        pull=tuple(moved),
        retag=retag,
        anew=forced,
        recipe=made_of,
        fingerprint=mark,
        held=same or at_hand,
    )


def _recipe(
    image: Image,
    before: Mapping[str, Step],
    held: Held,
    at_hand: BuiltImage | None,
    context_of: Callable[[Image], str],
) -> dict[str, Any] | None:
    """Return the recipe it would have; None if a base was never in the engine."""
    # A base that was pruned from the engine is no change: its layers are still in the image.
    known = at_hand.recipe.get("bases", {}) if at_hand else {}
    bases = {name: held.bases.get(name) or known.get(name, "") for name in image.bases}
    if at_hand is None and not all(bases.values()):
        return None
    parents = {}
    for name in image.parents:
        parent = before[name].held
        parents[name] = parent.image_id if parent else ""
    return recipe(image, context=context_of(image), parents=parents, bases=bases)


def _reason(
    at_hand: BuiltImage | None, new: Sequence[str], made_of: Mapping[str, Any] | None
) -> str:
    """Return why the image must be built."""
    if at_hand is None or made_of is None:
        return NOT_THERE
    if new:
        return f"built on {', '.join(new)}, which is built anew"
    found = differences(at_hand.recipe, made_of)
    more = len(found) - NAMED_DIFFERENCES
    named = "; ".join(found[:NAMED_DIFFERENCES])
    return f"{named}; and {more} more" if more > 0 else named or "its fingerprint is another"
