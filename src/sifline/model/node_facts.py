"""What a node offers to images: architecture, libraries, driver, MPI, container runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

_LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class NodeFacts:
    """The facts of one node; None means unknown, "" or () that it has nothing of the kind.

    ``read`` is in seconds since 1970, ``free`` in bytes below the registry. ``architecture`` is
    uname's. ``driver_glibc`` is the newest glibc whose symbols the files of the NVIDIA driver
    need. ``kernel_mount`` says whether Apptainer lets the kernel mount a squashfs, otherwise
    squashfuse does; ``squashfs_kernel`` and ``squashfs_fuse`` are the compressions that they read.
    """

    node: str
    boot: str = ""
    read: float = 0.0
    architecture: str | None = None
    kernel: str | None = None
    glibc: str | None = None
    free: int | None = None
    driver: str | None = None
    driver_cuda: str | None = None
    driver_glibc: str | None = None
    gpus: int | None = None
    slurm: str | None = None
    mpi_types: tuple[str, ...] | None = None
    mpi_default: str | None = None
    pmix: str | None = None
    apptainer: str | None = None
    setuid: bool | None = None
    user_namespaces: bool | None = None
    kernel_mount: bool | None = None
    squashfs_kernel: tuple[str, ...] | None = None
    squashfs_fuse: tuple[str, ...] | None = None

    @classmethod
    def of(cls, node: str, answer: Mapping[str, Any], *, read: float) -> NodeFacts:
        """Return the facts in a node's answer; values of another kind than theirs are unknown."""
        kinds = {field.name: str(field.type) for field in fields(cls)}
        known = {
            name: _value(answer.get(name), kind)
            for name, kind in kinds.items()
            if kind.endswith("| None")
        }
        return cls(node=node, boot=_text(answer.get("boot")) or "", read=read, **known)


def _value(value: object, kind: str) -> Any:
    if kind.startswith("tuple"):
        if not isinstance(value, (list, tuple)) or not all(_text(item) for item in value):
            return None
        return tuple(value)
    if kind.startswith("str"):
        return _text(value)
    if kind.startswith("bool"):
        return value if isinstance(value, bool) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: object) -> str | None:
    """Return a short printable text; None for anything else."""
    fits = isinstance(value, str) and len(value) <= _LONGEST and value.isprintable()
    return value if fits and isinstance(value, str) else None


@dataclass(frozen=True, kw_only=True)
class ClusterFacts:
    """The facts of the nodes of a cluster; ``silent`` are the others, each with the error."""

    nodes: tuple[NodeFacts, ...]
    silent: Mapping[str, str]
