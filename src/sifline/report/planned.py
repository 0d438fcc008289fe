"""What a verb would do and why: plans, explanations, dry runs of deployments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sifline.formats import times
from sifline.model import Verb
from sifline.report.tables import broken_line, fitting, short, table

if TYPE_CHECKING:
    from sifline.errors import SiflineError
    from sifline.model import (
        Explanation,
        Step,
        WouldBringUp,
        WouldConvert,
        WouldDeploy,
    )


def plan(steps: Sequence[Step], broken: Mapping[str, SiflineError]) -> str:
    """Return what a build would do, in order, and why; at last the images that are broken."""
    rows = [
        (
            step.image.name,
            step.verb.value if step.needed else "keep",
            f"{step.reason or f'{step.verb.value}: up to date'}{_from(step)}",
        )
        for step in steps
    ]
    rows += [(name, "broken", error.message) for name, error in broken.items()]
    needed = sum(step.needed for step in steps)
    return f"{table(('image', 'action', 'reason'), rows)}\n{needed} of {len(steps)} steps to do"


def plan_values(
    steps: Sequence[Step], broken: Mapping[str, SiflineError]
) -> list[dict[str, object]]:
    """Return the same for JSON."""
    found: list[dict[str, object]] = [
        {
            "image": step.image.name,
            "action": step.verb.value,
            "needed": step.needed,
            "reason": step.reason,
        }
        for step in steps
    ]
    found += [{"image": name, "error": error.message} for name, error in broken.items()]
    return found


def _from(step: Step) -> str:
    """What the Dockerfile calls the images of ours that it is built on."""
    words = [words for _, words in step.image.words] if step.verb is Verb.BUILD else []
    return f" (FROM {', '.join(words)})" if words else ""


def explanations(items: Sequence[Explanation]) -> str:
    """Return why each image would be built or not, and what changed."""
    return "\n\n".join(_explanation(item) for item in items)


def explanation_values(items: Sequence[Explanation]) -> list[dict[str, Any]]:
    """Return the same for JSON."""
    return [
        {
            **asdict(item),
            "built": times.iso(item.built) if item.image_id else None,
            "words": [{"image": name, "written": words} for name, words in item.words],
        }
        for item in items
    ]


def _explanation(item: Explanation) -> str:
    if item.error:
        return broken_line(item.name, item.error)
    verdict = f"to be built: {item.reason}" if item.needed else "up to date"
    lines = [f"{item.name}: {verdict}"]
    if item.image_id:
        when = datetime.fromtimestamp(item.built).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"  at hand: {short(item.image_id)}, built {when}")
    lines += [f"  FROM {words}: images/{name}" for name, words in item.words]
    lines += [f"  changed: {change}" for change in item.changes if change != item.reason]
    lines += [f"  note: {note}" for note in item.notes]
    lines += [f"  then {later}" for later in item.later]
    return fitting(lines)


def would_convert(item: WouldConvert) -> str:
    """Return what the conversion of another image would do."""
    lines = [plan(item.steps, {})] if item.steps else []
    if item.reason:
        lines.append(f"{item.name} would be converted to {item.path}: {item.reason}")
    else:
        lines.append(f"{item.name} is up to date: {item.path}")
    return fitting(lines)


def would_convert_values(item: WouldConvert) -> dict[str, object]:
    """Return the same for JSON."""
    return {
        "source": item.source,
        "name": item.name,
        "path": item.path,
        "needed": bool(item.reason),
        "reason": item.reason,
        "steps": plan_values(item.steps, {}),
    }


def would_deploy(item: WouldDeploy) -> str:
    """Return what a deployment would do, by image and node."""
    lines = [plan(item.steps, {})]
    for name, nodes in item.nodes.items():
        parts = [
            f"{said} {', '.join(places)}"
            for action, said in WOULD.items()
            if (places := [node for node, found in nodes.items() if found == action])
        ]
        lines.append(f"{name} {'; '.join(parts)}")
    if item.left_out:
        lines.append(f"left out, unchanged: {', '.join(item.left_out)}")
    return fitting(lines)


def would_deploy_values(item: WouldDeploy) -> dict[str, object]:
    """Return the same for JSON."""
    return {
        "steps": plan_values(item.steps, {}),
        "nodes": item.nodes,
        "left_out": item.left_out,
    }


WOULD = {
    "send": "would be sent to",
    "switch": "would be switched to on",
    "keep": "is on",
    "behind": "would not reach",
}


def would_bring_up(item: WouldBringUp) -> str:
    """Return what bringing a cluster up would do."""
    lines = [plan(item.steps, {})] if any(step.needed for step in item.steps) else []
    if item.removed:
        lines.append(f"would remove {', '.join(item.removed)}")
    if item.started:
        lines.append(f"would start {', '.join(item.started)}")
    return fitting(lines) or f"{item.name} runs as described: nothing to do"


def would_bring_up_values(item: WouldBringUp) -> dict[str, object]:
    """Return the same for JSON."""
    return {
        "cluster": item.name,
        "steps": plan_values(item.steps, {}),
        "removed": item.removed,
        "started": item.started,
    }
