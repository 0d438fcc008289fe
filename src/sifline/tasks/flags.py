"""The flags of all tasks, and a parser of command lines that does not import Invoke."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from sifline.errors import UsageError, did_you_mean
from sifline.tasks import cluster, deployed, images, own_texts, project

Body = Callable[..., None]

HELP = {
    "adopt": "replace files that sifline did not write or that were changed; old ones are kept",
    "against": "what to compare with: a fingerprint, FILE.sif, an image; default: the one before",
    "all": "every image in images/",
    "ask_become_pass": "ask for the password that sudo on the nodes wants",
    "build_arg": "a build argument, as NAME=VALUE; may be repeated",
    "check": "one check of a suite, or several with commas",
    "cluster": "a cluster by its name or its file (FILE#KEY for one of several in it); default:"
    " SIFLINE_CLUSTER, else virtual",
    "compression": "how the squashfs is compressed: zstd or gzip",
    "diff": "show each change of a file line by line; with --dry, each that would be made",
    "docker": "remove the Docker images",
    "env": "a variable, as NAME=value, or NAME for the value that you have; may be repeated",
    "environments": "remove .venv, .nox and the caches of linters and tests of this checkout",
    "fault": "disk-full, slow-network, slow-cpu, slow-disk, clock, no-gpu or kill",
    "force": "redo all four steps even if nothing changed",
    "foreign": "also remove or replace what others made",
    "format": "text, dot, mermaid or svg; default: by the ending of --output",
    "gpu": "demand a GPU: without one, tests fail that would be skipped",
    "gpus": "GPUs to hand in: all, a number, device=0,2 or none; default: as image.toml says",
    "interrupt_jobs": "make a change that ends jobs, such as a node that leaves",
    "jobs": "how many steps run at once; default: one per core",
    "json": "print JSON",
    "keep": "how many earlier versions of each image stay, for a rollback; default: 2",
    "keep_going": "after a failed step, go on with what does not depend on it",
    "key": "the key to sign with: a fingerprint, or its end",
    "level": "level of the compression: 1 is quick, the highest (zstd 22, gzip 9) small",
    "list": "print the suites and their checks, run none",
    "method": "stream (fast) or apptainer (its own build); default: the first that works",
    "mount_home": "bind your home folder, and run as your user",
    "name": "the name of a deployed SIF file, such as tools, or custom-images/tools",
    "node": "only these nodes, such as 'compute-[01-03,07],gpu-1'",
    "older_than": "only what is older, such as 12h or 7d",
    "online": "ask a key server for keys that your keyring does not hold",
    "output": "the file to write to",
    "override": "deploy although an image cannot work there; why, for the nodes' records",
    "passphrase_env": "the variable that holds the key's passphrase",
    "passphrase_file": "the file that holds the key's passphrase",
    "processors": "how many processors compress; default: all, shared by parallel conversions",
    "pull": "ask the registries whether the images from there have changed",
    "refresh": "read all facts again, also those that are kept",
    "release": "the release of Slurm that the files are for; default: 24.11",
    "require": "which nodes have to answer: answering (those that do), or all; default: answering",
    "runtime": "docker or apptainer",
    "shell": "bash, zsh or fish; default: the one you use",
    "show": "print the settings, which is the default",
    "sif": "use the image's SIF instead of the Docker image",
    "sif_name": "name of the SIF of --source; default: derived from the source",
    "sifs": "remove the SIFs",
    "site": "a site profile of sites/",
    "source": "convert this instead: docker-daemon:NAME:TAG, docker://REFERENCE, FILE.tar,"
    " FILE.def, FILE.def.j2",
    "stage": "only this stage: munge, pmix, accounting, controller, compute, container-runtime or"
    " registry",
    "state": "remove records, logs and prepared root file systems",
    "suite": "one suite, or several with commas",
    "untested": "deploy even if tests fail or were not run; the nodes' records say so",
    "to": "a version: the beginning of its digest, fingerprint or commit; default: the earlier",
    "undo": "take the fault back; without --fault all that the node has",
    "unused": "only old versions and, with --all, images whose folder is gone",
    "user": "the user inside",
    "volume": "bind a folder, as SOURCE:TARGET or SOURCE:TARGET:ro; may be repeated",
    "wait": "wait for the jobs that a change would end, and let no new ones begin there",
    "without": "not these nodes, such as 'compute-[01-03,07],gpu-1'; they stay as they are",
    "workdir": "the folder in the container to start in",
    "yes": "remove without asking",
}
# What a flag takes, as its help calls it; a name or a number where nothing is said.
VALUES = {
    "against": "VERSION|FILE.sif|IMAGE",
    "build_arg": "NAME=VALUE",
    "check": "NAME,NAME",
    "cluster": "NAME|FILE",
    "compression": "zstd|gzip",
    "env": "NAME[=VALUE]",
    "fault": "FAULT",
    "format": "text|dot|mermaid|svg",
    "gpus": "all|NUMBER|device=0,2|none",
    "key": "FINGERPRINT",
    "method": "stream|apptainer",
    "name": "SIFNAME",
    "node": "NODE[,NODE]",
    "older_than": "AGE",
    "output": "FILE",
    "override": "REASON",
    "passphrase_env": "VARIABLE",
    "passphrase_file": "FILE",
    "release": "RELEASE",
    "require": "answering|all",
    "runtime": "docker|apptainer",
    "shell": "bash|zsh|fish",
    "source": "SOURCE",
    "stage": "registry",
    "suite": "NAME,NAME",
    "to": "VERSION",
    "user": "USER[:GROUP]",
    "volume": "SOURCE:TARGET[:ro]",
    "without": "NODE[,NODE]",
    "workdir": "FOLDER",
}
# Flags that name something; an empty value is a variable that a script did not set.
NAMING = frozenset({"name", "output", "passphrase_file", "sif_name", "source"})
SINGLE = (*cluster.TOP, *deployed.TOP, *project.TOP)
ALL = inspect.Parameter("all", inspect.Parameter.KEYWORD_ONLY, default=False)
# What else than images a verb may be about: SIF files, or others, named behind it.
SIF, CONF = ".sif", ".conf"
# What Invoke calls them.
FILE_NAMES = ("file", *(f"file{number}" for number in range(2, 10)))


# A task file that imports anything else may have tasks besides ours: only Invoke knows them all.
_IMPORTS = re.compile(r"^\s*(?:from|import)\s+([\w.]+(?:\s*,\s*[\w.]+)*)", re.MULTILINE)
_NO_TASKS = frozenset({"__future__", "os", "pathlib", "sys", "typing"})


def ours_alone(text: str) -> bool:
    """Return whether the task file with that content has no tasks but ours."""
    imported = set(_IMPORTS.findall(text)) - _NO_TASKS
    return imported == {"sifline.tasks"}


def task_file(start: Path, name: str = "tasks") -> Path | None:
    """Return the task file, or package, that Invoke finds in ``start`` or a folder above it."""
    found = (
        path
        for folder in (start, *start.parents)
        for path in (folder / f"{name}.py", folder / name / "__init__.py")
        if path.is_file()
    )
    return next(found, None)


def root_of(file: Path) -> Path:
    """Return the folder to which a task file belongs."""
    return file.parent.parent if file.name == "__init__.py" else file.parent


class Takes(Enum):
    """Whether a flag takes a value."""

    NOTHING = "nothing"
    VALUE = "a value"
    PERHAPS = "a value or none"


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag: its spellings, and its name as a parameter of the task's function."""

    name: str
    written: tuple[str, ...]
    takes: Takes = Takes.NOTHING
    number: bool = False
    help: str = ""
    value: str = ""


