"""The verbs that print what an image or a SIF is, and change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sifline.config.image_names import refuse_broken
from sifline.errors import UsageError
from sifline.tasks import support
from sifline.tasks.options import SEEING, options
from sifline.tasks.support import Run, one_of

if TYPE_CHECKING:
    from sifline.pipeline import Pipeline

ENDINGS = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid"}
TEXT_ENDINGS = ("", ".txt", ".text")
GRAPH_FORMATS = ("text", "dot", "mermaid", "svg")


@options(*SEEING)
def status(run: Run, pipeline: Pipeline, images: Sequence[str], *, json: bool = False) -> None:
    """Print what is built, tested, converted, signed, deployed.

    Looks at this machine only, and builds nothing. Deployments are those that this checkout
    recorded; `validate` asks the nodes.

        invoke status
        invoke status.<image> --json
    """
    from sifline.report import images as report
    from sifline.report import tables

    names, broken = run.sound(pipeline, images)
    states = pipeline.queries.status(names, broken)
    values = report.state_values(states)
    run.print(tables.dump(images=values) if json else report.states(states))
    refuse_broken(broken)


@options("force", "pull", *SEEING)
def explain(run: Run, pipeline: Pipeline, images: Sequence[str], *, json: bool = False) -> None:
    """Print why an image would be rebuilt, down to the file.

    Builds nothing.

        invoke explain.<image>
        invoke explain --json
    """
    from sifline.report import planned, tables

    names, broken = run.sound(pipeline, images)
    found = pipeline.queries.explain(names, broken)
    values = planned.explanation_values(found)
    run.print(tables.dump(images=values) if json else planned.explanations(found))
    refuse_broken(broken)


@options(*SEEING)
def graph(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str],
    *,
    format: str = "",
    output: str = "",
    json: bool = False,
) -> None:
    """Draw which image is built on which, and their states.

    As text, for Graphviz or Mermaid, or as an SVG. Builds nothing.

        invoke graph
        invoke graph --output images.svg
    """
    from sifline.report import graphs, screen, tables

    if json and (format or output):
        raise UsageError("--json: is printed, and no drawing; leave --format and --output out")
    ending = Path(output).suffix
    if not format and ending not in (*ENDINGS, *TEXT_ENDINGS):
        known = ", ".join((*ENDINGS, *filter(None, TEXT_ENDINGS)))
        raise UsageError(
            f"--output {output}: nothing is drawn as {ending}; end it in one of {known}, or say"
            " what it is with --format"
        )
    chosen = format or ENDINGS.get(ending, "text")
    one_of("format", chosen, GRAPH_FORMATS)
    names, broken = run.sound(pipeline, images)
    nodes = pipeline.queries.graph(names, broken)
    if json:
        run.print(tables.dump(images=graphs.values(nodes)))
        refuse_broken(broken)
        return
    columns = 0 if output else screen.current().columns
    drawn = graphs.render(nodes, "dot" if chosen == "svg" else chosen, columns=columns)
    if chosen == "svg":
        drawn = pipeline.queries.svg(drawn)
    if output:
        run.write(Path(output), drawn)
    else:
        run.print(drawn)
    refuse_broken(broken)


@options(*SEEING)
def config(
    run: Run, pipeline: Pipeline, images: Sequence[str], *, show: bool = False, json: bool = False
) -> None:
    """Print each setting and where its value came from.

    Of image.toml, the site profile, flags and defaults. Builds nothing.

        invoke config.<image>
        invoke config --json
    """
    from sifline.report import images as report
    from sifline.report import tables

    del show  # printing is all it does: the flag is for users who expect it
    names, broken = run.sound(pipeline, images)
    found = pipeline.queries.settings(names, broken)
    run.print(tables.dump(settings=found) if json else report.settings(found))
    refuse_broken(broken)


@options(*SEEING)
def info(
    run: Run, pipeline: Pipeline, images: Sequence[str | Path], *, json: bool = False
) -> None:
    """Print the metadata of an image, its SIF, or a SIF file.

    Builds nothing.

        invoke info.<image>
        invoke info FILE.sif --json
    """
    from sifline.report import images as report
    from sifline.report import tables

    files = [item for item in images if isinstance(item, Path)]
    names, broken = run.sound(pipeline, [item for item in images if isinstance(item, str)])
    facts = pipeline.sifs.info_of(files) if files else pipeline.sifs.info(names)
    facts += tables.broken_values(broken)
    run.print(tables.dump(images=facts) if json else report.facts(facts))
    refuse_broken(broken)


@options(*SEEING)
def sbom(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    sif: bool = False,
    output: str = "",
    json: bool = False,
) -> None:
    """Write the bill of materials (CycloneDX) of an image or SIF.

    Nothing of the image is run, and nothing is built for it.

        invoke sbom.<image> --output bill.json
        invoke sbom FILE.sif --json
    """
    from sifline.report import inventory, tables

    target = support.output(Path(output)) if output else None
    subjects, broken = run.sound(pipeline, images)
    made = pipeline.sifs.sbom(subjects, sif=sif, target=target)
    values = [*inventory.bill_values(made), *tables.broken_values(broken)]
    lines = [inventory.bills(made), *tables.broken(broken)]
    run.print(tables.dump(bills=values) if json else "\n".join(lines))
    refuse_broken(broken)


@options(*SEEING)
def compat(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    sif: bool = False,
    json: bool = False,
) -> None:
    """Print what an image needs: driver, PMIx, architecture.

    Read from its own files; nothing of it is run, and nothing is built for it.

        invoke compat.<image>
        invoke compat FILE.sif --json
    """
    from sifline.report import inventory, tables

    subjects, broken = run.sound(pipeline, images)
    found = pipeline.sifs.compat(subjects, sif=sif)
    values = [*inventory.compatibility_values(found), *tables.broken_values(broken)]
    lines = [inventory.compatibility(found), *tables.broken(broken)]
    run.print(tables.dump(images=values) if json else "\n\n".join(lines))
    refuse_broken(broken)


@options(*SEEING)
def diff(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    against: str = "",
    cluster: str = "",
    json: bool = False,
) -> None:
    """Compare an image with an earlier version, or two SIF files.

    Packages, labels and settings that differ. With --cluster the earlier version is the one that
    is deployed there: what a deployment would change. No SIF is copied for that; the version has
    to be in the engine or in build/sif still. Builds nothing.

        invoke diff.<image> --cluster lab
        invoke diff OLD.sif NEW.sif
    """
    from sifline.report import inventory, tables

    files = [item for item in images if isinstance(item, Path)]
    names = [item for item in images if isinstance(item, str)]
    if files and (len(files), against) != (2, ""):
        raise UsageError("diff compares two: say diff.<image> [--against X], or diff A.sif B.sif")
    if cluster and (files or against):
        raise UsageError("--cluster: compares an image with what is deployed; leave the other out")
    if cluster:
        place = pipeline.clusters.find(cluster)
        found = pipeline.sifs.diff_deployed(names[0], *pipeline.deployed.current(place, names[0]))
    elif files:
        found = pipeline.sifs.diff_of(files)
    else:
        found = pipeline.sifs.diff(names[0], against=against)
    run.print(
        tables.dump(**inventory.difference_values(found)) if json else inventory.difference(found)
    )


@options(*SEEING)
def sizes(
    run: Run, pipeline: Pipeline, images: Sequence[str | Path], *, json: bool = False
) -> None:
    """Print what takes the space in an image or a SIF file.

    By layer, package and folder. Builds nothing.

        invoke sizes.<image>
        invoke sizes FILE.sif --json
    """
    from sifline.report import sizes as report
    from sifline.report import tables

    files = [item for item in images if isinstance(item, Path)]
    names, broken = run.sound(pipeline, [item for item in images if isinstance(item, str)])
    found = pipeline.sifs.sizes_of(files) if files else pipeline.sifs.sizes(names)
    values = [*report.values(found), *tables.broken_values(broken)]
    lines = [report.sizes(found), *tables.broken(broken)]
    run.print(tables.dump(images=values) if json else "\n\n".join(lines))
    refuse_broken(broken)
