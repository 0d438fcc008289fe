"""Tasks that are about no single image: doctor, quickstart, keys, completion."""

from __future__ import annotations

from collections.abc import Sequence

from sifline.tasks.support import Run, cluster_of


def doctor(run: Run, _: Sequence[str], *, json: bool = False) -> None:
    """Check all that the verbs need on this machine.

    Says of each thing that is missing how to get it. Installs nothing.

        invoke doctor
        invoke doctor --json
    """
    from sifline.report import tables

    results = run.pipeline().doctor()
    run.print(tables.dump(results) if json else tables.checks(results))
    tables.refuse_failures(results, "this machine", exit_missing=True)


def quickstart(run: Run, _: Sequence[str], *, cluster: str = "") -> None:
    """From Dockerfile to a 2-node MPI job, the whole way.

    Builds, tests and converts hello-mpi, brings up a virtual cluster, configures it, deploys the
    SIF and runs a job in it. Run again, it does what is not up to date.

        invoke quickstart
        invoke quickstart --cluster second
    """
    from sifline.report import tables

    done = run.pipeline().quickstart(cluster_of(cluster))
    run.print(tables.quickstart(done))
    tables.refuse_failures([done.job], "quickstart")


def keys(run: Run, _: Sequence[str]) -> None:
    """Run Apptainer's key command with what stands after --.

    The keyring is yours: that of Apptainer on this machine.

        invoke keys -- list
        invoke keys -- newpair
    """
    run.end(run.pipeline().sifs.keys(run.command))


def completion(run: Run, _: Sequence[str], *, shell: str = "") -> None:
    """Print what lets bash, zsh or fish complete command lines.

    Tasks, images, flags and their values.

        invoke completion --shell bash
        invoke completion --shell fish
    """
    from sifline.tasks.shells import script

    run.print(script(shell))


TOP = (doctor, quickstart, keys, completion)
