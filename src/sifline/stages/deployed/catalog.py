"""The catalog of a cluster: what the catalogs of its nodes say together.

Reading changes nothing. A node that does not answer is named and does not stop the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sifline.engines.registry import Registries
from sifline.engines.ssh.nodes import Ssh
from sifline.errors import StepFailed, UsageError, did_you_mean
from sifline.formats.times import seconds_of
from sifline.machine.context import Context
from sifline.model import Cluster
from sifline.model.catalog import Behind, Catalog, CatalogImage, Event, Version

# Deployers without root are recorded with each node's own time, so one event has several.
ONE_EVENT_SECONDS = 600

Answers = Mapping[str, Mapping[str, Any]]


def read(cluster: Cluster, context: Context) -> Catalog:
    """Return what the chosen nodes of ``cluster`` have.

    :raises StepFailed: if no node answers.
    """
    with Ssh(cluster, context.runner) as ssh:
        return asked(ssh)


def asked(ssh: Ssh) -> Catalog:
    """Return the same over open connections."""
    cluster, registries = ssh.cluster, Registries(ssh)
    answers, failed = ssh.each(cluster.nodes, lambda node: registries.ask(node, "list"))
    if not answers:
        raise next(iter(failed.values()))
    return together(cluster, answers, {name: error.message for name, error in failed.items()})


def together(cluster: Cluster, answers: Answers, silent: Mapping[str, str]) -> Catalog:
    """Return the catalog of a cluster from the answers of its nodes."""
    keys = {key for answer in answers.values() for key in (*answer["images"], *_history(answer))}
    images = (_image(key, cluster, answers, [*silent]) for key in sorted(keys))
    foreign = ((node, path) for node, answer in answers.items() for path in answer["unknown"])
    return Catalog(
        cluster=cluster,
        images=tuple(images),
        silent=tuple(silent.items()),
        foreign=tuple(foreign),
    )


def find(catalog: Catalog, name: str) -> CatalogImage:
    """Return the image of that name, or of ``category/name``; one that was undeployed, too.

    :raises UsageError: if there is none, or several categories have one.
    """
    found = [image for image in catalog.images if name in (image.name, image.key)]
    # A name that was moved to another category has a history in both.
    found = [image for image in found if image.current] or found
    flag = catalog.cluster.flag
    if not found:
        known = [image.name for image in catalog.images]
        raise UsageError(
            f"{name} is not deployed to {catalog.cluster.name}.{did_you_mean(name, known)} See"
            f" invoke catalog {flag}"
        )
    if len(found) > 1:
        keys = ", ".join(image.key for image in found)
        raise UsageError(f"{name}: there are {keys}; say which with --name CATEGORY/NAME")
    return found[0]


def _image(key: str, cluster: Cluster, answers: Answers, silent: Iterable[str]) -> CatalogImage:
    category, _, name = key.partition("/")
    entries = {
        node: answer["images"][key] for node, answer in answers.items() if key in answer["images"]
    }
    # As nodes decide that catch up: what was put in place later counts.
    latest = max(entries.values(), key=lambda entry: str(entry.get("when", "")), default=None)
    place = {
        node: str(entries[node]["found"] or "") if node in entries else "" for node in answers
    }
    current = None
    behind: list[Behind] = []
    if latest:
        have = [node for node, sha256 in place.items() if sha256 == latest["sha256"]]
        current = version(latest, have)
        known = {sha256 for entry in entries.values() for sha256 in _digests(entry)}
        behind = [_behind(node, place[node], known) for node in place if node not in have]
        behind += [Behind(node=node, why="no answer") for node in silent]
    previous = _previous(entries, current)
    return CatalogImage(
        name=name,
        category=category,
        path=cluster.registry_root / category / f"{name}.sif",
        current=current,
        previous=previous,
        behind=tuple(sorted(behind, key=_in_order_of(cluster))),
        history=_events(key, answers, place, previous),
    )


def version(entry: Mapping[str, Any], nodes: Iterable[str] = ()) -> Version:
    """Read a version from an entry of a node's catalog, or from an event."""
    signed = {"yes": True, "no": False}.get(str(entry.get("signed", "")))
    size = entry.get("size")
    texts = ("when", "who", "fingerprint", "commit", "image_digest", "tests")
    return Version(
        sha256=str(entry.get("sha256", "")),
        size=size if isinstance(size, int) else 0,
        signed=signed,
        nodes=tuple(nodes),
        **{name: str(entry.get(name, "")) for name in texts},
    )


