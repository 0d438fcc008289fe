"""The SIF registry of one node: lists its images, and installs new files.

Runs on the node itself, as root, with Python 3.9's standard library only. It is one module,
whatever its length, because its source is sent to ``python3 -`` and can import nothing else.
Prints one JSON object; a failure is ``{"error", "message"}`` and status 1. A copy is installed on
nodes whose registry has a group of deployers: sudo lets them run it, held to what ``fixed`` says.
Layout below the root:

    <category>/<name>.sif                              what jobs use: a link to a version
    .registry/versions/<category>/<name>/<sha256>.sif  the files, never changed once here
    .registry/uploads/                                 files on their way in, root only
    .registry/catalog.json                             what is in place, who put it there
    modules/<name>/<version>                           module files, and what they put into PATH:
    .registry/commands/<category>/<name>/<version>/    links to the launcher
    .registry/turns.json                               whose turn it is to switch which image
    .registry/lock                                     held while any of these change

A new version is a new file, and the link is replaced by rename, so a running job keeps the file
that it opened. ``stage`` verifies a version, and jobs see nothing of it; ``switch`` makes it the
one that they use. Whoever deploys an image has a lease of it on the controller, whose number only
grows: a node that has seen a higher one refuses a lower one, so nobody switches after their lease.

Every step is synced before the next one begins, and each can be repeated: a killed run leaves
an upload, a version without a link, or a link without an entry; the next run continues from there.
"""

from __future__ import annotations

import argparse
import fcntl
import grp
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import stat
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION = 1
# Raised where verbs or options change, so that an installed copy of another release says so.
PROTOCOL = 2
# Where copies of this module and its callers are installed.
TOOLS = "/usr/local/libexec/sifline"
CATEGORIES = ("ml-frameworks", "custom-images", "base-images")
# What starts a command in an image; provisioning installs it.
LAUNCHER = f"{TOOLS}/launch"
# Below the root; provisioning makes them, and the Ansible roles get this list.
FOLDERS = (*CATEGORIES, ".registry")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
SHA256 = re.compile(r"[0-9a-f]{64}")
TOKEN = re.compile(r"[0-9a-f]{1,32}")
MODULE = re.compile(rf"({NAME.pattern})/({NAME.pattern})")

# An upload, and what rsync's client asks of the receiver of one.
UPLOAD = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}\.sif\.[0-9a-f]{64}\.[0-9a-f]{1,32}\.partial"
)
RECEIVED = re.compile(
    r"--server|-v*e\d*\.[A-Za-z]+|--inplace|--timeout=\d{1,4}|--log-format=X|--no-inc-recursive|\."
)

# An upload without writes for so long was abandoned: a transfer without progress ends after two
# minutes.
ABANDONED_SECONDS = 15 * 60
# The right to switch an image ends so long after the last sign of life of who has it.
LEASE_SECONDS = 30
NOBODY: dict[str, Any] = {"number": 0, "holder": "", "who": "nobody", "since": "", "until": 0}
LOCK_SECONDS = 60
# Earlier versions that are kept, unless the caller says otherwise.
KEPT, KEPT_MOST = 2, 100
# Space that must remain free after a transfer, for logs and jobs.
RESERVE = 64 << 20
# What a deployment tells of an image, for the catalog; each a text of so many characters at most.
LONGEST = 2000
KNOWN = (
    *("when", "who", "image_digest", "fingerprint", "commit", "tests"),
    *("module", "run", "signed", "event", "override"),
)
# The last events of each image that the catalog keeps, also of versions whose file is gone.
EVENTS = 50
# What may differ from an earlier deployment of the same file.
TOLD = ("tests", "module", "run", "override")
BLOCK = 1 << 20
MODE = 0o644


class RegistryError(Exception):
    """An error that is printed as JSON; ``kind`` is one word for programs."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Entry:
    """The paths of one image in one registry."""

    def __init__(self, root: Path, category: str, name: str) -> None:
        if category not in CATEGORIES:
            raise RegistryError(
                "bad-argument", f"category {category!r} is not one of {', '.join(CATEGORIES)}"
            )
        if not NAME.fullmatch(name):
            raise RegistryError(
                "bad-argument", f"name {name!r} may hold letters, digits and . _ + - only"
            )
        self.root = root
        self.key = f"{category}/{name}"
        self.visible = root / category / f"{name}.sif"
        self.uploads = root / ".registry" / "uploads"
        self.versions = root / ".registry" / "versions" / category / name
        self.modules = root / "modules"
        self.commands = root / ".registry" / "commands" / category / name
        self.upload_prefix = f"{category}.{name}.sif."

    def upload(self, sha256: str, token: str) -> Path:
        """Return the path to which the sender with this ``token`` writes this digest's file."""
        return self.uploads / f"{self.upload_prefix}{sha256}.{token}.partial"

    def version(self, sha256: str) -> Path:
        """Return the path of the file with this digest."""
        return self.versions / f"{sha256}.sif"


