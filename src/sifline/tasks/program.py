"""Invoke's program with our lists, helps, error messages and welcome screen."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sifline.config import image_names
from sifline.errors import SiflineError, StepFailed, UsageError, did_you_mean
from sifline.tasks import flags, helps, images, own_flags
from sifline.tasks.support import complain

if TYPE_CHECKING:
    from invoke.program import Program

    from sifline.config.image_names import Found
    from sifline.model import Workspace

# Least width of the text column: beside names, and beside flags.
LEAST_TEXT = 40
# How much a word has of a task that is meant.
VERY_NEAR = 0.8
# As a node may be called, and hardly a command.
_NODE = re.compile(r"controller|[a-z]+-[0-9]+")
PROGRAMS = frozenset({"invoke", "inv", "__main__.py", "sifline"})

Step = Callable[["Program"], None]


@dataclass(frozen=True, kw_only=True)
class Here:
    """The images that a command line can name."""

    workspace: Workspace
    found: Found

    @property
    def example(self) -> str:
        """Return the image to use in examples."""
        names = self.found.names
        return helps.AN_IMAGE if helps.AN_IMAGE in names or not names else names[0]

    def descriptions(self) -> dict[str, str | SiflineError]:
        """Return the description of each image, or the error of its name or its image.toml."""
        from sifline.config.images import load_image_settings

        rows: dict[str, str | SiflineError] = dict(self.found.refused)
        for name in self.found.names:
            try:
                settings = load_image_settings(self.workspace.images / name / "image.toml")
                rows[name] = settings.description
            except SiflineError as error:
                rows[name] = error
        return dict(sorted(rows.items()))


def adapt(here: Here) -> None:
    """Replace Invoke's lists and helps by ours, and suggest the nearest names on errors.

    If a task file puts our tasks into another collection, Invoke's own output is kept.
    """
    from invoke.program import Program

    if Path(sys.argv[0]).name not in PROGRAMS:
        return
    for name, change in own_flags.CHANGES.items():
        _replace(Program, name, change)
    _make_room(sys.argv, here.found)
    _replace(Program, "list_tasks", lambda before: _listed(before, here))
    _replace(Program, "no_tasks_given", lambda before: _welcomed(before, here))
    _replace(Program, "print_help", lambda before: _helped(before, here))
    _replace_help(Program, here)
    if "--complete" not in sys.argv:
        for step in ("parse_tasks", "parse_cleanup"):
            _replace(Program, step, lambda before: _explained(before, here))


def _replace(program: type[Program], name: str, change: Callable[[Any], Any]) -> None:
    """Wrap a method of Invoke's program, once: a process may load several task files."""
    before = getattr(program, name)
    before = getattr(before, "__wrapped__", before)
    setattr(program, name, wraps(before)(change(before)))


def _columns() -> int:
    """Return the width of the terminal; Invoke's own lists may be given more."""
    from invoke import terminals

    return int(terminals.pty_size()[0])


def _listed(before: Step, here: Here) -> Step:
    from invoke.exceptions import Exit

    def listed(self: Program) -> None:
        rows = _images_listed(self, here)
        text = _list(self, here, rows)
        if text is None:
            before(self)
        else:
            sys.stdout.write(f"{text}\n")
        broken = {name: row for name, row in rows.items() if isinstance(row, SiflineError)}
        try:
            image_names.refuse_broken(broken or here.found.refused)
        except SiflineError as error:
            raise Exit(complain(error), StepFailed.exit_code) from None

    return listed


def _images_listed(self: Program, here: Here) -> Mapping[str, str | SiflineError]:
    """Return the images to list, if those of one verb are wanted."""
    from sifline.tasks.naming import VerbCollection, theirs

    ours = theirs(self.collection) is not None and isinstance(
        self.scoped_collection, VerbCollection
    )
    flat = self.list_format == "flat" and not self.list_depth
    return here.descriptions() if ours and flat else {}


