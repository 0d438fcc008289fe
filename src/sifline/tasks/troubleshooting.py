"""Which section of the page on troubleshooting is about an error."""

from __future__ import annotations

import re

PAGE = "docs/how-to/troubleshooting.md"

# What tools print, above the message, and the section about it.
_PRINTED = (
    (
        "could not find bridge docker0",
        "build-steps-get-no-network-could-not-find-bridge-docker0",
    ),
    (
        "certificate verify failed|Could not resolve host",
        "certificate-verify-failed-could-not-resolve-host",
    ),
    (
        "Unable to allocate resources",
        "a-job-stays-pending-unable-to-allocate-resources",
    ),
)
# What messages say; where several fit, the first counts.
_SAID = (
    ("no Docker engine answers", "no-docker-engine-answers"),
    (
        "no permission on the Docker engine's socket",
        "no-permission-on-the-docker-engines-socket",
    ),
    (r"\S cannot be pulled|cannot resolve \S", "-cannot-be-pulled-cannot-resolve-"),
    (r"the disk is full|needs \S+ \S+ free below", "the-disk-is-full--needs--gb-free"),
    (
        "no apptainer on this machine, and no image",
        "no-apptainer-on-this-machine-and-no-image-siflinetoolbox",
    ),
    (
        "Graphviz, which draws SVGs, is not installed",
        "graphviz-which-draws-svgs-is-not-installed",
    ),
    (
        "nothing was removed: without a terminal nobody can be asked",
        "nothing-was-removed-without-a-terminal-nobody-can-be-asked",
    ),
    (
        "what a killed run left cannot be removed",
        "what-a-killed-run-left-cannot-be-removed",
    ),
    (r"no image \S+ in images/|no images/ folder in", "no-image--in-images-no-images-folder-in-"),
    (
        "its folder changed while it was built",
        "its-folder-changed-while-it-was-built",
    ),
    ("and the site is offline", "-is-not-in-the-engine-and-the-site-is-offline"),
    (r"\S needs the secret \S", "-needs-the-secret-"),
    (r"building \S+ failed", "building--failed-at-25-run-"),
    (r"\(inherited from \S+\)", "a-test-fails-that-you-did-not-write"),
    (r"testing \S+ \d+ failed", "testing--2-failed-test_-the-whole-log-is-"),
    ("this host has no NVIDIA GPU", "this-host-has-no-nvidia-gpu-no-devnvidia0"),
    ("the engine cannot hand in GPUs", "the-engine-cannot-hand-in-gpus-status-125"),
    ("nothing runs in the new SIF", "nothing-runs-in-the-new-sif"),
    (
        "and its size-budget is",
        "-has-015-gb-and-its-size-budget-is-012-gb-it-is-not-kept",
    ),
    (
        r"--method stream: \S+ cannot be converted so",
        "--method-stream--cannot-be-converted-so",
    ),
    ("was altered since it was converted", "was-altered-since-it-was-converted"),
    (
        "is not what was signed|is truncated|is a damaged SIF",
        "is-not-what-was-signed-is-truncated-is-a-damaged-sif",
    ),
    (
        "is signed by a key that is not in",
        "is-signed-by-a-key-that-is-not-in-",
    ),
    ("is not signed", "is-not-signed"),
    ("no private key in", "no-private-key-in-"),
    (r"the key \S+ has a passphrase", "the-key--has-a-passphrase"),
    (
        r"no cluster '.*': it is neither a file|virtual cluster \S+ is (?:not )?running",
        "no-cluster--the-virtual-cluster--is-not-running",
    ),
    (
        r"the cluster \S+ belongs to the checkout",
        "the-cluster--belongs-to-the-checkout-",
    ),
    (
        "ended while it started|does not answer on SSH after",
        "-ended-while-it-started-does-not-answer-on-ssh-after--s",
    ),
    (
        "host key is not in|host key differs from the one in",
        "host-key-is-not-in--host-key-differs-from-the-one-in-",
    ),
    (
        r"login as \S.* was refused|sudo asks \S+ for a password|did not take the password of",
        "login-as--was-refused-sudo-asks--for-a-password",
    ),
    (
        r"the login shell of \S+ did not run the command",
        "the-login-shell-of--did-not-run-the-command",
    ),
    (
        "not written by sifline, or changed since",
        "not-written-by-sifline-or-changed-since",
    ),
    (
        r"slurm(?:ctl)?d does not start|the old configuration is back on",
        "slurmd-does-not-start-the-old-configuration-is-back-on-",
    ),
    (
        "slurmdbd does not run",
        "slurmdbd-does-not-run-slurmdbd-does-not-run-on-this-node",
    ),
    ("not there, so slurmd would not start", "not-there-so-slurmd-would-not-start"),
    (
        "would leave the cluster, and these jobs with it",
        "would-leave-the-cluster-and-these-jobs-with-it",
    ),
    (
        "MUNGE does not run on this node|slurmctld does not answer this node",
        "munge-does-not-run-on-this-node-slurmctld-does-not-answer-this-node",
    ),
    (
        "there is no /dev/fuse|users may not open /dev/fuse|users may make no user namespaces",
        "there-is-no-devfuse-users-may-not-open-devfuse-users-may-make-no-user-namespaces",
    ),
    (r"has no \S.* --stage registry", "optcontainers-has-no-"),
    (r"is on \d+ of \d+ (?:chosen )?nodes", "-is-on-2-of-3-nodes"),
    (r"\S does not answer", "-does-not-answer"),
    (r"checks failed: .*(?:four-ranks-on-two-nodes|pmix-fence)", "the-mpi-check-fails"),
    (r"checks failed: .*counts-match", "-offers-0-gpus-instead-of-2"),
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