def _behind(node: str, found: str, known: Iterable[str]) -> Behind:
    if not found:
        return Behind(node=node, why="missing")
    return Behind(node=node, why="other version" if found in known else "damaged", sha256=found)


def _in_order_of(cluster: Cluster) -> Any:
    names = [node.name for node in cluster.whole]
    return lambda item: names.index(item.node)


def _digests(entry: Mapping[str, Any]) -> list[str]:
    return [str(known["sha256"]) for known in (entry, *entry.get("previous", ()))]


def _previous(
    entries: Mapping[str, Mapping[str, Any]], current: Version | None
) -> tuple[Version, ...]:
    """Return the versions besides the current one whose files nodes have, the latest first."""
    found: dict[str, Version] = {}
    for node, entry in entries.items():
        for known in (entry, *entry.get("previous", ())):
            item = found.setdefault(str(known["sha256"]), version(known))
            found[item.sha256] = replace(item, nodes=(*item.nodes, node))
    if current:
        found.pop(current.sha256, None)
    return tuple(sorted(found.values(), key=lambda item: item.when, reverse=True))


def _history(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the history of a node's catalog; empty where an edited one makes no sense."""
    history = answer.get("history")
    return history if isinstance(history, dict) else {}


def _recorded(key: str, answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the events of one node; of a catalog without a history, its versions."""
    events = _history(answer).get(key)
    if isinstance(events, list):
        return [event for event in events if isinstance(event, dict)]
    entry = answer["images"].get(key)
    return [*reversed(entry.get("previous", ())), entry] if entry else []


def _events(
    key: str, answers: Answers, place: Mapping[str, str], previous: Iterable[Version]
) -> tuple[Event, ...]:
    """Return the events of all nodes in their order; what several recorded is one event."""
    recorded = [
        (str(event.get("when", "")), node, event)
        for node, answer in answers.items()
        for event in _recorded(key, answer)
    ]
    found: list[Event] = []
    for _, node, event in sorted(recorded, key=lambda item: item[0]):
        item = Event(what=str(event.get("event", "deployed")), version=version(event, [node]))
        at = next((at for at in reversed(range(len(found))) if _same(found[at], item)), None)
        if at is None:
            found.append(item)
        else:
            nodes = (*found[at].version.nodes, node)
            found[at] = replace(found[at], version=replace(found[at].version, nodes=nodes))
    held = {item.sha256: item.nodes for item in previous}
    return tuple(
        replace(
            event,
            version=replace(
                event.version,
                nodes=tuple(node for node in answers if node in event.version.nodes),
            ),
            in_place=tuple(node for node, sha in place.items() if sha == event.version.sha256),
            kept=tuple(
                node
                for node in held.get(event.version.sha256, ())
                if place[node] != event.version.sha256
            ),
        )
        for event in found
    )


def _same(one: Event, other: Event) -> bool:
    """Return whether two nodes recorded one event."""
    if _kind(one) != _kind(other) or set(other.version.nodes) & set(one.version.nodes):
        return False
    apart = seconds_of(other.version.when) - seconds_of(one.version.when)
    return apart <= ONE_EVENT_SECONDS


def _kind(event: Event) -> tuple[str, str, str]:
    """Return what happened, to which version and by whom, without the machine.

    Of deployers who are not root each node names itself as that.
    """
    return event.what, event.version.sha256, event.version.who.partition("@")[0]


def refuse_silent_controller(catalog: Catalog) -> None:
    """Refuse to change anything without the controller, from which other nodes catch up.

    :raises StepFailed: with the reason for which it gave no answer.
    """
    silent = dict(catalog.silent)
    name = catalog.cluster.controller.name
    if name in silent:
        raise StepFailed(f"nothing was changed: {silent[name]}")
