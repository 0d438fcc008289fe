"""Texts about the tasks: the list, the help of each task, and the welcome screen."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sifline import __version__
from sifline.tasks import cluster, deployed, flags, handling, images, looking, making, project
from sifline.tasks.flags import Flag, Takes

Body = Callable[..., None]

# The image in examples if the repository has no image yet.
AN_IMAGE = "hello-mpi"
_IMAGE = "<image>"
# Tasks that pass on the words after --.
COMMANDED = (handling.shell, cluster.shell, project.keys)
_INDENT = "  "
_GAP = "   "
_WIDEST = 100
# Least width of a text column, even in narrow terminals.
_LEAST = 20

# The tasks of virtual clusters, which have a list of their own.
_GROUP = {"cluster.VERB": "Virtual clusters: up, down, list, shell and more."}

_GROUPS: tuple[tuple[str, tuple[Body, ...]], ...] = (
    (
        "Images",
        (
            *(making.build, making.test, making.convert, making.make, making.deploy),
            *(handling.shell, handling.sign, handling.verify_signature, handling.clean),
        ),
    ),
    (
        "Information",
        (
            *(looking.status, looking.explain, looking.graph, looking.config, looking.info),
            *(looking.sbom, looking.compat, looking.diff, looking.sizes),
        ),
    ),
    (
        "Deployed images",
        (deployed.catalog, *deployed.NAMED, deployed.prune),
    ),
    ("Clusters", (*cluster.TOP, *cluster.GROUP)),
    ("This machine", project.TOP),
)


@dataclass(frozen=True, kw_only=True)
class Doc:
    """The parts of a task's documentation: one line, paragraphs, and commands as examples."""

    summary: str
    paragraphs: tuple[str, ...]
    examples: tuple[str, ...]


def doc(body: object) -> Doc:
    """Split the docstring of a task into its parts; indented lines are examples."""
    lines = inspect.cleandoc(body.__doc__ or "").split("\n")
    summary, rest = lines[0], lines[1:]
    examples = tuple(line.strip() for line in rest if line.startswith("    "))
    text = "\n".join(line for line in rest if not line.startswith("    "))
    paragraphs = tuple(" ".join(part.split()) for part in text.split("\n\n") if part.strip())
    return Doc(summary=summary, paragraphs=paragraphs, examples=examples)


def tasks() -> dict[str, Body]:
    """Return the functions of all tasks by the names that users type; verbs without an image."""
    return {name_of(body): body for _, bodies in _GROUPS for body in bodies}


def name_of(body: Body) -> str:
    """Return the name of a task as users type it; a verb's name without an image."""
    return flags.name_of(body)


def groups() -> tuple[tuple[str, dict[str, Body]], ...]:
    """Return all tasks under the headings of the list."""
    return tuple((title, {name_of(body): body for body in bodies}) for title, bodies in _GROUPS)


def overview(count: int, others: Mapping[str, str], columns: int) -> str:
    """Return the list of all tasks.

    :param count: how many images there are.
    :param others: summaries of tasks that are not ours, by name; tasks of ours that they
        replace are left out.
    """
    heads = {name.partition(".")[0] for name in others}
    parts = [
        (title, {name: text for name, text in rows.items() if name not in heads})
        for title, rows in _summaries()
    ]
    parts = [part for part in (*parts, ("Others", dict(others))) if part[1]]
    width = max(len(name) for _, rows in parts for name in rows)
    lines = [line for title, rows in parts for line in (f"{title}:", *_rows(rows, width, columns))]
    pieces = "image" if count == 1 else "images"
    lines.insert(0, f"sifline {__version__}")
    for text in (
        "Flags of every verb: --quiet, --verbose, --wide; --dry where something is made.",
        f"Verbs take one of {count} {pieces}, as in build.<image>, or --all.",
        "More: invoke --list build, --list cluster. Help on a verb: invoke --help build.",
    ):
        lines += textwrap.wrap(text, max(columns, _LEAST))
    return "\n".join(lines)


