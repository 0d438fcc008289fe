"""Which architectures programs may have to run on this machine, by itself or by an emulator.

The kernel is asked with a program of one segment: /proc/sys/fs/binfmt_misc, which lists emulators,
is not there in containers. Format of programs: elf(5).
"""

from __future__ import annotations

import errno
import struct
from pathlib import Path

from sifline.errors import MissingError, StepFailed
from sifline.machine.process import Runner

# By docker's name of an architecture: number in ELF, bits, and order of bytes.
_MACHINES = {
    "386": (3, 32, "<"),
    "amd64": (62, 64, "<"),
    "arm": (40, 32, "<"),
    "arm64": (183, 64, "<"),
    "ppc64le": (21, 64, "<"),
    "riscv64": (243, 64, "<"),
    "s390x": (22, 64, ">"),
}
_ADDRESS, _PAGE, _EXECUTABLE, _LOADED, _READ_AND_RUN = 0x10000, 0x1000, 2, 1, 5
# An emulator that does not end has started.
SECONDS = 10


def runs(architecture: str, folder: Path, runner: Runner) -> bool:
    """Return whether programs of ``architecture`` start here; True if that is unknown.

    :param folder: where a program is written for that.
    """
    if architecture not in _MACHINES:
        return True
    path = folder / f"program.{architecture}"
    path.write_bytes(_program(*_MACHINES[architecture]))
    path.chmod(0o755)
    try:
        runner.run([str(path)], check=False, cwd=folder, timeout=SECONDS)
    except MissingError:  # programs in that folder may not be run
        return True
    except StepFailed as error:
        return getattr(error.__context__, "errno", None) != errno.ENOEXEC
    finally:
        path.unlink()
    return True


def _program(machine: int, bits: int, order: str) -> bytes:
    """Return a program without instructions: it starts, and fails at once."""
    wide, word = bits == 64, "Q" if bits == 64 else "I"  # noqa: PLR2004
    head, part = (64, 56) if wide else (52, 32)
    size = head + part + 64
    identity = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    where = (_ADDRESS + head + part, head, 0)
    header = struct.pack(
        f"{order}HHI{3 * word}IHHHHHH",
        *(_EXECUTABLE, machine, 1, *where, 0, head, part, 1, 0, 0, 0),
    )
    places = (0, _ADDRESS, _ADDRESS, size, size)
    segment = (
        struct.pack(f"{order}II6Q", _LOADED, _READ_AND_RUN, *places, _PAGE)
        if wide
        else struct.pack(f"{order}8I", _LOADED, *places, _READ_AND_RUN, _PAGE)
    )
    return identity + header + segment + bytes(64)
