"""Removes names and versions of images from the registry of one node, and says who needs them.

Runs on the node as root, with Python 3.9's standard library only, beside the module ``registry``,
whose folders and lock it uses. Prints one JSON object, as that one does. A file is needed while
anything has it open: the kernel tells by a lease, and /proc names the process, by the file's inode
or by its digest in the path, since a container may see another path. Root in a container may see
nothing of that in /proc, so that alone would not do.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

if __name__ == "__main__":  # sent to a node: no package is around it
    import sifline_registry as registry  # type: ignore[import-not-found,unused-ignore]
else:
    from sifline.nodeside import registry

# A version's name as /proc shows it, also after it was removed.
OBJECT = re.compile(r"/([0-9a-f]{64})\.sif(?: \(deleted\))?\Z")
INODE = re.compile(r"^ino:\s*(\d+)$", re.MULTILINE)
# Files of images that a job's command or batch script names.
NAMED = re.compile(r"[A-Za-z0-9._+/-]*\.sif\b")
# Users that have no name here.
HIDDEN = "a process that /proc does not show"
UNTOLD = "perhaps one of {} processes that cannot be looked at"
SLURM_SECONDS = 30
# A batch script is read up to here.
LONGEST_SCRIPT = 1 << 20


def look(options: argparse.Namespace) -> dict[str, Any]:
    """Return the versions on the disk, which of them processes use, and abandoned uploads.

    ``current`` is the digest to which the name leads; "" if there is none, or a foreign file.
    ``recorded`` says whether the catalog has the image.
    """
    root = registry.registry(options.root)
    whole = registry.read_catalog(root)
    catalog = whole["images"]
    files = dict(versions(root))
    used = in_use(root, files.values())
    images: dict[str, Any] = {}
    for key in sorted({*catalog, *(key for key, _ in files)}):
        entry = entry_of(root, key)
        images[key] = {
            "current": target(entry) or "",
            "name": os.path.lexists(entry.visible),
            "recorded": key in catalog,
            "previous": [known["sha256"] for known in catalog.get(key, {}).get("previous", ())],
            "versions": [],
        }
    for (key, sha256), path in files.items():
        size = path.stat().st_size
        idle = idle_seconds(whole, key, sha256)
        found = {"sha256": sha256, "size": size, "users": used.get(sha256, []), "idle": idle}
        images[key]["versions"].append(found)
    return {"images": images, "uploads": [*abandoned(root)]}


def idle_seconds(catalog: dict[str, Any], key: str, sha256: str) -> float | None:
    """Return for how long another version has been in place; None if that is not known."""
    idle = None
    try:
        events = catalog["history"][key]
        for position, after in enumerate(events[1:]):
            if events[position]["sha256"] == sha256:
                idle = time.time() - datetime.fromisoformat(after["when"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None
    return idle


def jobs(options: argparse.Namespace) -> dict[str, Any]:
    """Return the jobs of Slurm that name SIF files; ``slurm`` is False where it is not installed.

    A job's command and its batch script are read, both as they were submitted.
    """
    del options
    try:
        listed = slurm("squeue", "--noheader", "--format=%A|%u|%T|%o")
    except FileNotFoundError:
        return {"slurm": False, "jobs": []}
    found: dict[str, Any] = {}
    for line in listed.splitlines():
        number, user, state, command = line.split("|", 3)
        if number in found:
            continue
        # A job of srun has no script, and one may end in this moment.
        script = ""
        with suppress(registry.RegistryError):
            script = slurm("scontrol", "write", "batch_script", number, "-")
        names = sorted(set(NAMED.findall(f"{command}\n{script[:LONGEST_SCRIPT]}")))
        found[number] = {"job": number, "user": user, "state": state, "names": names}
    return {"slurm": True, "jobs": [job for job in found.values() if job["names"]]}


def undeploy(options: argparse.Namespace) -> dict[str, Any]:
    """Remove the name that jobs use and its catalog entry; the files of its versions stay.

    ``removed`` says whether there was anything. A killed run is finished by the next.
    """
    root = registry.registry(options.root)
    entry = registry.Entry(root, options.category, options.name)
    meta = registry.meta_of(options)
    with registry.locked(root):
        catalog = registry.read_catalog(root)
        there = os.path.lexists(entry.visible)
        if there and target(entry) is None:
            raise registry.RegistryError(
                "foreign", f"{entry.visible} is not a link that a deployment made; it stays"
            )
        if there:
            entry.visible.unlink()
            registry.sync_folder(entry.visible.parent)
        known = catalog["images"].pop(entry.key, None)
        if known:
            event = {**known, **meta, "event": "undeployed"}
            registry.remember(catalog, entry.key, event, known)
            registry.write_catalog(root, catalog, options)
        registry.withdraw(entry, set())
    return {"removed": there or bool(known), "path": str(entry.visible)}


def prune(options: argparse.Namespace) -> dict[str, Any]:
    """Remove the versions and uploads of ``--which`` that nothing needs; the others are ``kept``.

    What is in use is looked up again, under the registry's lock.
    """
    root = registry.registry(options.root)
    wanted, uploads = asked(options.which)
    removed: list[Any] = []
    kept: list[Any] = []
    with registry.locked(root):
        catalog = registry.read_catalog(root)
        files = {at: path for at, path in versions(root) if at in wanted}
        used = in_use(root, files.values())
        for (key, sha256), path in sorted(files.items()):
            size = path.stat().st_size
            item: dict[str, Any] = {"image": key, "sha256": sha256, "size": size}
            why = needed(entry_of(root, key), sha256, used.get(sha256, []))
            if why:
                kept.append({**item, "why": why})
                continue
            forget(catalog, key, sha256)
            removed.append(item)
        if removed:
            # First, so that no entry names a file that is gone.
            registry.write_catalog(root, catalog, options)
        for item in removed:
            path = files[(item["image"], item["sha256"])]
            path.unlink()
            registry.sync_folder(path.parent)
            with suppress(OSError):  # others are in it
                path.parent.rmdir()
        for key in sorted({item["image"] for item in removed}):
            registry.offer(entry_of(root, key), catalog["images"].get(key), options)
        gone = [drop(root, item) for item in abandoned(root) if item["name"] in uploads]
    return {"removed": removed, "kept": kept, "uploads": gone}


def asked(text: str) -> tuple[set[tuple[str, str]], set[str]]:
    """Read ``--which``: versions as image and digest, and names of uploads."""
    try:
        found = json.loads(text)
        versions = {(str(key), str(sha256)) for key, sha256 in found["versions"]}
        return versions, {str(name) for name in found["uploads"]}
    except (ValueError, KeyError, TypeError):
        raise registry.RegistryError("bad-argument", "--which is not JSON of versions") from None


def entry_of(root: Path, key: str) -> Any:
    """Return the paths of an image that the folder of versions names."""
    category, _, name = key.partition("/")
    return registry.Entry(root, category, name)


def versions(root: Path) -> Iterator[tuple[tuple[str, str], Path]]:
    """Yield image and digest of each version on the disk, with its path; foreign files are not."""
    for category in registry.CATEGORIES:
        for path in sorted((root / ".registry" / "versions" / category).glob("*/*.sif")):
            named = registry.NAME.fullmatch(path.parent.name)
            if named and registry.SHA256.fullmatch(path.stem) and not path.is_symlink():
                yield (f"{category}/{path.parent.name}", path.stem), path


def target(entry: Any) -> str | None:
    """Return the digest to which an image's name leads; None if it is not a link of ours."""
    if not entry.visible.is_symlink():
        return None
    path = Path(os.path.normpath(entry.visible.parent / entry.visible.readlink()))
    ours = path.parent == entry.versions and registry.SHA256.fullmatch(path.stem)
    return path.stem if ours else None


