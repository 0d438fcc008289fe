"""Tasks about what is deployed to a cluster: catalog, history, rollback, undeploy, prune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sifline.errors import UsageError
from sifline.tasks.support import Run, cluster_of

if TYPE_CHECKING:
    from sifline.model import Cluster
    from sifline.model.catalog import Removed

# As many as a node keeps at most.
KEEP, KEEP_MOST = 2, 100


def catalog(
    run: Run,
    _: Sequence[str],
    *,
    cluster: str = "",
    node: str | None = None,
    without: str | None = None,
    ask_become_pass: bool = False,
    json: bool = False,
) -> None:
    """Print what is deployed to a cluster, and where.

    Asks every node, and changes nothing. Of each image the version that was put in place last is
    the current one; nodes with another one, without it, or with a damaged file are behind. Nodes
    that do not answer are named.

        invoke catalog --cluster lab
        invoke catalog --cluster lab --json
    """
    from sifline.report import deployed, tables

    chosen = _cluster(run, cluster, node, without, ask=ask_become_pass)
    found = run.pipeline().deployed.catalog(chosen)
    values = deployed.catalog_values(found)
    run.print(tables.dump(**values) if json else deployed.catalog(found, wide=run.wide))


def history(
    run: Run,
    images: Sequence[str],
    *,
    cluster: str = "",
    ask_become_pass: bool = False,
    name: str = "",
    json: bool = False,
) -> None:
    """Print the versions of an image on a cluster.

    When each was deployed, rolled back to or undeployed, by whom, from which commit, with which
    test result, and whether nodes still have its file. The nodes keep the last 50 events of each
    image.

        invoke history.<image> --cluster lab
        invoke history --name FILE --cluster lab
    """
    from sifline.report import deployed, tables

    chosen = _cluster(run, cluster, ask=ask_become_pass)
    found, image = run.pipeline().deployed.history(chosen, name or images[0])
    values = deployed.history_values(found, image)
    run.print(tables.dump(**values) if json else deployed.history(found, image, wide=run.wide))


def rollback(
    run: Run,
    images: Sequence[str],
    *,
    cluster: str = "",
    to: str = "",
    node: str | None = None,
    without: str | None = None,
    ask_become_pass: bool = False,
    name: str = "",
    json: bool = False,
) -> None:
    """Put an earlier version of an image in place on all nodes.

    The version deployed before the current one, or the one that --to names. Every node is asked
    first and reads its file in full; if one lacks it, none switches. Then all switch at once, and
    nothing is sent. Jobs that run keep the file that they opened. The catalog records who did it.

        invoke rollback.<image> --cluster lab --dry
        invoke rollback.<image> --cluster lab --to 3f5a9c01
    """
    from sifline.report import deployed, tables

    chosen = _cluster(run, cluster, node, without, ask=ask_become_pass)
    done = run.pipeline().deployed.rollback(chosen, name or images[0], to=to, dry=run.dry)
    values = deployed.rolled_back_values(done, dry=run.dry)
    run.print(tables.dump(**values) if json else deployed.rolled_back(done, dry=run.dry))


def undeploy(
    run: Run,
    images: Sequence[str],
    *,
    cluster: str = "",
    node: str | None = None,
    without: str | None = None,
    yes: bool = False,
    ask_become_pass: bool = False,
    name: str = "",
    json: bool = False,
) -> None:
    """Remove an image from the nodes of a cluster.

    Its name goes, and the files of its versions. Jobs that run keep the file that they opened; a
    file that a process has open, or a job names, stays until `prune`. A foreign file is not
    touched. Asks first; without a terminal it needs --yes. Needs root on the nodes.

        invoke undeploy.<image> --cluster lab --dry
        invoke undeploy --name FILE --cluster lab --yes
    """
    chosen = _cluster(run, cluster, node, without, ask=ask_become_pass)
    images_there, what = run.pipeline().deployed, name or images[0]

    def work(*, dry: bool) -> Removed:
        return images_there.undeploy(chosen, what, dry=dry)

    _remove(run, "undeploy", work, yes=yes, json=json)


def prune(
    run: Run,
    _: Sequence[str],
    *,
    cluster: str = "",
    keep: int = KEEP,
    node: str | None = None,
    without: str | None = None,
    yes: bool = False,
    ask_become_pass: bool = False,
    json: bool = False,
) -> None:
    """Remove versions that nothing needs from the nodes.

    All but the version in place and the --keep before it, and uploads that were abandoned. What a
    process of any node has open, or a queued or running job names, stays, with the reason. Asks
    first; without a terminal it needs --yes. Needs root on the nodes.

        invoke prune --cluster lab --dry
        invoke prune --cluster lab --keep 0 --yes
    """
    if keep > KEEP_MOST:
        raise UsageError(f"--keep {keep}: takes a number up to {KEEP_MOST}")
    chosen = _cluster(run, cluster, node, without, ask=ask_become_pass)
    images_there = run.pipeline().deployed

    def work(*, dry: bool) -> Removed:
        return images_there.prune(chosen, keep=keep, dry=dry)

    _remove(run, "prune", work, yes=yes, json=json)


def _cluster(
    run: Run,
    name: str,
    node: str | None = None,
    without: str | None = None,
    *,
    ask: bool = False,
) -> Cluster:
    """Return the cluster that a verb acts on, with the chosen nodes."""
    password = run.become_password() if ask else ""
    clusters = run.pipeline().clusters
    return clusters.find(cluster_of(name), become_password=password, only=node, without=without)


def _remove(run: Run, verb: str, work: Callable[..., Removed], *, yes: bool, json: bool) -> None:
    """Ask, unless --yes was given, remove and print; with --dry print what would be removed."""
    from sifline.report import deployed, tables

    def show(found: Removed, *, dry: bool) -> None:
        values = deployed.removed_values(found, dry=dry)
        run.print(tables.dump(**values) if json else deployed.removed(found, dry=dry))

    if run.dry or not yes:
        found = work(dry=True)
        things = deployed.things(found)
        if run.dry or not things:
            show(found, dry=True)
            return
        for line in deployed.kept(found):
            run.terminal.aside(line)
        if not run.agreed(verb, things):
            return
    show(work(dry=False), dry=False)


TOP = (catalog, prune)
# Verbs about one image, which exist as VERB.<image> and as VERB --name FILE.
NAMED = (history, rollback, undeploy)
