"""Results as tables for people and as JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from sifline.errors import MissingError, SiflineError, StepFailed
from sifline.formats import times
from sifline.model import NOT_TESTED, Status, Verb
from sifline.model.units import megabytes
from sifline.report import screen

if TYPE_CHECKING:
    from sifline.config.settings import Setting
    from sifline.model import (
        AffectedJob,
        BuiltImage,
        CheckResult,
        Cleaned,
        Cluster,
        Deployed,
        Deployment,
        Explanation,
        ImageState,
        ListedCluster,
        NodeState,
        ProvisionedCluster,
        Quickstart,
        Sif,
        StandingCluster,
        Step,
        TestReport,
        WouldBringUp,
        WouldDeploy,
    )


# Raised where a script that reads an output would have to change; more keys are no such change.
SCHEMA = 1
# Facts whose names in JSON are read by people as well, and those that count bytes.
FACTS = frozenset(
    {
        *("built_on", "file_system", "image_digest", "image_id"),
        *("sif_budget", "sif_size", "sif_tests"),
    }
)
SIZES = frozenset({"sif_budget", "sif_size", "size"})


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return ``rows`` under ``head``, columns aligned, the last one left ragged.

    On a terminal it is as wide as that, elsewhere each row is a line with whole values. A row of
    one cell is a heading.
    """
    lines = [list(head), *([_on_one_line(cell) for cell in row] for row in rows)]
    if screen.current() != screen.PLAIN:
        return screen.drawn(lines, screen.current())
    full = [line for line in lines if len(line) > 1]
    widths = [max(len(line[column]) for line in full) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip()
        if len(line) > 1
        else line[0]
        for line in lines
    )


def _on_one_line(cell: str) -> str:
    """A text from outside, such as the value of an argument, in a cell."""
    if cell.isprintable():
        return cell
    return "".join(char if char.isprintable() else "?" for char in cell)


def checks(results: Sequence[CheckResult]) -> str:
    """Return a table of check results and a line that counts them."""
    rows = [
        (item.suite, (item.status.value, item.name, f"{item.seconds:.1f} s", item.message))
        for item in results
    ]
    counts = ", ".join(
        f"{sum(item.status is status for item in results)} {status.value}" for status in Status
    )
    lines = [_by_suite(("result", "check", "took", "what was found"), rows), counts]
    left_out = dict.fromkeys(name for item in results for name in item.left_out)
    lines += [f"not checked, by --node or --without: {', '.join(left_out)}"] if left_out else []
    return "\n".join(lines)