def name_of(body: Body) -> str:
    """Return the name of a task as users type it; a verb's name without an image."""
    return f"cluster.{called(body)}" if body in cluster.GROUP else called(body)


def called(body: Body) -> str:
    """Return the name of a task as users type it."""
    return body.__name__.rstrip("_").replace("_", "-")


def most_files(task: str) -> int:
    """Return how many files a task takes: SIF files, or those of ``cluster.FILED``."""
    own = _own(task)
    every = (*images.FILED.items(), *cluster.FILED.items(), *cluster.COUNTED.items())
    return next((most for verb, most in every if name_of(verb) == own), 0)


def file_ending(task: str) -> str:
    """Return how the names of the files end that a task takes; "" if it takes none."""
    return _ending(task) if most_files(task) and not is_counted(task) else ""


def _ending(task: str) -> str:
    """How the names of the files end that a task takes."""
    own = _own(task)
    return CONF if any(name_of(body) == own for body in cluster.FILED) else SIF


def is_counted(task: str) -> bool:
    """Return whether a task takes a number."""
    return _own(task) in map(name_of, cluster.COUNTED)


def _is_subject(word: str, task: str) -> bool:
    """Return whether ``word`` may be what a task is about: the name of a file, or a number."""
    if is_counted(task):
        return word.isascii() and word.isdecimal()
    return word.endswith(_ending(task))


