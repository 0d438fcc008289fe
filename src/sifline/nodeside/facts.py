"""Reads what a node offers to images, and prints it as JSON; Python 3.9's standard library only.

``facts.py ROOT KNOWN`` reads the facts of the node with the registry at ROOT. If the node still
runs since the boot KNOWN, it prints that boot alone. A value that cannot be read is null, never a
guess; "" means that the node was searched and has nothing of the kind.
"""

from __future__ import annotations

import glob
import gzip
import json
import mmap
import os
import re
import shutil
import subprocess
import sys
from typing import Any

FORMAT = 1
COMMAND_SECONDS = 10
# Where daemons and libraries are that the PATH of a login over SSH may lack.
FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Compressions of squashfs: kernel's option, and the library that squashfuse links.
KERNEL = {"gzip": "ZLIB", "xz": "XZ", "lzo": "LZO", "lz4": "LZ4", "zstd": "ZSTD"}
LINKED = {
    "gzip": "libz.so",
    "xz": "liblzma.so",
    "lzo": "liblzo2.so",
    "lz4": "liblz4.so",
    "zstd": "libzstd.so",
}
LIBRARIES = ("/usr/lib/*-linux-gnu*", "/usr/lib64", "/usr/lib", "/lib64", "/usr/local/lib")
# Libraries of the driver that `apptainer exec --nv` binds into images.
DRIVER = ("libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1")
MOUNT, MOUNTS = "allow setuid-mount squashfs", "sets how squashfs is mounted"
NO_LIMIT = (None, "", "NULL")
RELR = "2.36"  # the first glibc that loads libraries with GLIBC_ABI_DT_RELR
_PMIX = re.compile(rb"(?:OpenPMIx|PMIx) v?(\d+\.\d+\.\d+\w*)")
_NEEDED = re.compile(rb"GLIBC_(?:(\d+\.\d+)|ABI_DT_RELR)")


def main(arguments: list[str]) -> int:
    """Print the facts as one line of JSON."""
    root, known = arguments
    started = boot()
    if known and known == started:
        print(json.dumps({"format": FORMAT, "boot": started}))
        return 0
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{FOLDERS}"
    os.environ["LC_ALL"] = "C"
    print(json.dumps({"format": FORMAT, "boot": started, **facts(root)}))
    return 0


def facts(root: str) -> dict[str, Any]:
    """Return all facts but the boot."""
    return {
        "architecture": os.uname().machine,
        "kernel": os.uname().release,
        "glibc": glibc(),
        "free": free(root),
        **driver(),
        **slurm(),
        **apptainer(),
    }


def boot() -> str:
    """Return what differs after a reboot, also of a container on the same kernel."""
    identity = read("/proc/sys/kernel/random/boot_id") or ""
    begun = (read("/proc/1/stat") or "").rpartition(")")[2].split()
    return f"{identity.strip()}-{begun[19] if len(begun) > 19 else ''}"  # noqa: PLR2004


