"""Records of builds, tests and conversions: JSON files, written atomically; and lock files."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO, Any

from sifline.machine.context import Context
from sifline.machine.lock_holders import waiting_for
from sifline.model import Workspace

VERSION = 2
LOOK_SECONDS = 0.5


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` to ``path`` as JSON, see ``write_bytes``."""
    text = json.dumps({"version": VERSION, **record}, indent=2, sort_keys=True)
    write_bytes(path, f"{text}\n".encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``: temporary name, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        drop(left)
    # Threads of one run may write the same record as well.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with claimed(temporary) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def unwritable(path: Path, error: OSError) -> str:
    """Return the message for a file that could not be written: why, and what helps."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    help_ = "make room, or choose another place" if full else "choose another place"
    return f"{path}: cannot be written: {error.strerror}; {help_}"


def sweep(folder: Path) -> None:
    """Remove the temporary files of killed runs from the record folders in ``folder``."""
    for left in folder.glob("*/.*.tmp"):
        drop(left)


def claimed(temporary: Path) -> IO[bytes]:
    """Create and open a temporary file; until it is closed, ``drop`` does not remove it."""
    while True:
        file = temporary.open("wb")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(file, temporary):
            return file
        file.close()  # removed before it was locked


def drop(temporary: Path, *, before: Callable[[], object] | None = None) -> None:
    """Remove a temporary file of a killed run, unless it is still ``claimed``.

    :param before: is called first, while the file is there and nobody else drops it.
    """
    with suppress(OSError), temporary.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(file, temporary):  # otherwise it became a record, and the name is another file's
            if before:
                before()
            temporary.unlink()


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def read(path: Path) -> dict[str, Any] | None:
    """Return the record at ``path``; None if there is none that this version can read.

    Records are caches, so a lost or foreign one is not an error: the facts are determined again.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("version") != VERSION:
        return None
    return record


def seconds(record: Mapping[str, Any] | None) -> float | None:
    """Return how long what a record is of took; None where it does not say."""
    took = (record or {}).get("seconds")
    return float(took) if isinstance(took, int | float) else None


def sync_folder(folder: Path) -> None:
    """Sync a rename in ``folder`` to the disk (fsync)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def build_lock(workspace: Workspace, name: str) -> Path:
    """Return the lock of an image's builds, which all checkouts of this user share."""
    return shared_lock(workspace, f"{name}.build.lock")


def shared_lock(workspace: Workspace, name: str) -> Path:
    """Return the lock file ``name``, which all checkouts of this user share."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    lock = Path(home) / "sifline" / "locks" / name
    if lock.is_absolute():
        with suppress(OSError):
            lock.parent.mkdir(parents=True, exist_ok=True)
            if os.access(lock if lock.exists() else lock.parent, os.W_OK):
                return lock
    # Without a writable home, at least the runs of this checkout take turns.
    return workspace.build / "locks" / lock.name


@contextmanager
def locked(path: Path, context: Context | None = None, *, what: str = "") -> Iterator[None]:
    """Hold the lock file ``path``, so that two runs do not work at the same time.

    :param context: reports which run holds it, and may interrupt the wait.
    :param what: what it is for, such as ``the build of hello-mpi``.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        told = ""
        while not lock.is_locked:
            if context:
                context.runner.check()
                text = waiting_for(path, what or path.stem, context.workspace.root)
                # After the one that holds it another one may get it first.
                if text != told:
                    context.wait(text)
                told = text
            with suppress(Timeout):
                lock.acquire(timeout=LOOK_SECONDS)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Try to hold the lock file ``path``; yield whether it succeeded."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    with suppress(Timeout):
        lock.acquire(timeout=0)
    try:
        yield lock.is_locked
    finally:
        lock.release()
