"""The results of status, graph, clean, quickstart, inventory, cluster.up and deploy --dry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sifline.model.check import CheckResult
from sifline.model.cluster import Cluster
from sifline.model.deployment import Deployment
from sifline.model.plan import BuiltImage, Step
from sifline.model.sif import Sif
from sifline.model.tested import NOT_TESTED


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """The last deployment of an image to a cluster, as this checkout recorded it.

    ``current`` says that its SIF is the one in build/sif/ now; ``missing`` are nodes that do not
    have it. ``error`` is why the last deployment failed, "" if it did not. ``when`` is a time as
    ISO 8601 writes it.
    """

    cluster: str
    sha256: str
    nodes: tuple[str, ...]
    when: str
    current: bool
    missing: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageState:
    """The state of one image. ``stale`` is why it would be built; "" if it is up to date.

    ``tests`` and ``sif_tests`` are "passed", "failed" or "not tested", of what is there now.
    ``error`` is as in ``Explanation``.
    """

    name: str
    image_id: str
    size: int
    stale: str
    sif: str
    sif_size: int
    tests: str = NOT_TESTED
    sif_tests: str = NOT_TESTED
    signed: bool = False
    deployed: tuple[Deployed, ...] = ()
    error: str = ""

    @property
    def build(self) -> str:
        """The state of the image in the engine in one or two words; "" where it is broken."""
        if self.error:
            return ""
        return "not built" if not self.image_id else "stale" if self.stale else "built"

    @property
    def sif_state(self) -> str:
        """The state of the SIF in one word; "" where the image is broken."""
        if self.error:
            return ""
        return {"up to date": "current", "none": "none"}.get(self.sif, "stale")


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """One image of the graph, its parents, and its state.

    ``words`` are the references to its parents in its Dockerfile.
    """

    name: str
    parents: tuple[str, ...]
    bases: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    state: str = "up to date"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What was removed, with sizes; what was kept and why; and the bytes that were freed.

    Images share layers, so the freed bytes may be less than the sum of their sizes.
    """

    removed: tuple[tuple[str, int], ...]
    kept: tuple[str, ...]
    freed: int


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """The results of the quickstart's stages, and how long each took."""

    built: BuiltImage
    sif: Sif
    cluster: Cluster
    deployment: Deployment
    job: CheckResult
    seconds: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The inventory of a cluster, in the form of Ansible's YAML."""

    cluster: Cluster
    hosts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class WouldConvert:
    """What the conversion of another image would do; ``reason`` is "" where its SIF is up to date.

    ``path`` is the file that it would write, ``steps`` are builds that come before.
    """

    source: str
    name: str
    path: Path
    reason: str
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WouldBringUp:
    """What bringing a virtual cluster up would do: builds, and nodes removed and started."""

    name: str
    steps: tuple[Step, ...] = ()
    removed: tuple[str, ...] = ()
    started: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WouldDeploy:
    """What a deployment would do: the steps of images, and the action by image and node.

    The actions are "send", "switch" (to a version that is there) and "keep". ``left_out`` are the
    nodes that the user excluded.
    """

    steps: tuple[Step, ...]
    nodes: Mapping[str, Mapping[str, str]]
    left_out: tuple[str, ...] = ()
