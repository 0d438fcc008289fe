"""The Invoke namespace: parse flags, call one function of the pipeline, print."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sifline.config import image_names
from sifline.errors import SiflineError, StepFailed, UsageError, did_you_mean
from sifline.tasks import cluster, flags, images, project
from sifline.tasks.support import Run, complain, guarded

# Invoke and all it needs take ten times as long to load as the rest of this: shell
# completion does without.
if TYPE_CHECKING:
    from invoke.collection import Collection
    from invoke.program import Program

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
            images.clean,
            images.info,
            images.diff,
            images.sizes,
        ),
        *(cluster.status, project.doctor, project.completion),
    }
)
# Columns for a text beside a name, or for the flags beside their texts.
LEAST_TEXT = 40
PROGRAMS = frozenset({"invoke", "inv", "__main__.py"})


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
    _make_room(sys.argv, [*found.names, *map(image_names.printable, found.refused)])
    _complain_behind_lists(found.refused)
    _say_what_is_unknown(found.names, workspace)
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


def _make_room(argv: Sequence[str], names: Sequence[str]) -> None:
    """Keep Invoke's lists and helps whole in a narrow terminal, and quiet where nobody reads on.

    It fails where the longest name leaves no room for the texts beside it.
    """
    from invoke import program, terminals

    if Path(argv[0]).name not in PROGRAMS:
        return
    listing = any(word == "-l" or word.startswith("--list") for word in argv)
    verb = max(len(flags.called(verb)) for verb in images.VERBS)
    least = LEAST_TEXT + (verb + max(map(len, names), default=0) if listing else LEAST_TEXT)

    def size() -> tuple[int, int]:
        columns, rows = terminals.pty_size()
        return max(columns, least), rows

    program.pty_size = size  # type: ignore[attr-defined]
    if listing or {"-h", "--help"}.intersection(argv):
        # Nothing is begun that would have to be cleaned up.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _complain_behind_lists(refused: Mapping[str, UsageError]) -> None:
    """Let Invoke end its lists with what is wrong with folders that cannot be images."""
    from invoke.exceptions import Exit
    from invoke.program import Program

    listing = getattr(Program.list_tasks, "__wrapped__", Program.list_tasks)

    @wraps(listing)
    def list_tasks(self: Program) -> None:
        listing(self)
        try:
            image_names.refuse_broken(refused)
        except SiflineError as error:
            raise Exit(complain(error), StepFailed.exit_code) from None

    Program.list_tasks = list_tasks  # type: ignore[method-assign]


def _spoken(argv: Sequence[str]) -> Callable[[str], bool]:
    """Return a predicate that says whether ``argv`` may name a task."""
    if Path(argv[0]).name not in PROGRAMS:
        return lambda _: True
    text = " ".join(argv[1:])
    if "--complete" not in argv:
        return lambda task: task in text
    beginning = text.split()[-1]
    return lambda task: task in text or task.startswith(beginning)


def _say_what_is_unknown(names: Sequence[str], workspace: Workspace) -> None:
    """Let Invoke name the nearest tasks and flags where it has no idea what a word is.

    Only behind its own refusal: it alone knows the tasks that others add to ours.
    """
    from invoke.program import Program

    if Path(sys.argv[0]).name not in PROGRAMS or "--complete" in sys.argv:
        return
    for step in (Program.parse_tasks, Program.parse_cleanup):
        setattr(Program, step.__name__, _explained(step, names, workspace))


def _explained(
    step: Callable[[Program], None], names: Sequence[str], workspace: Workspace
) -> Callable[[Program], None]:
    from invoke.exceptions import Exit, ParseError

    from sifline.tasks.naming import theirs

    parse = getattr(step, "__wrapped__", step)

    @wraps(parse)
    def explained(self: Program) -> None:
        # Where ours are not called by their own names, all is left to Invoke.
        known = theirs(self.collection)
        try:
            try:
                parse(self)
            except (ParseError, ValueError):  # a value that is no number is the latter
                if known is not None:
                    _refuse_unknown(sys.argv, names, workspace, known)
                raise
            # Of a flag that may be repeated, Invoke misses none.
            if known is not None:
                _refuse_without_value(sys.argv, known)
        except SiflineError as error:
            raise Exit(complain(error), error.exit_code) from None

    return explained


def _refuse_unknown(
    argv: Sequence[str], names: Sequence[str], workspace: Workspace, theirs: frozenset[str]
) -> None:
    """Refuse tasks and flags that are not there with the nearest names.

    :param theirs: the tasks that are not ours; what stands behind one is not judged.
    """
    replaced = {task.partition(".")[0] for task in theirs}
    verbs = {flags.called(verb) for verb in images.VERBS} - replaced
    for here, word in flags.walk(argv[1:], theirs):
        here.check(word)
        if not here.names_task(word) or word in theirs:
            continue
        verb, dot, name = word.partition(".")
        if dot and verb in verbs and name not in {*names, *image_names.RESERVED}:
            raise image_names.unknown(name, workspace)
        if here.task in theirs:
            continue
        no_verb = verb.replace("-", "").isalpha() and verb not in verbs | replaced
        if dot and name in names and no_verb:
            raise UsageError(f"no verb {verb!r}.{did_you_mean(verb, verbs)} See invoke --list.")
        if flags.of_task(word) is None or verb in replaced:
            raise _no_task(word, here.task, names, theirs)
    _refuse_without_value(argv, theirs)


def _refuse_without_value(argv: Sequence[str], theirs: frozenset[str]) -> None:
    left = flags.place(argv[1:], theirs).waiting
    if left and left.takes is flags.Takes.VALUE:
        raise UsageError(f"{left.written[0]}: takes a value, and there is none")


def _no_task(word: str, before: str, names: Sequence[str], theirs: frozenset[str]) -> UsageError:
    """Return the error for a word that is no task, behind the task ``before``."""
    verb = before.partition(".")[0]
    if word in names and verb in {flags.called(item) for item in images.VERBS}:
        return UsageError(f"an image belongs to the name of the task: say {verb}.{word}")
    tasks = [flags.called(body) for body in (*images.VERBS, *flags.SINGLE)]
    tasks += [*(f"cluster.{body.__name__}" for body in cluster.GROUP), *sorted(theirs)]
    return UsageError(f"no task {word!r}.{did_you_mean(word, tasks)} See invoke --list.")


def _verb(
    verb: Body, found: Found, workspace: Workspace, spoken: Callable[[str], bool]
) -> VerbCollection:
    """The tasks of one verb: one per image, and ``VERB --all``.

    Folders whose names are refused are rows of lists alone.
    """
    from sifline.tasks.naming import OwnTask, VerbCollection

    one, what = _task(verb, workspace), _first_line(verb)
    tasks = {
        name: one.twin(_call(verb, workspace, [name]), name=name, help=f"Image: {name}.\n\n{what}")
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
                    f"--dry: {known.__name__} cannot tell what it would do; leave --dry out"
                )
            body(run, names, **given)

        guarded(checked, debug=run.debug)

    return call


def _first_line(function: Body) -> str:
    return (function.__doc__ or "").strip().split("\n", maxsplit=1)[0]