def _own(task: str) -> str:
    """Return the name of our task without the collection of a task file around it."""
    while of_task(task) is None and "." in task:
        task = task.partition(".")[2]
    return task


def files_of(words: Sequence[str], verb: Body) -> int:
    """Return how many files follow ``verb``, at most as many as it takes."""
    count = 0
    for here, word in walk(words):
        count += _own(here.task) == name_of(verb) and here.takes_file(word)
    return min(count, most_files(name_of(verb)))


def parameters(body: Body, *, over_all: bool = False) -> tuple[inspect.Parameter, ...]:
    """Return those of ``body(run, images, *, flags)`` that are flags.

    :param over_all: those of the verb without an image; some have only that, or not.
    """
    alone = images.ALONE.get(body, ())
    own = tuple(inspect.signature(body).parameters.values())[2:]
    if not over_all:
        return tuple(item for item in own if item.name not in alone)
    # Behind the others, which so have the same short forms with an image and without.
    own = (
        *(item for item in own if item.name not in alone),
        *(item for item in own if item.name in alone),
    )
    if body in images.SINGLE:
        return own
    # One broken image does not hold up the others, unless that is asked for.
    return (
        ALL,
        *(item.replace(default=True) if item.name == "keep_going" else item for item in own),
    )


def need_subject(body: Body, *, files: int, over_all: bool, others: Sequence[str]) -> None:
    """Raise an error for a verb without an image, --all or a file.

    :param files: how many SIF files stand behind it.
    :param over_all: whether ``--all`` was given.
    :param others: those of its flags that name something else, such as ``--source``.
    """
    if files and over_all:
        raise UsageError(f"{called(body)}: --all, or files; not both")
    for name in others if over_all else ():
        raise UsageError(f"--all, or --{name.replace('_', '-')}; not both")
    if not (files or over_all or others or body in images.LOOKING):
        name = called(body)
        more = ", or FILE.sif" if body in images.FILED else ""
        more += "" if body in images.SINGLE else f", or {name} --all"
        more += f", or {name} --name SIFNAME" if "name" in images.ALONE.get(body, ()) else ""
        raise UsageError(f"which image? Say {name}.<image>{more}")


def repeatable(parameter: inspect.Parameter) -> bool:
    """Return whether a flag may be given more than once."""
    return isinstance(parameter.default, tuple)


def of(flags: Sequence[inspect.Parameter], task: str = "") -> dict[str, Flag]:
    """Return flags by all their spellings, which Invoke derives from parameters.

    :param task: whose they are, without an image: some helps are of one task alone.
    """
    found = (_flag(parameter, task) for parameter in flags)
    return {written: flag for flag in found for written in flag.written}


def help_of(flag: str, task: str) -> str:
    """Return the help of a flag, by its name as a parameter, in a task without an image."""
    return own_texts.own(own_texts.HELP, flag, task) or HELP.get(flag, "")


