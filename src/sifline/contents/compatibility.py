"""The requirements of an image on hosts and clusters, read from its files.

Sources: the C library, Open MPI and OpenPMIx contain their version as text; CUDA's libraries have
it in file names and packages. Least drivers: ``compatibility_table``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sifline.contents.compatibility_table import DRIVERS
from sifline.formats.packages import Found, Package

# Raise this when the same files would give another result.
_FORMAT = 6
# By the major version of the CUDA run time; before 11 each minor version has its own.
LEAST_DRIVERS = {int(row.cuda): row.least for row in DRIVERS if row.cuda.isdecimal()}
FRAMEWORKS = ("torch", "tensorflow", "jax")

_NAMES = re.compile(
    r"libc\.so\.6|libc-\d[\d.]*\.so|ld-musl-\w+\.so\.1|lib(?:mpi|mpich|pmix|nccl)\.so(?:\.[\d.]+)?"
    r"|libcudart(?:-[0-9a-f]+)?\.so(?:\.[\d.]+)?|python3\.\d+|pyvenv\.cfg"
)
# Files in which frameworks record their CUDA version.
_BUILDS = {
    "torch": "torch/version.py",
    "tensorflow": "tensorflow/python/platform/build_info.py",
}
# Folders of the system's own libraries; compilers and environments bring others.
_SYSTEM = re.compile(r"(?:usr/)?lib(?:64)?/(?:[a-z0-9_]+-linux-[a-z0-9]+/)?libc[^/]+")
_GLIBC = re.compile(rb"GNU C Library [^\n]*? release version (\d+\.\d+)")
# Source of an Open MPI: the tarball's or the repository's name for it.
_OPEN_MPI = re.compile(rb"\0v(\d+\.\d+\.\d+(?:rc\d+)?)\0")
_MPICH = re.compile(rb"MPICH Version:\s*(\d[\w.]*)")
_PMIX = re.compile(rb"PMIx (\d+\.\d+\.\d+\w*) ")
_UPSTREAM = re.compile(r"(?:\d+:)?([^-+~]+)")
_CUDART = re.compile(r"nvidia-cuda-runtime(?:-cu\d+)?|cuda-cudart-\d+-\d+")
_CUDA_COMPAT = re.compile(r"cuda-compat-\d+-\d+")
_SUM = re.compile(r"(?<=/libcudart)-[0-9a-f]+(?=\.so)")
_NCCL = re.compile(r"nvidia-nccl-cu\d+|libnccl2")
_CUDA_OF = re.compile(rb"cuda(?:_version)?['\"]?\s*[:=,][^'\"]*['\"](\d+\.\d+(?:\.\d+)?)")
_VENV = re.compile(rb"^version\s*=\s*(\d+\.\d+\.\d+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Compatibility:
    """What an image contains and needs; empty fields if it has nothing of the kind.

    ``mpi``, ``pmix`` and the like have several values if an image contains several.
    ``least_driver`` is "" without CUDA, or if it is not known here; ``cuda_compat`` is the version
    of NVIDIA's package for older drivers. ``unread`` are package
    databases that sifline cannot read, ``not_understood`` files that describe packages and are
    damaged: what only they say is missing here. ``complete`` is None if no package database is
    known here.
    """

    architecture: str = ""
    libc: str = ""
    mpi: tuple[str, ...] = ()
    pmix: tuple[str, ...] = ()
    cuda: tuple[str, ...] = ()
    least_driver: str = ""
    cuda_compat: str = ""
    nccl: tuple[str, ...] = ()
    python: tuple[str, ...] = ()
    frameworks: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    not_understood: tuple[str, ...] = ()
    complete: bool | None = None


_FIELDS = {item.name for item in fields(Compatibility)}


def kept(found: Compatibility) -> dict[str, Any]:
    """Return values for JSON, which ``restored`` reads."""
    return {"format": _FORMAT, **asdict(found)}


def restored(values: Mapping[str, Any]) -> Compatibility | None:
    """Return the values of ``kept``; None if another version of this module wrote them."""
    if values.get("format") != _FORMAT or not values.keys() >= _FIELDS:
        return None
    own: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in values.items()
        if key in _FIELDS
    }
    return Compatibility(**own)


def wanted(path: str) -> bool:
    """Return whether ``read`` needs the file at ``path``, which has no leading slash."""
    return bool(_NAMES.fullmatch(path.rpartition("/")[2])) or path.endswith(
        tuple(f"/{place}" for place in _BUILDS.values())
    )


def read(
    files: Mapping[str, bytes], names: Iterable[str], found: Found, *, architecture: str
) -> Compatibility:
    """Return the versions of libraries, Python and CUDA in the files of an image.

    :param files: contents by path; empty for files that are too large to read.
    :param names: paths of other files.
    :param found: the packages of the image.
    """
    paths = {*files, *names}
    packages = found.packages
    cuda = _versions(_CUDART, packages) or _cudart(paths)
    return Compatibility(
        architecture=architecture,
        libc=_libc(files, paths),
        mpi=_unique(_mpi(files)),
        pmix=_unique(_texts(_PMIX, files, "libpmix.so"))
        or _versions(re.compile("libpmix2.*"), packages),
        cuda=cuda,
        least_driver=least_driver(cuda),
        cuda_compat=", ".join(_versions(_CUDA_COMPAT, packages)),
        nccl=_versions(_NCCL, packages) or _named("libnccl.so.", paths),
        python=_python(files, paths, packages),
        frameworks=_frameworks(files, packages),
        unread=tuple(map(str, found.unread)),
        not_understood=found.broken,
        complete=found.complete,
    )


def least_driver(cuda: Iterable[str]) -> str:
    """Return the least driver for all of these CUDA run times; "" if unknown."""
    majors = [int(version.partition(".")[0]) for version in cuda if version[:1].isdecimal()]
    return LEAST_DRIVERS.get(max(majors), "") if majors else ""


def _cudart(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the versions in the file names of CUDA's run time; wheels append a checksum.

    All run times of 11 are named 11.0, so the name is ignored if there is another source.
    """
    found = _named("libcudart.so.", (_SUM.sub("", path) for path in paths))
    more = [one for one in found if one != "11.0" and one.startswith("11.")]
    return tuple(one for one in found if one != "11.0" or not more)


