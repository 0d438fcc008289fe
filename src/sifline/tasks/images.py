"""The verbs that act on images; each exists as VERB.<image> and as VERB --all."""

from __future__ import annotations

from sifline.tasks.deployed import history, rollback, undeploy
from sifline.tasks.handling import clean, shell, sign, verify_signature
from sifline.tasks.looking import (
    compat,
    config,
    diff,
    explain,
    graph,
    info,
    sbom,
    sizes,
    status,
)
from sifline.tasks.making import build, convert, deploy, make, test
from sifline.tasks.options import Body

# Without --all they act on all images: they change nothing and are fast.
LOOKING = (status, explain, graph, config)
# Verbs about existing results: folders with invalid names have none.
LATER = (verify_signature, clean, history, rollback, undeploy)
# Verbs that take SIF files instead of images, and how many.
FILED: dict[Body, int] = {
    test: 1,
    info: 1,
    sign: 1,
    verify_signature: 1,
    sbom: 1,
    compat: 1,
    sizes: 1,
    diff: 2,
    shell: 1,
    clean: 1,
}
# Verbs for one image at a time, without --all.
SINGLE = (shell, diff, history, rollback, undeploy)
# Flags that a verb has only without an image.
ALONE: dict[Body, tuple[str, ...]] = {
    convert: ("source", "sif_name", "output", "foreign"),
    clean: ("environments",),
    history: ("name",),
    rollback: ("name",),
    undeploy: ("name",),
}
VERBS = (
    *(build, test, convert, make, sign, verify_signature, deploy),
    *(history, rollback, undeploy),
    *(info, sbom, compat, diff, sizes, shell, clean, status, explain, graph, config),
)
