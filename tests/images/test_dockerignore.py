"""What the engine gets of a context is what the rules of .dockerignore say here."""

from __future__ import annotations

import os
import random
import string
from collections.abc import Sequence
from pathlib import Path

import pytest

from sifline.errors import UsageError
from sifline.formats.dockerignore import IgnoreRules
from tests.support.engine import docker

pytestmark = pytest.mark.spread

# More of them now and then find more: SIFLINE_SEEDS=1000 pytest tests/images/test_dockerignore.py
SEEDS = int(os.environ.get("SIFLINE_SEEDS", "16"))

FILES = """
a.o  b.txt  keep  a b  [x]  a^b  b]c  x-y  #c  !e  é.txt  ab/x
a|b  a{2}  aa  {x}  a{,2}  (a)  a+b  a$  ~a  a&b  a@b=c  'q'  "q"  `q`  a,b;c:d%e  <a>
a/a.o  a/bb  a/b/c  a/b/keep  foo/bar.o  foo/bar/baz/qux
sub/a.o  sub/.hidden  sub/deep/a  sub/deep/b.txt  sub/deep/er/keep
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("context")
    for name in (name for line in FILES.splitlines() for name in line.split("  ") if name):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "sub" / "link").symlink_to("a.o")
    (folder / "empty" / "inside").mkdir(parents=True)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    return folder


def entries(folder: Path) -> tuple[set[str], set[str]]:
    """The files (and links) and the folders below ``folder``."""
    files: set[str] = set()
    folders: set[str] = set()
    for top, below, names in os.walk(folder):
        relative = Path(top).relative_to(folder)
        files.update(str(relative / name) for name in names)
        for name in below:
            (files if (Path(top) / name).is_symlink() else folders).add(str(relative / name))
    return files, folders


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "*",
        "**",
        "*.o",
        "**/*.o\n/sub/\nab/../a b",
        "*\n!keep\n!sub/deep/a",
        "*\n!sub/*",
        "*\n!foo/**",
        "**\n!**/keep",
        "*\n!a/*/**",
        "sub\n!sub/deep/a\nsub/deep",
        "sub/deep\n!sub",
        "sub/deep/**\n!sub/deep/er/keep",
        "foo\n!foo/bar/baz",
        "!keep\n*",
        "a?b\n?.txt",
        "[^a-b]*",
        "[[]x]\nb]c\nx\\-y",
        "a^b",
        "a^*",
        "#c",
        "\\#c\n\\!e\n # none",
        "\ufeff*.o\r\n\tkeep \r\n",
        "*/*/c\n**/b*\nfoo/**/qux",
        "**r\nfoo**",
        ".\n/\n..\n//sub/../empty",
        "sub\\deep\nfoo\\bar",
        "Dockerfile\n.dockerignore\nsub/link",
        "empty/inside",
        "[*]",
        "[",
        "!",
        "!/",
        "[z-a]",
        "*\n!*.py|*.txt",
        "*|b.txt",
        "a.o|*",
        "a|b",
        "a{2}",
        "a{2}*",
        "a{,2}*\n*{x}",
        "?{2}",
        "{2}*o",
        "{0}*o",
        "*{1001}",
        "a{3,2}*",
        "*{2}",
        "a|{2}*",
        "*}\n*{",
        "(a*\n*$\n*+b",
    ],
)
def test_the_engine_gets_what_the_rules_leave(tree: Path, tmp_path: Path, rules: str) -> None:
    assert_agreement(tree, tmp_path, rules)


def assert_agreement(tree: Path, tmp_path: Path, rules: str) -> None:
    """What the engine gets of the tree is what these rules leave here, or both refuse them."""
    (tree / ".dockerignore").write_text(rules)
    output = ["--output", f"type=local,dest={tmp_path}"]
    done = docker("buildx", "build", *output, str(tree), check=False)
    files, folders = entries(tree)
    try:
        ignored = IgnoreRules.read(tree)
        left = {name for name in files if not ignored(name)}
    except UsageError:
        assert done.returncode != 0
        return
    assert done.returncode == 0, done.stderr
    # A folder comes with what is in it, even where a rule leaves it out itself.
    around = {str(parent) for name in left for parent in Path(name).parents} - {"."}

    assert entries(tmp_path) == (left, {name for name in folders if not ignored(name)} | around)


# What takes the place of letters in names; twice what has a meaning in rules or in expressions.
WORDS = [*"*?*?[]^-!\\/|{}", "**", "**/", "{2}", "{0,}", "[a-z]", *string.punctuation, "é"]


def some_rule(chosen: random.Random, names: Sequence[str]) -> str:
    """The name of a file of which some letters became something else."""
    rule = list(chosen.choice(names))
    for _ in range(chosen.randint(1, 3)):
        place = chosen.randrange(len(rule))
        rule[place : place + chosen.randint(0, 2)] = chosen.choice(WORDS)
    return chosen.choice(["", "", "!"]) + "".join(rule)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_engine_gets_what_rules_of_any_characters_leave(
    tree: Path, tmp_path: Path, seed: int
) -> None:
    chosen = random.Random(seed)  # noqa: S311 - the same rules in each run
    names = [name for line in FILES.splitlines() for name in line.split("  ") if name]
    lines = [some_rule(chosen, names) for _ in range(4)]
    rules = "\n".join([*(["*"] if seed % 2 else []), *lines])
    assert_agreement(tree, tmp_path, rules)


@pytest.mark.parametrize("own", ["b.txt\n", ""])
def test_the_dockerfiles_own_rules_replace_the_others(tmp_path: Path, own: str) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for name in ("a.o", "b.txt"):
        (context / name).write_text(name)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (context / ".dockerignore").write_text("a.o\n")
    (context / "Dockerfile.dockerignore").write_text(own)
    docker("buildx", "build", "--output", f"type=local,dest={tmp_path / 'out'}", str(context))
    ignored = IgnoreRules.read(context)

    assert entries(tmp_path / "out")[0] == {
        name for name in entries(context)[0] if not ignored(name)
    }


@pytest.mark.parametrize(
    "links",
    [
        {".dockerignore": "sub/rules"},
        {".dockerignore": "/sub/rules"},
        {".dockerignore": "../../sub/rules"},
        {".dockerignore": "sub/link", "sub/link": "rules"},
        {".dockerignore": "sub/link", "sub/link": "sub/rules"},
        {".dockerignore": "sub/link", "sub/link": "/sub/rules"},
        {".dockerignore": "link/rules", "link": "sub"},
        {".dockerignore": "sub"},
        {".dockerignore": ".dockerignore"},
        {".dockerignore": "{outside}"},
        {"Dockerfile.dockerignore": "nothing", ".dockerignore": "sub/rules"},
        {"Dockerfile.dockerignore": "sub/rules"},
    ],
    ids=lambda links: " ".join(f"{name}:{target}" for name, target in links.items()),
)
def test_a_link_is_followed_inside_of_the_context(tmp_path: Path, links: dict[str, str]) -> None:
    context = tmp_path / "context"
    (context / "sub").mkdir(parents=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    for name in ("a.o", "b.txt"):
        (context / name).write_text(name)
    (context / "sub" / "rules").write_text("a.o\n")
    (tmp_path / "outside").write_text("b.txt\n")
    for name, target in links.items():
        (context / name).symlink_to(target.format(outside=tmp_path / "outside"))

    docker("buildx", "build", "--output", f"type=local,dest={tmp_path / 'out'}", str(context))

    ignored = IgnoreRules.read(context)
    assert entries(tmp_path / "out")[0] == {
        name for name in entries(context)[0] if not ignored(name)
    }
