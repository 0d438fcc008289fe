"""Gives a node of a virtual cluster a fault: a full or slow disk, a wrong clock, no GPU.

    python3 faults.py list
    python3 faults.py set|undo FAULT [FOLDER]

Prints a JSON object: "active" has the faults that the node has now, "details" what the given one
does, "changed" whether this call made a difference. What is active is read from the node itself,
so a call that was killed is finished or taken back by the next one.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

DISK_FULL, SLOW_DISK, CLOCK, NO_GPU = "disk-full", "slow-disk", "clock", "no-gpu"
SLOW_NETWORK = "slow-network"
# The source of our mounts, by which they are found again.
FULL = "sifline-full"
FULL_FOLDER = Path("/run/sifline-full")
FULL_SIZE = 64 * 1024
FILLER = ".sifline-full"
TMP = Path("/tmp")  # noqa: S108
# As the engine mounts it.
TMP_SIZE = "50%"
# Bytes per second.
DISK_RATE = 1024 * 1024
BLKIO = Path("/run/sifline-blkio")
IO_MAX = Path("/sys/fs/cgroup/io.max")
# The engine mounts this file from its own disk.
ON_DISK = Path("/etc/hosts")
DEVICES = Path("/sys/dev/block")
AHEAD = "+1h"
UNITS = ("munge", "slurmctld", "slurmd")
DAEMONS = ("munged", "slurmctld", "slurmd")
DROP_IN = "sifline-fault-clock.conf"
UNIT_FOLDER = Path("/etc/systemd/system")
# Read by PAM at each login.
ENVIRONMENT = Path("/etc/environment")
NVIDIA_MAJOR = 195
WIRE, DETOUR = "eth0", "sifline-slow"
NETWORK_RATE = "1mbit"


class Refused(Exception):
    """The fault cannot be given here; the message says why."""


def run(*argv: str) -> None:
    """Run a command.

    :raises Refused: with what it printed, if it failed.
    """
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"{argv[0]}: {(done.stderr or done.stdout).strip()}")


def mounts() -> list[tuple[str, str, str]]:
    """Return source, folder and type of all mounts, in their order."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [(words[0], words[1], words[2]) for words in (line.split() for line in lines)]


# --- disk-full


def is_full() -> bool:
    """Return whether a file system was filled."""
    return (TMP / FILLER).exists() or any(source == FULL for source, _, _ in mounts())


def fill(folder: str) -> str:
    """Leave no space in ``folder``, if it is there, and in /tmp; their files stay readable.

    A full file system of a few pages lies over the folder, so the disk of the machine is not
    filled, and what is changed in it meanwhile is gone when it is taken away.
    """
    filled = [str(TMP)]
    root = Path(folder)
    if folder and root.is_dir():
        filled.insert(0, folder)
        if (FULL, folder, "overlay") not in mounts():
            cover(root)
        exhaust(FULL_FOLDER / FILLER)
    used = os.statvfs(TMP)
    pages = max(used.f_blocks - used.f_bfree, 1)
    run("mount", "-o", f"remount,size={pages * used.f_frsize}", str(TMP))
    exhaust(TMP / FILLER)
    return f"no space is left in {' and '.join(filled)}"


def cover(folder: Path) -> None:
    """Mount a small file system over ``folder`` that shows what is there."""
    if (FULL, str(FULL_FOLDER), "tmpfs") not in mounts():
        FULL_FOLDER.mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"size={FULL_SIZE}", FULL, str(FULL_FOLDER))
    upper, work = FULL_FOLDER / "upper", FULL_FOLDER / "work"
    for part in (upper, work):
        part.mkdir(exist_ok=True)
    found = folder.stat()
    os.chown(upper, found.st_uid, found.st_gid)
    upper.chmod(stat.S_IMODE(found.st_mode))
    layers = f"lowerdir={folder},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "-o", layers, FULL, str(folder))


def exhaust(path: Path) -> None:
    """Write to ``path`` until no space is left."""
    with suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def empty() -> str:
    """Take the full file systems away."""
    (TMP / FILLER).unlink(missing_ok=True)
    run("mount", "-o", f"remount,size={TMP_SIZE}", str(TMP))
    for source, folder, _ in reversed(mounts()):
        if source == FULL:
            # Lazily: jobs may have files open there.
            run("umount", "--lazy", folder)
    with suppress(FileNotFoundError):
        FULL_FOLDER.rmdir()
    return "the space is free again"


# --- slow-disk