def needed(entry: Any, sha256: str, users: list[str]) -> str:
    """Return why a version must stay; "" if it need not."""
    if target(entry) == sha256:
        return "it is in place"
    return f"{', '.join(users)} has it open" if users else ""


def forget(catalog: dict[str, Any], key: str, sha256: str) -> None:
    """Take a version out of the previous ones of an image."""
    known = catalog["images"].get(key)
    if known:
        known["previous"] = [
            version for version in known.get("previous", ()) if version["sha256"] != sha256
        ]


def in_use(root: Path, paths: Iterable[Path]) -> dict[str, list[str]]:
    """Return by digest what uses those files on this node; a file that nothing uses is not in it.

    The kernel says whether a file is open anywhere, /proc by whom. What neither can tell is used.
    """
    files = [*paths]
    hidden: list[str] = []
    users: dict[str, list[str]] = {}
    inodes = {str(path.stat().st_ino): path.stem for path in files}
    for sha256, who in (*process_uses(inodes, hidden), *loop_uses()):
        if sha256 and who not in users.setdefault(sha256, []):
            users[sha256].append(who)
    leases = gives_leases(root)
    for path in files:
        opened = is_open(path) if leases else None
        if opened is False:
            # Another file has that inode on another disk, or had that name before.
            users.pop(path.stem, None)
        elif opened or hidden:
            users.setdefault(path.stem, [HIDDEN if opened else UNTOLD.format(len(hidden))])
    return users


