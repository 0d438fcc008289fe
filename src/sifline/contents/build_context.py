"""The build context of an image: its files, their digest, and a cache of both.

Reading 20,000 files takes a second, their stat a twentieth of that. So the digest of a file is
cached with its stat, and used while the stat is the same and old enough to exclude a change. If
unsure, a file is read again: a wrong cache costs time, but never gives a stale answer.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sifline.errors import UsageError
from sifline.formats.dockerignore import FILES, IgnoreRules
from sifline.machine import records

# The engine reads it even if .dockerignore excludes it.
DOCKERFILE = "Dockerfile"
# A file system's clock ticks every 4 ms (ext4, xfs) to 2 s (old ones): a file changed this
# recently may change again and keep its time stamp.
DOUBT_NS = 2_000_000_000
UNREADABLE = "unreadable"

State = list[int]
Rules = Sequence[str]
Known = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The cache of a build context: a hash of all file states, the digest, and each file."""

    listing: str
    looked: int
    newest: int
    digest: str
    files: Known | None = None

    @property
    def sound(self) -> bool:
        """Return whether the cache file had the right types; it may contain anything."""
        numbers = isinstance(self.looked, int) and isinstance(self.newest, int)
        texts = isinstance(self.listing, str) and isinstance(self.digest, str)
        return numbers and texts and isinstance(self.files, (dict, type(None)))

    @property
    def certain(self) -> bool:
        """Return whether no file can have changed after it was read without changing its state."""
        return self.newest < self.looked - DOUBT_NS


def digest(
    folder: Path,
    *,
    without: frozenset[str] = frozenset(),
    cache: Path | None = None,
    rules: Rules = FILES,
) -> str:
    """Return the SHA-256 of the build context in ``folder``.

    It covers relative names, file types, permission bits, content and link targets, but not owners
    and times. ``without`` names files that are described elsewhere; ``cache`` is the cache file,
    for a folder that is read often; ``rules`` are the names of .dockerignore files.
    """
    with _readable(folder):
        known = _recall(cache) if cache and not (folder / DOCKERFILE).is_symlink() else None
        if (
            known
            and known.certain
            and known.listing == _listing(folder, without, rules).hexdigest()
        ):
            return known.digest
        return _look(folder, without, cache, rules).digest


def entries(
    folder: Path,
    *,
    without: frozenset[str] = frozenset(),
    cache: Path | None = None,
    rules: Rules = FILES,
) -> dict[str, str]:
    """Return type, permission bits and digest or link target of each entry, by name."""
    with _readable(folder):
        found = _look(folder, without, cache, rules).files
    return {name: entry for name, (_, entry) in (found or {}).items()}


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the content of ``path``."""
    content = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(partial(file.read, 1 << 20), b""):
            content.update(block)
    return content.hexdigest()


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"the build context {folder} cannot be read: {error.filename}: {error.strerror};"
            " fix that, or leave it out with .dockerignore"
        ) from None


def _look(folder: Path, without: frozenset[str], cache: Path | None, rules: Rules) -> Memory:
    """Read the files that may have changed since they were cached, and update the cache."""
    before = _recall(cache, whole=True) if cache else None
    looked = time.time_ns()
    # The state first: a file that changes while it is read then differs from it.
    listing = _listing(folder, without, rules).hexdigest()
    found, files = dict(_walk(folder, rules)), dict[str, tuple[State, str]]()
    for name in sorted(_context(folder, found, without, rules)):
        status = found[name]
        state = _state(status)
        entry = _remembered(before, name, state) or _entry(folder, name, status)
        files[name] = (state, entry)
    total = hashlib.sha256()
    for name, (_, entry) in files.items():
        total.update(f"{name}\0{entry}\0".encode("utf-8", "surrogateescape"))
    newest = max((status.st_ctime_ns for status in found.values()), default=0)
    memory = Memory(
        listing=listing, looked=looked, newest=newest, digest=total.hexdigest(), files=files
    )
    new = before is None or not before.certain or before.listing != listing
    # Another user may be able to read what this one cannot.
    if cache and new and not any(entry.endswith(UNREADABLE) for _, entry in files.values()):
        _remember(cache, memory)
    return memory


def _context(
    folder: Path, found: Mapping[str, os.stat_result], without: frozenset[str], rules: Rules
) -> set[str]:
    """Return the names that .dockerignore does not exclude, and the folders above them."""
    ignored = IgnoreRules.read(folder, rules)
    kept = {
        name for name in found if name not in without and (name == DOCKERFILE or not ignored(name))
    }
    if ignored:
        kept |= {str(above) for name in kept for above in PurePosixPath(name).parents[:-1]}
    return kept


def _listing(folder: Path, without: frozenset[str], rules: Rules) -> Any:
    """Hash the names and the state of all files, in the order of the file system.

    Large contexts spend their time here, hence one flat loop: names relative to an open folder,
    one call for each file.
    """
    ignored, total, left = IgnoreRules.read(folder, rules), hashlib.sha256(), [("", str(folder))]
    total.update(repr((sorted(without), ignored.text)).encode())
    while left:
        prefix, path = left.pop()
        found: list[Any] = [prefix]
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:
            total.update(marshal.dumps([*found, UNREADABLE]))
            continue
        try:
            with os.scandir(descriptor) as content:
                for item in content:
                    name, status = item.name, item.stat(follow_symlinks=False)
                    found += (name, status.st_mode, status.st_size)
                    found += (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
                    if stat.S_ISDIR(status.st_mode) and not ignored.prunes(prefix + name):
                        left.append((f"{prefix}{name}/", f"{path}/{name}"))
        finally:
            os.close(descriptor)
        total.update(marshal.dumps(found))
    return total


def _walk(folder: Path, rules: Rules) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the relative name and the stat of everything that may be in the context."""
    ignored, left = IgnoreRules.read(folder, rules), [("", str(folder))]
    while left:
        prefix, path = left.pop()
        # The engine needs only files that instructions name, and reports unreadable ones itself.
        with suppress(PermissionError), os.scandir(path) as content:
            for item in content:
                status = item.stat(follow_symlinks=False)
                yield prefix + item.name, status
                if stat.S_ISDIR(status.st_mode) and not ignored.prunes(prefix + item.name):
                    left.append((f"{prefix}{item.name}/", item.path))