def _list(self: Program, here: Here, rows: Mapping[str, str | SiflineError]) -> str | None:
    """Return the requested list; None to print Invoke's own."""
    from sifline.tasks.naming import VerbCollection, theirs

    others = theirs(self.collection)
    if others is None or self.list_format != "flat" or self.list_depth:
        return None
    if isinstance(self.scoped_collection, VerbCollection):
        texts = {
            image_names.printable(name): f"broken: {row.message}"
            if isinstance(row, SiflineError)
            else row
            for name, row in rows.items()
        }
        return helps.of_images(str(self.list_root), texts, _columns())
    if self.list_root:
        return None
    summaries = {name: helps.doc(self.collection[name]).summary for name in sorted(others)}
    return helps.overview(len(here.found.names), summaries, _columns())


def _welcomed(before: Step, here: Here) -> Step:
    from invoke.exceptions import Exit

    from sifline.tasks.naming import theirs

    def welcomed(self: Program) -> None:
        if theirs(self.collection) is None:
            before(self)
        sys.stdout.write(helps.welcome(len(here.found.names), here.example, _columns()) + "\n")
        raise Exit

    return welcomed


def _helped(before: Step, here: Here) -> Step:
    from sifline.tasks.naming import theirs

    def helped(self: Program) -> None:
        if theirs(self.collection) is None:
            before(self)
            return
        text = helps.of_program(len(here.found.names), here.example, _columns())
        sys.stdout.write(f"{text}\n")

    return helped


def _replace_help(program: type[Program], here: Here) -> None:
    before = program.print_task_help
    before = getattr(before, "__wrapped__", before)

    @wraps(before)
    def print_task_help(self: Program, name: str) -> None:
        from sifline.tasks.naming import OwnTask, theirs

        if theirs(self.collection) is None or not isinstance(self.collection[name], OwnTask):
            before(self, name)
            return
        sys.stdout.write(helps.of_task(name, _columns(), image=here.example) + "\n")

    program.print_task_help = print_task_help  # type: ignore[method-assign]


def _make_room(argv: Sequence[str], found: Found) -> None:
    """Print lists and helps completely in narrow terminals, and exit quietly on a broken pipe.

    Invoke fails if the longest name leaves no room for the texts beside it.
    """
    from invoke import program, terminals

    listing = any(word == "-l" or word.startswith("--list") for word in argv)
    verb = max(len(flags.called(verb)) for verb in images.VERBS)
    names = [*found.names, *map(image_names.printable, found.refused)]
    detailed = listing and any(word in _names_of_verbs() for word in argv)
    longest = max(map(len, names), default=0) if detailed else 0
    least = LEAST_TEXT + (verb + longest if listing else LEAST_TEXT)

    def size() -> tuple[int, int]:
        columns, rows = terminals.pty_size()
        return max(columns, least), rows

    program.pty_size = size  # type: ignore[attr-defined]
    if listing or {"-h", "--help"}.intersection(argv) or len(argv) == 1:
        # Nothing has been started that would need to be cleaned up.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _names_of_verbs() -> frozenset[str]:
    return frozenset(flags.called(verb) for verb in images.VERBS)


def _explained(before: Step, here: Here) -> Step:
    """Suggest the nearest tasks and flags if Invoke does not know a word.

    Runs only after Invoke's own error: only Invoke knows the tasks that others add to ours.
    """
    from invoke.exceptions import Exit, ParseError

    from sifline.tasks.naming import theirs

    def explained(self: Program) -> None:
        # If our tasks are in another collection, Invoke reports the error.
        known = theirs(self.collection)
        try:
            try:
                before(self)
            except Exit as end:
                # Invoke's message for an unknown verb in --list.
                if known is not None and "Sub-collection" in str(end.message):
                    verb = str(self.args.list.value)
                    raise _no_task(verb, "", here, known) from None
                raise
            except (ParseError, ValueError):  # ValueError: a value that is not a number
                if known is not None:
                    _refuse_unknown(sys.argv, here, known)
                raise
            # Invoke does not notice a missing value of a repeatable flag, and takes empty ones.
            if known is not None:
                _refuse_without_value(sys.argv, known)
        except SiflineError as error:
            raise Exit(complain(error), error.exit_code) from None

    return explained


