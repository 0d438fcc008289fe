"""The changes that turn the tar of a container into the file system of a SIF.

In a container, the engine hides some files of the image behind empty ones of its own, and leaves
out all extended attributes except capabilities. ``look.sh`` reads the originals in the image
itself. Apptainer then adds files to what it unpacked: see
``internal/pkg/build/sources/base_environment.go`` of its source.
"""

from __future__ import annotations

import re
import stat
import tarfile
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path

from sifline.errors import SiflineError
from sifline.formats.layers import Declared, Tree
from sifline.formats.tar_stream import BLOCK, Tally, as_records, in_time, plain

SCRIPT = Path(__file__).with_name("look.sh")
OWN = ".singularity.d"
# Docker's daemon/initlayer/setup_unix.go: created in every container over the image's files.
SHADOWED = (
    *(".dockerenv", "dev", "dev/console", "dev/pts", "dev/shm", "etc", "etc/hostname"),
    *("etc/hosts", "etc/mtab", "etc/resolv.conf", "proc", "sys"),
)
# Folders that Apptainer, or Singularity, creates if they are missing.
_MADE = (
    *("dev", "etc", "home", "proc", "root", "sys", "tmp", "var", "var/tmp"),
    *("etc/hosts", "etc/resolv.conf", "apptainer", "singularity", "environment"),
    *(".exec", ".run", ".shell", ".test", OWN),
)
# Paths to read in the image: files that the engine hides, and files that may be added.
PATHS = tuple(sorted({*SHADOWED, *_MADE}))
# Apptainer empties these and gives them this mode, since it binds the host's over them.
EMPTIED, EMPTIED_MODE = ("etc/hosts", "etc/resolv.conf"), 0o644
# Namespaces of extended attributes in squashfs, except those that only root can see.
_KEPT_XATTRS = (b"user.", b"security.")
# Attributes with which a host labels its own files; Apptainer ignores them in layers, too.
_OF_HOSTS = re.compile(rb"security\.(selinux|ima|evm|apparmor|SMACK64.*)")
# Both the stream and look.sh return it.
_CAPABILITY = b"security.capability"
# The top folder if no layer mentions it.
_TOP = Declared(kind="d", mode=0o755, uid=0, gid=0)
_OCTAL = re.compile(rb"\\([0-7]{3})")


class Complicated(SiflineError):
    """Only Apptainer itself can convert the image; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Root:
    """The top folder, which the tar does not contain: ``mode`` without the file type."""

    mode: int
    uid: int
    gid: int
    xattrs: Mapping[bytes, bytes]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Changes to the tar stream: ``first`` is put before it, ``without`` is left out.

    ``xattrs`` are added to the entries of that name; ``tally`` counts ``first``. ``created`` is
    the time of added files, in seconds since 1970, and the latest time of any folder: the engine
    creates folders without an entry in a layer, at another time on each machine. ``linked`` is
    whether a device or FIFO has two names, of which GNU tar would make two, or a file of ``first``
    has another name, which would be a link to it.
    """

    root: Root
    created: int
    first: bytes
    without: frozenset[bytes]
    xattrs: Mapping[bytes, Mapping[bytes, bytes]]
    tally: Tally
    linked: bool


def layout(look: Path, skeleton: Path, *, created: int, declared: Tree | None) -> Layout:
    """Return the changes that make the stream equal to what Apptainer would have built.

    :param look: the folder that ``look.sh`` wrote, for ``PATHS``.
    :param declared: the entries of the layers; None if the engine keeps no headers.
    :param skeleton: the file system of Apptainer's SIF of an image without files.
    :param created: the time of what Apptainer adds, in seconds since 1970.
    :raises Complicated: if only Apptainer itself can convert the image.
    """
    xattrs = _attributes((look / "xattrs").read_bytes(), declared)
    tally, first = Tally(), bytearray()
    present = dict(_present(look / "entries.tar"))
    _refuse(present)
    for name, (info, content) in present.items():
        info.mtime = in_time(floor(info.mtime), created if info.isdir() else None)
        if name in EMPTIED and info.isreg():
            info.mode, info.mtime, content = EMPTIED_MODE, created, b""  # noqa: PLW2901
        first += _entry(info, content, xattrs.get(_bytes(name), {}), tally)
    for path in sorted(_below(skeleton)):
        name = str(path.relative_to(skeleton))
        if name not in PATHS and not name.startswith(f"{OWN}/"):
            raise Complicated(f"this Apptainer adds /{name}, which is not known here")
        if name not in present:
            _refuse_below(name, present)
            first += _entry(*_added(path, name, created), {}, tally)
    seen = {_bytes(name) for name in PATHS}
    for found in xattrs.values():
        found.pop(_CAPABILITY, None)
    return Layout(
        created=created,
        root=_root((look / "root").read_text(encoding="ascii"), xattrs.pop(b"", {}), declared),
        first=bytes(first),
        without=frozenset(seen),
        xattrs={name: found for name, found in xattrs.items() if found and name not in seen},
        tally=tally,
        linked=bool((look / "linked").read_bytes()),
    )


