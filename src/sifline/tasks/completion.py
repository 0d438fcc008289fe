"""Completion of invoke's command line for bash, zsh and fish."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sifline.config import image_names
from sifline.errors import UsageError
from sifline.model import Workspace
from sifline.tasks import cluster, console, flags, helps, images, looking, making, practice
from sifline.tasks.flags import Flag, Place, Takes
from sifline.tasks.shells import SHELLS
from sifline.tasks.support import cluster_of

# Exit codes of main, which the scripts know. On any other code they fall back to Invoke.
DONE, FILES, ASK_INVOKE = 0, 10, 11

# Flags whose value is a path; LISTS are flags whose value is a comma-separated list.
PATHS = frozenset({"output", "source", "volume", "invoke config", "invoke search-root"})
# These take running virtual clusters only.
ONLY_STANDING = frozenset(
    f"cluster.{verb}" for verb in ("down", "fault", "restart", "scale", "shell", "status")
)
LISTS = frozenset({"suite", "check", "node", "without"})

# What takes a second word on the command line of the program sifline.
SPACED = frozenset({*console.VERBS, *console.GROUPS})

# Core flags that are also offered after a task.
EVERYWHERE = ("--dry", "--help", "--quiet", "--verbose", "--wide")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A word that completes the command line, and its help."""

    word: str
    help: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The candidates; ``code`` says whether the shell or Invoke completes the word instead."""

    found: tuple[Candidate, ...] = ()
    code: int = DONE


def main() -> None:
    """Print the candidates for ``SHELL WORD...``; the last word is incomplete.

    bash passes its own idea of the last word, and the whole line: it splits at ``=`` and ``:``.
    """
    shell, *words = sys.argv[1:]
    known = 0
    if shell == "bash":
        half, line = words
        words = _split(line)
        known = max(0, len(words[-1]) - len(half))
    said = answer(words[1:], Path.cwd(), spaced=Path(words[0]).name == "sifline")
    for candidate in said.found:
        sys.stdout.write(f"{_written(candidate, shell)[known:]}\n")
    sys.exit(said.code)


def _split(line: str) -> list[str]:
    """Return the words of a line; the last may be empty, or have an open quote."""
    from shlex import split

    mark = "\x00"  # stands for the cursor: a space before it begins a word
    try:
        words = split(line + mark)
    except ValueError:
        words = (line + mark).split(" ")
    return [word.replace(mark, "") for word in words]


def _written(candidate: Candidate, shell: str) -> str:
    """Return a candidate in the form its shell expects: zsh and fish show the help beside it."""
    if shell == "zsh":
        word = candidate.word.replace(":", "\\:")
        return f"{word}:{candidate.help}" if candidate.help else word
    return f"{candidate.word}\t{candidate.help}" if shell == "fish" else candidate.word


def answer(words: Sequence[str], folder: Path, *, spaced: bool = False) -> Answer:
    """Return the completions of the last of ``words``, typed in ``folder``.

    :param spaced: whether the image is a word after its verb, as in the program sifline.
    """
    *before, half = words
    here = flags.place(before)
    root = _root(here, folder)
    if not root:
        return Answer(code=ASK_INVOKE)
    if spaced:
        here = flags.place(console.dotted(before, _images(root)))
        if not (here.waiting or here.ended or half.startswith("-")) and here.task in SPACED:
            names = console.GROUPS.get(here.task) or _images(root)
            return _named(half, here, folder, _words(sorted(names)))
    if here.ended:
        return Answer(code=FILES)
    written, equals, value = half.partition("=")
    flag = here.flag(written) if equals else None
    if flag:
        return _values(flag, value, here, root, before=f"{written}=")
    if here.waiting and (here.waiting.takes is Takes.VALUE or not half.startswith("-")):
        return _values(here.waiting, half, here, root)
    return _plain(half, here, folder, root)


def _plain(half: str, here: Place, folder: Path, root: Path) -> Answer:
    """Return the flags of the task at hand, or else its files, and all tasks."""
    if half.startswith("-"):
        return _beginning(half, _flags(here))
    return _named(half, here, folder, _tasks(half, root))


def _named(half: str, here: Place, folder: Path, names: Iterable[Candidate]) -> Answer:
    """Return the files that the task takes, and ``names``; a path is left to the shell."""
    ending = flags.file_ending(here.task) if here.task else ""
    if ending and "/" in half:
        return Answer(code=FILES)
    return _beginning(half, [*_files(folder, ending), *names])


def _beginning(half: str, candidates: Iterable[Candidate], *, before: str = "") -> Answer:
    return Answer(
        found=tuple(
            Candidate(word=before + candidate.word, help=candidate.help)
            for candidate in candidates
            if candidate.word.startswith(half)
        )
    )


def _root(here: Place, folder: Path) -> Path | None:
    """Return the folder of the task file Invoke would load; None if it has tasks besides ours."""
    name = here.given.get("invoke collection", "tasks")
    # Not Path.resolve, which fails if links lead to themselves.
    start = Path(os.path.realpath(folder / here.given.get("invoke search-root", "")))
    file = flags.task_file(start, name)
    if not file:
        return None
    text = file.read_text(encoding="utf-8", errors="replace")
    return flags.root_of(file) if flags.ours_alone(text) else None


def _flags(here: Place) -> list[Candidate]:
    """Return the flags of the current task, or else Invoke's own."""
    ours = here.flags or {}
    offered = {**ours, **{name: flags.CORE[name] for name in EVERYWHERE}}
    return [
        Candidate(word=name, help=flag.help if name in flag.written[:1] else f"not: {flag.help}")
        for name, flag in (offered if here.task else flags.CORE).items()
        if name.startswith("--")
    ]