def glibc() -> str | None:
    """Return the version of the C library that this Python uses; "" for another library."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return ""
    return name.removeprefix("glibc ")


def free(root: str) -> int | None:
    """Return the free bytes for root below ``root``; None if there is no such folder."""
    try:
        return shutil.disk_usage(root).free
    except OSError:
        return None


def driver() -> dict[str, Any]:
    """Return the versions of the NVIDIA driver, its CUDA, and the glibc that its files need."""
    version = read("/proc/driver/nvidia/version")
    found = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", version or "")
    files = [path for name in DRIVER for path in libraries(name)]
    of_file = [os.path.realpath(path) for path in files if path.endswith("libcuda.so.1")]
    named = re.search(r"\.so\.(\d{3}\.[\d.]+)$", of_file[0]) if of_file else None
    match = found or named
    cuda = None
    if shutil.which("nvidia-smi"):
        shown = run("nvidia-smi")
        printed = re.search(r"CUDA Version:\s*(\d+\.\d+)", shown or "")
        cuda = printed[1] if printed else None
    present = bool(files) or version is not None
    return {
        "driver": match[1] if match else (None if present else ""),
        "driver_cuda": cuda if present or cuda else "",
        "driver_glibc": needed(files) if files else (None if present else ""),
        "gpus": len(glob.glob("/dev/nvidia[0-9]*")),
    }


def needed(paths: list[str]) -> str | None:
    """Return the newest glibc whose symbols the files need; None if none of them can be read."""
    newest: tuple[int, ...] = ()
    for path in paths:
        for match in contents(path, _NEEDED):
            text = (match or RELR.encode()).decode()
            newest = max(newest, tuple(int(part) for part in text.split(".")))
    return ".".join(map(str, newest)) if newest else None


def slurm() -> dict[str, Any]:
    """Return the versions of Slurm and PMIx, and the types that `srun --mpi` takes."""
    nothing = {"slurm": "", "mpi_types": [], "mpi_default": "", "pmix": ""}
    program = next((name for name in ("slurmd", "srun", "slurmctld") if shutil.which(name)), None)
    if program is None:
        return nothing
    version = re.search(r"slurm\S* (\d+\.\d+\.\d+\S*)", run(program, "-V") or "")
    listed = run("srun", "--mpi=list") if shutil.which("srun") else None
    configured = run("scontrol", "show", "config") if shutil.which("scontrol") else None
    default = re.search(r"^MpiDefault\s*=\s*(\S+)", configured or "", re.MULTILINE)
    return {
        "slurm": version[1] if version else None,
        "mpi_types": None if listed is None else mpi_types(listed),
        "mpi_default": default[1] if default else None,
        "pmix": pmix(),
    }


def mpi_types(listed: str) -> list[str]:
    """Return the types in the output of ``srun --mpi=list``, those of one version as well."""
    indented = re.findall(r"^\s+([a-z][\w-]*)\s*$", listed, re.MULTILINE)
    versions = re.search(r"versions available:\s*(.*)", listed)
    return sorted({*indented, *re.findall(r"pmix_v\d+", versions[1] if versions else "")})


def pmix() -> str | None:
    """Return the version of the PMIx library; "" if there is none, None if it does not say."""
    found = [*libraries("libpmix.so.2"), *libraries("pmix*/lib/libpmix.so.2")]
    for path in found:
        for version in contents(path, _PMIX):
            return version.decode()
    return None if found else ""


def apptainer() -> dict[str, Any]:
    """Return Apptainer's version, and how it can mount a squashfs."""
    mounted = {
        "user_namespaces": user_namespaces(),
        "squashfs_kernel": kernel_squashfs(),
        "squashfs_fuse": fuse_squashfs(),
    }
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        return {"apptainer": "", "setuid": False, "kernel_mount": None, **mounted}
    version = re.search(r"(\d+\.\d+\.\d+\S*)", run(program, "--version") or "")
    settings = configuration()
    suid = starter()
    allowed = settings.get("allow setuid") if settings is not None else None
    setuid = False if suid is False or allowed == "no" else (suid if allowed == "yes" else None)
    return {
        "apptainer": version[1] if version else None,
        "setuid": setuid,
        "kernel_mount": setuid and kernel_mounts(settings or {}),
        **mounted,
    }


def kernel_mounts(settings: dict[str, str]) -> bool:
    """Return whether the set-uid program lets the kernel mount a squashfs, by its settings.

    Releases without the setting do. Its default is to do so where containers are limited.
    """
    mounts = settings.get(MOUNT, "iflimited" if MOUNTS in settings else "yes")
    limits = [settings.get(f"limit container {what}") for what in ("owners", "groups", "paths")]
    return mounts == "yes" or (
        mounts == "iflimited" and any(one not in NO_LIMIT for one in limits)
    )


def configuration() -> dict[str, str] | None:
    """Return the settings in apptainer.conf; None if it cannot be read."""
    places = ("/etc", "/usr/local/etc", "/opt/apptainer/etc")
    names = ("apptainer/apptainer.conf", "singularity/singularity.conf")
    for path in (f"{place}/{name}" for place in places for name in names):
        text = read(path)
        if text is not None:
            pairs = re.findall(r"^([a-z][\w -]*?)\s*=\s*(.*?)\s*$", text, re.MULTILINE)
            return {**dict(pairs), **({MOUNTS: "known"} if MOUNT in text else {})}
    return None