def _flag(parameter: inspect.Parameter, task: str) -> Flag:
    long = parameter.name.replace("_", "-")
    written = [f"--{long}"]
    if parameter.default is True:
        written.append(f"--no-{long}")
    return Flag(
        name=parameter.name,
        written=tuple(written),
        takes=Takes.NOTHING if isinstance(parameter.default, bool) else Takes.VALUE,
        number=type(parameter.default) is int,
        help=help_of(parameter.name, task),
        value=own_texts.own(own_texts.VALUES, parameter.name, task)
        or VALUES.get(parameter.name, "NUMBER" if type(parameter.default) is int else "NAME"),
    )


def _core(long: str, short: str = "", takes: Takes = Takes.NOTHING, text: str = "") -> Flag:
    written = (f"--{long}", *([f"-{short}"] if short else []))
    return Flag(name=f"invoke {long}", written=written, takes=takes, help=text)


# Ours that every task takes, beside Invoke's own.
OWN = (
    _core("quiet", "q", text="print results and errors alone, no progress"),
    _core("verbose", "v", text="print each line of the tools as it comes"),
    _core("wide", "", text="print whole values, wider than the terminal if need be"),
)
# Invoke's own, which it knows only after it has been loaded.
_CORE = (
    *OWN,
    _core("collection", "c", Takes.VALUE, "another task file"),
    _core("command-timeout", "T", Takes.VALUE),
    _core("complete"),
    _core("config", "f", Takes.VALUE, "Invoke's configuration file"),
    _core("debug", "d", text="say all that happens, with the stack of an error"),
    _core("dry", "R", text="print what would be done, do nothing"),
    _core("echo", "e", text="print each command as it is run"),
    _core("help", "h", Takes.PERHAPS, "what a task does and which flags it takes"),
    _core("hide", "", Takes.VALUE),
    _core("list", "l", Takes.PERHAPS, "all tasks, or those of one verb"),
    _core("list-depth", "D", Takes.VALUE),
    _core("list-format", "F", Takes.VALUE, "flat, nested or json"),
    _core("no-dedupe"),
    _core("print-completion-script", "", Takes.VALUE),
    _core("prompt-for-sudo-password"),
    _core("pty", "p"),
    _core("search-root", "r", Takes.VALUE, "the folder to look for tasks.py in"),
    _core("version", "V", text="Invoke's version; for sifline's: sifline --version"),
    _core("warn-only", "w"),
    _core("write-pyc"),
)
CORE = {written: flag for flag in _CORE for written in flag.written}


def of_task(task: str) -> Mapping[str, Flag] | None:
    """Return the flags of one of our tasks, by name; None for other tasks."""
    head, dot, name = task.partition(".")
    for verb in images.VERBS:
        if called(verb) == head:
            return of(parameters(verb, over_all=not dot or name == "all"), head)
    in_group = head == "cluster" and dot
    for body in cluster.GROUP if in_group else SINGLE:
        if called(body) == (name if in_group else task):
            return of(parameters(body), task)
    return None