def status(options: argparse.Namespace) -> dict[str, Any]:
    """Return which version of an image is in place, and prepare for an upload.

    ``--look`` makes no folder and removes nothing.

    A file with the size, inode, and times of modification and change in the catalog was not
    written to since it was verified; any other is read in full for its digest. ``settled`` means
    that nothing is left to do for the digest in place.
    """
    root = registry(options.root)
    entry = Entry(root, options.category, options.name)
    if options.look == "no":
        make_folder(entry.uploads, 0o700, options)
        # Whatever became of it: what lies there is root's alone until it is verified.
        os.chown(entry.uploads, *owner(options))
        entry.uploads.chmod(0o700)
        with locked(root):
            mend_catalog(root, options)
            remove_leftovers(entry, options)
    recorded = read_catalog(root)["images"].get(entry.key)
    current, read = current_digest(entry, recorded)
    version = entry.version(options.sha256)
    if entry.visible.exists() and version.exists() and entry.visible.samefile(version):
        held = current == options.sha256
    else:
        held, read_too = holds(version, options.sha256, recorded)
        read = read or read_too
    upload = entry.upload(options.sha256, options.token)
    return {
        "current": current,
        "settled": bool(
            recorded
            and recorded["sha256"] == current
            and same_file(entry.visible, recorded)
            and has_owner_and_mode(entry.visible, options)
        ),
        "held": held,
        "read": read,
        "upload": str(upload),
        "uploaded": upload.stat().st_size if upload.exists() else 0,
        "free": free_bytes(root),
        "path": str(entry.visible),
        "told": {key: str((recorded or {}).get(key, "")) for key in TOLD},
        "offered": is_offered(entry, recorded),
        "when": str((recorded or {}).get("when", "")),
        "foreign": foreign(entry),
        "fence": read_turns(root)["fences"].get(entry.key, 0),
    }


def ready(options: argparse.Namespace) -> dict[str, Any]:
    """Check that the registry exists; neither catalog nor images are checked."""
    root = registry(options.root)
    return {"free": free_bytes(root)}


def lease(options: argparse.Namespace) -> dict[str, Any]:
    """Give out, or renew, the right to switch an image on all nodes: the controller is asked.

    Each new lease has a higher number than all before it, and than ``--above``. A lease that ran
    out can be renewed as long as nobody took another one.
    """
    root = registry(options.root)
    entry, now = Entry(root, options.category, options.name), time.time()
    with locked(root):
        turns = read_turns(root)
        held = {**NOBODY, **turns["leases"].get(entry.key, {})}
        mine = held["holder"] == options.token
        if options.number and (held["number"] != options.number or not mine):
            raise RegistryError("lease-lost", f"{held['who']} deploys {entry.key} meanwhile")
        if not mine and held["until"] > now:
            left = f"its lease ends in {held['until'] - now:.0f} s"
            since = f"{held['who']} deploys {entry.key} since {held['since']}"
            raise RegistryError("leased", f"{since}; {left} if it was killed")
        turns["leases"][entry.key] = {
            "number": options.number or max(held["number"], options.above) + 1,
            "holder": options.token,
            "who": meta_of(options).get("who", "somebody"),
            "since": held["since"] if options.number else iso(now),
            "until": now + LEASE_SECONDS,
        }
        write_turns(root, turns, options)
    return {"number": turns["leases"][entry.key]["number"], "now": iso(now)}


def release(options: argparse.Namespace) -> dict[str, Any]:
    """End a lease, if it is still the caller's."""
    root = registry(options.root)
    entry = Entry(root, options.category, options.name)
    with locked(root):
        turns = read_turns(root)
        held = turns["leases"].get(entry.key)
        if held and (held["number"], held["holder"]) == (options.number, options.token):
            held["until"] = 0
            write_turns(root, turns, options)
    return {}


