"""Tasks that are about no single image: doctor, quickstart, keys, completion."""

from __future__ import annotations

from collections.abc import Sequence

from sifline.tasks.support import Run


def doctor(run: Run, _: Sequence[str], *, json: bool = False) -> None:
    """Check all that the verbs need on this machine, and say how to mend it."""
    from sifline.report import tables

    results = run.pipeline.doctor()
    run.print(tables.dump(results) if json else tables.checks(results))
    tables.refuse_failures(results, "this machine", exit_missing=True)


def quickstart(run: Run, _: Sequence[str], *, name: str = "virtual") -> None:
    """From Dockerfile to a 2-node MPI job on a virtual cluster, the whole way."""
    from sifline.report import tables

    done = run.pipeline.quickstart(name)
    run.print(tables.quickstart(done))
    tables.refuse_failures([done.job], "quickstart")


def keys(run: Run, _: Sequence[str]) -> None:
    """Run Apptainer's key command with what stands after --, such as -- newpair, or -- list."""
    run.end(run.pipeline.sifs.keys(run.command))


def completion(run: Run, _: Sequence[str], *, shell: str = "") -> None:
    """Print what lets bash, zsh or fish complete tasks, images, flags and their values."""
    from sifline.tasks.shells import script

    run.print(script(shell))


TOP = (doctor, quickstart, keys, completion)
