"""The verbs that act on images; each exists as VERB.<image> and as VERB --all."""

from __future__ import annotations

from collections.abc import Sequence

from sifline.errors import UsageError
from sifline.tasks.support import Run, one_of

RUNTIMES = ("docker", "apptainer")


def build(run: Run, images: Sequence[str], *, force: bool = False) -> None:
    """Build the Docker image and what it is built on, where anything changed."""
    from sifline.report import tables

    if run.dry:
        run.print(tables.plan(run.pipeline.plan(images, force=force)))
        return
    run.print(tables.built(run.pipeline.build(images, force=force)))


def test(run: Run, images: Sequence[str], *, runtime: str = "docker") -> None:
    """Run the image's tests, and its parents', in Docker or in the SIF."""
    from sifline.report import tables

    one_of("runtime", runtime, RUNTIMES)
    run.print(tables.tested(run.pipeline.test(images, runtime=runtime)))


def convert(run: Run, images: Sequence[str], *, force: bool = False) -> None:
    """Convert the Docker image to a verified SIF, building it first where needed."""
    from sifline.report import tables

    run.print(tables.converted(run.pipeline.convert(images, force=force)))


def make(run: Run, images: Sequence[str], *, force: bool = False) -> None:
    """Build, test, convert, and test the SIF: all that is not up to date."""
    from sifline.report import tables

    run.print(tables.converted(run.pipeline.make(images, force=force)))


def deploy(run: Run, images: Sequence[str], *, cluster: str = "virtual") -> None:
    """Copy the SIF to every node of a cluster, verified there, switched atomically."""
    from sifline.report import tables

    run.print(tables.deployed(run.pipeline.deploy(images, cluster=cluster)))


def info(run: Run, images: Sequence[str], *, json: bool = False) -> None:
    """Print what is known of an image and of its SIF."""
    from sifline.report import tables

    facts = run.pipeline.info(images)
    run.print(tables.dump(facts) if json else tables.facts(facts))


def shell(
    run: Run,
    images: Sequence[str],
    *,
    sif: bool = False,
    mount_home: bool = False,
    volume: Sequence[str] = (),
    gpus: str = "",
) -> None:
    """Open a shell in the image, or run the command that stands after --."""
    if len(images) != 1:
        raise UsageError("shell opens one image: say shell.<image>")
    code = run.pipeline.shell(
        images[0],
        sif=sif,
        mount_home=mount_home,
        volumes=volume,
        gpus=gpus,
        command=run.command,
    )
    run.end(code)


def clean(
    run: Run,
    images: Sequence[str],
    *,
    docker: bool = False,
    sifs: bool = False,
    state: bool = False,
) -> None:
    """Remove what sifline made of an image: all of it, or the parts that are named."""
    everything = not (docker or sifs or state)
    removed = run.pipeline.clean(
        images, docker=docker or everything, sifs=sifs or everything, state=state or everything
    )
    run.print("\n".join(f"removed {item}" for item in removed) or "nothing to remove")


def status(run: Run, images: Sequence[str], *, json: bool = False) -> None:
    """Print the state of an image: built, converted, up to date or why not."""
    from sifline.report import tables

    states = run.pipeline.status(images)
    run.print(tables.dump(states) if json else tables.states(states))


# Over all images even without --all: they change nothing and take no time.
LOOKING = (status,)
VERBS = (build, test, convert, make, deploy, info, shell, clean, status)