def iso(seconds: float) -> str:
    """Return a time, in seconds since the epoch, as text in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def read_turns(root: Path) -> dict[str, dict[str, Any]]:
    """Return leases, and the highest number that this node has seen (fences), by image."""
    try:
        found = json.loads((root / ".registry" / "turns.json").read_text(encoding="utf-8"))
        leases = {str(key): dict(held) for key, held in found["leases"].items()}
        return {"leases": leases, "fences": {key: int(n) for key, n in found["fences"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"leases": {}, "fences": {}}


def write_turns(root: Path, turns: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    """Replace the file of leases and fences atomically."""
    write(root / ".registry" / "turns.json", json.dumps(turns, sort_keys=True) + "\n", options)


def pass_fence(entry: Entry, options: argparse.Namespace) -> None:
    """Refuse a lease with a lower number than one that was seen here; the lock must be held.

    Without a number, as for a node that catches up by itself, there is nothing to check.
    """
    turns = read_turns(entry.root)
    seen = turns["fences"].get(entry.key, 0)
    if options.number and options.number < seen:
        raise RegistryError("lease-lost", f"somebody else deploys {entry.key} by now")
    if options.number > seen:
        turns["fences"][entry.key] = options.number
        write_turns(entry.root, turns, options)


def stage(options: argparse.Namespace) -> dict[str, Any]:
    """Verify an uploaded SIF, or a version that is here, and keep it; jobs see nothing of it yet.

    Return what ``switch`` is to be told of its file.
    """
    root = registry(options.root)
    entry = Entry(root, options.category, options.name)
    upload = entry.upload(options.sha256, options.token)
    version = entry.version(options.sha256)
    with locked(root):
        pass_fence(entry, options)
        refuse_foreign(entry, options)
    if upload.exists():
        with unwritten(upload):
            settle(upload, options)  # without the registry's lock: it reads the whole file
            with locked(root):
                keep_upload(entry, upload, version, options)
    elif not version.exists():
        raise RegistryError("no-upload", f"neither {upload} nor {version} exists")
    elif not is_settled(entry, version, options):
        settle(version, options)
    return {"staged": ",".join(map(str, fingerprint(version.stat())))}


def is_settled(entry: Entry, version: Path, options: argparse.Namespace) -> bool:
    """Return whether a version was verified, and not written to since."""
    recorded = read_catalog(entry.root)["images"].get(entry.key) or {}
    known = [recorded, *recorded.get("previous", ())]
    return has_owner_and_mode(version, options) and any(
        each.get("sha256") == options.sha256 and same_file(version, each) for each in known
    )


def keep_upload(entry: Entry, upload: Path, version: Path, options: argparse.Namespace) -> None:
    """Make a version of a verified upload; the lock must be held."""
    make_folder(entry.versions, 0o755, options)
    upload.replace(version)
    sync_folder(entry.versions)
    sync_folder(entry.uploads)


def switch(options: argparse.Namespace) -> dict[str, Any]:
    """Make a staged version the one that jobs use, and write it into the catalog."""
    root = registry(options.root)
    entry = Entry(root, options.category, options.name)
    meta = meta_of(options)
    version = entry.version(options.sha256)
    with locked(root):
        pass_fence(entry, options)
        refuse_foreign(entry, options)
        if not version.exists() or options.staged != fingerprint(version.stat()):
            raise RegistryError("changed", f"{version} was changed since it was verified")
        return put(entry, version, meta, options)


def put(
    entry: Entry, version: Path, meta: dict[str, str], options: argparse.Namespace
) -> dict[str, Any]:
    """Point jobs to a verified version, and write it down; the lock must be held."""
    point(entry, version)
    recorded = record(entry, options.sha256, meta, options)
    module = offer(entry, recorded, options)
    remove_leftovers(entry, options)
    return {
        "path": str(entry.visible),
        "sha256": options.sha256,
        "file": str(version),
        "module": module,
        "surplus": surplus(entry, recorded),
    }


def foreign(entry: Entry) -> str:
    """Return what stands in an image's place and is not ours: "file", "folder", or ""."""
    place = entry.visible
    if not os.path.lexists(place):
        return ""
    if place.is_symlink():
        target = os.path.normpath(place.parent / place.readlink())
        return "" if target.startswith(f"{entry.versions}{os.sep}") else "file"
    return "folder" if place.is_dir() else "file"


def refuse_foreign(entry: Entry, options: argparse.Namespace) -> None:
    """Refuse to replace what somebody else put into an image's place, unless that is asked for."""
    found = foreign(entry)
    if found == "folder":
        raise RegistryError("foreign", f"{entry.visible} is a folder; move it away")
    if found and options.foreign == "no":
        raise RegistryError(
            "foreign", f"{entry.visible} is not sifline's; to replace it, add --foreign"
        )


def install(options: argparse.Namespace) -> dict[str, Any]:
    """Verify an uploaded SIF, or an earlier version, and make it the one that jobs use."""
    root = registry(options.root)
    entry = Entry(root, options.category, options.name)
    meta = meta_of(options)
    upload = entry.upload(options.sha256, options.token)
    version = entry.version(options.sha256)
    source = upload if upload.exists() else version
    if not source.exists():
        raise RegistryError("no-upload", f"neither {upload} nor {version} exists")
    with unwritten(source) if source is upload else nullcontext():
        settle(source, options)  # without the registry's lock: it reads the whole file
        with locked(root):
            there = read_catalog(root)["images"].get(entry.key)
            if options.later == "yes" and not is_later(meta, there):
                raise RegistryError("older", f"{entry.key} was deployed here later")
            if source is upload:
                keep_upload(entry, upload, version, options)
            return put(entry, version, meta, options)


