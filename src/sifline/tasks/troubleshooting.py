"""Which section of the page on troubleshooting is about an error."""

from __future__ import annotations

import re

PAGE = "docs/how-to/troubleshooting.md"

# What tools print, above the message, and the section about it.
_PRINTED = (
    ("could not find bridge docker0", "no-network"),
    ("certificate verify failed|Could not resolve host", "certificate"),
    ("Unable to allocate resources", "job-pending"),
)
# What messages say; where several fit, the first counts.
_SAID = (
    ("no Docker engine answers", "no-engine"),
    ("no permission on the Docker engine's socket", "engine-permission"),
    (r"\S cannot be pulled|cannot resolve \S", "pull"),
    (r"the disk is full|needs \S+ \S+ free below", "disk-full"),
    ("no apptainer on this machine, and no image", "no-apptainer"),
    ("Graphviz, which draws SVGs, is not installed", "no-graphviz"),
    ("nothing was removed: without a terminal nobody can be asked", "not-asked"),
    ("what a killed run left cannot be removed", "killed-run"),
    (r"no image \S+ in images/|no images/ folder in", "no-image"),
    ("its folder changed while it was built", "folder-changed"),
    ("and the site is offline", "offline"),
    (r"\S needs the secret \S", "secret"),
    (r"building \S+ failed", "build-failed"),
    (r"\(inherited from \S+\)", "inherited-test"),
    (r"testing \S+ \d+ failed", "test-failed"),
    ("this host has no NVIDIA GPU", "no-gpu"),
    ("the engine cannot hand in GPUs", "engine-gpus"),
    ("nothing runs in the new SIF", "nothing-runs"),
    ("and its size-budget is", "size-budget"),
    (r"--method stream: \S+ cannot be converted so", "stream"),
    ("was altered since it was converted", "sif-altered"),
    ("is not what was signed|is truncated|is a damaged SIF", "sif-damaged"),
    ("is signed by a key that is not in", "unknown-key"),
    ("is not signed", "not-signed"),
    ("no private key in", "no-private-key"),
    (r"the key \S+ has a passphrase", "passphrase"),
    (
        r"no cluster '.*': it is neither a file|virtual cluster \S+ is (?:not )?running",
        "no-cluster",
    ),
    (r"the cluster \S+ belongs to the checkout", "other-checkout"),
    ("ended while it started|does not answer on SSH after", "node-ended"),
    ("host key is not in|host key differs from the one in", "host-key"),
    (
        r"login as \S.* was refused|sudo asks \S+ for a password|did not take the password of",
        "login",
    ),
    (r"the login shell of \S+ did not run the command", "login-shell"),
    ("not written by sifline, or changed since", "foreign-file"),
    (
        r"slurm(?:ctl)?d does not (?:start|take the new)|the old configuration is back on",
        "daemon-fails",
    ),
    ("slurmdbd does not run", "slurmdbd"),
    ("not there, so slurmd would not start", "no-device"),
    (r"no package source of this node \(.*\) has Apptainer", "no-apptainer-source"),
    ("refuses to mount the mount namespace of a job", "private-tmp"),
    ("this node cannot catch up with", "catch-up"),
    ("wait for them with --wait", "node-leaves"),
    ("MUNGE does not run on this node|slurmctld does not answer this node", "munge"),
    (
        "there is no /dev/fuse|users may not open /dev/fuse|users may make no user namespaces",
        "fuse",
    ),
    (r"has no \S.* --stage registry", "no-registry"),
    (r"steps failed: .*\btest ", "failed-tests"),
    ("no node was switched: ", "not-switched"),
    (
        "which files jobs need is unknown|did not say which files are open there",
        "not-removed",
    ),
    (r"is on \d+ of \d+ (?:chosen )?nodes", "incomplete"),
    (r"\S does not answer", "no-answer"),
    (r"checks failed: .*(?:four-ranks-on-two-nodes|pmix-fence)", "mpi-check"),
    (r"checks failed: .*counts-match", "gpu-count"),
)


def section(message: str, details: str = "") -> str:
    """Return the page and the section about an error; "" where it has none."""
    for table, text in ((_PRINTED, details), (_SAID, message)):
        for pattern, anchor in table:
            if text and re.search(pattern, text):
                return f"{PAGE}#{anchor}"
    return ""


def patterns() -> dict[str, str]:
    """Return all patterns, each with the anchor of its section."""
    return {pattern: anchor for table in (_PRINTED, _SAID) for pattern, anchor in table}
