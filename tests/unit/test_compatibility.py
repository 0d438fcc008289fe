"""What an image needs, told from its files: by one that holds it, and by one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline.contents.compatibility import (
    Compatibility,
    kept,
    least_driver,
    read,
    restored,
    wanted,
)
from sifline.formats.packages import DEB, PYTHON, Found, Package
from sifline.machine import records

GLIBC = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u14) stable release version 2.36.\nCopyright"
OPEN_MPI = b"\x01\0v4.1.4\0May 26, 2022\0"
PMIX = b"\0OpenPMIx 4.2.2rc2 (PMIx Standard: 4.2, Stable ABI: 0.0)\0"
TORCH = (
    b"__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']\n"
    b"__version__ = '2.4.0+cu121'\ndebug = False\ncuda: Optional[str] = '12.1'\n"
)
TENSORFLOW = (
    b'build_info = collections.OrderedDict([("cpu_compiler", "clang"),'
    b' ("cuda_compute_capabilities", ["sm_60"]), ("cuda_version", "12.5.1")])\n'
)


def packages(*, place: str = "", **versions: str) -> Found:
    return Found(
        packages=tuple(
            Package(kind=PYTHON, name=name.replace("_", "-"), version=version, place=place)
            for name, version in versions.items()
        )
    )


def told(files: dict[str, bytes], *names: str, found: Found | None = None) -> Compatibility:
    assert all(map(wanted, [*files, *names]))
    return read(files, names, found or Found(), architecture="amd64")


def test_the_c_library_says_its_release() -> None:
    assert told({"usr/lib/x86_64-linux-gnu/libc.so.6": GLIBC}).libc == "glibc 2.36"


def test_an_older_c_library_has_its_release_in_its_name() -> None:
    assert told({"lib/libc-2.31.so": GLIBC.replace(b"2.36.\n", b"2.31.\n")}).libc == "glibc 2.31"


def test_musl_is_told_by_its_loader() -> None:
    assert told({}, "lib/ld-musl-x86_64.so.1").libc == "musl"


def test_an_image_without_any_of_it_says_nothing() -> None:
    assert told({}) == Compatibility(architecture="amd64")


@pytest.mark.parametrize(
    ("content", "mpi"),
    [
        (OPEN_MPI, ("Open MPI 4.1.4",)),
        (b"\0v5.0.0rc12\0", ("Open MPI 5.0.0rc12",)),
        (b"MPICH Version:      4.0.2\n", ("MPICH 4.0.2",)),
        (b"dev4.1.4\0", ()),
    ],
)
def test_an_mpi_library_says_whose_it_is(content: bytes, mpi: tuple[str, ...]) -> None:
    assert told({"usr/local/lib/libmpi.so.40.30.4": content}).mpi == mpi


def test_two_mpis_are_both_told() -> None:
    found = told(
        {"usr/lib/libmpi.so.40": OPEN_MPI, "opt/lib/libmpi.so.40": b"\0v4.0.3\0"},
    )
    assert found.mpi == ("Open MPI 4.0.3", "Open MPI 4.1.4")


def test_pmix_says_its_release_or_else_its_package_does() -> None:
    assert told({"usr/lib/libpmix.so.2.6.2": PMIX}).pmix == ("4.2.2rc2",)
    package = Package(kind=DEB, name="libpmix2", version="4.1.2-2ubuntu1")
    assert told({"usr/lib/libpmix.so.2": b""}, found=Found(packages=(package,))).pmix == ("4.1.2",)


def test_cuda_and_nccl_come_from_packages_first() -> None:
    found = told(
        {},
        "opt/libcudart.so.12",
        "opt/libnccl.so.2",
        found=packages(nvidia_cuda_runtime_cu12="12.1.105", nvidia_nccl_cu12="2.20.5"),
    )
    assert (found.cuda, found.nccl) == (("12.1.105",), ("2.20.5",))
    assert found.least_driver == "525.60.13"


def test_else_from_the_names_of_their_libraries() -> None:
    found = told(
        {},
        "usr/local/cuda/lib64/libcudart.so",
        "usr/local/cuda/lib64/libcudart.so.11.0",
        "usr/local/cuda/lib64/libcudart.so.11.8.89",
        "usr/lib/libnccl.so.2",
        "usr/lib/libnccl.so.2.15.5",
    )
    assert found.cuda == ("11.8.89",)
    assert (found.nccl, found.least_driver) == (("2.15.5",), "450.80.02")


@pytest.mark.parametrize(
    ("name", "cuda"),
    [("libcudart-d0da41ae.so.11.0", "11.0"), ("libcudart-8774224f.so.12.4.127", "12.4.127")],
)
def test_or_of_the_copy_that_a_wheel_carries(name: str, cuda: str) -> None:
    path = f"opt/venv/lib/python3.11/site-packages/torch/lib/{name}"
    assert wanted(path)
    found = told({}, path)
    assert (found.cuda, bool(found.least_driver)) == ((cuda,), True)


@pytest.mark.parametrize(
    ("cuda", "driver"),
    [
        ([], ""),
        (["12.1.105"], "525.60.13"),
        (["13.0"], "580.65.06"),
        (["11.8", "12.4"], "525.60.13"),
        (["99.1"], ""),
    ],
)
def test_the_least_driver_is_that_of_the_newest_cuda(cuda: list[str], driver: str) -> None:
    assert least_driver(cuda) == driver


def test_python_is_told_by_its_package_its_environment_or_its_name() -> None:
    minimal = Package(kind=DEB, name="python3.11-minimal", version="3.11.2-6+deb12u6")
    found = Found(packages=(minimal,))
    assert told({}, "usr/bin/python3.11", found=found).python == ("3.11.2",)
    assert told({"opt/venv/pyvenv.cfg": b"home = /usr/bin\nversion = 3.10.12\n"}).python == (
        "3.10.12",
    )
    assert told({}, "usr/local/bin/python3.12").python == ("3.12",)


def test_frameworks_say_which_cuda_they_were_built_for() -> None:
    site = "opt/venv/lib/python3.11/site-packages"
    found = told(
        {
            f"{site}/torch/version.py": TORCH,
            f"{site}/tensorflow/python/platform/build_info.py": TENSORFLOW,
        },
        found=packages(
            place=site, torch="2.4.0", tensorflow="2.18.1", jax="0.5.0", numpy="1.26.4"
        ),
    )
    assert found.frameworks == {
        "torch": "2.4.0 for CUDA 12.1",
        "tensorflow": "2.18.1 for CUDA 12.5.1",
        "jax": "0.5.0",
    }


def test_a_framework_without_cuda_says_none() -> None:
    cpu = TORCH.replace(b"cuda: Optional[str] = '12.1'", b"cuda: Optional[str] = None")
    found = told({"lib/torch/version.py": cpu}, found=packages(place="lib", torch="2.4.0"))
    assert found.frameworks == {"torch": "2.4.0"}


def test_what_is_there_twice_is_told_twice() -> None:
    old, new = (
        packages(place=place, torch=torch, nvidia_cuda_runtime_cu12=cuda).packages
        for place, torch, cuda in (("opt/a", "2.1.0", "12.1.105"), ("opt/b", "2.9.0", "13.0.1"))
    )
    found = told({"opt/a/torch/version.py": TORCH}, found=Found(packages=(*old, *new)))
    assert found.frameworks == {"torch": "2.1.0 for CUDA 12.1, 2.9.0"}
    assert (found.cuda, found.least_driver) == (("12.1.105", "13.0.1"), "580.65.06")


def test_the_systems_c_library_counts_and_not_that_of_a_compiler() -> None:
    other = GLIBC.replace(b"version 2.36", b"version 2.17")
    found = told(
        {
            "opt/conda/x86_64-conda-linux-gnu/sysroot/lib64/libc.so.6": other,
            "lib32/libc.so.6": other,
            "usr/lib/x86_64-linux-gnu/libc.so.6": GLIBC,
        }
    )
    assert found.libc == "glibc 2.36"


def test_debians_name_for_mpich_is_known() -> None:
    content = b"MPICH Version:      4.0.2\n"
    assert told({"usr/lib/libmpich.so.12.3.1": content}).mpi == ("MPICH 4.0.2",)


@pytest.mark.parametrize(
    "path",
    ["usr/lib/libcrypto.so.3", "usr/share/libc.so.6.txt", "home/mytorch/version.py", "python3"],
)
def test_other_files_are_not_looked_at(path: str) -> None:
    assert not wanted(path)


def test_what_is_kept_comes_back_and_another_format_does_not(tmp_path: Path) -> None:
    found = Compatibility(architecture="amd64", mpi=("Open MPI 4.1.4",), frameworks={"torch": "2"})
    records.write(tmp_path / "record", kept(found))
    assert restored(records.read(tmp_path / "record") or {}) == found
    assert restored({**kept(found), "format": 0}) is None
    assert restored({"format": kept(found)["format"]}) is None
    assert restored({}) is None
