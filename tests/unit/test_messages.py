"""The commands in messages, helps and documents are there, and take what is given to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sifline
from sifline.errors import UsageError
from sifline.tasks import cluster, flags, images, project
from tests.support.texts import ANY, texts

ROOT = Path(__file__).parents[2]
# A command ends with the sentence, or with what no shell passes on.
# "failed to invoke task plugins" is Slurm's message: there the word is a verb.
COMMAND = re.compile(r"(?<![Ff]ailed to )\binvoke ((?=[a-z-])[^\n,;:()|`'\"]*)")
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
PLACEHOLDER = re.compile(r"<[a-z]+>|\.\.\.|…")
# A page about keys shows which is pressed.
KEY = re.compile(r".*<Tab>.*")
VERBS = {flags.called(verb): verb for verb in images.VERBS}


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each command in a running text, as far as they belong to it.

    Prose goes on behind a command: "invoke doctor and look". The first word is always part of
    it; then flags, what flags wait for, SIF files and further tasks.
    """
    for match in COMMAND.finditer(PLACEHOLDER.sub(ANY, KEY.sub("", text))):
        words: list[str] = []
        text = match[1].replace("FILE", "x.sif").replace(".sif.sif", ".sif")
        for word in text.split():
            here = flags.place(words)
            if word == "--" or not (
                not here.task
                or word.startswith("-")
                or here.waiting
                or here.takes_file(word)
                or flags.of_task(word.rstrip(".")) is not None
            ):
                break
            words.append(word.rstrip("."))
            if word.endswith("."):
                break
        if words:
            yield words


def refusal(words: list[str]) -> str:
    """Return why a command would be refused before anything is done; empty where it would not."""
    try:
        for here, word in flags.walk(words):
            here.check(word)
            if here.names_task(word) and word != ANY and flags.of_task(word) is None:
                return f"no task {word!r}"
        _need_subject(words)
    except UsageError as error:
        return error.message
    return ""


def _need_subject(words: list[str]) -> None:
    last = flags.place(words)
    if (verb := VERBS.get(last.task)) and "invoke help" not in last.given:
        others = [name for name in images.ALONE.get(verb, ()) if name in last.given]
        over_all = "all" in last.given
        flags.need_subject(verb, files=last.files, over_all=over_all, others=others)


def refused(text: str) -> dict[str, str]:
    """Return the commands in a text that would be refused, with the reasons."""
    return {" ".join(words): why for words in commands(text) if (why := refusal(words))}


def test_commands_in_messages_are_accepted() -> None:
    modules = sorted(Path(sifline.__file__).parent.rglob("*.py"))
    found = {
        (path.name, *bad.items())
        for path in modules
        for text in texts(path)
        if (bad := refused(text))
    }

    assert found == set()


def test_commands_in_helps_are_accepted() -> None:
    bodies = (*images.VERBS, *cluster.GROUP, *cluster.TOP, *project.TOP)
    helps = [*flags.HELP.values(), *(body.__doc__ or "" for body in bodies)]

    assert [bad for text in helps if (bad := refused(text))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_are_accepted(path: Path) -> None:
    assert refused(path.read_text()) == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("run invoke key -- newpair, or", "no task 'key'"),
        ("make one: invoke sign --file x", "sign has no flag --file."),
        (
            "free some with invoke clean",
            "which image? Say clean.<image>, or FILE.sif, or clean --all",
        ),
        ("see `invoke shell --all`", "shell has no flag --all."),
        ("or invoke diff --all; then", "diff has no flag --all."),
        ("invoke build.{image} --frce", "build.{image} has no flag --frce."),
        ("invoke --dry convert --all --source FILE.def", "--all, or --source; not both"),
    ],
)
def test_a_command_that_would_be_refused_is_seen(text: str, why: str) -> None:
    (found,) = refused(text).values()

    assert found.startswith(why)


@pytest.mark.parametrize(
    "text",
    [
        "see invoke doctor and look",
        "for the images: invoke --list build. More follows",
        "invoke --dry make.hello-mpi --jobs 2 and wait",
        "invoke info FILE.sif",
        "invoke --help build",
    ],
)
def test_prose_behind_a_command_is_no_part_of_it(text: str) -> None:
    assert refused(text) == {}
