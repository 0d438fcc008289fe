"""What is deployed to a cluster: images, their versions, and which nodes have them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    from sifline.model.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a deployed image, as the catalogs of nodes have it.

    ``tests`` is "passed", "untested" or the like. ``signed`` is None where it was not recorded.
    ``nodes`` have its file; of the current version these are the nodes on which it is in place.
    """

    sha256: str
    size: int = 0
    when: str = ""
    who: str = ""
    fingerprint: str = ""
    commit: str = ""
    image_digest: str = ""
    tests: str = ""
    signed: bool | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Behind:
    """A node without the current version of an image.

    ``why`` is "other version", "missing", "damaged" or "no answer"; ``sha256`` is what it has in
    place, "" if that is nothing or unknown.
    """

    node: str
    why: str
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What happened to an image: ``what`` is "deployed", "rolled back" or "undeployed".

    ``version`` has who did it and when; its ``nodes`` have recorded it. ``in_place`` and ``kept``
    are nodes that have the file now, in place or as an earlier version.
    """

    what: str
    version: Version
    in_place: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CatalogImage:
    """An image in the registry of a cluster.

    ``current`` is what was put in place last on any node; None if no node has the name, so that
    there is a history alone. ``previous`` are other versions whose files nodes have, the latest
    first.
    """

    name: str
    category: str
    path: PurePosixPath
    current: Version | None
    previous: tuple[Version, ...] = ()
    behind: tuple[Behind, ...] = ()
    history: tuple[Event, ...] = ()

    @property
    def key(self) -> str:
        """Return category and name, as the nodes' catalogs have them."""
        return f"{self.category}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """The images of a cluster's registry.

    ``silent`` are nodes that gave no answer, with the reason; ``foreign`` are files in the
    registry that no catalog knows, as (node, path).
    """

    cluster: Cluster
    images: tuple[CatalogImage, ...]
    silent: tuple[tuple[str, str], ...] = ()
    foreign: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """An image put back to ``version``: what was, or would be, switched, by node.

    ``actions`` are "switch" or "keep"; ``silent`` are nodes that gave no answer and stay behind.
    """

    image: CatalogImage
    cluster: Cluster
    version: Version
    actions: tuple[tuple[str, str], ...]
    silent: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A thing of a registry that is removed, or kept for the reason ``why``; size in bytes.

    ``kind`` is "name", "version" or "upload"; ``what`` is its path, digest or name. ``image`` is
    category and name; "" for an upload.
    """

    node: str
    kind: str
    image: str
    what: str
    size: int = 0
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What undeploy or prune removed, or would remove, and what they kept.

    ``jobs`` are those that name the image, in words. ``silent`` as in ``Catalog``.
    """

    cluster: Cluster
    removed: tuple[Removal, ...] = ()
    kept: tuple[Removal, ...] = ()
    jobs: tuple[str, ...] = ()
    silent: tuple[tuple[str, str], ...] = ()
