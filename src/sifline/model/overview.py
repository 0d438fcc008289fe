"""What status, graph, clean and quickstart return: facts about several things at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sifline.model.check import CheckResult
from sifline.model.cluster import Cluster, Deployment
from sifline.model.plan import BuiltImage, Step
from sifline.model.sif import Sif


@dataclass(frozen=True, kw_only=True)
class ImageState:
    """What ``status`` says of one image. ``stale`` is why it would be built; "" if not.

    ``error`` is as in ``Explanation``.
    """

    name: str
    image_id: str
    size: int
    stale: str
    sif: str
    sif_size: int
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """One image of the graph, what it is built on, and its state.

    ``words`` is what its Dockerfile calls each of its parents.
    """

    name: str
    parents: tuple[str, ...]
    bases: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    state: str = "up to date"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What was removed, each with its size, what was kept and why, and the bytes that it freed.

    Images share layers: what is freed may be less than the sum of their sizes.
    """

    removed: tuple[tuple[str, int], ...]
    kept: tuple[str, ...]
    freed: int


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """What the main job came to: each link's result, and how long each stage took."""

    built: BuiltImage
    sif: Sif
    cluster: Cluster
    deployment: Deployment
    job: CheckResult
    seconds: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class WouldBringUp:
    """What bringing a virtual cluster up would do: builds, and nodes removed and started."""

    name: str
    steps: tuple[Step, ...] = ()
    removed: tuple[str, ...] = ()
    started: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WouldDeploy:
    """What a deployment would do: with images, and by image and node.

    On a node that is "send", "switch" to a version that is there, or "keep".
    """

    steps: tuple[Step, ...]
    nodes: Mapping[str, Mapping[str, str]]