def _by_suite(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table of checks, with a heading for each suite; without one if there is one suite.

    In a pipe the suite is a column, so that each line that ``grep`` finds names it.
    """
    suites = [*dict.fromkeys(suite for suite, _ in rows)]
    if len(suites) == 1:
        return table(head, [row for _, row in rows])
    if screen.current() != screen.PLAIN:
        groups = [[(suite,), *(row for its, row in rows if its == suite)] for suite in suites]
        return table(head, [line for group in groups for line in group])
    place = head.index("check")
    lines = [(*row[:place], suite, *row[place:]) for suite, row in rows]
    return table((*head[:place], "suite", *head[place:]), lines)


def short(digest: str) -> str:
    """Return the first 12 digits of a digest, without the name of its algorithm."""
    return digest.removeprefix("sha256:")[:12]


def dump(**values: Any) -> str:
    """Return ``values`` (dataclasses, paths and enumerations included) as a JSON object.

    Its first key is ``schema``, the number of the form that docs/reference/json.md describes.
    """
    plain = json.loads(json.dumps(values, default=_plain, sort_keys=True))
    return json.dumps({"schema": SCHEMA, **plain}, indent=2)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


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


def broken(errors: Mapping[str, SiflineError]) -> list[str]:
    """Return a line for each image whose files cannot be used."""
    return [_broken_line(name, error.message) for name, error in errors.items()]


def broken_values(errors: Mapping[str, SiflineError]) -> list[dict[str, str]]:
    """Return the same for JSON."""
    return [{"name": name, "error": error.message} for name, error in errors.items()]


def _broken_line(name: str, error: str) -> str:
    return screen.folded(f"{_on_one_line(name)}: broken: {error}")


def _explanation(item: Explanation) -> str:
    if item.error:
        return _broken_line(item.name, item.error)
    verdict = f"to be built: {item.reason}" if item.needed else "up to date"
    lines = [f"{item.name}: {verdict}"]
    if item.image_id:
        when = datetime.fromtimestamp(item.built).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"  at hand: {short(item.image_id)}, built {when}")
    lines += [f"  FROM {words}: images/{name}" for name, words in item.words]
    lines += [f"  changed: {change}" for change in item.changes if change != item.reason]
    lines += [f"  note: {note}" for note in item.notes]
    lines += [f"  then {later}" for later in item.later]
    return _fitting(lines)


def _fitting(lines: Sequence[str]) -> str:
    """Return lines that fit the screen; a table or a difference among them is as it is."""
    return "\n".join(line if "\n" in line else screen.folded(line, "    ") for line in lines)


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
        return _fitting([*lines, "nothing to remove"])
    if dry:
        return _fitting(lines)
    shared = (
        "; images share layers"
        if any(what.startswith("image ") for what, _ in item.removed)
        else ""
    )
    return _fitting([*lines, f"freed {megabytes(item.freed, 0)}{shared}"])


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


def tested(reports: Sequence[TestReport], *, earlier: Set[str]) -> str:
    """Return what the tests said, each skip with its reason.

    :param earlier: the names of those that did not run now, as nothing has changed since.
    """
    lines = []
    for item in reports:
        when = " (earlier run)" if item.name in earlier else ""
        lines.append(f"{item.name} ({item.runtime}): {item.summary}, {item.seconds:.1f} s{when}")
        if not item.passed + item.skipped:
            lines.append(f"note: {item.name} has no tests; add images/{item.name}/tests/test_*.py")
        lines += [f"  skipped: {reason}" for reason in item.skip_reasons]
        lines += [f"  warning: {warning}" for warning in item.warnings]
        if item.warnings:
            place = f"[tests.skip] in images/{item.name}/image.toml"
            lines.append(f"  to skip a test, give its reason under {place}")
    return "\n".join(lines)


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


def deployed(deployments: Sequence[Deployment]) -> str:
    """Return where each SIF was placed."""
    rows = [
        (
            item.sif.name,
            place.node,
            "sent" if place.sent else "held already",
            short(place.sha256),
        )
        for item in deployments
        for place in item.placements
    ]
    lines = [table(("image", "node", "state", "sha256"), rows)]
    for item in deployments:
        lines.append(f"{item.sif.name}: file on each node: {item.path}")
        if item.cluster.left_out:
            names = ", ".join(node.name for node in item.cluster.left_out)
            count = f"{len(item.placements)} of {len(item.cluster.whole)} nodes"
            lines.append(f"{item.sif.name}: deployed to {count}; left out, unchanged: {names}")
    return _fitting(lines)


def deployed_values(deployments: Sequence[Deployment]) -> list[dict[str, object]]:
    """Return the same for JSON."""
    return [
        {
            "image": item.sif.name,
            "cluster": item.cluster.name,
            "path": item.path,
            "seconds": item.seconds,
            "nodes": [
                {"node": place.node, "sha256": place.sha256, "sent": place.sent}
                for place in item.placements
            ],
            "left_out": [node.name for node in item.cluster.left_out],
        }
        for item in deployments
    ]


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
    errors = [_broken_line(item.name, item.error) for item in items if item.error]
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


def nodes(cluster: Cluster) -> str:
    """Return the nodes of a cluster and how to reach them."""
    rows = [(node.name, node.role.value, node.address, str(node.gpus)) for node in cluster.nodes]
    return table(("node", "role", "address", "gpus"), rows)


def node_states(items: Sequence[NodeState]) -> str:
    """Return the nodes of a virtual cluster."""
    rows = [
        (item.node, item.role, item.address or "-", item.state, item.checkout) for item in items
    ]
    return table(("node", "role", "address", "state", "brought up by"), rows)


def clusters(items: Sequence[ListedCluster]) -> str:
    """Return the clusters that are described or running."""
    rows = [
        (item.name, str(item.file or "-"), _state(item.standing), _checkout(item.standing))
        for item in items
    ]
    return table(("cluster", "described in", "virtual nodes", "brought up by"), rows)


def _state(item: StandingCluster | None) -> str:
    return f"{item.running} of {item.nodes} run" if item else "-"


def _checkout(item: StandingCluster | None) -> str:
    return item.checkout if item else "-"


def cluster_values(items: Sequence[ListedCluster]) -> list[dict[str, object]]:
    """Return the same for JSON."""
    return [
        {
            "name": item.name,
            "file": str(item.file) if item.file else None,
            "standing": item.standing and asdict(item.standing),
        }
        for item in items
    ]


WOULD = {"send": "would be sent to", "switch": "would be switched to on", "keep": "is on"}


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
    return _fitting(lines)


def would_deploy_values(item: WouldDeploy) -> dict[str, object]:
    """Return the same for JSON."""
    return {
        "steps": plan_values(item.steps, {}),
        "nodes": item.nodes,
        "left_out": item.left_out,
    }


def would_bring_up(item: WouldBringUp) -> str:
    """Return what bringing a cluster up would do."""
    lines = [plan(item.steps, {})] if any(step.needed for step in item.steps) else []
    if item.removed:
        lines.append(f"would remove {', '.join(item.removed)}")
    if item.started:
        lines.append(f"would start {', '.join(item.started)}")
    return _fitting(lines) or f"{item.name} runs as described: nothing to do"


def would_bring_up_values(item: WouldBringUp) -> dict[str, object]:
    """Return the same for JSON."""
    return {
        "cluster": item.name,
        "steps": plan_values(item.steps, {}),
        "removed": item.removed,
        "started": item.started,
    }


def provisioned(item: ProvisionedCluster, *, dry: bool) -> str:
    """Return what Ansible changed, or would change: files line by line, and tasks with hosts."""
    verb = "would change" if dry else "changed"
    return _fitting(
        [
            *(f"{', '.join(hosts)}:\n{text}\n" for hosts, text in item.diffs),
            *(f"kept {place}" for place in item.kept),
            *(f"{verb} {', '.join(hosts)}: {task}" for task, hosts in item.changes),
            *(_affected(job, dry=dry) for job in item.jobs),
            *(f"note: {note}" for note in item.notes),
            f"{item.cluster.name}: {item.ok} tasks, {verb} {item.changed}, {item.seconds:.1f} s",
        ]
    )


def _affected(job: AffectedJob, *, dry: bool) -> str:
    """Return what a change does, or did, to a job."""
    fates = {
        "fails": ("would fail", "failed"),
        "queued again": ("would be queued again", "was queued again"),
        "stays queued": ("would stay queued", "stays queued"),
    }
    fate = fates[job.becomes][0 if dry else 1]
    return f"job {job.id} of {job.user} ({job.state.lower()}) {fate}: {job.where} {job.why}"


def provisioned_values(item: ProvisionedCluster, *, dry: bool) -> dict[str, object]:
    """Return the same for JSON."""
    return {
        "cluster": item.cluster.name,
        "dry": dry,
        "ok": item.ok,
        "changed": item.changed,
        "seconds": item.seconds,
        "changes": [{"task": task, "nodes": hosts} for task, hosts in item.changes],
        "kept": item.kept,
        "diffs": [{"nodes": hosts, "diff": text} for hosts, text in item.diffs],
        "jobs": [asdict(job) for job in item.jobs],
        "notes": item.notes,
    }


def listing(suites: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """Return suites and their checks."""
    rows = [(suite, item) for suite, items in suites.items() for item in items]
    return _by_suite(("check", "what it says"), rows)


def checks_of(suites: Mapping[str, Sequence[tuple[str, str]]]) -> list[dict[str, str]]:
    """Return the same for JSON."""
    return [
        {"suite": suite, "check": name, "summary": doc}
        for suite, items in suites.items()
        for name, doc in items
    ]


def refuse_failures(
    results: Sequence[CheckResult], subject: str, *, exit_missing: bool = False
) -> None:
    """Raise where a check failed: 1 for a cluster, 3 where the machine lacks something."""
    failed = [item.name for item in results if item.status is Status.FAILED]
    if failed:
        kind = MissingError if exit_missing else StepFailed
        raise kind(
            f"{subject}: {len(failed)} of {len(results)} checks failed: {', '.join(failed)}"
        )


def quickstart(done: Quickstart) -> str:
    """Return the main job's short table, and what to try next."""
    places = done.deployment.placements
    sent = sum(place.sent for place in places)
    rows = [
        ("built", done.built.image.tag, short(done.built.image_id), megabytes(done.built.size, 0)),
        ("SIF", str(done.sif.path), short(done.sif.sha256), megabytes(done.sif.size, 0)),
        (
            "deployed",
            ", ".join(place.node for place in places),
            short(done.sif.sha256),
            f"{sent} sent, {len(places) - sent} held already",
        ),
    ]
    seconds = ", ".join(f"{stage} {took:.1f} s" for stage, took in done.seconds)
    total = sum(took for _, took in done.seconds)
    name, user = done.cluster.name, done.cluster.job_user or done.cluster.ssh.user
    return "\n".join(
        [
            table(("what", "where", "digest", "size"), rows),
            f"file on each node: {done.deployment.path}",
            "",
            screen.folded(f"MPI job {done.job.status.value}: {done.job.message}", "  "),
            "",
            screen.folded(f"times: {seconds}; {total:.1f} s in all", "  "),
            "",
            *_next(
                (f"invoke validate --cluster {name}", "run every health check"),
                (
                    f"invoke cluster.shell --cluster {name} --user {user}",
                    "open the controller",
                ),
                (f"invoke shell.{done.built.image.name}", "open the image"),
                (f"invoke cluster.down --cluster {name}", "take the cluster down"),
            ),
        ]
    )


def _next(*commands: tuple[str, str]) -> list[str]:
    """Commands to try next, and what each is for."""
    width = max(len(command) for command, _ in commands)
    lines = [f"      {command.ljust(width)}  {what}" for command, what in commands]
    return [f"next: {lines[0].lstrip()}", *lines[1:]]