def _libc(files: Mapping[str, bytes], paths: Iterable[str]) -> str:
    """Return the C library: the system's own, if there are several."""
    found = {
        path: match[1].decode()
        for path, content in files.items()
        if _base(path).startswith(("libc.so.6", "libc-")) and (match := _GLIBC.search(content))
    }
    for path in sorted(found, key=lambda path: (not _SYSTEM.fullmatch(path), path)):
        return f"glibc {found[path]}"
    return "musl" if any(_base(path).startswith("ld-musl-") for path in paths) else ""


def _mpi(files: Mapping[str, bytes]) -> Iterator[str]:
    for version in _texts(_OPEN_MPI, files, "libmpi.so"):
        yield f"Open MPI {version}"
    for version in _texts(_MPICH, files, "libmpi"):
        yield f"MPICH {version}"


def _texts(pattern: re.Pattern[bytes], files: Mapping[str, bytes], start: str) -> Iterator[str]:
    """Yield the matches of ``pattern`` in the libraries whose names begin with ``start``."""
    for path, content in files.items():
        if _base(path).startswith(start) and (match := pattern.search(content)):
            yield match[1].decode()


def _versions(name: re.Pattern[str], packages: Iterable[Package]) -> tuple[str, ...]:
    return _unique(_upstream(item.version) for item in packages if name.fullmatch(item.name))


def _named(start: str, paths: Iterable[str]) -> tuple[str, ...]:
    """Return the versions in the names of libraries; of links and files, the longest."""
    every = _unique(
        _base(path).removeprefix(start) for path in paths if _base(path).startswith(start)
    )
    return tuple(one for one in every if not any(other.startswith(f"{one}.") for other in every))


def _python(
    files: Mapping[str, bytes], paths: Iterable[str], packages: Iterable[Package]
) -> tuple[str, ...]:
    minors = {_base(path).removeprefix("python") for path in paths if "bin/python3." in path}
    names = re.compile("|".join(f"python{re.escape(minor)}-minimal" for minor in minors) or "-")
    full = set(_versions(names, packages))
    full |= {
        match[1].decode()
        for path, content in files.items()
        if _base(path) == "pyvenv.cfg" and (match := _VENV.search(content))
    }
    known = {version.rpartition(".")[0] for version in full}
    return _unique([*full, *(minor for minor in minors if minor not in known)])


def _frameworks(files: Mapping[str, bytes], packages: Iterable[Package]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for item in packages:
        if item.name in FRAMEWORKS:
            content = files.get(f"{item.place}/{_BUILDS.get(item.name, '')}".lstrip("/"), b"")
            match = _CUDA_OF.search(content)
            cuda = f" for CUDA {match[1].decode()}" if match else ""
            found.setdefault(item.name, set()).add(item.version + cuda)
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


def _upstream(version: str) -> str:
    """Return a version without a distribution's additions: ``1:2.36-9+deb12u14`` is 2.36."""
    match = _UPSTREAM.match(version)
    return match[1] if match else version


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(words)))
