"""The verbs that act on images; each exists as VERB.<image> and as VERB --all."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence, Set
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sifline.config.image_names import refuse_broken
from sifline.errors import UsageError
from sifline.tasks import support
from sifline.tasks.support import Run, cluster_of, need_dry, one_of, seconds

if TYPE_CHECKING:
    from sifline.model import Cleaned, TestReport, Verb
    from sifline.pipeline import Pipeline
    from sifline.pipeline.done import Results

Body = Callable[..., None]

RUNTIMES = ("docker", "apptainer")
ENDINGS = {".svg": "svg", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid"}
TEXT_ENDINGS = ("", ".txt", ".text")
GRAPH_FORMATS = ("text", "dot", "mermaid", "svg")

SEEING = ("site", "build_arg")
DOING = ("force", "pull", "jobs", "keep_going")
CONVERTING = ("method", "compression", "level", "processors")
DEFAULTS: dict[str, Any] = {
    "site": "",
    "build_arg": (),
    "force": False,
    "pull": False,
    "jobs": 0,
    "keep_going": False,
    "method": "",
    "compression": "",
    "level": 0,
    "processors": 0,
    "gpu": False,
}


def options(*names: str) -> Callable[[Body], Body]:
    """Add flags to a verb that are passed to the pipeline; its body does not get them."""

    def decorate(verb: Body) -> Body:
        @wraps(verb)
        def call(run: Run, images: Sequence[str], **flags: Any) -> None:
            chosen = {name: flags.pop(name, DEFAULTS[name]) for name in names}
            verb(run, run.pipeline(**chosen), images, **flags)

        own = inspect.signature(verb)
        kind = inspect.Parameter.KEYWORD_ONLY
        more = [inspect.Parameter(name, kind, default=DEFAULTS[name]) for name in names]
        seen = [item for item in own.parameters.values() if item.name != "pipeline"]
        call.__signature__ = own.replace(parameters=[*seen, *more])  # type: ignore[attr-defined]
        return call

    return decorate


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
        _no_json("convert --source", json=json)
        _convert_source(run, pipeline, source, sif_name, output, foreign=foreign)
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
    untested: bool = False,
    json: bool = False,
) -> None:
    """Copy the tested SIF to every node of a cluster.

    Makes the image first if it is out of date. On each node the copy is verified, then put
    in place at once; jobs that run keep the one that they opened. An image that fails its
    tests is refused, unless --untested is given. With --node or --without the other nodes stay
    as they are, and are named.

        invoke deploy.<image>
        invoke deploy.<image> --cluster lab --node 'compute-[01-03],gpu-1'
    """
    from sifline.report import tables

    password = run.become_password() if ask_become_pass else ""
    names, broken = run.sound(pipeline, images)
    clusters = pipeline.clusters
    found = clusters.find(
        cluster_of(cluster), become_password=password, only=node, without=without
    )
    if run.dry:
        would = clusters.would_deploy(names, found, untested=untested)
        values = {**tables.would_deploy_values(would), "broken": tables.broken_values(broken)}
        shown = "\n".join([tables.would_deploy(would), *tables.broken(broken)])
        run.print(tables.dump(**values) if json else shown)
        refuse_broken(broken)
        return
    done = clusters.deploy(names, found, untested=untested)
    text = "\n".join([tables.deployed(done), *tables.broken(broken)])
    facts = {"deployments": tables.deployed_values(done), "broken": tables.broken_values(broken)}
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


@options(*SEEING)
def info(
    run: Run, pipeline: Pipeline, images: Sequence[str | Path], *, json: bool = False
) -> None:
    """Print the metadata of an image, its SIF, or a SIF file.

    Builds nothing.

        invoke info.<image>
        invoke info FILE.sif --json
    """
    from sifline.report import tables

    files = [item for item in images if isinstance(item, Path)]
    names, broken = run.sound(pipeline, [item for item in images if isinstance(item, str)])
    facts = pipeline.sifs.info_of(files) if files else pipeline.sifs.info(names)
    facts += tables.broken_values(broken)
    run.print(tables.dump(images=facts) if json else tables.facts(facts))
    refuse_broken(broken)


@options(*SEEING)
def sign(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    key: str = "",
    passphrase_file: str = "",
    passphrase_env: str = "",
) -> None:
    """Sign a SIF with a key of your keyring.

    The SIF of an image is converted first if it is out of date. Keys are those of Apptainer,
    see `keys`.

        invoke sign.<image>
        invoke sign FILE.sif --passphrase-env KEY_PASSPHRASE
    """
    from getpass import getpass

    from sifline.machine.passphrase import passphrase_of
    from sifline.report import signatures, tables

    def ask() -> str:
        with run.terminal.asking():
            try:
                return getpass("passphrase of the key: ")
            except EOFError:
                raise UsageError("no passphrase was given") from None

    passphrase = passphrase_of(
        file=Path(passphrase_file) if passphrase_file else None,
        variable=passphrase_env,
        ask=ask if sys.stdin.isatty() else None,
    )
    subjects, broken = run.sound(pipeline, images)
    signed = signatures.signed(pipeline.sifs.sign(subjects, key=key, passphrase=passphrase))
    run.print("\n".join([signed, *tables.broken(broken)]))
    refuse_broken(broken)


@options(*SEEING)
def verify_signature(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    key: str = "",
    online: bool = False,
    json: bool = False,
) -> None:
    """Print who signed a SIF; fail if it was changed since.

    Builds nothing. Also fails if the SIF is not signed.

        invoke verify-signature.<image>
        invoke verify-signature FILE.sif --json
    """
    from sifline.report import signatures, tables

    found = pipeline.sifs.verify_signature(images, signers=[key] if key else [], online=online)
    run.print(tables.dump(sifs=signatures.document(found)) if json else signatures.verified(found))


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
    json: bool = False,
) -> None:
    """Compare an image with an earlier version, or two SIF files.

    Packages, files, labels and settings that differ. Builds nothing.

        invoke diff.<image>
        invoke diff OLD.sif NEW.sif
    """
    from sifline.report import inventory, tables

    files = [item for item in images if isinstance(item, Path)]
    names = [item for item in images if isinstance(item, str)]
    if files and (len(files), against) != (2, ""):
        raise UsageError("diff compares two: say diff.<image> [--against X], or diff A.sif B.sif")
    found = (
        pipeline.sifs.diff_of(files) if files else pipeline.sifs.diff(names[0], against=against)
    )
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


@options(*SEEING)
def shell(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    sif: bool = False,
    mount_home: bool = False,
    volume: Sequence[str] = (),
    gpus: str = "",
    workdir: str = "",
    env: Sequence[str] = (),
) -> None:
    """Open a shell in an image or a SIF, or run a command.

    The command follows --. The image is built first if it is out of date; with --sif its SIF is
    made. A SIF file is opened as it is.

        invoke shell.<image>
        invoke shell FILE.sif -- cat /etc/os-release
    """
    from sifline.stages.shell import Asked

    asked = Asked(mount_home=mount_home, volumes=volume, gpus=gpus, workdir=workdir, env=env)
    subject = images[0]
    if isinstance(subject, Path):
        if sif:
            raise UsageError("--sif is for images: a SIF file is a SIF in any case")
        code = pipeline.opener.shell_file(subject, run.command, asked)
    else:
        code = pipeline.opener.shell(subject, run.command, asked, sif=sif)
    run.end(code)


@options(*SEEING)
def clean(
    run: Run,
    pipeline: Pipeline,
    images: Sequence[str | Path],
    *,
    docker: bool = False,
    sifs: bool = False,
    state: bool = False,
    older_than: str = "",
    unused: bool = False,
    foreign: bool = False,
    yes: bool = False,
    environments: bool = False,
    json: bool = False,
) -> None:
    """Remove what sifline made of an image, or parts of it.

    Its Docker images, SIFs, and records with logs; with --docker, --sifs or --state these alone.
    Asks first; without a terminal it needs --yes. What another checkout made is kept, unless
    --foreign is given. --all includes the SIFs of convert --source; FILE.sif is one of build/sif.
    --environments is about no image: it removes the environments of scripts/bootstrap and Nox, and
    the caches of linters and tests.

        invoke --dry clean.<image>
        invoke clean --all --unused --older-than 7d --yes
    """
    from sifline.report import tables

    chosen = {"docker": docker, "sifs": sifs, "state": state}
    files, given = _apart(images)
    others = docker or state or bool(older_than) or unused or foreign
    _check_clean(files, environments=environments, sifs=sifs, others=others)
    # It is unknown which versions of a broken image are in use.
    names, broken = run.sound(pipeline, given) if unused else (given, {})
    parts = [part for part, named in chosen.items() if named or not any(chosen.values())]
    age = seconds("older-than", older_than)

    def clean(*, dry: bool) -> Cleaned:
        if environments:
            return pipeline.cleaner.environments(dry=dry)
        if files:
            return pipeline.cleaner.clean_files(files, dry=dry)
        return pipeline.cleaner.clean(
            names,
            parts=parts,
            older_than=age,
            unused=unused,
            foreign=foreign,
            gone=run.over_all,
            dry=dry,
        )

    def show(found: Cleaned, *, dry: bool) -> None:
        text = "\n".join([tables.cleaned(found, dry=dry), *tables.broken(broken)])
        values = {**tables.cleaned_values(found, dry=dry), "broken": tables.broken_values(broken)}
        run.print(tables.dump(**values) if json else text)
        refuse_broken(broken)

    if run.dry or not yes:
        found = clean(dry=True)
        things = tables.sized(found)
        if run.dry or not things:
            show(found, dry=True)
            return
        if not run.agreed("clean", things):
            return
    show(clean(dry=False), dry=False)


@options(*SEEING)
def status(run: Run, pipeline: Pipeline, images: Sequence[str], *, json: bool = False) -> None:
    """Print what is built, tested, converted, signed, deployed.

    Looks at this machine only, and builds nothing. Deployments are those that this checkout
    recorded; `validate` asks the nodes.

        invoke status
        invoke status.<image> --json
    """
    from sifline.report import tables

    names, broken = run.sound(pipeline, images)
    states = pipeline.queries.status(names, broken)
    values = tables.state_values(states)
    run.print(tables.dump(images=values) if json else tables.states(states))
    refuse_broken(broken)


@options("force", "pull", *SEEING)
def explain(run: Run, pipeline: Pipeline, images: Sequence[str], *, json: bool = False) -> None:
    """Print why an image would be rebuilt, down to the file.

    Builds nothing.

        invoke explain.<image>
        invoke explain --json
    """
    from sifline.report import tables

    names, broken = run.sound(pipeline, images)
    found = pipeline.queries.explain(names, broken)
    values = tables.explanation_values(found)
    run.print(tables.dump(images=values) if json else tables.explanations(found))
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
    from sifline.report import graphs, tables

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
    drawn = graphs.render(nodes, "dot" if chosen == "svg" else chosen)
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
    from sifline.report import tables

    del show  # printing is all it does: the flag is for users who expect it
    names, broken = run.sound(pipeline, images)
    found = pipeline.queries.settings(names, broken)
    run.print(tables.dump(settings=found) if json else tables.settings(found))
    refuse_broken(broken)


def _convert_source(
    run: Run, pipeline: Pipeline, source: str, name: str, output: str, *, foreign: bool
) -> None:
    """Convert an image of the engine or a registry, an archive or a definition file."""
    from sifline.report import tables
    from sifline.stages.output import Output

    if not source:
        given = {"sif-name": name, "output": output, "foreign": foreign}
        flag = next(flag for flag, value in given.items() if value)
        raise UsageError(f"--{flag} is for --source; the SIF of an image is build/sif/<image>.sif")
    if foreign and not output:
        raise UsageError("--foreign is for --output: it allows to replace that file")
    if run.dry:
        raise UsageError("--dry: convert --source does not support a dry run; leave --dry out")
    path = support.output(Path(output)).absolute() if output else None
    place = Output(path=path, foreign=foreign) if path else None
    run.print(tables.converted([pipeline.sifs.convert_source(source, name, place)]))


def _test_files(run: Run, pipeline: Pipeline, files: Sequence[Path], runtime: str) -> None:
    """Run the tests of every SIF on SIF files."""
    from sifline.report import tables

    if runtime == "docker":
        raise UsageError("--runtime docker: a SIF file runs in Apptainer; leave --runtime out")
    one_of("runtime", runtime or "apptainer", RUNTIMES)
    if run.dry:
        raise UsageError("--dry: test FILE.sif does not support a dry run; leave --dry out")
    reports = [pipeline.work.test_file(path)[1] for path in files]
    run.print(tables.tested(reports, earlier=frozenset()))


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
    from sifline.report import tables

    need_dry(run, json=json)
    wanted = getattr(plans, verbs)
    if run.dry:
        planned = pipeline.work.dry(wanted, images, only_new=only_new)
        if json:
            run.print(tables.dump(steps=tables.plan_values(planned.steps, planned.broken)))
        else:
            run.print(tables.plan(planned.steps, planned.broken))
        planned.check()
        return
    done = pipeline.work.run(wanted, images, only_new=only_new)
    earlier = {(step.verb, step.image.name) for step in done.steps if not step.needed}
    texts = _texts(done.results, earlier)
    for text in filter(None, (texts[Verb[name]] for name in shown)):
        run.print(text)
    for line in tables.broken(done.broken):
        run.print(line)
    done.check()
    about = " --all" if run.over_all else f".{images[0]}"
    follows = NEXT[shown[-1]].replace(".<image>", about)
    run.next(f"{follows}{run.cluster_flag() if 'deploy' in follows else ''}")


def _apart(images: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
    """Return the SIF files among ``images``, and the names."""
    files = [item for item in images if isinstance(item, Path)]
    return files, [item for item in images if isinstance(item, str)]


def _check_clean(files: Sequence[Path], *, environments: bool, sifs: bool, others: bool) -> None:
    """Refuse flags of ``clean`` that contradict each other.

    :param others: whether there are flags about images besides --sifs.
    """
    if environments and (files or sifs or others):
        raise UsageError("--environments: stands alone; the other flags are about images")
    if files and others:
        raise UsageError("clean FILE.sif: removes that SIF; the flags are --sifs and --yes")


def _no_json(what: str, *, json: bool) -> None:
    if json:
        raise UsageError(f"--json: {what} prints no JSON; leave --json out")


def _texts(results: Results, earlier: Set[tuple[Verb, str]]) -> dict[Verb, str]:
    """Return the results of each verb as text; "" if there are none.

    :param earlier: the steps that were up to date, so that their results are of an earlier run.
    """
    from sifline.model import Verb
    from sifline.report import tables

    def tested(verb: Verb, reports: Iterable[TestReport]) -> str:
        return tables.tested([*reports], earlier={name for of, name in earlier if of is verb})

    built, sifs = [*results.built.values()], [*results.sifs.values()]
    return {
        Verb.BUILD: tables.built(built) if built else "",
        Verb.TEST: tested(Verb.TEST, (item.report for item in results.tested.values())),
        Verb.CONVERT: tables.converted(sifs) if sifs else "",
        Verb.TEST_SIF: tested(Verb.TEST_SIF, results.sif_reports.values()),
    }


# What follows a verb whose last result is this; deploy makes what its tests still need.
NEXT = {
    "BUILD": "invoke test.<image>",
    "TEST": "invoke convert.<image>",
    "CONVERT": "invoke deploy.<image>",
    "TEST_SIF": "invoke deploy.<image>",
}
# Without --all they act on all images: they change nothing and are fast.
LOOKING = (status, explain, graph, config)
# Verbs about existing results: folders with invalid names have none.
LATER = (verify_signature, clean)
# Verbs that take SIF files instead of images, and how many.
FILED: dict[Body, int] = {
    test: 1,
    info: 1,
    sign: 1,
    verify_signature: 1,
    sbom: 1,
    compat: 1,
    sizes: 1,
    diff: 2,
    shell: 1,
    clean: 1,
}
# Verbs for one image at a time, without --all.
SINGLE = (shell, diff)
# Flags that a verb has only without an image.
ALONE: dict[Body, tuple[str, ...]] = {
    convert: ("source", "sif_name", "output", "foreign"),
    clean: ("environments",),
}
VERBS = (
    *(build, test, convert, make, sign, verify_signature, deploy),
    *(info, sbom, compat, diff, sizes, shell, clean, status, explain, graph, config),
)
