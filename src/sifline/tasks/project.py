"""Tasks that are not about a single image: doctor, quickstart, keys, completion."""

from __future__ import annotations

from collections.abc import Sequence

from sifline.tasks.support import Run, cluster_of


def doctor(run: Run, _: Sequence[str], *, json: bool = False) -> None:
    """Check that this machine has what the verbs need.

    Prints for each missing thing how to get it. Installs nothing.

        invoke doctor
        invoke doctor --json
    """
    from sifline.report import checks, tables

    results = run.pipeline().doctor()
    run.print(tables.dump(checks=results) if json else checks.checks(results))
    checks.refuse_failures(results, "this machine", exit_missing=True)


def quickstart(run: Run, _: Sequence[str], *, cluster: str = "") -> None:
    """Go from a Dockerfile to an MPI job on 2 nodes.

    Builds, tests and converts hello-mpi, brings up a virtual cluster, configures it, deploys the
    SIF and runs a job in it. A second run does only what is out of date.

        invoke quickstart
        invoke quickstart --cluster second
    """
    from sifline.report import checks, planned
    from sifline.report import clusters as report

    if run.dry:
        steps, started = run.pipeline().would_quickstart(cluster_of(cluster))
        run.print(f"{planned.plan(steps, {})}\n{planned.would_bring_up(started)}")
        run.print(f"would provision {started.name}, deploy the SIF, and run an MPI job in it")
        return
    done = run.pipeline().quickstart(cluster_of(cluster))
    run.print(report.quickstart(done))
    checks.refuse_failures([done.job], "quickstart")


def keys(run: Run, _: Sequence[str]) -> None:
    """Run `apptainer key` with the words after --.

    Uses your own Apptainer keyring.

        invoke keys -- list
        invoke keys -- newpair
    """
    run.end(run.pipeline().sifs.keys(run.command))


def completion(run: Run, _: Sequence[str], *, shell: str = "") -> None:
    """Print the completion script for bash, zsh or fish.

    It completes tasks, images, flags and their values.

        invoke completion --shell bash
        invoke completion --shell fish
    """
    from sifline.tasks.shells import script

    run.print(script(shell))


TOP = (doctor, quickstart, keys, completion)