def starter() -> bool:
    """Return whether Apptainer's set-uid program is there and has its mode."""
    for place in ("/usr/lib*", "/usr/libexec", "/usr/local/libexec", "/usr/lib/*-linux-gnu"):
        for path in glob.glob(f"{place}/*/bin/starter-suid"):
            if "apptainer" in path or "singularity" in path:
                found = os.stat(path)
                return bool(found.st_mode & 0o4000) and found.st_uid == 0
    return False


def user_namespaces() -> bool | None:
    """Return whether ordinary users may make user namespaces, as far as the settings say."""
    most = read("/proc/sys/user/max_user_namespaces")
    if most is None:
        return False if not os.path.exists("/proc/self/ns/user") else None
    clone = read("/proc/sys/kernel/unprivileged_userns_clone")
    restricted = read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if most.strip() == "0" or (clone or "1").strip() == "0":
        return False
    # A profile of AppArmor may allow it to Apptainer all the same.
    return None if (restricted or "0").strip() == "1" else True


def kernel_squashfs() -> list[str] | None:
    """Return the compressions that the kernel's squashfs reads; [] without squashfs."""
    release = os.uname().release
    listed = "squashfs" in (read("/proc/filesystems") or "").split()
    module = glob.glob(f"/lib/modules/{release}/kernel/fs/squashfs/squashfs.ko*")
    options = kernel_options(release)
    if options is None:
        # The file of options is missing: the module may exist all the same.
        known = os.path.isdir(f"/lib/modules/{release}")
        return None if listed or module or not known else []
    if "CONFIG_SQUASHFS" not in options:
        return []
    return [name for name, option in KERNEL.items() if f"CONFIG_SQUASHFS_{option}" in options]


def kernel_options(release: str) -> set[str] | None:
    """Return the options with which the kernel was built; None if no file says so."""
    text = read(f"/boot/config-{release}") or read(f"/lib/modules/{release}/config")
    if text is None:
        try:
            with gzip.open("/proc/config.gz", "rt") as file:
                text = file.read()
        except OSError:
            return None
    return set(re.findall(r"^(CONFIG_\w+)=[ym]", text, re.MULTILINE))


def fuse_squashfs() -> list[str] | None:
    """Return the compressions that squashfuse reads; [] without squashfuse or /dev/fuse."""
    own = "/usr/lib*/apptainer/bin/squashfuse_ll", "/usr/libexec/apptainer/bin/squashfuse_ll"
    paths = [path for pattern in own for path in glob.glob(pattern)]
    path = next(iter(paths), None) or shutil.which("squashfuse_ll") or shutil.which("squashfuse")
    if path is None or not os.path.exists("/dev/fuse"):
        return []
    # Some releases name them in the help; the libraries that it links tell of the others.
    help_ = run(path, "--help", both=True) or ""
    line = re.search(r"[Dd]ecompressors?[^:\n]*:\s*([a-z0-9, ]+)", help_)
    if line:
        words = re.findall(r"[a-z0-9]+", line[1])
        return [name for name in KERNEL if name in words or (name == "gzip" and "zlib" in words)]
    linked = run("ldd", path) if shutil.which("ldd") else None
    if linked is None or "libsquashfuse" in linked or not linked.strip():
        linked = f"{linked or ''}{linked_by(linked or '')}"
    found = [name for name, library in LINKED.items() if library in linked]
    return found or None


def linked_by(listed: str) -> str:
    """Return what squashfuse's own library, named in ldd's output, links itself."""
    match = re.search(r"=>\s*(\S*libsquashfuse\S*)", listed)
    return (run("ldd", match[1]) or "") if match else ""


def libraries(name: str) -> list[str]:
    """Return the paths of a library in the usual folders."""
    return [path for folder in LIBRARIES for path in sorted(glob.glob(f"{folder}/{name}"))]


def contents(path: str, pattern: re.Pattern[bytes]) -> list[bytes]:
    """Return what matches ``pattern`` in a file, which may be large; [] if it cannot be read."""
    try:
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            return sorted({match[1] or b"" for match in pattern.finditer(text)})
    except (OSError, ValueError):
        return []


def read(path: str) -> str | None:
    """Return the text of a file; None if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def run(*argv: str, both: bool = False) -> str | None:
    """Return what a command prints; None if it fails, does not end, or is not there."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if both else subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode and not both:
        return None
    return done.stdout.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
