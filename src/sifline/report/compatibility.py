"""Writes the page of limits between images and nodes: ``… -m sifline.report.compatibility FILE``.

The rows are those of ``sifline.contents.compatibility_table``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sifline.contents import compatibility_table as rows

_HEAD = """# Compatibility

Before `deploy` sends a SIF, it compares what the image needs (`compat`) with the facts of each node
(`invoke facts`). An image that cannot work there is refused: the error names node, fact, reason and way out. With
`--override REASON` it is deployed all the same, and the catalog of each node keeps the reason.

What is unknown is neither compatible nor incompatible. It is printed as a note; with `strict` in section `registry` of the
[cluster file](cluster-file.md) it is refused as well. Nodes that do not answer are not compared: the deployment names them.

| fact | refused if | unknown if |
|---|---|---|
| architecture | the SIF's header names another than the node has | either is not in the table below |
| glibc | with a GPU: the image's is older than the node's driver libraries need, or the image has musl | either is not found |
| kernel | it is older than the image's glibc needs | |
| driver | it is older than the least one for the image's CUDA | not found although there are GPU devices; or the image has `cuda-compat` |
| MPI | it is started by PMIx and Slurm has no `--mpi=pmix`; or it is MPICH without PMIx and `pmix` is Slurm's default | MPICH without PMIx elsewhere |
| PMIx | the pair is in the table below | a version is not found |
| mounting | Apptainer has no set-uid program and users may make no user namespaces | |
| squashfs | what mounts SIFs there (kernel or squashfuse) does not read the SIF's compression | it does not say what it reads; or there is no squashfuse |
| Apptainer | | none is found in the PATH; or it is older than {mounts} without set-uid, and unpacks SIFs for each run ([source]({source})) |

Images without CUDA on nodes with GPUs are compared without driver and glibc. Nodes without GPUs run images with CUDA on their
processors. MPICH and PMIx: [Slurm's MPI guide]({mpich}).
"""


def page() -> str:
    """Return the page in Markdown."""
    head = _HEAD.format(
        mounts=rows.MOUNTS_WITHOUT_SETUID, source=rows.MOUNTS_SOURCE, mpich=rows.MPICH_SOURCE
    )
    return "\n".join([head, *_sections()])


def _sections() -> Iterator[str]:
    yield from _table(
        "PMIx",
        ("PMIx in the image", "on the node", "why", "source"),
        [
            (_range("", row.image), _range(f"{row.against} ", row.node), row.reason, row.source)
            for row in rows.PMIX
        ],
    )
    yield from _table(
        "NVIDIA driver",
        ("CUDA in the image", "least driver", "source"),
        [(row.cuda, row.least, row.source) for row in rows.DRIVERS],
    )
    yield from _table(
        "Kernel",
        ("glibc in the image", "least Linux", "source"),
        [(f"{row.glibc} and newer", row.least, row.source) for row in rows.KERNELS],
    )
    yield from _table(
        "Architecture",
        ("node (`uname -m`)", "runs SIFs for"),
        [(machine, ", ".join(runs)) for machine, runs in rows.ARCHITECTURES.items()],
    )


def _table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"## {title}\n"
    for cells in (head, ["---"] * len(head), *lines):
        yield f"| {' | '.join(cells)} |"
    yield ""


def _range(what: str, limits: tuple[str, str]) -> str:
    first, end = limits
    parts = [*([f"from {first}"] if first else []), *([f"before {end}"] if end else [])]
    return what + (" and ".join(parts) or "any")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(f"{page().rstrip()}\n", encoding="utf-8")
