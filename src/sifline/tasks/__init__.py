"""The Invoke namespace: parse flags, call one function of the pipeline, print."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit

from sifline.errors import SiflineError, UsageError, did_you_mean
from sifline.model import Workspace
from sifline.stages import discover
from sifline.tasks import cluster, images, project
from sifline.tasks.naming import OwnTask, VerbCollection
from sifline.tasks.support import Run, complain, guarded

Body = Callable[..., None]

FLAGS = {
    "all": "every image in images/",
    "check": "ansible only says what it would change; or one check of a suite, by name",
    "cluster": "a cluster of clusters/, a standing virtual one, or a path to its file",
    "docker": "remove the Docker images",
    "file": "the cluster file to bring up",
    "force": "even where nothing changed",
    "gpus": "GPUs to hand in: all, or a number",
    "json": "print JSON",
    "list": "print the suites and their checks, run none",
    "mount_home": "bind your home folder",
    "name": "the name of the virtual cluster",
    "node": "the node to open, such as controller or compute-01",
    "runtime": "docker or apptainer",
    "sif": "use the SIF instead of the Docker image; or a SIF file",
    "sifs": "remove the SIFs",
    "state": "remove records, logs and prepared root file systems",
    "suite": "one suite, or several with commas",
    "user": "who to be inside",
    "volume": "bind a folder, as SOURCE:TARGET; may be repeated",
}
ITERABLE = ("volume",)


def namespace(root: Path) -> Collection:
    """Return all tasks for the images below ``root``; looks at folder names alone."""
    workspace = Workspace(root=root.resolve())
    try:
        names = discover.names(workspace)
        _refuse_unknown(sys.argv, names, workspace)
    except SiflineError as error:
        raise Exit(complain(error), error.exit_code) from None
    top = Collection()
    for verb in images.VERBS:
        top.add_collection(_verb(verb, names, workspace))
    group = Collection("cluster")
    for body in cluster.GROUP:
        group.add_task(_task(body, workspace))
    top.add_collection(group)
    for single in (*cluster.TOP, *project.TOP):
        top.add_task(_task(single, workspace))
    return top


def _refuse_unknown(argv: Sequence[str], names: Sequence[str], workspace: Workspace) -> None:
    """Refuse ``VERB.<no such image>`` with the nearest names, where Invoke has no idea."""
    if Path(argv[0]).name not in {"invoke", "inv", "__main__.py"} or "--complete" in argv:
        return
    verbs = {verb.__name__ for verb in images.VERBS}
    for word in argv[1:]:
        if word == "--":
            return
        verb, dot, name = word.partition(".")
        if dot and verb in verbs and name not in {*names, *discover.RESERVED}:
            raise discover.unknown(name, workspace)
        if dot and name in names and verb.isalpha() and verb not in verbs:
            raise UsageError(f"no verb {verb!r}.{did_you_mean(verb, verbs)} See invoke --list.")


def _verb(verb: Body, names: Sequence[str], workspace: Workspace) -> VerbCollection:
    """The tasks of one verb: one per image, and ``VERB --all``."""
    collection = VerbCollection(verb.__name__)
    collection.__doc__ = verb.__doc__
    for name in names:
        task = _task(verb, workspace, name=name, images=[name])
        task.__doc__ = f"{_first_line(verb)} Image: {name}."
        collection.add_task(task)
    collection.add_task(_task(_for_all(verb), workspace, name="all", images=names), default=True)
    return collection


def _for_all(verb: Body) -> Body:
    """The verb over all images; without --all it is refused, unless it only looks."""

    def every(run: Run, names: Sequence[str], *, all: bool = False, **flags: Any) -> None:
        if not all and verb not in images.LOOKING:
            raise UsageError(f"which image? Say {verb.__name__}.<image>, or {verb.__name__} --all")
        verb(run, names, **flags)

    every.__doc__ = f"{_first_line(verb)} With --all: every image."
    flag = inspect.Parameter("all", inspect.Parameter.KEYWORD_ONLY, default=False)
    every.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [*_parameters(verb)[:2], flag, *_flags(verb)]
    )
    return every


def _task(
    body: Body, workspace: Workspace, *, name: str = "", images: Sequence[str] = ()
) -> OwnTask:
    """Make a task of ``body(run, images, *, flags)``; Invoke sees only the flags."""

    @wraps(body)
    def call(c: Any, **flags: Any) -> None:
        run = Run(workspace, c)
        guarded(lambda: body(run, images, **flags), debug=run.debug)

    flags = _flags(body)
    context = inspect.Parameter("c", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    call.__signature__ = inspect.Signature([context, *flags])  # type: ignore[attr-defined]
    names = {flag.name for flag in flags}
    return OwnTask(
        call,
        name=name or body.__name__,
        positional=[],
        iterable=[item for item in ITERABLE if item in names],
        help={item: FLAGS[item] for item in names & set(FLAGS)},
    )


def _parameters(body: Body) -> list[inspect.Parameter]:
    return list(inspect.signature(body).parameters.values())


def _flags(body: Body) -> list[inspect.Parameter]:
    """All parameters but the first two, the run and its images."""
    return _parameters(body)[2:]


def _first_line(function: Body) -> str:
    return (function.__doc__ or "").strip().split("\n", maxsplit=1)[0]
