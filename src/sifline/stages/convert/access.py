"""What users of a SIF miss: files that only root can read or run, and its working directory."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any

from sifline.engines.apptainer.program import Apptainer
from sifline.engines.apptainer.squashfs import Squashfs
from sifline.formats import sif
from sifline.machine.process import CommandFailed
from sifline.stages.convert.work import Work

NAMED = 3
_MOST_LINKS = 40
# A line of ``unsquashfs -lln``: kind, mode, size, path.
_LINE = re.compile(r"([-dl])(\S{9}) \d+/\d+ +(\d+) \S+ \S+ squashfs-root(/.*)?")
_ARROW = " -> "
# Files that distributions close to users on purpose.
_PATTERNS = (
    *("/etc/*shadow*", "/etc/*passwd*", "/etc/.pwd.lock", "/etc/sudoers*", "/etc/credstore*"),
    *("/etc/ssl/private*", "/etc/ssh/ssh_host_*", "/root/.bash*", "/root/.profile"),
    *("/root/.cache*", "/root/.gnupg*", "/root/.ssh*", "/root/.wget-hsts"),
    *("/usr/lib/dbus-1.0/*", "/usr/share/polkit-1/*", "/var/cache/*", "/var/log/*"),
    *("/var/lib/apt/*", "/var/lib/dpkg/*", "/var/lib/private*", "/var/lib/systemd/*"),
    "/var/spool/*",
)
_USUAL = re.compile("|".join(map(translate, _PATTERNS)))


@dataclass(kw_only=True)
class Closed:
    """Paths that only root can read or run, all folders, and the targets of symbolic links."""

    files: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)

    def real(self, path: str) -> str:
        """Return ``path`` with all symbolic links followed."""
        for _ in range(_MOST_LINKS):
            parts = path.split("/")
            above = ("/".join(parts[:end]) for end in range(2, len(parts) + 1))
            link = next((part for part in above if part in self.links), None)
            if link is None:
                break
            target = posixpath.join(posixpath.dirname(link), self.links[link])
            # os.path.normpath keeps two leading slashes.
            path = "/" + posixpath.normpath(target + path[len(link) :]).lstrip("/")
        return path


def warnings(work: Work, apptainer: Apptainer) -> Iterator[str]:
    """Yield warnings about what users of ``work.partial`` cannot read, run or start in."""
    file = sif.read(work.partial)
    listing = work.scratch / "listing" / "files"
    listing.parent.mkdir()
    offset = sif.system(file).offset
    try:
        Squashfs(apptainer).list_files(work.partial, offset, listing, purpose=str(work.scratch))
    except CommandFailed as error:
        cause = error.result.tail(1)
        yield f"warning: which files only root can read or run could not be checked: {cause}"
        return
    text = listing.read_text(encoding="utf-8", errors="surrogateescape")
    found, config = read(text.split("\n")), sif.configuration(file) or {}
    yield from told(found, config)
    yield from without_workdir(found, config)


def without_workdir(closed: Closed, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the warning about a working directory that is missing; nothing if it is there."""
    workdir = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/"))
    if closed.folders and closed.real(workdir) not in closed.folders:
        yield (
            f"warning: its working directory {workdir} is not among its files: Docker creates it"
            " at each start, Apptainer does not, and shell and test fail; create it in the"
            f" Dockerfile (RUN mkdir --parents {workdir}), or give shell --workdir"
        )


def told(closed: Closed, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the warning, with what the container starts first; nothing if all is readable."""
    hidden = set(closed.files)
    first = {closed.real(path): path for path in starts(config)}
    names = [f"{path} (it starts with that)" for real, path in first.items() if real in hidden]
    others = [path for path in closed.files if path not in first]
    names += others[: max(0, NAMED - len(names))]
    if names:
        more = ", …" if len(names) < len(closed.files) else ""
        count = len(closed.files)
        yield (
            f"warning: only root can read or run {count} file{'s' * (count > 1)} of it, and users"
            f" of a cluster are not root: {', '.join(names)}{more}; open them in the Dockerfile"
            " (chmod)"
        )


def starts(config: Mapping[str, Any]) -> list[str]:
    """Return the paths that the image's ENTRYPOINT and CMD name, or may name, in order."""
    words = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    workdir = config.get("WorkingDir") or "/"
    paths = [posixpath.join(workdir, word) for word in words if "/" in word]
    if words and "/" not in words[0]:
        env = dict(line.split("=", 1) for line in config.get("Env") or () if "=" in line)
        folders = [folder for folder in env.get("PATH", "").split(":") if folder]
        paths += [posixpath.join(folder, words[0]) for folder in folders]
    return [posixpath.normpath(path) for path in paths]


def read(lines: Iterable[str]) -> Closed:
    """Read an unsquashfs listing, in which each folder comes before its content."""
    closed, folders = Closed(), list[str]()
    for line in lines:
        match = _LINE.fullmatch(line)
        if not match:
            continue
        kind, mode, size, path = match[1], match[2], int(match[3]), match[4] or "/"
        if kind == "d":
            closed.folders.add(path)
        while folders and not path.startswith(folders[-1]):
            folders.pop()
        if kind == "l":
            # The size of a link is the length of its target.
            target = path.encode("utf-8", "surrogateescape")[-size:].decode("utf-8", "replace")
            closed.links[path[: -len(target + _ARROW)]] = target
        elif kind == "d" and not folders and mode[8] not in "xt" and not _USUAL.match(path):
            folders.append(f"{path.rstrip('/')}/")
        elif kind == "-" and (folders or _is_closed(mode)) and not _USUAL.match(path):
            closed.files.append(path)
    return closed


def _is_closed(mode: str) -> bool:
    """Return whether others can neither read nor run it, or cannot run what its owner can."""
    run = mode[8] in "xt"
    return not run and (mode[6] != "r" or mode[2] in "xs")
