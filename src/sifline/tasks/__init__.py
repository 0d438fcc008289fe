"""The Invoke namespace: parse flags, call one function of the pipeline, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sifline.config import image_names
from sifline.errors import SiflineError, UsageError
from sifline.tasks import (
    cluster,
    deployed,
    flags,
    handling,
    helps,
    images,
    looking,
    making,
    practice,
    program,
    project,
)
from sifline.tasks.support import Run, complain, guarded

# Importing Invoke takes ten times as long as importing the rest of this module, and shell
# completion does not need it.
if TYPE_CHECKING:
    from invoke.collection import Collection

    from sifline.config.image_names import Found
    from sifline.model import Workspace
    from sifline.tasks.naming import OwnTask, VerbCollection

Body = Callable[..., None]

# Tasks that change nothing, or that support --dry.
DRY = frozenset(
    {
        *images.LOOKING,
        *(
            making.build,
            making.test,
            making.convert,
            making.make,
            making.deploy,
            handling.clean,
            looking.info,
            looking.compat,
            looking.diff,
            looking.sizes,
        ),
        *(
            cluster.up,
            cluster.down,
            cluster.list_,
            cluster.status,
            cluster.inventory,
            cluster.facts,
            cluster.provision,
        ),
        *(practice.fault, practice.restart, practice.scale),
        *(deployed.catalog, deployed.history, deployed.rollback),
        *(deployed.undeploy, deployed.prune),
        *(project.doctor, project.quickstart, project.completion, cluster.lint_slurm),
    }
)


def namespace(root: Path) -> Collection:
    """Return the Invoke collection with all tasks; reads only the folder names of ``images/``."""
    # Invoke switches off Python's byte code cache for tasks.py; without the cache the package
    # would be compiled again at every call.
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    from invoke.collection import Collection
    from invoke.exceptions import Exit

    from sifline.model import Workspace
    from sifline.tasks.naming import Namespace

    workspace = Workspace(root=root.resolve())
    try:
        found = image_names.found(workspace)
    except SiflineError as error:
        raise Exit(complain(error), error.exit_code) from None
    program.adapt(program.Here(workspace=workspace, found=found))
    spoken = _spoken(sys.argv)
    top = Namespace()
    for verb in images.VERBS:
        top.add_collection(_verb(verb, found, workspace, spoken))
    group = Collection("cluster")
    for body in cluster.GROUP:
        group.add_task(_task(body, workspace))
    top.add_collection(group)
    for single in flags.SINGLE:
        top.add_task(_task(single, workspace))
    return top


def _spoken(argv: Sequence[str]) -> Callable[[str], bool]:
    """Return a predicate that says whether ``argv`` may name a task."""
    if Path(argv[0]).name not in program.PROGRAMS:
        return lambda _: True
    text = " ".join(argv[1:])
    if "--complete" not in argv:
        return lambda task: task in text
    beginning = text.split()[-1]
    return lambda task: task in text or task.startswith(beginning)


def _verb(
    verb: Body, found: Found, workspace: Workspace, spoken: Callable[[str], bool]
) -> VerbCollection:
    """Return the tasks of one verb: one per image, and ``VERB --all``.

    Folders with invalid names appear in lists only.
    """
    from sifline.tasks.naming import OwnTask, VerbCollection

    one, what = _task(verb, workspace), helps.doc(verb).summary
    tasks = {
        name: one.twin(_call(verb, workspace, [name]), name=name, help=what)
        for name in found.names
    }
    rows = {image_names.printable(name): error for name, error in found.refused.items()}
    for name, error in rows.items():
        call = _call(verb, workspace, [name])
        tasks[name] = one.twin(call, name=name, help=f"broken: {error.message}")
    every = found.names if verb in images.LATER else (*found.names, *found.refused)
    tasks["all"] = OwnTask(
        _call(_for_all(verb), workspace, every, verb=verb),
        name="all",
        help=what if verb in images.SINGLE else f"{what} With --all: every image.",
        flags=flags.parameters(verb, over_all=True),
        verb=flags.name_of(verb),
        files=flags.files_of(sys.argv[1:], verb),
    )
    collection = VerbCollection(
        flags.called(verb), tasks, default="all", spoken=spoken, rows=frozenset(rows)
    )
    collection.__doc__ = verb.__doc__
    return collection


def _for_all(verb: Body) -> Body:
    """Return the verb's function for all images, or for SIF files."""
    alone = images.ALONE.get(verb, ())

    def every(run: Run, names: Sequence[str], *, all: bool = False, **given: Any) -> None:
        files = [Path(given.pop(name)) for name in flags.FILE_NAMES if name in given]
        others = [name for name in alone if given[name]]
        flags.need_subject(verb, files=len(files), over_all=all, others=others)
        verb(replace(run, over_all=not files), files or names, **given)

    return every


def _with_files(body: Body) -> Body:
    """The body of a task that is about no image but about files."""

    def call(run: Run, _: Sequence[str], **given: Any) -> None:
        files = [Path(given.pop(name)) for name in flags.FILE_NAMES if name in given]
        body(run, files, **given)

    return call


def _task(body: Body, workspace: Workspace) -> OwnTask:
    """Make a task from ``body(run, images, *, flags)``; Invoke sees only the flags."""
    from sifline.tasks.naming import OwnTask

    filed = body in cluster.FILED or body in cluster.COUNTED
    return OwnTask(
        _call(_with_files(body) if filed else body, workspace, (), verb=body),
        name=flags.called(body),
        help=body.__doc__ or "",
        flags=flags.parameters(body),
        verb=flags.name_of(body),
        files=flags.files_of(sys.argv[1:], body) if filed else 0,
    )


def _call(
    body: Body, workspace: Workspace, names: Sequence[str], *, verb: Body | None = None
) -> Body:
    """Return a function that calls ``body`` with its first two arguments and reports its errors.

    :param verb: the function that gives the task its name, if ``body`` wraps it.
    """

    def call(c: Any, **given: Any) -> None:
        run = Run.of(workspace, c)

        def checked() -> None:
            run.draw()
            known = verb or body
            if run.dry and known not in DRY:
                raise UsageError(
                    f"--dry: {helps.name_of(known)} does not support a dry run; leave --dry out"
                )
            body(run, names, **given)

        guarded(checked, debug=run.debug)

    return call