def _tasks(half: str, root: Path) -> list[Candidate]:
    """Return the tasks; tasks of single images only once the verb is clear."""
    plain = {name: helps.doc(body).summary for name, body in helps.tasks().items()}
    head, dot, _ = half.partition(".")
    close = [head] if dot else [name for name in plain if name.startswith(half)]
    found = [Candidate(word=name, help=text) for name, text in plain.items()]
    if len(close) == 1 and close[0] in console.VERBS:
        found += [Candidate(word=f"{close[0]}.{name}") for name in _images(root)]
    return found


def _files(folder: Path, ending: str) -> list[Candidate]:
    """Return the files of ``folder`` that a task takes; none if it takes no files."""
    if not ending:
        return []
    return _words(sorted(path.name for path in folder.glob(f"*{ending}")))


def _values(flag: Flag, half: str, here: Place, root: Path, *, before: str = "") -> Answer:
    """Return the known values of a flag; ``before`` is the flag itself in ``--flag=value``."""
    # A cluster is a name or a file.
    if flag.name in PATHS or (flag.name == "cluster" and "/" in half):
        return Answer(code=FILES)
    known, comma, last = half.rpartition(",") if flag.name in LISTS else ("", "", half)
    find = VALUES.get(flag.name)
    values = find(root, here, last) if find else ()
    return _beginning(last, values, before=before + known + comma)


def _images(root: Path) -> list[str]:
    try:
        return [*image_names.names(Workspace(root=root))]
    except UsageError:
        return []


def _clusters(root: Path) -> list[Candidate]:
    """Return the files of clusters/, and the running virtual clusters."""
    files = {path.stem for path in root.glob("clusters/*.y*ml")}
    return _words(sorted({*files, *(name.word for name in _standing(root))}))


def _standing(root: Path) -> list[Candidate]:
    return _words(sorted(path.parent.name for path in root.glob("build/clusters/*/cluster.yaml")))


def _nodes(root: Path, here: Place) -> list[Candidate]:
    """The nodes of the cluster that the task at hand is about."""
    from sifline.config.clusters import find_cluster, load_virtual

    name = cluster_of(here.given.get("cluster", ""))
    try:
        found, _ = load_virtual(find_cluster(name, Workspace(root=root)))
    except UsageError:
        return []
    return [Candidate(word=node.name, help=node.role.value) for node in found.nodes]


def _sites(root: Path) -> list[Candidate]:
    return _words(sorted(path.stem for path in root.glob("sites/*.toml")))


def _suites() -> list[Candidate]:
    from sifline.validation import run

    return _words(run.listing())


def _checks(suites: str) -> list[Candidate]:
    """Return the checks of the given suites, or of all suites."""
    from sifline.validation import run

    return [
        Candidate(word=name, help=summary)
        for suite, checks in run.listing().items()
        if not suites or suite in suites.split(",")
        for name, summary in checks
    ]


def _methods() -> list[Candidate]:
    from sifline.pipeline.options import METHODS

    return _words(METHODS)


def _compressions() -> list[Candidate]:
    from sifline.config.images import LEVELS

    return _words(LEVELS.most)


def _words(words: Iterable[str]) -> list[Candidate]:
    return [Candidate(word=word) for word in words]


Find = Callable[[Path, Place, str], Iterable[Candidate]]

# Values by flag, given the folder of the task file, the place, and the text typed so far.
VALUES: Mapping[str, Find] = {
    "against": lambda root, here, half: _words(_images(root)),
    "check": lambda root, here, half: _checks(here.given.get("suite", "")),
    "cluster": lambda root, here, half: (
        _standing(root) if here.task in ONLY_STANDING else _clusters(root)
    ),
    "fault": lambda root, here, half: _words(practice.FAULTS),
    "format": lambda root, here, half: _words(looking.GRAPH_FORMATS),
    "compression": lambda root, here, half: _compressions(),
    "env": lambda root, here, half: _words(sorted(os.environ)),
    "gpus": lambda root, here, half: _words(["all", "none"]),
    "invoke help": lambda root, here, half: _tasks(half, root),
    "invoke list": lambda root, here, half: _words(
        [*(flags.called(verb) for verb in images.VERBS), "cluster"]
    ),
    "invoke list-format": lambda root, here, half: _words(["flat", "nested", "json"]),
    "method": lambda root, here, half: _methods(),
    "node": lambda root, here, half: _nodes(root, here),
    "runtime": lambda root, here, half: _words(making.RUNTIMES),
    "shell": lambda root, here, half: _words(SHELLS),
    "site": lambda root, here, half: _sites(root),
    "stage": lambda root, here, half: _words(cluster.STAGES),
    "suite": lambda root, here, half: _suites(),
    "without": lambda root, here, half: _nodes(root, here),
}