@contextmanager
def unwritten(path: Path) -> Iterator[None]:
    """Hold the lock that the receiver of deployers holds while it writes to an upload."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RegistryError("busy", f"{path.name} is being sent") from None
        yield
    finally:
        os.close(descriptor)


def is_later(meta: dict[str, Any], there: dict[str, Any] | None) -> bool:
    """Return whether an image was deployed later than the one ``there``, if there is one.

    Times are ISO 8601 in UTC: texts in their order.
    """
    return not there or meta.get("when", "") > str(there.get("when", ""))


def meta_of(options: argparse.Namespace) -> dict[str, str]:
    """Return what the catalog is to keep about an image: texts by name."""
    try:
        meta = json.loads(options.meta)
    except ValueError:
        meta = None
    if not isinstance(meta, dict) or not all(
        key in KNOWN and isinstance(text, str) and len(text) <= LONGEST and text.isprintable()
        for key, text in meta.items()
    ):
        raise RegistryError("bad-argument", f"--meta is not a JSON object of {', '.join(KNOWN)}")
    return meta


def receiving(root: str, arguments: list[str]) -> list[str]:
    """Return rsync's command line that takes one upload, and lock that upload.

    Of what the client's rsync asks for, only what sends the content of one file is accepted:
    no folders, links, modes, owners, times or deletions. The lock lasts as long as rsync.
    """
    *flags, name = arguments or [""]
    # Not in place, rsync would leave files under other names, which nobody removes.
    if not (
        "--inplace" in flags and UPLOAD.fullmatch(name) and all(map(RECEIVED.fullmatch, flags))
    ):
        raise RegistryError("bad-argument", f"this receives one upload, and not: {arguments}")
    os.chdir(registry(root) / ".registry" / "uploads")
    os.umask(0o077)
    opening = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(name, opening, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RegistryError("busy", f"{name} is being sent, or put in place") from None
    found = os.fstat(descriptor)
    # It may have been put in place since it was opened.
    if not stat.S_ISREG(found.st_mode) or not os.path.samestat(found, os.lstat(name)):
        raise RegistryError("changed", f"{name} was put in place meanwhile")
    os.set_inheritable(descriptor, True)
    return ["rsync", *arguments]


def listing(options: argparse.Namespace) -> dict[str, Any]:
    """Return the catalog and the actual state of each entry; ``--read=yes`` reads all files."""
    root = registry(options.root)
    catalog = read_catalog(root)
    images = {}
    for key, recorded in sorted(catalog["images"].items()):
        category, _, name = key.partition("/")
        entry = Entry(root, category, name)
        current, _ = current_digest(entry, {} if options.read == "yes" else recorded)
        images[key] = {**recorded, "found": current, "path": str(entry.visible)}
    unknown = [
        str(path)
        for category in CATEGORIES
        for path in sorted((root / category).glob("*.sif"))
        if f"{category}/{path.name[: -len('.sif')]}" not in images
    ]
    history = catalog.get("history", {})
    return {"images": images, "history": history, "unknown": unknown, "free": free_bytes(root)}


def verify(options: argparse.Namespace) -> dict[str, Any]:
    """Read one version in full; ``held`` says whether it is here with the right digest."""
    root = registry(options.root)
    entry = Entry(root, options.category, options.name)
    version = entry.version(options.sha256)
    there = version.is_file()
    held = there and digest(version) == options.sha256
    fence = read_turns(root)["fences"].get(entry.key, 0)
    return {"path": str(version), "there": there, "held": held, "fence": fence}


def registry(root: str) -> Path:
    """Return the root as a path; the folders that provisioning makes must exist."""
    path = Path(root)
    if not path.is_absolute() or ".." in path.parts:
        raise RegistryError("bad-argument", f"root {root!r} is not an absolute path")
    missing = [name for name in FOLDERS if not (path / name).is_dir()]
    if missing:
        raise RegistryError("no-registry", f"{path} has no {', '.join(missing)}")
    return path


def current_digest(entry: Entry, recorded: dict[str, Any] | None) -> tuple[str | None, bool]:
    """Return the digest of the SIF in place, or None, and whether the file was read for it."""
    if not entry.visible.is_file():
        return None, False
    if recorded and same_file(entry.visible, recorded):
        return str(recorded["sha256"]), False
    return digest(entry.visible), True


def holds(path: Path, sha256: str, recorded: dict[str, Any] | None) -> tuple[bool, bool]:
    """Return whether ``path`` has this digest, and whether the file was read for it."""
    if not path.is_file():
        return False, False
    for known in (recorded or {}).get("previous", ()):
        if known["sha256"] == sha256 and same_file(path, known):
            return True, False
    return digest(path) == sha256, True


def same_file(path: Path, recorded: dict[str, Any]) -> bool:
    """Return whether the file was not written to since its digest was computed."""
    try:
        found = path.stat()
    except OSError:
        return False
    return fingerprint(found) == recorded.get("file")


def fingerprint(found: os.stat_result) -> list[int]:
    """Return fields of stat(2) that change with each write, even if the times are set back."""
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def has_owner_and_mode(path: Path, options: argparse.Namespace) -> bool:
    """Return whether the file is readable by all and writable only by its owner."""
    found = path.stat()
    return (found.st_uid, found.st_gid) == owner(options) and found.st_mode & 0o7777 == MODE


def digest(path: Path) -> str:
    """Return the SHA-256 of the file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return digest_of(file)


