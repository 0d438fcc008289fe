"""What nodes answer about an image, and what follows from it: whether it is sent, and refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePosixPath

from sifline.engines.ssh.faults import Fault, SshFailed
from sifline.errors import SiflineError, StepFailed
from sifline.model import Cluster, SifFile
from sifline.model.units import size_text
from sifline.nodeside.registry import RESERVE

# A node that is down, or cut off: what it holds stays as it is, and it catches up later.
AWAY = (Fault.UNREACHABLE, Fault.LOST)


class Action(str, Enum):
    """What must be done on a node so that the SIF is in place."""

    KEEP = "keep"
    SWITCH = "switch"
    SEND = "send"


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A node's answer about one image. Sizes in bytes.

    ``when`` is the time at which what is in place was deployed, in ISO 8601.
    ``told`` is what may be new of a file that is in place; ``offered`` says whether its module is
    there. ``foreign`` stands in its place and is not ours: "file", "folder", or "". ``fence`` is
    the highest number of a lease that the node has seen.
    """

    node: str
    current: str | None
    settled: bool
    held: bool
    upload: PurePosixPath
    uploaded: int
    free: int
    foreign: str = ""
    told: Mapping[str, str] = field(default_factory=dict)
    offered: bool = True
    when: str = ""
    fence: int = 0


def path_of(sif: SifFile, cluster: Cluster) -> PurePosixPath:
    """Return the path at which jobs find the image on every node."""
    return cluster.registry_root / sif.category / f"{sif.name}.sif"


def decide(sha256: str, survey: Survey) -> Action:
    """Return what must be done on the node."""
    if survey.current == sha256 and survey.settled:
        return Action.KEEP
    return Action.SWITCH if survey.held else Action.SEND


def shortage(sif: SifFile, survey: Survey) -> int:
    """Return how many bytes of space the node lacks for the file; 0 or less if it fits."""
    if decide(sif.sha256, survey) is not Action.SEND:
        return 0
    return sif.size - survey.uploaded + RESERVE - survey.free


def is_away(error: SiflineError) -> bool:
    """Return whether an error means that the node does not answer."""
    return isinstance(error, SshFailed) and error.fault in AWAY


def apart(
    errors: Mapping[str, SiflineError],
) -> tuple[dict[str, SiflineError], dict[str, SiflineError]]:
    """Return the errors of nodes that do not answer, and those of nodes that do."""
    away = {name: error for name, error in errors.items() if is_away(error)}
    return away, {name: error for name, error in errors.items() if name not in away}


def refuse(
    sif: SifFile, cluster: Cluster, surveys: Mapping[str, Survey], *, foreign: bool = False
) -> None:
    """Raise an error, before anything is sent, if a node cannot take the file.

    :param foreign: replace files that are not ours.
    """
    for survey in surveys.values():
        place = path_of(sif, cluster)
        if survey.foreign == "folder":
            raise StepFailed(f"{survey.node}: {place} is a folder; move it away there")
        if survey.foreign and not foreign:
            raise StepFailed(
                f"{survey.node}: {place} is not sifline's; to replace it, add --foreign"
            )
    full = [survey for survey in surveys.values() if shortage(sif, survey) > 0]
    if full:
        figures = ", ".join(f"{survey.node} has {size_text(survey.free)}" for survey in full)
        others = f"; or {without(full[0].node, cluster)}" if len(surveys) > len(full) else ""
        raise StepFailed(
            f"{sif.name} needs {size_text(sif.size + RESERVE)} free below "
            f"{cluster.registry_root}: {figures}; make room there and deploy again{others}"
        )


def without(names: str, cluster: Cluster) -> str:
    """Return how to go on with the other nodes."""
    left = ",".join([*(node.name for node in cluster.left_out), names])
    return f"leave it as it is: --without {left}"


def none_answers(sif: SifFile, cluster: Cluster, failed: Mapping[str, SiflineError]) -> StepFailed:
    """Return the error of a deployment to nodes of which none answers."""
    first = next(iter(failed.values()))
    return StepFailed(
        f"{sif.name}: no node of {cluster.name} answers: {first.message}", details=first.details
    )
