"""Known limits between images and nodes, as data, each with its source.

docs/reference/compatibility.md is written from these rows by ``sifline.report.compatibility``.
"""

from __future__ import annotations

from dataclasses import dataclass

_MATRIX = "https://github.com/open-mpi/ompi/wiki (OMPI PMIx Cross Version Matrix, 2018-04-17)"
_CUDA = "https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"
_CUDA_NOTES = "https://docs.nvidia.com/cuda/archive/10.2/cuda-toolkit-release-notes/"
_GLIBC = "https://sourceware.org/git/?p=glibc.git;a=blob;f=NEWS"


@dataclass(frozen=True, kw_only=True)
class PmixPair:
    """A range of PMIx in images that fails with a range of what runs on the node.

    Ranges begin with the first and end before the second version; "" leaves an end open.
    ``against`` is "PMIx" or "Slurm".
    """

    image: tuple[str, str]
    against: str
    node: tuple[str, str]
    reason: str
    source: str


PMIX = (
    PmixPair(
        image=("", "1.2.5"),
        against="PMIx",
        node=("2.0.0", ""),
        reason="PMIx before 1.2.5 talks to servers of 1.x only",
        source=_MATRIX,
    ),
    PmixPair(
        image=("1.2.5", "2.0.0"),
        against="PMIx",
        node=("2.0.0", "2.0.3"),
        reason="PMIx 1.2.5 needs a server of 2.0.3, or of 2.1.1 or newer",
        source=_MATRIX,
    ),
    PmixPair(
        image=("2.0.0", "2.0.3"),
        against="PMIx",
        node=("2.1.0", ""),
        reason="PMIx 2.0.0 to 2.0.2 talk to servers of 2.0.x only",
        source=_MATRIX,
    ),
    PmixPair(
        image=("", "2.1.0"),
        against="PMIx",
        node=("2.1.0", "2.1.1"),
        reason="a server of PMIx 2.1.0 serves clients of 2.1.x only",
        source=_MATRIX,
    ),
    PmixPair(
        image=("2.1.0", "2.1.1"),
        against="PMIx",
        node=("3.0.0", ""),
        reason="PMIx 2.1.0 talks to servers of 2.1.x only",
        source=_MATRIX,
    ),
    PmixPair(
        image=("2.1.0", ""),
        against="PMIx",
        node=("", "2.1.0"),
        reason="servers before PMIx 2.1 do not serve clients of 2.1 and newer",
        source=_MATRIX,
    ),
    PmixPair(
        image=("", "3.1.0rc2"),
        against="Slurm",
        node=("25.05.2", ""),
        reason="Slurm 25.05.2 and newer do not serve clients of PMIx 3.1.0rc1 and older",
        source="https://github.com/SchedMD/slurm/blob/slurm-25.05/CHANGELOG/slurm-25.05.md says"
        " only that 25.05.2 supports PMIx 6; the limit is reported, not written there",
    ),
    PmixPair(
        image=("5.0.8", "5.0.10"),
        against="Slurm",
        node=("", "25.11.2"),
        reason="clients of PMIx 5.0.8 and 5.0.9 hang when they connect to Slurm before 25.11.2",
        source="https://github.com/SchedMD/slurm/blob/slurm-25.11/CHANGELOG/slurm-25.11.md and"
        " https://github.com/openpmix/openpmix/issues/3645",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The least NVIDIA driver of a CUDA run time: a major version, or before 11 a minor one."""

    cuda: str
    least: str
    source: str


# From 11 on one driver serves all minor versions of a major one.
DRIVERS = (
    Driver(cuda="13", least="580.65.06", source=_CUDA),
    Driver(cuda="12", least="525.60.13", source=_CUDA),
    Driver(cuda="11", least="450.80.02", source=_CUDA),
    Driver(cuda="10.2", least="440.33", source=_CUDA_NOTES),
    Driver(cuda="10.1", least="418.39", source=_CUDA_NOTES),
    Driver(cuda="10.0", least="410.48", source=_CUDA_NOTES),
    Driver(cuda="9.2", least="396.26", source=_CUDA_NOTES),
    Driver(cuda="9.1", least="390.46", source=_CUDA_NOTES),
    Driver(cuda="9.0", least="384.81", source=_CUDA_NOTES),
    Driver(cuda="8.0", least="375.26", source=_CUDA_NOTES),
)


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """The least Linux kernel that a glibc and newer ones start on."""

    glibc: str
    least: str
    source: str


# Newest first.
KERNELS = (
    Kernel(glibc="2.26", least="3.2", source=f"{_GLIBC} (2.26)"),
    Kernel(glibc="2.20", least="2.6.32", source=f"{_GLIBC} (2.20)"),
)

# By uname's machine, the architectures (docker's names) whose programs run there.
ARCHITECTURES = {
    "x86_64": ("amd64", "386"),
    "i686": ("386",),
    "aarch64": ("arm64",),
    "armv7l": ("arm",),
    "ppc64le": ("ppc64le",),
    "s390x": ("s390x",),
    "riscv64": ("riscv64",),
}
# Without set-uid, Apptainer mounts SIFs since this release; older ones unpack them for each run.
MOUNTS_WITHOUT_SETUID = "1.1.0"
MOUNTS_SOURCE = "https://github.com/apptainer/apptainer/blob/main/CHANGELOG.md (1.1.0)"
MPICH_SOURCE = "https://slurm.schedmd.com/mpi_guide.html"
