"""Helps of flags that mean another thing in one task than in others: by flag and task."""

from __future__ import annotations

from collections.abc import Mapping

_PLAN = "print the plan of --dry as JSON; needs --dry"
HELP: Mapping[str, Mapping[str, str]] = {
    "cluster": {"diff": "compare with what is deployed to this cluster"},
    "force": {
        "build": "build it again even if nothing changed",
        "convert": "convert it again even if nothing changed; the image is not built again",
        "explain": "explain what build --force would do",
    },
    "foreign": {
        "clean": "also remove versions of the image that other checkouts built",
        "cluster.down": "remove the cluster even if another checkout brought it up",
        "convert": "replace the file at --output even if sifline did not write it",
        "deploy": "replace a file in the image's place that sifline did not put there",
    },
    "json": dict.fromkeys(("build", "test", "convert", "make", "cluster.up"), _PLAN),
    "key": {
        "verify-signature": "the key that must have signed it: the whole fingerprint",
    },
    "node": {
        "cluster.shell": "the node, such as compute-01; default: controller",
        "deploy": "only to these nodes, such as 'compute-[01-03,07],gpu-1'",
        "validate": "check only these nodes, such as 'compute-[01-03,07],gpu-1'",
    },
    "output": {
        "convert": "where to put a copy of the SIF",
        "graph": "the file to draw into; its ending says how: .svg, .dot, .mmd, .txt",
        "sbom": "the file to write to, or a folder for the bills of several",
    },
    "sif": {
        "shell": "open the image's SIF instead of the Docker image; made first if out of date",
    },
}
VALUES: Mapping[str, Mapping[str, str]] = {
    "node": {"cluster.shell": "NODE"},
    "output": {"convert": "FILE.sif", "sbom": "FILE|FOLDER"},
}


def own(texts: Mapping[str, Mapping[str, str]], flag: str, task: str) -> str:
    """Return the text of ``flag`` that is of ``task`` alone; "" if it has the common one.

    :param task: the task without an image: ``clean``, ``cluster.down``.
    """
    return texts.get(flag, {}).get(task, "")
