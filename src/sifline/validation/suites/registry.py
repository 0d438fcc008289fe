"""Suite registry: its folders and permissions, and that all copies are the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sifline.model.units import counted
from sifline.nodeside.registry import FOLDERS
from sifline.validation.check import Phase, check
from sifline.validation.outcome import CheckFailed, CheckSkipped
from sifline.validation.probe import Probe

SUITE = "registry"
registry = check(suite=SUITE, phase=Phase.DEPLOYMENT)

FOLDER = "755 root:slurm"

# Prints the folders in which a file can be created, and removes that file.
TRY_TO_WRITE = 'for d; do f=$(mktemp -p "$d" 2>/dev/null) && { rm -f "$f"; echo "$d"; }; done; :'

# Prints the files whose first bytes could not be read.
TRY_TO_READ = 'for f; do head -c 64 "$f" >/dev/null 2>&1 || echo "$f"; done'


@registry
def folders_as_provisioned(probe: Probe) -> str:
    """The registry's folders exist on every node with mode 0755, owned by root:slurm."""
    root = probe.cluster.registry_root
    paths = [str(root / name) for name in ("", *FOLDERS)]
    answers = probe.everywhere(["stat", "--format=%n %a %U:%G", *paths], check=False)
    faults = []
    for node, result in answers.items():
        found = dict(line.split(" ", 1) for line in result.stdout.splitlines())
        faults += [
            f"{node}: {path} is {found.get(path, 'missing')}"
            for path in paths
            if found.get(path) != FOLDER
        ]
    if faults:
        raise CheckFailed(f"{'; '.join(faults)}; should be {FOLDER}")
    return f"{len(paths)} folders on {len(answers)} nodes are {FOLDER}"


@registry
def users_read_images(probe: Probe) -> str:
    """An ordinary user can read every image on every node."""
    user = probe.job_user
    held = probe.holdings()
    paths = sorted({entry["path"] for node in held.values() for entry in images(node)})
    if not paths:
        raise CheckSkipped("nothing is deployed")
    argv = ["sh", "-c", TRY_TO_READ, "sh", *paths]
    answers = probe.everywhere(argv, user=user)
    closed = [
        f"{node}: {result.stdout.split()[0]}"
        for node, result in answers.items()
        if result.stdout.strip()
    ]
    if closed:
        raise CheckFailed(f"{user} cannot read {'; '.join(closed)}")
    return f"{user} reads {counted(len(paths), 'image')} on {counted(len(answers), 'node')}"


@registry
def users_cannot_write(probe: Probe) -> str:
    """An ordinary user cannot write to the registry of any node."""
    user = probe.job_user
    root = probe.cluster.registry_root
    paths = [str(root / name) for name in ("", *FOLDERS)]
    answers = probe.everywhere(["sh", "-c", TRY_TO_WRITE, "sh", *paths], user=user)
    open_ = [
        f"{node}: {' '.join(result.stdout.split())}"
        for node, result in answers.items()
        if result.stdout.strip()
    ]
    if open_:
        raise CheckFailed(f"{user} can write to {'; '.join(open_)}")
    return f"{user} can write to none of {len(paths)} folders on {len(answers)} nodes"


@registry
def catalog_agrees(probe: Probe) -> str:
    """The catalog of every node names exactly the files that exist."""
    held = probe.holdings()
    faults = []
    for node, answer in held.items():
        faults += [f"{node}: {path} is in no catalog" for path in answer["unknown"]]
        faults += [
            f"{node}: {entry['path']} "
            + ("is not the catalog's" if entry["found"] else "is missing")
            for entry in images(answer)
            if entry["found"] != entry["sha256"]
        ]
    if faults:
        raise CheckFailed("; ".join(faults))
    count = sum(len(answer["images"]) for answer in held.values())
    if not count:
        raise CheckSkipped("nothing is deployed")
    return f"{count} entries on {len(held)} nodes agree with their files"


@registry
def copies_equal(probe: Probe) -> str:
    """Every image has one SHA-256 on all nodes, computed from every copy."""
    probe.need_pair()
    return judge_copies(probe.holdings(read=True))


def judge_copies(held: Mapping[str, Mapping[str, Any]]) -> str:
    """Compare the digests that the nodes computed."""
    names = sorted({key for answer in held.values() for key in answer["images"]})
    if not names:
        raise CheckSkipped("nothing is deployed")
    faults = []
    for name in names:
        digests = {
            node: (answer["images"].get(name) or {}).get("found") or "none"
            for node, answer in held.items()
        }
        if len(set(digests.values())) > 1:
            listed = ", ".join(f"{node} {digest[:12]}" for node, digest in digests.items())
            faults.append(f"{name} differs: {listed}")
    if faults:
        raise CheckFailed("; ".join(faults))
    return f"equal digests of {counted(len(names), 'image')} on {counted(len(held), 'node')}"


def images(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the catalog's entries in the answer of one node."""
    return list(answer["images"].values())