def _summaries() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what each task does, under the headings of the list; the group has one line."""
    for title, bodies in groups():
        single = {
            name: doc(body).summary for name, body in bodies.items() if body not in cluster.GROUP
        }
        yield title, single | (_GROUP if len(single) < len(bodies) else {})


def of_images(verb: str, rows: Mapping[str, str], columns: int) -> str:
    """Return the list of the images that a verb accepts.

    :param rows: the descriptions of the images by their names.
    """
    named = {f"{verb}.{name}": text for name, text in rows.items()}
    summary = doc(tasks()[verb]).summary
    width = max((len(name) for name in named), default=0)
    return "\n".join([f"{verb}: {summary}", *_rows(named, width, columns)])


def welcome(count: int, image: str, columns: int) -> str:
    """Return the welcome screen: what sifline is, and five commands to begin with."""
    pieces = "image that is" if count == 1 else "images that are"
    rows = {
        "invoke doctor": "check this machine",
        "invoke quickstart": "run every stage once, with a small MPI program",
        "invoke --list build": f"the {count} {pieces} here",
        f"invoke make.{image}": "build and test it, convert it, test the SIF",
        "invoke status": "what is built, converted and up to date",
    }
    width = max(map(len, rows))
    return "\n".join(
        [
            *textwrap.wrap(
                f"sifline {__version__} turns Dockerfiles into containers that run on a Slurm"
                " cluster.",
                columns,
            ),
            "",
            "Begin with",
            *_rows(rows, width, columns),
            "",
            "All verbs: invoke --list",
        ]
    )


def of_program(count: int, image: str, columns: int) -> str:
    """Return the help of the program: the welcome screen, the usage, the flags of every verb."""
    # Each stands in the table under its long and its short name.
    told = {", ".join(flag.written): flag.help for flag in flags.CORE.values() if flag.help}
    return "\n".join(
        [
            welcome(count, image, columns),
            f"Help on a verb: invoke --help build, or invoke build.{image} --help",
            "",
            "Usage: invoke VERB.IMAGE [flags]",
            "Usage: invoke VERB [--all | FILE] [flags]",
            "",
            "Flags, before the verb or behind it:",
            *_rows(told, max(map(len, told)), min(columns, _WIDEST)),
        ]
    )


def of_task(task: str, columns: int, *, image: str = AN_IMAGE) -> str:
    """Return the help of ``task``, a name as users type it.

    :param image: the image in its examples, if ``task`` does not name one.
    """
    known = tasks()
    # Invoke calls the verb without an image so.
    task = task.removesuffix(".all")
    verb, _, name = task.partition(".")
    named = bool(name) and task not in known
    body = known[verb if named else task]
    told = doc(body)
    taken = flags.parameters(body, over_all=body in images.VERBS and not named)
    image = name if named else image
    width = min(columns, _WIDEST)
    lines = [f"{task}: {told.summary}"]
    for text in told.paragraphs:
        lines += ["", *textwrap.wrap(text, width, break_long_words=False)]
    lines += ["", *(f"Usage: invoke {usage}" for usage in _usages(body, task, named=named))]
    if rows := {written(flag): flag.help for flag in listed(taken, name_of(body))}:
        lines += ["", "Flags:", *_rows(rows, max(map(len, rows)), width)]
    lines += ["", "Examples:"]
    lines += [f"{_INDENT}{example.replace(_IMAGE, image)}" for example in told.examples]
    return "\n".join(lines)


def _usages(body: Body, task: str, *, named: bool) -> Iterator[str]:
    """Yield the forms in which a task is called; a verb needs an image, --all or files."""
    command = " [-- COMMAND]" if body in COMMANDED else ""
    if named or body not in images.VERBS:
        others = " [FILE.conf…]" if body in cluster.FILED else ""
        others = " NUMBER" if body in cluster.COUNTED else others
        yield f"{task}{others} [flags]{command}"
        return
    yield f"{task}.<image> [flags]{command}"
    if body not in images.SINGLE:
        yield f"{task} --all [flags]"
    if files := images.FILED.get(body):
        yield f"{task} {' '.join(['FILE.sif'] * files)} [flags]{command}"
    if body is making.convert:
        yield f"{task} --source SOURCE [--output FILE.sif] [flags]"


def listed(taken: Sequence[inspect.Parameter], task: str) -> list[Flag]:
    """Return each flag of ``task`` once, in alphabetical order."""
    found = {flag.name: flag for flag in flags.of(taken, task).values()}
    return [found[name] for name in sorted(found)]


def written(flag: Flag) -> str:
    """Return a flag as a help shows it: with its value, or with its opposite."""
    if flag.takes is Takes.NOTHING:
        return "--[no-]" + flag.written[0][2:] if len(flag.written) > 1 else flag.written[0]
    return f"{flag.written[0]} {flag.value}"


def _rows(rows: Mapping[str, str], width: int, columns: int) -> Iterator[str]:
    """Yield names and texts in two columns; long texts wrap in their column."""
    before = len(_INDENT) + width + len(_GAP)
    for name, text in rows.items():
        width_left = max(columns - before, _LEAST)
        wrapped = textwrap.wrap(text, width_left, break_long_words=False) or [""]
        yield f"{_INDENT}{name:<{width}}{_GAP}{wrapped[0]}".rstrip()
        yield from (" " * before + line for line in wrapped[1:])