def gives_leases(root: Path) -> bool:
    """Return whether the file system gives a lease on a file that nobody else can have open."""
    try:
        with tempfile.TemporaryFile(dir=root / ".registry") as file:
            return lease(file.fileno())
    except OSError:
        return False


def is_open(path: Path) -> bool:
    """Return whether any process has the file open or mapped, in whatever container it runs."""
    # Whoever opens the file meanwhile waits until it is given back; the signal would end us.
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return not lease(descriptor)
    finally:
        os.close(descriptor)


def lease(descriptor: int) -> bool:
    """Take a write lease and give it back; False if another one has the file open (fcntl(2))."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        return False
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def process_uses(inodes: dict[str, str], hidden: list[str]) -> Iterator[tuple[str | None, str]]:
    """Yield what each process has open or mapped, if it is a version, and the process.

    :param hidden: gets the processes that may not be looked at, as in a container.
    """
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield from uses_of(process, inodes)
        except PermissionError:
            hidden.append(process.name)
        except OSError:  # it ended meanwhile, and needs nothing
            pass


def uses_of(process: Path, inodes: dict[str, str]) -> Iterator[tuple[str | None, str]]:
    """Yield the same of one process, by its folder in /proc.

    No file is looked at itself: those of a file system that hangs would hold this up.
    """
    who = f"process {process.name} ({(process / 'comm').read_text().strip()})"
    for opened in (process / "fd").iterdir():
        with suppress(FileNotFoundError):
            yield named(str(opened.readlink())), who
            # Without the device, which is another one in /proc for some file systems. Linux 5.14.
            number = INODE.search((process / "fdinfo" / opened.name).read_text())
            yield inodes.get(number[1] if number else ""), who
    for line in (process / "maps").read_text(errors="replace").splitlines():
        yield named(line), who
        yield inodes.get(line.split(maxsplit=5)[4]), who


def loop_uses() -> Iterator[tuple[str | None, str]]:
    """Yield the version that backs each loop device, and the device."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            yield named(backing.read_text().strip()), f"/dev/{backing.parts[3]}"


def named(path: str) -> str | None:
    """Return the digest in the name of a version, as /proc shows it; None in other names."""
    found = OBJECT.search(path)
    return found[1] if found else None


def abandoned(root: Path) -> Iterator[dict[str, Any]]:
    """Yield the uploads to which nobody writes any more."""
    for path in sorted((root / ".registry" / "uploads").glob("*.partial")):
        # Another sender may be renaming its finished file at this moment.
        with suppress(FileNotFoundError):
            found = path.lstat()
            idle = time.time() - found.st_mtime
            if registry.UPLOAD.fullmatch(path.name) and idle > registry.ABANDONED_SECONDS:
                yield {"name": path.name, "size": found.st_size}


def drop(root: Path, upload: dict[str, Any]) -> dict[str, Any]:
    """Remove an upload, unless its receiver still holds its lock; ``removed`` says which."""
    path = root / ".registry" / "uploads" / upload["name"]
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:  # its sender came back, and it was put in place
        return {**upload, "removed": False}
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return {**upload, "removed": False}
    finally:
        os.close(descriptor)
    return {**upload, "removed": True}


def slurm(*words: str) -> str:
    """Run a command of Slurm and return its output.

    :raises RegistryError: if it fails: then nobody knows what jobs need.
    """
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=SLURM_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise registry.RegistryError("slurm", f"{words[0]} gives no answer") from None
    if done.returncode:
        said = (done.stderr.strip() or "no reason given").splitlines()
        raise registry.RegistryError("slurm", f"{words[0]}: {said[-1]}")
    return done.stdout


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="removal", description=__doc__.splitlines()[0])
    verbs = top.add_subparsers(dest="verb", required=True)
    for work in (look, jobs, undeploy, prune):
        verb = verbs.add_parser(work.__name__)
        verb.set_defaults(work=work)
        verb.add_argument("--root", required=True)
        verb.add_argument("--protocol")
        verb.add_argument("--owner", default="root")
        verb.add_argument("--group", default="slurm")
        if work is undeploy:
            verb.add_argument("--category", required=True)
            verb.add_argument("--name", required=True)
            verb.add_argument("--meta", default="{}")
        if work is prune:
            verb.add_argument("--which", required=True)
    return top


def main(arguments: list[str]) -> int:
    """Run one verb and print its result; 1 where it fails."""
    os.umask(0o022)

    def carried_out() -> dict[str, Any]:
        options = parser().parse_args(arguments)
        answer: dict[str, Any] = options.work(options)
        return answer

    return int(registry.answered(carried_out))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
