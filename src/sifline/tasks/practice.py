"""Tasks that change a virtual cluster which runs: faults, restarts, the number of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sifline.tasks.support import Run, cluster_of, one_of

FAULTS = ("disk-full", "slow-network", "slow-cpu", "slow-disk", "clock", "no-gpu", "kill")


def fault(
    run: Run,
    _: Sequence[str],
    *,
    node: str = "",
    fault: str = "",
    undo: bool = False,
    cluster: str = "",
    json: bool = False,
) -> None:
    """Give nodes of a virtual cluster a fault, or undo it.

    disk-full: no space in the registry and in /tmp. slow-network, slow-disk: 1 Mbit/s and 1 MiB/s.
    slow-cpu: a fifth of one CPU. clock: MUNGE, Slurm and new logins are an hour ahead. no-gpu: no
    device files. kill: the container is killed. --undo without --fault undoes all of a node.

        invoke cluster.fault --node compute-01 --fault slow-network
        invoke cluster.fault --node 'compute-[01-02]' --undo
    """
    from sifline.errors import UsageError
    from sifline.report import practice, tables

    if not node:
        raise UsageError("--node: say which nodes, such as compute-01; see invoke cluster.status")
    if fault or not undo:
        one_of("fault", fault, FAULTS)
    changes = run.pipeline().practice
    done = changes.fault(cluster_of(cluster), node, fault, undo=undo, dry=run.dry)
    values = {"dry": run.dry, "faults": done}
    run.print(tables.dump(**values) if json else practice.fault_changes(done, dry=run.dry))


def restart(
    run: Run, _: Sequence[str], *, node: str = "", cluster: str = "", json: bool = False
) -> None:
    """Restart nodes of a virtual cluster, as a reboot would.

    Jobs on them end. Waits until each node answers by SSH and, once the cluster is provisioned,
    has registered with Slurm. A node that does not run is started. slow-cpu and clock outlive a
    restart; other faults end.

        invoke cluster.restart --node compute-01
        invoke cluster.restart --node 'controller,compute-[01-02]'
    """
    from sifline.errors import UsageError
    from sifline.report import tables

    if not node:
        raise UsageError("--node: say which nodes, such as compute-01; see invoke cluster.status")
    nodes = run.pipeline().practice.restart(cluster_of(cluster), node, dry=run.dry)
    verb = "would restart" if run.dry else "restarted"
    values = {"dry": run.dry, "restarted": nodes}
    run.print(tables.dump(**values) if json else f"{verb} {', '.join(nodes)}")


def scale(
    run: Run,
    words: Sequence[Path],
    *,
    cluster: str = "",
    interrupt_jobs: bool = False,
    yes: bool = False,
    json: bool = False,
) -> None:
    """Give a virtual cluster another number of compute nodes.

    The other nodes are not touched. New ones are like the last one in the cluster's description.
    The last ones are removed, with what is on them: it asks first, and without a terminal needs
    --yes; nodes that run jobs stay, unless --interrupt-jobs is given. Then run provision.

        invoke cluster.scale 4
        invoke --dry cluster.scale 1 --cluster second
    """
    from sifline.errors import UsageError
    from sifline.report import practice, tables

    if not words:
        raise UsageError("how many compute nodes? Say such as cluster.scale 4")
    changes, asked, count = run.pipeline().practice, cluster_of(cluster), int(str(words[0]))
    would = changes.would_scale(asked, count)
    if run.dry:
        done = would
    else:
        if would.removed and not yes and not run.agreed("cluster.scale", would.removed):
            return
        done = changes.scale(asked, count, interrupt_jobs=interrupt_jobs)
    values = practice.scaled_values(done, dry=run.dry)
    run.print(tables.dump(**values) if json else practice.scaled(done, dry=run.dry))
    if not run.dry and (done.added or done.removed):
        following = ["invoke provision", *([f"--cluster {done.name}"] if cluster else [])]
        # Slurm still knows the jobs of the nodes that are gone.
        following += ["--interrupt-jobs"] if done.jobs else []
        run.next(" ".join(following))
