"""Fetches from the controller of a cluster what was deployed to it while this node was down.

Runs on the node as root, with Python 3.9's standard library only, beside a copy of the module
``registry``. The folder that it is given holds ``catch-up.json``, ``key`` and ``known_hosts``; the
controller lets the key read its registry, by rsync. An image is taken where the controller's was
deployed later than the node's own, and verified like one that is sent.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # installed: no package is around it
    sys.path.insert(0, str(Path(__file__).parent))
    import sifline_registry as registry  # type: ignore[import-not-found,unused-ignore]
else:
    from sifline.nodeside import registry

# Hexadecimal, so that no sender has it; uploads of a broken-off run are continued.
TOKEN = "ca7c"  # noqa: S105
STALLED_SECONDS = 60
# What rsync or its restricted server says of a file that is not there.
NOT_THERE = "No such file or directory"


class CatchUpError(Exception):
    """A node could not catch up; the text says why."""


class Source:
    """The registry of the controller, read by rsync over SSH."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._where = f"{settings['user']}@{_bracketed(settings['host'])}"
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "20",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        port = str(settings["port"])
        self._ssh = ["ssh", "-F", "none", "-i", str(folder / "key"), "-p", port, *words]

    def fetch(self, path: str, to: Path) -> bool:
        """Copy a file of the controller's ``.registry``; False if it is not there.

        :raises CatchUpError: with rsync's own words.
        """
        done = subprocess.run(
            [
                "rsync",
                "--inplace",
                "--no-protect-args",
                f"--timeout={STALLED_SECONDS}",
                f"--rsh={shlex.join(self._ssh)}",
                "--",
                f"{self._where}:{path}",
                str(to),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        lines = done.stderr.splitlines()
        if done.returncode and any(path in line and NOT_THERE in line for line in lines):
            return False
        if done.returncode:
            said = (done.stderr.strip() or "no reason given").splitlines()
            raise CatchUpError(f"rsync of {path} ended with {done.returncode}: {said[0]}")
        return True


def main(arguments: list[str]) -> int:
    """Catch up, and print a line for each image that was fetched; 1 where one could not be.

    With ``--try`` only the controller's catalog is read, and nothing is changed.
    """
    top = argparse.ArgumentParser(prog="catch_up", description=__doc__.splitlines()[0])
    top.add_argument("--try", action="store_true", dest="dry")
    top.add_argument("folder", type=Path)
    options = top.parse_args(arguments)
    try:
        settings = json.loads((options.folder / "catch-up.json").read_text("utf-8"))
        if options.dry:
            catalog_of(Source(options.folder, settings))
            failed = []
        else:
            failed = catch_up(options.folder, settings)
    except (CatchUpError, registry.RegistryError, OSError) as error:
        failed = [str(error)]
    for line in failed:
        sys.stderr.write(f"error: {line}\n")
    return int(bool(failed))


def catch_up(folder: Path, settings: dict[str, Any]) -> list[str]:
    """Fetch what is newer on the controller; return the errors of images that could not be had."""
    source, root = Source(folder, settings), registry.registry(settings["root"])
    theirs, ours = catalog_of(source), registry.read_catalog(root)["images"]
    failed = []
    for key, entry in sorted(theirs.items()):
        try:
            known = image(key, entry)
            if newer(known, ours.get(key)) and take(known, source, settings):
                what = f"{known['sha256'][:12]} of {known['when']}"
                sys.stdout.write(f"{key}: {what} is in place\n")
        except (CatchUpError, registry.RegistryError, OSError) as error:
            failed.append(f"{key}: {error}")
    return failed


def image(key: str, entry: Any) -> dict[str, Any]:
    """Return an entry of the controller's catalog, whose values it may have from anybody."""
    texts = ("category", "name", "sha256", "when")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(part), str) for part in texts):
        raise CatchUpError(f"the controller's catalog has no {', '.join(texts)} of it")
    if f"{entry['category']}/{entry['name']}" != key:
        raise CatchUpError(f"the controller's catalog has {entry['name']!r} there")
    if not re.fullmatch(registry.SHA256, entry["sha256"]):
        raise CatchUpError(f"the controller's catalog has no SHA-256 of it: {entry['sha256']!r}")
    told = {part: str(entry.get(part, "")) for part in registry.KNOWN}
    size = entry.get("size")
    return {**entry, **told, "size": size if isinstance(size, int) else 0}


def catalog_of(source: Source) -> dict[str, Any]:
    """Return the entries of the controller's catalog; {} if nothing was deployed yet."""
    with tempfile.TemporaryDirectory() as scratch:
        if not source.fetch("catalog.json", Path(scratch) / "catalog.json"):
            return {}
        try:
            catalog = json.loads((Path(scratch) / "catalog.json").read_text("utf-8"))
            found, version = catalog["images"], catalog.get("version", registry.VERSION)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CatchUpError(f"the controller's catalog cannot be read: {error}") from None
    if version != registry.VERSION or not isinstance(found, dict):
        raise CatchUpError("the controller's catalog was written by another version")
    return found


def newer(theirs: dict[str, Any], ours: dict[str, Any] | None) -> bool:
    """Return whether the controller's image is another one, deployed later than the node's own.

    What was deployed to this node alone stays.
    """
    same = ours is not None and ours.get("sha256") == theirs["sha256"]
    return not same and registry.is_later(theirs, ours)


def take(entry: dict[str, Any], source: Source, settings: dict[str, Any]) -> bool:
    """Fetch the file of one image, verify it, and put it in place.

    Return False if a later one was deployed here meanwhile.
    """
    category, name, sha256 = entry["category"], entry["name"], entry["sha256"]
    options = argparse.Namespace(
        root=settings["root"],
        owner=settings["owner"],
        group=settings["group"],
        category=category,
        name=name,
        sha256=sha256,
        token=TOKEN,
        look="no",
        keep=registry.KEPT,
        meta=json.dumps({key: entry[key] for key in registry.KNOWN}),
        later="yes",
    )
    # Checks category and name, and makes the folder of uploads.
    found = registry.status(options)
    if not found["held"]:
        lacking = entry["size"] + registry.RESERVE - found["uploaded"] - found["free"]
        if lacking > 0:
            raise CatchUpError(f"{settings['root']} has {lacking} bytes too few; make room there")
        path = f"versions/{category}/{name}/{sha256}.sif"
        if not source.fetch(path, Path(found["upload"])):
            raise CatchUpError(f"the controller has no {path}")
    try:
        registry.install(options)
    except registry.RegistryError as error:
        if error.kind == "older":
            return False
        raise
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