def digest_of(file: Any) -> str:
    """Return the SHA-256 of an open file."""
    found = hashlib.sha256()
    while block := file.read(BLOCK):
        found.update(block)
    return found.hexdigest()


def settle(path: Path, options: argparse.Namespace) -> None:
    """Set owner and mode, verify the digest, and sync the file to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RegistryError("bad-argument", f"{path} is not a file")
        os.fchown(descriptor, *owner(options))
        os.fchmod(descriptor, MODE)
        found = digest_of(file)
        os.fsync(descriptor)
    if found != options.sha256:
        if path.name.endswith(".partial"):
            path.unlink()
        raise RegistryError(
            "digest-mismatch", f"{path.name} has the SHA-256 {found}, not {options.sha256}"
        )


def point(entry: Entry, version: Path) -> None:
    """Point the link that jobs use to ``version``, atomically."""
    if not version.is_file():
        raise RegistryError("changed", f"{version} was removed meanwhile")
    # A relative link survives a registry that is mounted elsewhere on another node.
    target = os.path.relpath(version, entry.visible.parent)
    new = entry.visible.with_name(f".{entry.visible.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(entry.visible)
    sync_folder(entry.visible.parent)


def record(
    entry: Entry, sha256: str, meta: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Write the catalog entry, and return it."""
    catalog = read_catalog(entry.root)
    before = catalog["images"].get(entry.key)
    found = entry.visible.stat()
    # A version that comes back has what is known of it, but for what is said anew.
    past = versions_of(before)
    known = next((each for each in past if each["sha256"] == sha256), {})
    new = {
        **{key: known[key] for key in KNOWN if key in known and key != "event"},
        **meta,
        "name": entry.visible.name[: -len(".sif")],
        "category": entry.visible.parent.name,
        "sha256": sha256,
        "size": found.st_size,
        "path": str(entry.visible),
        "file": fingerprint(found),
    }
    if before and before["sha256"] == sha256 and before.get("when"):
        # It was deployed then, and jobs that began since use it; new are its tests alone.
        new.update(when=before["when"], who=before.get("who", ""), tests_by=meta.get("who", ""))
    new["previous"] = [
        known
        for known in past
        if known["sha256"] != sha256 and entry.version(known["sha256"]).is_file()
    ][: options.keep]
    catalog["images"][entry.key] = new
    history = catalog.get("history")
    begun = isinstance(history, dict) and isinstance(history.get(entry.key), list)
    if not (begun and before and before["sha256"] == sha256 and "event" not in meta):
        remember(catalog, entry.key, new, before)
    write_catalog(entry.root, catalog, options)
    return new