@dataclass(frozen=True, kw_only=True)
class Place:
    """The state of parsing a command line before the next word.

    ``theirs`` are tasks that are not ours, whatever they are called; their flags are not known.
    """

    task: str = ""
    flags: Mapping[str, Flag] | None = field(default_factory=dict)
    waiting: Flag | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    ended: bool = False
    files: int = 0
    theirs: frozenset[str] = frozenset()

    def after(self, word: str) -> Place:
        """Return the place behind ``word``."""
        if self.ended or word == "--":
            return replace(self, ended=True, waiting=None)
        if self.waiting and self._is_value(word):
            return replace(self, waiting=None, given={**self.given, self.waiting.name: word})
        if self.takes_file(word):
            return replace(self, waiting=None, files=self.files + 1)
        if not word.startswith("-"):
            known = None if word in self.theirs else of_task(word)
            return replace(self, task=word, flags=known, waiting=None, files=0)
        written, equals, value = word.partition("=")
        flag = self.flag(written)
        if not flag:
            return replace(self, waiting=None)
        waits = not equals and flag.takes is not Takes.NOTHING
        # Behind a task, --help is about that task.
        waits = waits and not (self.task and flag is CORE["--help"])
        given = {**self.given, flag.name: value}
        return replace(self, waiting=flag if waits else None, given=given)

    def _is_value(self, word: str) -> bool:
        if not self.waiting:
            return False
        return self.waiting.takes is Takes.VALUE or not word.startswith("-")

    def names_task(self, word: str) -> bool:
        """Return whether ``word`` would be the name of a task, to run or to get help on."""
        if self.ended or word.startswith("-") or self.takes_file(word):
            return False
        return not self._is_value(word) or self.waiting is CORE["--help"]

    def takes_file(self, word: str) -> bool:
        """Return whether ``word`` would be a file for the current task."""
        if self.task in self.theirs or not _is_subject(word, self.task):
            return False
        return most_files(self.task) > 0 and not self._is_value(word)

    def flag(self, written: str) -> Flag | None:
        """Return the flag that ``written`` means here."""
        return (self.flags or {}).get(written) or CORE.get(written)

    def check(self, word: str) -> None:
        """Raise an error if ``word`` is an unknown flag, or one file too many.

        :raises UsageError: naming the nearest flags.
        """
        if self.takes_file(word) and self.files == most_files(self.task):
            kind = "SIF files" if _ending(self.task) == SIF else "files"
            raise UsageError(f"{self.task}: {word}: takes {self.files} {kind} at most")
        written, equals, value = word.partition("=")
        waited, told = (self.waiting, word) if self._is_value(word) else (None, "")
        if equals and not waited:
            waited, told = self.flag(written), value
        if not self.ended and waited and waited.number and not told.isdecimal():
            raise UsageError(f"--{waited.name} {told!r}: takes a whole number")
        if self.ended or self.flags is None or self._is_value(word) or self.flag(written):
            return
        whose, helps = ("invoke", "invoke --help")
        if self.task:
            whose, helps = self.task, f"invoke --help {self.task}"
        name = written.removeprefix("--")
        if unknown := self._unknown_short(written):
            raise UsageError(f"{whose} has no flag {unknown}. See {helps}.")
        if name in ("", written):  # the end of the flags, and what is no long flag
            return
        known = [flag[2:] for flag in (*self.flags, *CORE) if flag.startswith("--")]
        # Without the dashes, which all have in common.
        near = did_you_mean(name, known).replace(" mean ", " mean --").replace(", ", ", --")
        raise UsageError(f"{whose} has no flag {written}.{near} See {helps}.")

    def _unknown_short(self, word: str) -> str:
        """Return the unknown one of short flags, which may stand in one word; "" if there is none.

        What follows a flag that takes a value is its value.
        """
        if not re.fullmatch(r"-[a-zA-Z].*", word):
            return ""
        for letter in word[1:]:
            flag = self.flag(f"-{letter}")
            if not flag:
                return f"-{letter}"
            if flag.takes is not Takes.NOTHING:
                return ""
        return ""


def refuse_empty(words: Sequence[str], theirs: frozenset[str] = frozenset()) -> None:
    """Refuse an empty value of a flag that names something, such as ``--output ''``.

    :raises UsageError: naming the flag.
    """
    for here, word in walk(words, theirs):
        flag = here.waiting if word == "" else None
        if word.endswith("=") and not here.ended:
            flag = here.flag(word[:-1])
        if flag and flag.name in NAMING:
            raise UsageError(f"{flag.written[0]}: the value is empty; name one, or leave it out")


def walk(
    words: Sequence[str], theirs: frozenset[str] = frozenset()
) -> Iterator[tuple[Place, str]]:
    """Yield each word after the program's name, with the parser's state before it.

    :param theirs: the tasks that are not ours.
    """
    here = Place(theirs=theirs)
    for word in words:
        yield here, word
        here = here.after(word)


def place(words: Sequence[str], theirs: frozenset[str] = frozenset()) -> Place:
    """Return the parser's state after ``words``, without the program's name; see ``walk``."""
    here = Place(theirs=theirs)
    for word in words:
        here = here.after(word)
    return here
