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
from sifline.tasks import cluster, flags, helps, images, program, project
from sifline.tasks.support import Run, complain, guarded

# Invoke and all it needs take ten times as long to load as the rest of this: shell
# completion does without.
if TYPE_CHECKING:
    from invoke.collection import Collection

    from sifline.config.image_names import Found
    from sifline.model import Workspace
    from sifline.tasks.naming import OwnTask, VerbCollection

Body = Callable[..., None]

# What only looks, and what can tell what it would do.
DRY = frozenset(
    {
        *images.LOOKING,
        *(
            images.build,
            images.test,
            images.convert,
            images.make,
            images.deploy,
            images.clean,
            images.info,
            images.compat,
            images.diff,
            images.sizes,
        ),
        *(cluster.up, cluster.down, cluster.list_, cluster.status, cluster.provision),
        *(project.doctor, project.completion),
    }
)


def namespace(root: Path) -> Collection:
    """Return all tasks for the images below ``root``; looks at folder names alone."""
    # Invoke keeps Python from writing byte code, for the sake of tasks.py; without it the package
    # of a checkout would be compiled again at every call.
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
    """The tasks of one verb: one per image, and ``VERB --all``.

    Folders whose names are refused are rows of lists alone.
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
        files=flags.files_of(sys.argv[1:], verb),
    )
    collection = VerbCollection(
        flags.called(verb), tasks, default="all", spoken=spoken, rows=frozenset(rows)
    )
    collection.__doc__ = verb.__doc__
    return collection


def _for_all(verb: Body) -> Body:
    """The verb over all images, or SIF files."""
    alone = images.ALONE.get(verb, ())

    def every(run: Run, names: Sequence[str], *, all: bool = False, **given: Any) -> None:
        files = [Path(given.pop(name)) for name in flags.FILE_NAMES if name in given]
        others = [name for name in alone if given[name]]
        flags.need_subject(verb, files=len(files), over_all=all, others=others)
        verb(replace(run, over_all=not files), files or names, **given)

    return every


def _task(body: Body, workspace: Workspace) -> OwnTask:
    """Make a task of ``body(run, images, *, flags)``; Invoke sees only the flags."""
    from sifline.tasks.naming import OwnTask

    return OwnTask(
        _call(body, workspace, ()),
        name=flags.called(body),
        help=body.__doc__ or "",
        flags=flags.parameters(body),
    )


def _call(
    body: Body, workspace: Workspace, names: Sequence[str], *, verb: Body | None = None
) -> Body:
    """Give ``body`` its first two arguments, and one place where its errors end.

    :param verb: the function that people know, where ``body`` is one around it.
    """

    def call(c: Any, **given: Any) -> None:
        run = Run.of(workspace, c)

        def checked() -> None:
            known = verb or body
            if run.dry and known not in DRY:
                raise UsageError(
                    f"--dry: {helps.name_of(known)} cannot tell what it would do; leave --dry out"
                )
            body(run, names, **given)

        guarded(checked, debug=run.debug)

    return call