def disk() -> str:
    """Return the number of the disk on which the engine keeps the node, as ``MAJOR:MINOR``."""
    device = ON_DISK.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    folder = DEVICES / number
    if not folder.exists():
        raise Refused(f"the node is kept on device {number}, which is no disk that can be slowed")
    if (folder / "partition").exists():
        return (folder.resolve().parent / "dev").read_text(encoding="ascii").strip()
    return number


def limits() -> dict[Path, str]:
    """Return the files of the node's control group that limit its disk, and what to write."""
    if IO_MAX.exists():
        return {IO_MAX: f"{disk()} rbps={DISK_RATE} wbps={DISK_RATE}"}
    names = (f"blkio.throttle.{what}_bps_device" for what in ("read", "write"))
    return {BLKIO / name: f"{disk()} {DISK_RATE}" for name in names}


def is_slow() -> bool:
    """Return whether the disk is limited."""
    if IO_MAX.exists():
        return "bps=" in IO_MAX.read_text(encoding="ascii").replace("bps=max", "")
    return any(path.read_text(encoding="ascii").strip() for path in BLKIO.glob("*.*_bps_device"))


def slow(_: str) -> str:
    """Limit how fast the node reads its disk and writes to it."""
    if not (IO_MAX.exists() or any(folder == str(BLKIO) for _, folder, _ in mounts())):
        BLKIO.mkdir(exist_ok=True)
        run("mount", "-t", "cgroup", "-o", "blkio", "cgroup", str(BLKIO))
    for path, text in limits().items():
        path.write_text(text, encoding="ascii")
    return f"the disk reads and writes {DISK_RATE // 1024} KiB/s; /tmp and caches are in memory"


def quicken() -> str:
    """Take the limits of the disk away."""
    if IO_MAX.exists():
        IO_MAX.write_text(f"{disk()} rbps=max wbps=max", encoding="ascii")
    else:
        for path in limits():
            path.write_text(f"{disk()} 0", encoding="ascii")
        run("umount", str(BLKIO))
        BLKIO.rmdir()
    return "the disk has its own speed again"


# --- clock


def drop_ins() -> list[Path]:
    """Return the files by which systemd gives the daemons a wrong clock."""
    return [UNIT_FOLDER / f"{unit}.service.d" / DROP_IN for unit in UNITS]


def preload() -> dict[str, str]:
    """Return the variables that give a program a wrong clock."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise Refused("the image of the node has no libfaketime; run: invoke build.slurm-node")
    return {
        "LD_PRELOAD": str(found[0]),
        "FAKETIME": AHEAD,
        # Time limits count on a clock that only goes on.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def is_wrong() -> bool:
    """Return whether daemons have a wrong clock, or will have one when they start."""
    return any(path.exists() for path in drop_ins()) or any(map(has_ours, DAEMONS))


def has_ours(daemon: str) -> bool:
    """Return whether a process called ``daemon`` was started with a wrong clock."""
    for folder in Path("/proc").glob("[0-9]*"):
        # It may end meanwhile.
        with suppress(OSError):
            if (folder / "comm").read_text("utf-8").strip() == daemon:
                return f"FAKETIME={AHEAD}".encode() in (folder / "environ").read_bytes()
    return False


def wrong(_: str) -> str:
    """Put the clocks of MUNGE, Slurm and new logins ahead."""
    variables = preload()
    lines = "".join(f"Environment={name}={value}\n" for name, value in variables.items())
    for path in drop_ins():
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"[Service]\n{lines}", encoding="ascii")
    kept = without_preload()
    own = [f"{name}={value}" for name, value in variables.items()]
    write(ENVIRONMENT, [*kept, *own])
    restart_daemons()
    return f"the clocks of {', '.join(UNITS)} and of new logins are at {AHEAD}"


def right() -> str:
    """Give the daemons the true clock."""
    write(ENVIRONMENT, without_preload())
    for path in drop_ins():
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()
    restart_daemons()
    return "the clocks are right again"


def without_preload() -> list[str]:
    """Return the lines of the environment of logins that are not ours."""
    lines = ENVIRONMENT.read_text("utf-8").splitlines() if ENVIRONMENT.exists() else []
    names = tuple(f"{name}=" for name in preload())
    return [line for line in lines if not line.startswith(names)]


def write(path: Path, lines: list[str]) -> None:
    """Write ``path`` completely or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    new.replace(path)


def restart_daemons() -> None:
    """Restart the daemons that run, so that they see their new clock."""
    run("systemctl", "daemon-reload")
    run("systemctl", "try-restart", *(f"{unit}.service" for unit in UNITS))
    revive_daemons()


def revive_daemons() -> None:
    """Start the daemons that a fault ended."""
    for unit in UNITS:
        if not direct(["systemctl", "--quiet", "is-failed", f"{unit}.service"]):
            run("systemctl", "start", f"{unit}.service")