def versions_of(entry: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return what a catalog entry says of the version in place, and of those before it."""
    return [without_previous(entry), *entry.get("previous", ())] if entry else []


def surplus(entry: Entry, recorded: dict[str, Any]) -> bool:
    """Return whether there are versions beyond those that are kept; ``removal`` removes them.

    It asks first, of all nodes, what processes have open and what jobs name.
    """
    kept = {known["sha256"] for known in versions_of(recorded)}
    return any(path.name[: -len(".sif")] not in kept for path in entry.versions.glob("*.sif"))


def remember(
    catalog: dict[str, Any], key: str, new: dict[str, Any], before: dict[str, Any] | None
) -> None:
    """Add what happened to an image to its history in the catalog, which is not written here.

    A catalog of an earlier release has none: its current and previous versions begin one.
    """
    if not isinstance(catalog.get("history"), dict):
        catalog["history"] = {}
    events = catalog["history"].get(key)
    if not isinstance(events, list):
        known = [*reversed((before or {}).get("previous", ())), *([before] if before else [])]
        events = [event_of(version) for version in known]
    catalog["history"][key] = [*events, event_of(new)][-EVENTS:]


def event_of(version: dict[str, Any]) -> dict[str, Any]:
    """Return the event that a catalog entry, or one of its previous versions, came with."""
    kept = {name: version[name] for name in (*KNOWN, "sha256", "size") if name in version}
    return {"event": "deployed", **kept}


def offer(entry: Entry, recorded: dict[str, Any] | None, options: argparse.Namespace) -> str:
    """Make the module files of an image and what they need; remove those of versions that went.

    Return why there is no module of the version in place, or "". The files say which image they
    are of: another image's, and those of people, are left alone.
    """
    versions = versions_of(recorded)
    found = [MODULE.fullmatch(str(known.get("module", ""))) for known in versions]
    wanted = {(match[1], match[2]) for match in found if match}
    withdraw(entry, wanted)
    if not wanted:
        return ""
    if not os.access(LAUNCHER, os.X_OK):
        return f"{LAUNCHER} is missing"
    faults = {module: make_module(entry, *module, options) for module in sorted(wanted)}
    first = found[0]
    if not first:
        return ""
    default = entry.modules / first[1] / ".version"
    if not os.path.lexists(default) or is_module_of(default, entry):
        write(default, default_text(entry, first[2]), options)
    return faults[first[1], first[2]]


def withdraw(entry: Entry, wanted: set[tuple[str, str]]) -> None:
    """Remove the modules of an image, but for those (name, version) that are ``wanted``."""
    for link in entry.commands.glob("*/*"):
        name, version = link.name, link.parent.name
        if link.is_symlink() and (name, version) not in wanted:
            file = entry.modules / name / version
            if is_module_of(file, entry):
                file.unlink()
                remove_default(file, entry)
            link.unlink()
            with suppress(OSError):
                link.parent.rmdir()


def make_module(entry: Entry, name: str, version: str, options: argparse.Namespace) -> str:
    """Make one module; return why that cannot be, or ""."""
    link, file = entry.commands / version / name, entry.modules / name / version
    if os.path.lexists(file) and not is_module_of(file, entry):
        return f"{file} is not of this image"
    make_folder(link.parent, 0o755, options)
    make_folder(file.parent, 0o755, options)
    for left in file.parent.glob(".*.new"):
        left.unlink()
    if not link.is_symlink():
        link.symlink_to(LAUNCHER)
    write(file, module_text(entry, name, version), options)
    return ""


def is_offered(entry: Entry, recorded: dict[str, Any] | None) -> bool:
    """Return whether the image in place has its module file, if it has a module."""
    match = MODULE.fullmatch(str((recorded or {}).get("module", "")))
    return not match or is_module_of(entry.modules / match[1] / match[2], entry)


def module_text(entry: Entry, name: str, version: str) -> str:
    """Return a module file that both Environment Modules and Lmod read."""
    folder = entry.commands / version
    return f"""\
{headline(entry)}
module-whatis {{{name} {version}: a container; {name} COMMAND runs a command in it}}
proc ModulesHelp {{}} {{
    puts stderr {{{name} COMMAND ... runs a command in {entry.visible}}}
}}
conflict {name}
prepend-path PATH {{{folder}}}
"""


def default_text(entry: Entry, version: str) -> str:
    """Return the file that says which version a user gets who names none."""
    return f"{headline(entry)}\nset ModulesVersion {{{version}}}\n"


def headline(entry: Entry) -> str:
    """Return the first lines of a module file: what it is, and of which image."""
    return f"#%Module1.0\n# sifline: {entry.key}"


def is_module_of(file: Path, entry: Entry) -> bool:
    """Return whether a module file is one that was made for this image."""
    try:
        return file.read_text(encoding="utf-8").startswith(f"{headline(entry)}\n")
    except (OSError, ValueError):
        return False


def remove_default(file: Path, entry: Entry) -> None:
    """Remove what a module file leaves behind: a default that names it, and its folder."""
    default = file.with_name(".version")
    if is_module_of(default, entry) and default.read_text(encoding="utf-8") == default_text(
        entry, file.name
    ):
        default.unlink()
    with suppress(OSError):
        file.parent.rmdir()


def without_previous(known: dict[str, Any]) -> dict[str, Any]:
    """Return a catalog entry without its own list of previous versions."""
    return {key: value for key, value in known.items() if key != "previous"}


def read_catalog(root: Path) -> dict[str, Any]:
    """Return the catalog; an empty one if there is no file yet."""
    path = root / ".registry" / "catalog.json"
    try:
        catalog = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"version": VERSION, "images": {}}
    except ValueError as error:
        raise RegistryError("bad-catalog", f"{path} is not JSON: {error}") from None
    if isinstance(catalog, dict) and catalog.get("version", VERSION) != VERSION:
        raise RegistryError("other-catalog", f"{path} was written by another version")
    if fault := fault_of(catalog):
        raise RegistryError("bad-catalog", f"{path}: {fault}")
    catalog.setdefault("version", VERSION)
    catalog.setdefault("images", {})
    return dict(catalog)


def fault_of(catalog: Any) -> str:
    """Return what makes no sense in a catalog, or ""."""
    if not isinstance(catalog, dict) or not isinstance(catalog.get("images", {}), dict):
        return "is no catalog: images by name are missing"
    for key, entry in catalog.get("images", {}).items():
        known = [entry, *entry.get("previous", ())] if is_entry(entry) else [entry]
        if not re.fullmatch(rf"(?:{'|'.join(CATEGORIES)})/{NAME.pattern}", key) or not all(
            map(is_entry, known)
        ):
            return f"the entry {key!r} makes no sense"
    return ""


def is_entry(entry: Any) -> bool:
    """Return whether this is an entry of a catalog."""
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("sha256"), str)
        and bool(SHA256.fullmatch(entry["sha256"]))
        and isinstance(entry.get("previous", []), list)
    )


def mend_catalog(root: Path, options: argparse.Namespace) -> None:
    """Replace a catalog that makes no sense by one made of the files; the lock must be held.

    The old one is kept beside it. Who deployed what, and when, is lost.
    """
    try:
        read_catalog(root)
        return
    except RegistryError as error:
        if error.kind != "bad-catalog":
            raise
    path = root / ".registry" / "catalog.json"
    history: Any = {}
    with suppress(ValueError, KeyError, TypeError):
        history = json.loads(path.read_text(encoding="utf-8"))["history"]
    path.replace(path.with_name(f"catalog.json.{iso(time.time())}~"))
    images = {}
    for category in CATEGORIES:
        for link in sorted((root / category).glob("*.sif")):
            entry = Entry(root, category, link.name[: -len(".sif")])
            sha256 = Path(os.path.realpath(link)).name[: -len(".sif")]
            if not foreign(entry) and link.is_file() and SHA256.fullmatch(sha256):
                size = link.stat().st_size
                found = {"name": link.name[: -len(".sif")], "category": category, "size": size}
                # Without fields of its file: it is read in full before it is trusted.
                images[entry.key] = {**found, "sha256": sha256, "path": str(link)}
    new = {"version": VERSION, "images": images, "history": history}
    write_catalog(root, new, options)


def write_catalog(root: Path, catalog: dict[str, Any], options: argparse.Namespace) -> None:
    """Replace the catalog atomically."""
    text = json.dumps(catalog, indent=2, sort_keys=True) + "\n"
    write(root / ".registry" / "catalog.json", text, options)


def write(path: Path, text: str, options: argparse.Namespace) -> None:
    """Replace a file atomically, if it has another content."""
    with suppress(OSError, ValueError):
        if path.read_text(encoding="utf-8") == text:
            return
    # module avail would show another ending, or none.
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with new.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchown(file.fileno(), *owner(options))
        os.fchmod(file.fileno(), MODE)
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def remove_leftovers(entry: Entry, options: argparse.Namespace) -> None:
    """Remove leftovers of killed runs; only the holder of the lock creates such names."""
    for path in (
        entry.visible.with_name(f".{entry.visible.name}.new"),
        entry.root / ".registry" / ".catalog.json.new",
    ):
        path.unlink(missing_ok=True)
    mine = entry.upload(options.sha256, options.token)
    for path in entry.uploads.glob("*.partial"):
        # Another sender may be renaming its finished file at this moment.
        with suppress(FileNotFoundError):
            idle = time.time() - path.stat().st_mtime
            ours = path.name.startswith(entry.upload_prefix) and path.name.endswith(
                f".{options.token}.partial"
            )
            if path != mine and (ours or idle > ABANDONED_SECONDS) and not path.is_dir():
                path.unlink()


def make_folder(path: Path, mode: int, options: argparse.Namespace) -> None:
    """Make a folder below ``.registry`` with its parents, each with the registry's owner."""
    if path.is_dir():
        return
    make_folder(path.parent, 0o755, options)
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
    os.chown(path, *owner(options))
    path.chmod(mode)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Sync a rename in the folder to the disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(root: Path) -> int:
    """Return the free bytes of the disk for uploads."""
    return shutil.disk_usage(root).free


def owner(options: argparse.Namespace) -> tuple[int, int]:
    """Return the user id and the group id of the registry's files."""
    try:
        return pwd.getpwnam(options.owner).pw_uid, grp.getgrnam(options.group).gr_gid
    except KeyError as error:
        raise RegistryError("no-registry", f"{error.args[0]!s}: no such account") from None


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the registry's lock; it is released when the process ends."""
    descriptor = os.open(root / ".registry" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise RegistryError(
                        "busy", f"another deployment has held {root} for {LOCK_SECONDS} s"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def matching(pattern: re.Pattern[str], what: str) -> Any:
    """Return an argparse type for words that match the pattern."""

    def check(word: str) -> str:
        if not pattern.fullmatch(word):
            raise argparse.ArgumentTypeError(f"{word!r} is not {what}")
        return word

    return check


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="registry", description=__doc__.splitlines()[0])
    verbs = top.add_subparsers(dest="verb", required=True)
    one = (status, install, stage, switch, lease, release, verify)
    for name, work in (("ready", ready), ("list", listing), *((w.__name__, w) for w in one)):
        verb = verbs.add_parser(name)
        verb.set_defaults(work=work)
        verb.add_argument("--root", required=True)
        verb.add_argument("--protocol")  # see need_protocol
        verb.add_argument("--owner", default="root")
        verb.add_argument("--group", default="slurm")
        if work in one:
            verb.add_argument("--category", required=True)
            verb.add_argument("--name", required=True)
            verb.add_argument("--token", default="0", type=matching(TOKEN, "hexadecimal"))
        if work in one and work not in (lease, release):
            verb.add_argument("--sha256", required=True, type=matching(SHA256, "a SHA-256"))
        for flag, (users, settings) in OPTIONS.items():
            if name in users:
                verb.add_argument(flag, **settings)
    return top


_ANSWER: dict[str, Any] = {"choices": ("yes", "no"), "default": "no"}
# Flags of some verbs: of which, and argparse's settings.
OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "--read": (("list",), _ANSWER),
    "--look": (("status",), _ANSWER),
    "--later": (("install",), _ANSWER),
    "--foreign": (("stage", "switch"), _ANSWER),
    "--meta": (("install", "switch", "lease"), {"default": "{}"}),
    "--number": (("stage", "switch", "lease", "release"), {"type": int, "default": 0}),
    "--above": (("lease",), {"type": int, "default": 0}),
    "--staged": (("switch",), {"type": lambda text: list(map(int, text.split(",")))}),
    "--keep": (
        ("install", "switch"),
        {"type": int, "choices": range(KEPT_MOST + 1), "default": KEPT},
    ),
}


def need_protocol(arguments: list[str]) -> None:
    """Refuse the words of a caller of another release, before they are read: they may be new."""
    asked = [word.partition("=")[2] for word in arguments if word.startswith("--protocol=")]
    if asked not in ([], [str(PROTOCOL)]):
        raise RegistryError(
            "other-release", f"the registry's tool here has protocol {PROTOCOL}, not {asked[0]}"
        )


def hold(options: argparse.Namespace, fixed: dict[str, str]) -> None:
    """Hold the options to ``fixed``, whatever the caller gave; the root must be that one."""
    if options.root != fixed["root"]:
        raise RegistryError("bad-argument", f"root {options.root!r} is not {fixed['root']}")
    options.owner, options.group = fixed["owner"], fixed["group"]
    if "token" in options:
        # Nobody writes to what another one sends.
        options.token = hashlib.sha256(f"{fixed['who']}:{options.token}".encode()).hexdigest()[:12]
    if "meta" in options:
        meta, now = meta_of(options), iso(time.time())
        # All nodes have the same time of one deployment; none is told one that is yet to come.
        when = min(meta.get("when") or now, now)
        options.meta = json.dumps({**meta, "who": fixed["who"], "when": when})
    if "keep" in options:
        options.keep = max(options.keep, KEPT)


def main(arguments: list[str], fixed: dict[str, str] | None = None) -> int:
    """Run one verb and print its result.

    :param fixed: root, owner, group and ``who`` (deploys) of an installed copy, whose caller is
        not root.
    """
    os.umask(0o022)
    if fixed:
        # Stopped at a terminal, it would keep the lock.
        for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)

    def carried_out() -> dict[str, Any]:
        need_protocol(arguments)
        options = parser().parse_args(arguments)
        if fixed:
            hold(options, fixed)
        answer: dict[str, Any] = options.work(options)
        return answer

    return answered(carried_out)


def answered(work: Callable[[], dict[str, Any]]) -> int:
    """Print what ``work`` returns, or its error; return the status."""
    try:
        answer, code = work(), 0
    except RegistryError as error:
        answer, code = {"error": error.kind, "message": str(error)}, 1
    except OSError as error:
        answer, code = {"error": "system", "message": str(error)}, 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
