"""The verbs that lead from a Dockerfile to the nodes: build, test, convert, make, deploy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from sifline.config.image_names import refuse_broken
from sifline.errors import StepFailed, UsageError
from sifline.tasks import support
from sifline.tasks.options import CONVERTING, DOING, SEEING, options
from sifline.tasks.support import Run, cluster_of, need_dry, one_of

if TYPE_CHECKING:
    from sifline.model import TestReport, Verb
    from sifline.pipeline import Pipeline
    from sifline.pipeline.done import Results

RUNTIMES = ("docker", "apptainer")


@options(*DOING, *SEEING)
def build(run: Run, pipeline: Pipeline, images: Sequence[str], *, json: bool = False) -> None:
    """Build the Docker image and its parents, if they changed.

    Changes of the Dockerfile, its build context, arguments, parents and settings count; `explain`
    prints them. Images that the engine has are not pulled again, unless --pull is given.

        invoke build.<image>
        invoke --dry build --all
    """
    _carry_out(run, pipeline, images, "BUILD", "BUILD", json=json)


@options("jobs", "keep_going", "gpu", *SEEING)
def test(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    runtime: str = "",
    json: bool = False,
) -> None:
    """Run the tests of an image and its parents, or of a SIF.

    In Docker, or with --runtime apptainer in the SIF. Builds what the tests need if it is out of
    date. A SIF file, whoever made it, must pass the tests of every SIF: format, execution, file
    system, environment, Python, size.

        invoke test.<image> --runtime apptainer
        invoke test FILE.sif
    """
    files = [item for item in images if isinstance(item, Path)]
    if files:
        _no_json("test FILE.sif", json=json)
        _test_files(run, pipeline, files, runtime)
        return
    verb = "TEST" if one_of("runtime", runtime or "docker", RUNTIMES) == "docker" else "TEST_SIF"
    names = [item for item in images if isinstance(item, str)]
    _carry_out(run, pipeline, names, verb, verb, only_new=False, json=json)


@options(*DOING, *CONVERTING, *SEEING)
def convert(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str],
    *,
    source: str = "",
    sif_name: str = "",
    output: str = "",
    foreign: bool = False,
    json: bool = False,
) -> None:
    """Convert the image to a verified SIF, built if needed.

    The SIF appears in build/sif/ once it is complete and verified. --source converts something
    else: any image of the Docker engine or of a registry, an archive, a definition file. --output
    puts a copy of that SIF where you say.

        invoke convert.<image>
        invoke convert --source docker-daemon:alpine:3.20 --output alpine.sif
    """
    if source or sif_name or output or foreign:
        _convert_source(run, pipeline, source, sif_name, output, foreign=foreign, json=json)
        return
    _carry_out(run, pipeline, images, "CONVERT", "CONVERT", json=json)


@options(*DOING, *CONVERTING, *SEEING)
def make(run: Run, pipeline: Pipeline, images: Sequence[str], *, json: bool = False) -> None:
    """Build, test and convert the image, and test the SIF.

    All steps before a deployment, if they are out of date. Steps that need a failed one are
    skipped; with --all the other images go on.

        invoke make.<image>
        invoke --dry make --all
    """
    _carry_out(run, pipeline, images, "MAKE", "TEST", "CONVERT", "TEST_SIF", json=json)


@options(*SEEING)
def deploy(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str],
    *,
    cluster: str = "",
    node: str | None = None,
    without: str | None = None,
    ask_become_pass: bool = False,
    require: str = "answering",
    untested: bool = False,
    foreign: bool = False,
    override: str | None = None,
    json: bool = False,
) -> None:
    """Copy the tested SIF to every node of a cluster.

    Makes the image first if it is out of date. The copy is verified on every node before any
    node switches to it; jobs that run keep the one that they opened. Nodes that do not answer are
    named, and get it when you deploy again. An image that fails its tests is refused, unless
    --untested is given. One that cannot work on a node (architecture, glibc, driver, MPI,
    compression; see `facts`) is refused before anything is sent, unless --override says why to
    go on; the nodes' catalogs keep the reason. With --node or --without the other nodes stay as
    they are, and are named.

        invoke deploy.<image>
        invoke deploy.<image> --cluster lab --node 'compute-[01-03],gpu-1'
    """
    from sifline.report import clusters as report
    from sifline.report import planned, tables

    every = one_of("require", require, ("answering", "all")) == "all"
    password = run.become_password() if ask_become_pass else ""
    names, broken = run.sound(pipeline, images)
    clusters = pipeline.clusters
    found = clusters.find(
        cluster_of(cluster), become_password=password, only=node, without=without
    )
    if run.dry:
        would = clusters.would_deploy(
            names, found, untested=untested, foreign=foreign, override=override
        )
        values = {**planned.would_deploy_values(would), "broken": tables.broken_values(broken)}
        shown = "\n".join([planned.would_deploy(would), *tables.broken(broken)])
        run.print(tables.dump(**values) if json else shown)
        refuse_broken(broken)
        return
    done, failed = clusters.deploy(
        names,
        found,
        untested=untested,
        require_all=every,
        foreign=foreign,
        override=override,
    )
    errors = {**broken, **failed}
    text = "\n".join([report.deployed(done), *tables.broken(errors)])
    facts = {"deployments": report.deployed_values(done), "broken": tables.broken_values(errors)}
    run.print(tables.dump(**facts) if json else text)
    path = done[0].path if len(done) == 1 else "FILE.sif"
    job = f"srun apptainer exec {path} COMMAND"
    if found.source.is_relative_to(run.workspace.clusters):
        # In a container root may not mount; jobs are people's anyway.
        user = f"--user {found.job_user or found.ssh.user}"
        run.next(f"invoke cluster.shell --cluster {found.name} {user} -- {job}")
    else:
        run.next(f"on the cluster: {job}")
    refuse_broken(broken)
    if failed:
        count = f"{len(failed)} of {len(names)} images were not deployed"
        raise StepFailed(f"{count}, see the errors above: {', '.join(failed)}")


def _convert_source(
    run: Run,
    pipeline: Pipeline,
    source: str,
    name: str,
    output: str,
    *,
    foreign: bool,
    json: bool,
) -> None:
    """Convert an image of the engine or a registry, an archive or a definition file."""
    from sifline.report import images as report
    from sifline.report import planned, tables
    from sifline.stages.output import Output

    if not source:
        given = {"sif-name": name, "output": output, "foreign": foreign}
        flag = next(flag for flag, value in given.items() if value)
        raise UsageError(f"--{flag} is for --source; the SIF of an image is build/sif/<image>.sif")
    if foreign and not output:
        raise UsageError("--foreign is for --output: it allows to replace that file")
    need_dry(run, json=json)
    path = support.output(Path(output)).absolute() if output else None
    place = Output(path=path, foreign=foreign) if path else None
    if run.dry:
        would = pipeline.sifs.would_convert_source(source, name, place)
        values = planned.would_convert_values(would)
        run.print(tables.dump(**values) if json else planned.would_convert(would))
        return
    run.print(report.converted([pipeline.sifs.convert_source(source, name, place)]))


def _test_files(run: Run, pipeline: Pipeline, files: Sequence[Path], runtime: str) -> None:
    """Run the tests of every SIF on SIF files."""
    from sifline.report import images as report

    if runtime == "docker":
        raise UsageError("--runtime docker: a SIF file runs in Apptainer; leave --runtime out")
    one_of("runtime", runtime or "apptainer", RUNTIMES)
    if run.dry:
        raise UsageError("--dry: test FILE.sif does not support a dry run; leave --dry out")
    reports = [pipeline.work.test_file(path)[1] for path in files]
    run.print(report.tested(reports, earlier=frozenset()))


def _carry_out(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str],
    verbs: str,
    *shown: str,
    only_new: bool = True,
    json: bool = False,
) -> None:
    """Carry out the plan of ``verbs`` and print some results; with --dry print the plan."""
    from sifline.model import Verb
    from sifline.pipeline import plans
    from sifline.report import planned, tables

    need_dry(run, json=json)
    wanted = getattr(plans, verbs)
    if run.dry:
        found = pipeline.work.dry(wanted, images, only_new=only_new)
        if json:
            run.print(tables.dump(steps=planned.plan_values(found.steps, found.broken)))
        else:
            run.print(planned.plan(found.steps, found.broken))
        found.check()
        return
    done = pipeline.work.run(wanted, images, only_new=only_new)
    earlier = {(step.verb, step.image.name) for step in done.steps if not step.needed}
    texts = _texts(done.results, earlier, warned="TEST" in shown)
    for text in filter(None, (texts[Verb[name]] for name in shown)):
        run.print(text)
    for line in tables.broken(done.broken):
        run.print(line)
    done.check()
    about = " --all" if run.over_all else f".{images[0]}"
    follows = NEXT[shown[-1]].replace(".<image>", about)
    run.next(f"{follows}{run.cluster_flag() if 'deploy' in follows else ''}")


def _no_json(what: str, *, json: bool) -> None:
    if json:
        raise UsageError(f"--json: {what} prints no JSON; leave --json out")


def _texts(
    results: Results, earlier: Set[tuple[Verb, str]], *, warned: bool = False
) -> dict[Verb, str]:
    """Return the results of each verb as text; "" if there are none.

    :param earlier: the steps that were up to date, so that their results are of an earlier run.
    :param warned: the warnings of the tests in Docker are printed, and not again of the SIF.
    """
    from sifline.model import Verb
    from sifline.report import images as report

    in_docker = [item.report for item in results.tested.values()] if warned else []
    told = {warning for item in in_docker for warning in item.warnings}

    def tested(verb: Verb, reports: Iterable[TestReport], told: Set[str] = frozenset()) -> str:
        names = {name for of, name in earlier if of is verb}
        return report.tested([*reports], earlier=names, told=told)

    built, sifs = [*results.built.values()], [*results.sifs.values()]
    return {
        Verb.BUILD: report.built(built) if built else "",
        Verb.TEST: tested(Verb.TEST, (item.report for item in results.tested.values())),
        Verb.CONVERT: report.converted(sifs) if sifs else "",
        Verb.TEST_SIF: tested(Verb.TEST_SIF, results.sif_reports.values(), told),
    }


# What follows a verb whose last result is this; deploy makes what its tests still need.
NEXT = {
    "BUILD": "invoke test.<image>",
    "TEST": "invoke convert.<image>",
    "CONVERT": "invoke deploy.<image>",
    "TEST_SIF": "invoke deploy.<image>",
}
