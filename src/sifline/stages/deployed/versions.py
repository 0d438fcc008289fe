"""Which version of a deployed image is meant: the one before, or one that a prefix names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sifline.errors import UsageError
from sifline.model import Cluster
from sifline.model.catalog import CatalogImage, Version

# Shorter words are more likely a mistake.
LEAST_DIGITS = 4
SHORT = 12


def chosen(image: CatalogImage, to: str, cluster: Cluster) -> Version:
    """Return the version that ``to`` names, or the one before the current one for "".

    :param to: the beginning of a digest, a fingerprint or a commit.
    :raises UsageError: if there is none, or several match.
    """
    return _named(image, to, cluster) if to else _before(image, cluster)


def held(image: CatalogImage) -> tuple[Version, ...]:
    """Return the versions whose files nodes have, the current one first."""
    return (*([image.current] if image.current else []), *image.previous)


def _before(image: CatalogImage, cluster: Cluster) -> Version:
    """Return the version that was deployed before the current one, however often it was switched.

    After a rollback that is an older one still, and not the one that was left.
    """
    if not image.current:
        raise UsageError(f"{image.name} was undeployed from {cluster.name}; deploy it again")
    order = [event.version.sha256 for event in image.history if event.what == "deployed"]
    last = {sha256: at for at, sha256 in enumerate(order)}
    now = last.get(image.current.sha256, len(order))
    earlier = [item for item in image.previous if last.get(item.sha256, -1) < now]
    if earlier:
        return max(earlier, key=lambda item: (last.get(item.sha256, -1), item.when))
    later = ", ".join(short(item.sha256) for item in image.previous)
    more = f"; later ones are {later}, see --to" if later else ""
    raise UsageError(
        f"no node has a version of {image.name} before the one in place{more}; see invoke history"
        f" --name {image.name} {cluster.flag}"
    )


def _named(image: CatalogImage, to: str, cluster: Cluster) -> Version:
    if len(to) < LEAST_DIGITS:
        raise UsageError(f"--to {to}: write at least {LEAST_DIGITS} digits of it")
    files = held(image)
    found = {item.sha256: item for item in files if _matches(item, to)}
    if len(found) > 1:
        names = ", ".join(describe(item) for item in found.values())
        raise UsageError(f"--to {to}: matches {names}; write more of one")
    if found:
        return next(iter(found.values()))
    gone = {event.version.sha256 for event in image.history if _matches(event.version, to)}
    see = f"see invoke history --name {image.name} {cluster.flag}"
    if gone:
        names = ", ".join(map(short, sorted(gone)))
        raise UsageError(f"--to {to}: no node has the file of {names} any more; deploy it again")
    raise UsageError(f"--to {to}: no version of {image.name} begins so; {see}")


def _matches(item: Version, to: str) -> bool:
    return any(word.startswith(to.lower()) for word in _words(item))


def _words(item: Version) -> Iterator[str]:
    yield from (item.sha256, item.fingerprint.lower(), item.commit.lower())


def describe(item: Version) -> str:
    """Return a version in words: its digest, and its commit if it has one."""
    return (
        f"{short(item.sha256)} (commit {short(item.commit)})"
        if item.commit
        else (short(item.sha256))
    )


def short(digest: str) -> str:
    """Return the first digits of a digest."""
    return digest[:SHORT]


def names(nodes: Iterable[str]) -> str:
    """Return nodes in words."""
    return ", ".join(nodes)