def _refuse_unknown(argv: Sequence[str], images_here: Here, theirs: frozenset[str]) -> None:
    """Raise an error with the nearest names for an unknown task or flag.

    :param theirs: the tasks that are not ours; words after them are not checked.
    """
    names = images_here.found.names
    replaced = {task.partition(".")[0] for task in theirs}
    verbs = _names_of_verbs() - replaced
    for at, (here, word) in enumerate(flags.walk(argv[1:], theirs), start=1):
        here.check(word)
        if not here.names_task(word) or word in theirs:
            continue
        verb, dot, name = word.partition(".")
        if dot and verb in verbs and name not in {*names, *image_names.RESERVED}:
            raise image_names.unknown(name, images_here.workspace)
        if here.task in theirs:
            continue
        no_verb = verb.replace("-", "").isalpha() and verb not in verbs | replaced
        if dot and name in names and no_verb:
            raise UsageError(f"no verb {verb!r}.{did_you_mean(verb, verbs)} See invoke --list.")
        if flags.of_task(word) is None or verb in replaced:
            if _commanded(here.task):
                raise _without_dashes(argv[1:at], argv[at:])
            raise _no_task(word, here.task, images_here, theirs)
    _refuse_without_value(argv, theirs)


def _refuse_without_value(argv: Sequence[str], theirs: frozenset[str]) -> None:
    flags.refuse_empty(argv[1:], theirs)
    left = flags.place(argv[1:], theirs).waiting
    if left and left.takes is flags.Takes.VALUE:
        raise UsageError(f"{left.written[0]}: needs a value")


def _commanded(task: str) -> bool:
    """Return whether a command may follow the task, behind two dashes."""
    known = {helps.name_of(body) for body in helps.COMMANDED}
    return task in known or task.partition(".")[0] in known


def _without_dashes(before: Sequence[str], command: Sequence[str]) -> UsageError:
    """Return the error for a command without the two dashes in front: the line with them."""
    command = [*command]
    if "--" in command:
        command.remove("--")
    # Said behind the command, the cluster is still meant for the task.
    at = command.index("--cluster") if "--cluster" in command[1:-1] else len(command)
    before, command = [*before, *command[at : at + 2]], command[:at] + command[at + 2 :]
    line = shlex.join(["invoke", *before, "--", *command])
    node = f"; a node is named by --node {command[0]}" if _NODE.fullmatch(command[0]) else ""
    return UsageError(f"a command follows two dashes: {line}{node}")


def _no_task(word: str, before: str, here: Here, theirs: frozenset[str]) -> UsageError:
    """Return the error for a word that is not a task, after the task ``before``."""
    verb, dot, _ = before.partition(".")
    names = here.found.names
    if word in names and verb in _names_of_verbs():
        return UsageError(f"an image belongs to the name of the task: say {verb}.{word}")
    known = [*helps.tasks(), *sorted(theirs)]
    if word == "help":
        return UsageError("for help: invoke --list, or invoke --help <verb>")
    # A mistyped task is more likely than a value only if it is very near.
    if before and not get_close_matches(word, known, n=1, cutoff=VERY_NEAR):
        if verb in _names_of_verbs() and not dot:
            return image_names.unknown(word, here.workspace)
        if "--cluster" in (flags.of_task(before) or {}):
            number = "takes a whole number; " if flags.is_counted(before) else ""
            return UsageError(f"{before}: {number}for the cluster {word} say --cluster {word}")
    kind = "task" if theirs or "." in word else "verb"
    return UsageError(f"no {kind} {word!r}.{did_you_mean(word, known)} See invoke --list.")
