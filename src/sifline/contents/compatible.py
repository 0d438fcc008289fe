"""Decides whether an image can work on a node, from its record and the node's facts.

Pure: nothing is read here. What is unknown is a finding of its own (``known`` False), because
unknown is neither compatible nor incompatible.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sifline.contents.compatibility import Compatibility
from sifline.contents.compatibility_table import (
    ARCHITECTURES,
    DRIVERS,
    KERNELS,
    MOUNTS_WITHOUT_SETUID,
    PMIX,
)
from sifline.model import NodeFacts

Version = tuple[int, int, int, int, int]

_VERSION = re.compile(
    r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?:[-.~]?(a|b|rc)(\d{1,9}))?", re.ASCII
)
_STAGES = {"a": 0, "b": 1, "rc": 2}
_FINAL = 3
_GLIBC = "glibc "


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a SIF needs: the record of its image, and what the file says.

    ``architecture`` is that of the SIF's header, "" if it names none; ``compression`` that of its
    squashfs. ``gpu`` says whether it is run with ``--nv``.
    """

    record: Compatibility
    architecture: str = ""
    compression: str = ""
    gpu: bool = False


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why an image cannot work on a node, or, if not ``known``, why nobody can tell.

    ``node`` is "" for what is unknown of the image itself.
    """

    node: str
    fact: str
    reason: str
    way_out: str
    known: bool = True


def compatible(needs: Needs, facts: NodeFacts) -> tuple[Refusal, ...]:
    """Return what speaks against running an image on a node; () if nothing does."""
    return (
        *_architecture(needs, facts),
        *_libc(needs, facts),
        *_driver(needs, facts),
        *_mpi(needs, facts),
        *_mounting(needs, facts),
        *_compression(needs, facts),
    )


def incomplete(needs: Needs) -> tuple[Refusal, ...]:
    """Return what is unknown of the image itself, whatever the node."""
    found = []
    if needs.record.complete is None:
        found.append("no package database of it is known here")
    for what, paths in (
        ("cannot be read here", needs.record.unread),
        ("are damaged", needs.record.not_understood),
    ):
        if paths:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            found.append(f"package files {what}: {paths[0]}{more}")
    return tuple(
        Refusal(
            node="",
            fact="image",
            reason=f"what it needs is known in part only: {reason}",
            way_out="see invoke compat FILE.sif",
            known=False,
        )
        for reason in found
    )


def version(text: str | None) -> Version | None:
    """Return a version as numbers that compare; None if the text does not begin with one.

    A release candidate is less than its release.
    """
    match = _VERSION.match(text or "")
    if not match:
        return None
    stage = _STAGES[match[4]] if match[4] else _FINAL
    return int(match[1]), int(match[2]), int(match[3] or 0), stage, int(match[5] or 0)


def _architecture(needs: Needs, facts: NodeFacts) -> Iterator[Refusal]:
    wanted = needs.architecture or needs.record.architecture
    runs = ARCHITECTURES.get(facts.architecture or "")
    if not wanted or runs is None:
        what = f"of {facts.architecture}" if facts.architecture else "of the node"
        reason = (
            "the SIF does not name its architecture"
            if not wanted
            else f"whether its programs ({wanted}) run on the processor {what} is unknown"
        )
        yield _unknown(facts, "architecture", reason, "try it on the node with apptainer exec")
    elif wanted not in runs:
        yield Refusal(
            node=facts.node,
            fact="architecture",
            reason=f"the SIF is for {wanted}, the node is {facts.architecture}",
            way_out=f"build and convert the image for linux/{runs[0]}",
        )


def _libc(needs: Needs, facts: NodeFacts) -> Iterator[Refusal]:
    libc = needs.record.libc
    own = version(libc.removeprefix(_GLIBC)) if libc.startswith(_GLIBC) else None
    yield from _kernel(own, facts)
    if not needs.gpu or facts.driver == "":
        return
    least = version(facts.driver_glibc)
    if libc == "musl":
        yield Refusal(
            node=facts.node,
            fact="glibc",
            reason="the image has musl, and --nv binds driver libraries that need glibc",
            way_out="base the image on a distribution with glibc",
        )
    elif own is None or least is None:
        yield _unknown(
            facts,
            "glibc",
            "whether the image's C library loads the node's driver libraries (--nv) is unknown",
            "try it on the node with apptainer exec --nv",
        )
    elif own < least:
        yield Refusal(
            node=facts.node,
            fact="glibc",
            reason=f"the node's driver libraries (--nv) need glibc {facts.driver_glibc}, the image"
            f" has {libc.removeprefix(_GLIBC)}",
            way_out="base the image on a newer distribution",
        )


def _kernel(glibc: Version | None, facts: NodeFacts) -> Iterator[Refusal]:
    running = version(facts.kernel)
    if glibc is None or running is None:
        return  # kernels too old for any glibc of use are rare
    for row in KERNELS:
        least = version(row.least)
        if glibc >= (version(row.glibc) or glibc):
            if least and running < least:
                yield Refusal(
                    node=facts.node,
                    fact="kernel",
                    reason=f"the image's glibc needs Linux {row.least}, the node has"
                    f" {facts.kernel}",
                    way_out="use an older base image, or a newer kernel",
                )
            return


def _driver(needs: Needs, facts: NodeFacts) -> Iterator[Refusal]:
    if not needs.gpu or not needs.record.cuda or (facts.driver == "" and not facts.gpus):
        return  # a node without GPUs runs the image on its processors
    rows = [_least(cuda) for cuda in needs.record.cuda]
    known = [row for row in rows if row]
    least = max(known, key=lambda text: version(text) or (0,) * 5) if known else ""
    if not facts.driver or not version(facts.driver) or not least or None in rows:
        what = "the least driver for its CUDA" if not least or None in rows else "the driver"
        yield _unknown(facts, "driver", f"{what} is unknown", "run nvidia-smi on the node")
        return
    if (version(facts.driver) or ()) >= (version(least) or ()):
        return
    reason = (
        f"CUDA {', '.join(needs.record.cuda)} needs an NVIDIA driver of {least} or newer, the node"
        f" has {facts.driver}"
    )
    if needs.record.cuda_compat:
        yield _unknown(
            facts,
            "driver",
            f"{reason}; the image's cuda-compat {needs.record.cuda_compat} helps on data centre"
            " GPUs only, and only if jobs set LD_LIBRARY_PATH to it",
            "try it on the node",
        )
    else:
        yield Refusal(
            node=facts.node,
            fact="driver",
            reason=reason,
            way_out="update the driver, or build the image with an older CUDA",
        )


def _least(cuda: str) -> str | None:
    """Return the least driver for a CUDA run time; None if the table has none."""
    words = cuda.split(".")
    keys = (words[0], ".".join(words[:2]))
    return next((row.least for row in DRIVERS if row.cuda in keys), None)


def _mpi(needs: Needs, facts: NodeFacts) -> Iterator[Refusal]:
    record = needs.record
    if not record.mpi or facts.slurm == "":
        return
    types = facts.mpi_types
    if any(name.startswith("MPICH") for name in record.mpi) and not record.pmix:
        yield from _mpich(facts)
        return
    if types is not None and not any(name.startswith("pmix") for name in types):
        yield Refusal(
            node=facts.node,
            fact="MPI",
            reason=f"{', '.join(record.mpi)} is started by PMIx, and Slurm there has no"
            f" --mpi=pmix (it has {', '.join(types) or 'none'})",
            way_out="install Slurm's PMIx plugin and its library",
        )
        return
    if not record.pmix or types is None:
        what = "the image's PMIx" if not record.pmix else "what srun --mpi takes"
        yield _unknown(facts, "PMIx", f"{what} is unknown", "try it with srun --mpi=pmix")
        return
    for client in record.pmix:
        yield from _pmix(client, facts)


def _mpich(facts: NodeFacts) -> Iterator[Refusal]:
    types = facts.mpi_types
    reason = "its MPICH has no PMIx: with --mpi=pmix each rank becomes a job of its own"
    way_out = "start it with srun --mpi=pmi2, or build MPICH with PMIx"
    if types is not None and "pmi2" not in types:
        yield Refusal(
            node=facts.node,
            fact="MPI",
            reason=f"{reason}, and Slurm there has no pmi2",
            way_out="build MPICH with PMIx",
        )
    elif (facts.mpi_default or "").startswith("pmix"):
        yield Refusal(
            node=facts.node,
            fact="MPI",
            reason=f"{reason}, and MpiDefault is {facts.mpi_default}",
            way_out=way_out,
        )
    else:
        yield _unknown(facts, "MPI", reason, way_out)


def _pmix(client: str, facts: NodeFacts) -> Iterator[Refusal]:
    own = version(client)
    servers = {"PMIx": facts.pmix, "Slurm": facts.slurm}
    unread = [name for name, text in servers.items() if version(text) is None]
    if own is None or unread:
        what = f"PMIx {client} of the image" if own is None else f"{' and '.join(unread)} there"
        yield _unknown(facts, "PMIx", f"the version of {what} is unknown", "try it with srun")
    for row in PMIX:
        server = version(servers[row.against])
        if own and server and _within(own, row.image) and _within(server, row.node):
            yield Refusal(
                node=facts.node,
                fact="PMIx",
                reason=f"{row.reason}: the image has {client}, the node {row.against}"
                f" {servers[row.against]}",
                way_out="use another PMIx in the image, or another release on the node",
            )


def _within(found: Version, limits: tuple[str, str]) -> bool:
    """Return whether a version is in a range.

    Distributions ship releases that call themselves 5.0.7a1, so the stage counts only for limits
    that have one.
    """
    first, end = (version(text) for text in limits)
    return (first is None or _cut(found, first) >= first) and (
        end is None or _cut(found, end) < end
    )


def _cut(found: Version, limit: Version) -> Version:
    """Return a version without its stage, unless the limit has one."""
    return found if limit[3] != _FINAL else (*found[:3], _FINAL, 0)


def _mounting(needs: Needs, facts: NodeFacts) -> Iterator[Refusal]:
    del needs
    if not facts.apptainer:
        yield _unknown(
            facts,
            "Apptainer",
            "no Apptainer was found",
            "install it, or check that users find it (PATH, a module)",
        )
        return
    if facts.setuid is False and facts.user_namespaces is False:
        yield Refusal(
            node=facts.node,
            fact="mounting",
            reason="Apptainer has no set-uid program there, and users may make no user namespaces",
            way_out="set sysctl user.max_user_namespaces, or install apptainer-suid",
        )
    elif not facts.setuid and facts.user_namespaces is not True:
        yield _unknown(
            facts,
            "mounting",
            "whether users may make user namespaces is unknown",
            "try apptainer exec as a user there",
        )
    found, least = version(facts.apptainer), version(MOUNTS_WITHOUT_SETUID)
    if not facts.setuid and found and least and found < least:
        yield _unknown(
            facts,
            "Apptainer",
            f"Apptainer {facts.apptainer} without set-uid unpacks the SIF for each run",
            f"install {MOUNTS_WITHOUT_SETUID} or newer",
        )


def _compression(needs: Needs, facts: NodeFacts) -> Iterator[Refusal]:
    wanted = needs.compression
    if not facts.apptainer:
        return
    by = {True: ("kernel", facts.squashfs_kernel), False: ("squashfuse", facts.squashfs_fuse)}
    ways = [by[facts.kernel_mount]] if facts.kernel_mount is not None else [*by.values()]
    sure = [name for name, reads in ways if reads is not None and wanted in reads]
    never = [name for name, reads in ways if reads is not None and wanted not in reads]
    if len(sure) == len(ways) and wanted:
        return
    if facts.squashfs_fuse == () and facts.kernel_mount is False:
        yield _unknown(
            facts,
            "squashfs",
            "no squashfuse: Apptainer unpacks the SIF for each run",
            "install squashfuse there",
        )
    elif wanted and len(never) == len(ways):
        yield Refusal(
            node=facts.node,
            fact="squashfs",
            reason=f"the SIF is compressed with {wanted}, which the {' and '.join(never)} there"
            " cannot read",
            way_out="convert it with --compression gzip",
        )
    else:
        yield _unknown(
            facts,
            "squashfs",
            f"whether the node can mount a SIF compressed with {wanted or 'an unknown method'} is"
            " unknown",
            "try it there, or convert it with --compression gzip",
        )


def _unknown(facts: NodeFacts, fact: str, reason: str, way_out: str) -> Refusal:
    return Refusal(node=facts.node, fact=fact, reason=reason, way_out=way_out, known=False)