def _state(status: os.stat_result) -> State:
    return [
        status.st_mode,
        status.st_size,
        status.st_mtime_ns,
        # The change time cannot be set back by hand.
        status.st_ctime_ns,
        status.st_ino,
    ]


def _remembered(before: Memory | None, name: str, state: State) -> str:
    """Return the cached entry of a file; "" if the file may have changed since."""
    known = before.files.get(name) if before and before.files else None
    if before is None or not isinstance(known, list) or known[:1] != [state]:
        return ""
    if name == DOCKERFILE and stat.S_ISLNK(state[0]):
        return ""  # its target may have changed
    return known[1] if state[3] < before.looked - DOUBT_NS else ""


def _entry(folder: Path, name: str, status: os.stat_result) -> str:
    """Return the entry of a file: type, permission bits and digest, or the target of a link."""
    path, mode = folder / name, status.st_mode
    permissions = f"{stat.S_IMODE(mode):04o}"
    if stat.S_ISLNK(mode) and name == DOCKERFILE:
        return f"link {path.readlink()} {file_digest(path)}"
    if stat.S_ISLNK(mode):
        return f"link {path.readlink()}"
    readable = os.access(path, os.R_OK)
    if stat.S_ISDIR(mode):
        return f"folder {permissions}" if readable else f"folder {permissions} {UNREADABLE}"
    if stat.S_ISREG(mode):
        # The engine treats an unreadable file as empty.
        return f"file {permissions} {file_digest(path) if readable else UNREADABLE}"
    return "other"


def _recall(cache: Path, *, whole: bool = False) -> Memory | None:
    """Read the cache: only the first line, or the files as well."""
    try:
        with cache.open(encoding="utf-8", errors="surrogateescape") as file:
            head = json.loads(file.readline())
            files = json.loads(file.readline()) if whole else None
        memory = Memory(**head, files=files)
        return memory if memory.sound else None
    except (OSError, ValueError, TypeError):
        return None


def _remember(cache: Path, found: Memory) -> None:
    head = {key: value for key, value in vars(found).items() if key != "files"}
    text = f"{json.dumps(head)}\n{json.dumps(found.files)}\n"
    with suppress(OSError):  # without a cache it only takes longer
        records.write_bytes(cache, text.encode("utf-8", "surrogateescape"))
