"""Tasks about clusters: virtual clusters up and down, provision, validate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sifline.tasks.practice import fault, restart, scale
from sifline.tasks.support import Run, cluster_of, need_dry, one_of

STAGES = ("munge", "pmix", "accounting", "controller", "compute", "container-runtime", "registry")


def up(run: Run, _: Sequence[str], *, cluster: str = "", json: bool = False) -> None:
    """Bring up a virtual cluster: systemd, Slurm, OpenSSH.

    Nodes are containers of this machine's Docker engine. A name without a file in clusters/ uses
    the description in clusters/virtual.yaml. A second run starts what is missing. Builds the
    image of the nodes first if it is out of date.

        invoke cluster.up
        invoke cluster.up --cluster second
    """
    from sifline.report import clusters as report
    from sifline.report import planned, tables

    need_dry(run, json=json)
    clusters = run.pipeline().clusters
    if run.dry:
        would = clusters.would_up(cluster_of(cluster))
        values = planned.would_bring_up_values(would)
        run.print(tables.dump(**values) if json else planned.would_bring_up(would))
        return
    found = clusters.up(cluster_of(cluster))
    run.print(report.nodes(found))
    run.next(f"invoke provision --cluster {found.name}" if cluster else "invoke provision")


def down(
    run: Run,
    _: Sequence[str],
    *,
    cluster: str = "",
    foreign: bool = False,
    yes: bool = False,
    json: bool = False,
) -> None:
    """Remove a virtual cluster: containers, network and files.

    Asks first; without a terminal it needs --yes. A cluster of another checkout is kept, unless
    --foreign is given.

        invoke cluster.down
        invoke cluster.down --cluster second --yes
    """
    from sifline.report import tables

    def show(things: Sequence[str], verb: str) -> None:
        values = {"dry": run.dry, "removed": [{"what": item} for item in things]}
        text = "\n".join(f"{verb} {item}" for item in things)
        run.print(tables.dump(**values) if json else text)

    clusters, asked = run.pipeline().clusters, cluster_of(cluster)
    if run.dry or not yes:
        things = clusters.would_down(asked, foreign=foreign)
        if run.dry:
            show(things, "would remove")
            return
        if not run.agreed("cluster.down", things):
            return
    show(clusters.down(asked, foreign=foreign), "removed")


def list_(run: Run, _: Sequence[str], *, json: bool = False) -> None:
    """List the clusters that are described here or running.

    These are the files of clusters/, and the virtual clusters of this machine's Docker engine,
    including those of other checkouts.

        invoke cluster.list
        invoke cluster.list --json
    """
    from sifline.report import clusters as report
    from sifline.report import tables

    found = run.pipeline().clusters.listed()
    values = report.cluster_values(found)
    run.print(tables.dump(clusters=values) if json else report.clusters(found))


def status(run: Run, _: Sequence[str], *, cluster: str = "", json: bool = False) -> None:
    """Print the nodes of a virtual cluster and their state.

    Starts nothing.

        invoke cluster.status
        invoke cluster.status --cluster second --json
    """
    from sifline.report import clusters as report
    from sifline.report import tables

    states = run.pipeline().clusters.status(cluster_of(cluster))
    run.print(tables.dump(nodes=states) if json else report.node_states(states))


def shell(
    run: Run,
    _: Sequence[str],
    *,
    node: str = "controller",
    cluster: str = "",
    user: str = "root",
) -> None:
    """Open a shell on a node of a virtual cluster.

    Or run the command after --.

        invoke cluster.shell
        invoke cluster.shell --node compute-01 --user alice -- id
    """
    run.end(run.pipeline().clusters.shell(cluster_of(cluster), node, run.command, user=user))


def provision(
    run: Run,
    _: Sequence[str],
    *,
    cluster: str = "",
    node: str | None = None,
    without: str | None = None,
    stage: str = "",
    adopt: bool = False,
    interrupt_jobs: bool = False,
    wait: bool = False,
    diff: bool = False,
    json: bool = False,
    ask_become_pass: bool = False,
) -> None:
    """Set up a cluster with Ansible: MUNGE, Slurm, Apptainer.

    The nodes need an SSH server, Python, and sudo if the user is not root. Files that sifline did
    not write, or that were changed since, are kept and reported, unless --adopt is given. If a
    daemon does not run with a new configuration of Slurm, all nodes get the old one back. A change
    that would end jobs (a node or a partition goes, other cpus, fewer gpus) is refused and names
    them: --wait waits for their end and lets no new ones begin there, --interrupt-jobs ends them.
    --dry shows them. --stage runs one stage alone: registry, which creates the image folders, is
    the one for a cluster whose Slurm others manage. With --node or --without the other nodes stay
    as they are, and a new slurm.conf is refused. --diff prints the changes of files line by line,
    but no secret.

        invoke provision --dry --diff
        invoke provision --cluster clusters/mine.yaml --stage registry
    """
    from sifline.report import clusters as report
    from sifline.report import tables

    if stage:
        one_of("stage", stage, STAGES)
    password = run.become_password() if ask_become_pass else ""
    clusters = run.pipeline().clusters
    found = clusters.find(
        cluster_of(cluster), become_password=password, only=node, without=without
    )
    done = clusters.provision(
        found,
        check=run.dry,
        stage=stage,
        adopt=adopt,
        interrupt_jobs=interrupt_jobs,
        wait=wait,
        diff=diff,
    )
    values = report.provisioned_values(done, dry=run.dry)
    run.print(tables.dump(**values) if json else report.provisioned(done, dry=run.dry))
    if not run.dry and not stage:
        run.next(f"invoke validate --cluster {cluster}" if cluster else "invoke validate")


def inventory(run: Run, _: Sequence[str], *, cluster: str = "", json: bool = False) -> None:
    """Check a cluster file and print Ansible's inventory of it.

    Contacts no node. This is the inventory that provision gives to Ansible, so that it serves
    ansible and ansible-playbook as well. A virtual cluster need not run. What the file says and
    sifline does not read is printed as notes, to standard error.

        invoke inventory --cluster clusters/mine.yaml
        invoke inventory --cluster lab > hosts.yaml
    """
    from sifline.report import hosts, tables

    found = run.pipeline().clusters.inventory(cluster_of(cluster))
    run.print(tables.dump(**hosts.values(found)) if json else hosts.text(found))


def validate(
    run: Run,
    _: Sequence[str],
    *,
    cluster: str = "",
    node: str | None = None,
    without: str | None = None,
    suite: str = "",
    check: str = "",
    list: bool = False,
    json: bool = False,
    ask_become_pass: bool = False,
) -> None:
    """Run health checks on a cluster and print how each ended.

    A check passes, fails, or is skipped with a reason. With --node or --without jobs run on the
    chosen nodes only; what needs two nodes is skipped on one.

        invoke validate
        invoke validate --cluster lab --without compute-07 --suite registry
    """
    from sifline.report import checks, tables

    if list:
        suites = run.pipeline().clusters.checks()
        values = checks.checks_of(suites)
        run.print(tables.dump(checks=values) if json else checks.listing(suites))
        return
    password = run.become_password() if ask_become_pass else ""
    clusters = run.pipeline().clusters
    found = clusters.find(
        cluster_of(cluster), become_password=password, only=node, without=without
    )
    results = clusters.validate(found, suites=_words(suite), checks=_words(check))
    run.print(tables.dump(checks=results) if json else checks.checks(results))
    checks.refuse_failures(results, f"validating {cluster_of(cluster)}")


def facts(
    run: Run,
    _: Sequence[str],
    *,
    cluster: str = "",
    node: str | None = None,
    without: str | None = None,
    refresh: bool = False,
    json: bool = False,
) -> None:
    """Print what the nodes of a cluster offer to images.

    Architecture, kernel, C library, NVIDIA driver, Slurm's MPI, and how Apptainer mounts a SIF.
    `deploy` compares an image with them. They are kept for a day, and read again after a reboot of
    the node, or with --refresh. What cannot be read is unknown.

        invoke facts
        invoke facts --cluster lab --refresh --json
    """
    from sifline.errors import StepFailed
    from sifline.report import facts as report
    from sifline.report import tables

    clusters = run.pipeline().clusters
    found = clusters.find(cluster_of(cluster), only=node, without=without)
    done = clusters.facts(found, refresh=refresh)
    run.print(tables.dump(**report.values(done)) if json else report.text(done))
    if done.silent:
        first, *others = done.silent.items()
        more = f" (and {', '.join(name for name, _ in others)})" if others else ""
        raise StepFailed(f"no facts of {len(done.silent)} nodes: {first[1]}{more}")


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split(",") if word)


GROUP = (up, down, list_, status, shell, fault, restart, scale)


def lint_slurm(
    run: Run, files: Sequence[Path], *, release: str = "24.11", json: bool = False
) -> None:
    """Check the configuration files of Slurm for a release.

    Unknown, obsolete and wrong keys, and settings that together do nothing. Without a file those
    of /etc/slurm are checked. What a file is comes from its name: slurm.conf, gres.conf,
    cgroup.conf and so on; files that include each other are read together.

        invoke lint-slurm
        invoke lint-slurm site/slurm.conf site/gres.conf --release 25.05
    """
    from sifline.errors import StepFailed
    from sifline.formats.slurm_conf import Effect
    from sifline.report import slurm, tables
    from sifline.stages import lint_slurm as stage

    found = stage.lint(files or stage.standing(), release)
    run.print(tables.dump(**slurm.values(found)) if json else slurm.text(found))
    if any(item.effect is not Effect.ADVICE for item in found.findings):
        raise StepFailed(f"lint-slurm: {slurm.count(found)}; correct the files")


TOP = (inventory, provision, validate, facts, lint_slurm)
# How many files a task may be about.
FILED: dict[Callable[..., None], int] = {lint_slurm: 9}
# Tasks that take a number, as files in the place of one.
COUNTED: dict[Callable[..., None], int] = {scale: 1}