# --- no-gpu


def gpus() -> list[Path]:
    """Return the device files that the node should have."""
    count = int(os.environ.get("NODE_GPUS") or 0)
    return [Path(f"/dev/nvidia{minor}") for minor in range(count)]


def is_without() -> bool:
    """Return whether device files of GPUs are missing."""
    return not all(path.exists() for path in gpus())


def remove_gpus(_: str) -> str:
    """Remove the device files of the GPUs."""
    if not gpus():
        raise Refused("the node has no GPU")
    for path in gpus():
        path.unlink(missing_ok=True)
    return f"{', '.join(map(str, gpus()))} are gone"


def restore_gpus() -> str:
    """Make the device files of the GPUs again."""
    for minor, path in enumerate(gpus()):
        if not path.exists():
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(NVIDIA_MAJOR, minor))
        path.chmod(0o666)
    # slurmd does not start without them.
    revive_daemons()
    return f"{', '.join(map(str, gpus()))} are there again"


# --- slow-network: what changes it runs in a container beside the node, which has the capability


def is_shaped() -> bool:
    """Return whether packets have to wait."""
    shown = ["tc", "qdisc", "show", "dev", WIRE]
    done = subprocess.run(shown, check=False, capture_output=True, text=True)
    return "qdisc tbf" in done.stdout


def shape(_: str) -> str:
    """Limit how fast the node sends and, where the kernel can, receives."""
    limit = ["tbf", "rate", NETWORK_RATE, "burst", "32kbit", "latency", "400ms"]
    run("tc", "qdisc", "replace", "dev", WIRE, "root", *limit)
    direct(["tc", "qdisc", "del", "dev", WIRE, "ingress"])
    direct(["ip", "link", "del", DETOUR])
    try:
        # What arrives takes a detour through a device that can delay it.
        run("ip", "link", "add", DETOUR, "type", "ifb")
        run("ip", "link", "set", DETOUR, "up")
        run("tc", "qdisc", "replace", "dev", DETOUR, "root", *limit)
        run("tc", "qdisc", "add", "dev", WIRE, "handle", "ffff:", "ingress")
        every = ["protocol", "all", "u32", "match", "u32", "0", "0"]
        detour = ["action", "mirred", "egress", "redirect", "dev", DETOUR]
        run("tc", "filter", "add", "dev", WIRE, "parent", "ffff:", *every, *detour)
    except Refused:
        return f"it sends {NETWORK_RATE}/s; this kernel cannot limit what it receives"
    return f"it sends and receives {NETWORK_RATE}/s"


def unshape() -> str:
    """Let packets pass at once."""
    direct(["tc", "qdisc", "del", "dev", WIRE, "ingress"])
    direct(["ip", "link", "del", DETOUR])
    run("tc", "qdisc", "del", "dev", WIRE, "root")
    return "the network has its own speed again"


def direct(argv: list[str]) -> int:
    """Run a command that may fail, and return its status."""
    return subprocess.run(argv, check=False, capture_output=True).returncode


ACTIVE: dict[str, Callable[[], bool]] = {
    DISK_FULL: is_full,
    SLOW_NETWORK: is_shaped,
    SLOW_DISK: is_slow,
    CLOCK: is_wrong,
    NO_GPU: is_without,
}
SET: dict[str, Callable[[str], str]] = {
    DISK_FULL: fill,
    SLOW_NETWORK: shape,
    SLOW_DISK: slow,
    CLOCK: wrong,
    NO_GPU: remove_gpus,
}
UNDO: dict[str, Callable[[], str]] = {
    DISK_FULL: empty,
    SLOW_NETWORK: unshape,
    SLOW_DISK: quicken,
    CLOCK: right,
    NO_GPU: restore_gpus,
}


def answer(verb: str, fault: str = "", folder: str = "") -> dict[str, object]:
    """Carry out one verb and return what to print."""
    details, changed = "", False
    if verb == "set":
        changed = not ACTIVE[fault]()
        # Again: a call that was killed may have done half of it.
        details = SET[fault](folder)
    elif verb == "undo" and ACTIVE[fault]():
        details, changed = UNDO[fault](), True
    active = [name for name, is_active in ACTIVE.items() if is_active()]
    return {"active": active, "details": details, "changed": changed}


def main() -> None:
    """Carry out the words of the command line; exit with a message if that is refused."""
    try:
        found = answer(*sys.argv[1:])
    except (Refused, OSError) as error:
        raise SystemExit(f"{error}") from None
    print(json.dumps(found))


if __name__ == "__main__":
    main()
