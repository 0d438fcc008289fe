"""Tasks about clusters: virtual clusters up and down, provision, validate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sifline.tasks.support import Run, one_of

VIRTUAL = "virtual"
STAGES = ("registry",)


def up(run: Run, _: Sequence[str], *, name: str = VIRTUAL, file: str = "") -> None:
    """Bring up a virtual cluster: systemd, Slurm, OpenSSH.

    Nodes are containers of this machine's Docker engine. Run again, it starts and mends what is
    missing. Builds the image of the nodes first where it is not up to date.

        invoke cluster.up
        invoke cluster.up --name second
    """
    from sifline.report import tables

    cluster = run.pipeline().clusters.up(name, Path(file) if file else None)
    run.print(tables.nodes(cluster))


def down(run: Run, _: Sequence[str], *, name: str = VIRTUAL, foreign: bool = False) -> None:
    """Remove a virtual cluster: containers, network and files.

    One that another checkout made stays, unless --foreign is given.

        invoke cluster.down
        invoke cluster.down --name second
    """
    removed = run.pipeline().clusters.down(name, foreign=foreign)
    run.print("\n".join(f"removed {item}" for item in removed) or f"no cluster {name} stands")


def status(run: Run, _: Sequence[str], *, name: str = VIRTUAL, json: bool = False) -> None:
    """Print the nodes of a virtual cluster and their state.

    Looks, and starts nothing.

        invoke cluster.status
        invoke cluster.status --name second --json
    """
    from sifline.report import tables

    states = run.pipeline().clusters.status(name)
    run.print(tables.dump(states) if json else tables.node_states(name, states))


def shell(
    run: Run,
    _: Sequence[str],
    *,
    node: str = "controller",
    name: str = VIRTUAL,
    user: str = "root",
) -> None:
    """Open a shell on a node of a virtual cluster.

    Or run the command that stands after --.

        invoke cluster.shell
        invoke cluster.shell --node compute-01 --user alice -- id
    """
    run.end(run.pipeline().clusters.shell(name, node, run.command, user=user))


def provision(
    run: Run,
    _: Sequence[str],
    *,
    cluster: str = VIRTUAL,
    check: bool = False,
    stage: str = "",
    adopt: bool = False,
    ask_become_pass: bool = False,
) -> None:
    """Configure a cluster with Ansible: MUNGE, Slurm, registry.

    Files that sifline did not write or that were changed are left alone and named, unless --adopt
    is given. --stage registry makes the folders for images alone, where Slurm is somebody else's.

        invoke provision
        invoke provision --cluster clusters/mine.yaml --stage registry
    """
    if stage:
        one_of("stage", stage, STAGES)
    password = run.become_password() if ask_become_pass else ""
    clusters = run.pipeline().clusters
    found = clusters.find(cluster, become_password=password)
    done = clusters.provision(found, check=check, stage=stage, adopt=adopt)
    for place in done.kept:
        run.print(f"kept {place}")
    verb = "would change" if check else "changed"
    run.print(f"{done.cluster.name}: {done.ok} tasks, {verb} {done.changed}, {done.seconds:.1f} s")


def validate(
    run: Run,
    _: Sequence[str],
    *,
    cluster: str = VIRTUAL,
    suite: str = "",
    check: str = "",
    list: bool = False,
    json: bool = False,
    ask_become_pass: bool = False,
) -> None:
    """Run health checks on a cluster and print how each ended.

    Each check can fail; what cannot be checked is skipped with the reason.

        invoke validate
        invoke validate --cluster clusters/mine.yaml --suite infrastructure
    """
    from sifline.report import tables

    if list:
        suites = run.pipeline().clusters.checks()
        run.print(tables.dump(tables.checks_of(suites)) if json else tables.listing(suites))
        return
    password = run.become_password() if ask_become_pass else ""
    clusters = run.pipeline().clusters
    found = clusters.find(cluster, become_password=password)
    results = clusters.validate(found, suites=_words(suite), checks=_words(check))
    run.print(tables.dump(results) if json else tables.checks(results))
    tables.refuse_failures(results, f"validating {cluster}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


GROUP = (up, down, status, shell)
TOP = (provision, validate)