def _refuse(present: Mapping[str, tuple[tarfile.TarInfo, bytes]]) -> None:
    if OWN in present:
        raise Complicated(f"it holds /{OWN} of another SIF")
    for name in present:
        _refuse_below(name, present)


def _refuse_below(name: str, present: Mapping[str, tuple[tarfile.TarInfo, bytes]]) -> None:
    above = name.rpartition("/")[0]
    if above and above in present and not present[above][0].isdir():
        raise Complicated(f"/{above} is no folder")


def _below(folder: Path) -> Iterator[Path]:
    """Yield everything below ``folder``; links are not followed."""
    for path in folder.iterdir():
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _below(path)


def _present(archive: Path) -> Iterator[tuple[str, tuple[tarfile.TarInfo, bytes]]]:
    with tarfile.open(archive, errors="surrogateescape") as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            yield info.name.strip("/"), (info, file.read() if file else b"")


def _added(path: Path, name: str, created: int) -> tuple[tarfile.TarInfo, bytes]:
    """Return the file that Apptainer adds at ``path`` of the skeleton, owned by root."""
    found, info = path.lstat(), tarfile.TarInfo(name)
    info.mode, info.mtime, content = stat.S_IMODE(found.st_mode), created, b""
    if path.is_symlink():
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif path.is_dir():
        info.type = tarfile.DIRTYPE
    else:
        content = path.read_bytes()
    return info, content


def _entry(
    info: tarfile.TarInfo, content: bytes, xattrs: Mapping[bytes, bytes], tally: Tally
) -> bytes:
    """Return an entry of a tar with its content."""
    records = as_records(xattrs)
    info.size = len(content)
    info.uname = info.gname = ""
    info.pax_headers = {_text(key): _text(value) for key, value in records.items()}
    tally.add(_bytes(info.name.strip("/")), info.type)
    head = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return head + content + bytes(-len(content) % BLOCK)


def _root(told: str, xattrs: Mapping[bytes, bytes], declared: Tree | None) -> Root:
    mode, uid, gid = told.split()
    seen = Declared(kind="d", mode=stat.S_IMODE(int(mode, 16)), uid=int(uid), gid=int(gid))
    # Engines lose what a layer says about it, or keep what a build did and no layer says.
    found = seen if declared is None else declared.get(b"", _TOP)
    # Apptainer makes it writable for its owner, to add files.
    return Root(mode=found.mode | stat.S_IWUSR, uid=found.uid, gid=found.gid, xattrs=xattrs)


def _attributes(dump: bytes, declared: Tree | None) -> dict[bytes, dict[bytes, bytes]]:
    """Return the extended attributes of an image, by name, without those of the host.

    :raises Complicated: if it is unknown which of the attributes are the image's.
    """
    found = (
        _xattrs(dump)
        if declared is None
        else ((name, dict(entry.xattrs)) for name, entry in declared.items())
    )
    kept = {
        name: {key: value for key, value in of_name.items() if _is_kept(key)}
        for name, of_name in found
        if of_name
    }
    if declared is None and any(of_name.keys() - {_CAPABILITY} for of_name in kept.values()):
        raise Complicated("it has attributes, and the engine does not say which are the image's")
    return {name: of_name for name, of_name in kept.items() if of_name}


def _is_kept(key: bytes) -> bool:
    return key.startswith(_KEPT_XATTRS) and not _OF_HOSTS.fullmatch(key)


def _xattrs(dump: bytes) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """Parse the output of getfattr, by name: see getfattr(1), with values in hexadecimal."""
    for block in dump.split(b"\n\n"):
        head, *lines = block.strip(b"\n").split(b"\n")
        if not head.startswith(b"# file: "):
            continue
        pairs = (line.partition(b"=") for line in lines)
        found = {
            _unquoted(key): bytes.fromhex(value.decode("ascii").removeprefix("0x"))
            for key, _, value in pairs
        }
        yield plain(_unquoted(head.removeprefix(b"# file: "))), found


def _unquoted(text: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), text)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def options(layout: Layout) -> Sequence[str]:
    """Return sqfstar's options for mode, owner, time and attributes of the top folder."""
    root = layout.root
    words = [
        *("-root-mode", f"{root.mode:o}"),
        *("-root-uid", str(root.uid), "-root-gid", str(root.gid)),
        *("-root-time", str(layout.created)),
    ]
    for key, value in root.xattrs.items():
        # Not in hexadecimal: sqfstar 4.6.1 overflows a buffer from 25 bytes on.
        words += ["-p", f"/ x {_text(key)}=0s{b64encode(value).decode('ascii')}"]
    return words
