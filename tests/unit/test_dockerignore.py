"""Which files of a context are left out; tests/images asks the engine the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.errors import UsageError
from sifline.formats.dockerignore import IgnoreRules


@pytest.mark.parametrize(
    ("rules", "name", "left_out"),
    [
        ("*.o", "a.o", True),
        ("*.o", "sub/a.o", False),
        ("**/*.o", "sub/deep/a.o", True),
        ("**/*.o", "a.o", True),
        ("**", "any/thing", True),
        ("**o", "sub/a.o", True),
        ("**/keep", "keep", True),
        ("**/keep", "upkeep", False),
        ("foo/**", "foo/a/b", True),
        ("foo/**", "foo", False),
        ("foo/**/b", "foo/b", True),
        ("foo/**/b", "foo/a/a/b", True),
        ("**/b/**", "a/b/c", True),
        ("sub", "sub/deep/a", True),
        ("sub", "subway", False),
        ("sub/", "sub/a", True),
        ("/sub", "sub/a", True),
        ("//./x/..//sub/", "sub/a", True),
        ("..", "a", False),
        (".", "a", False),
        ("*\n!keep", "keep", False),
        ("!keep\n*", "keep", True),
        ("*\n!keep/**", "keep/a", False),
        ("sub\n!sub/a", "sub/a", False),
        ("sub\n!sub/a", "sub/b", True),
        ("sub\n! sub/a", "sub/a", False),
        # A folder's later rule is not looked at again for what is below it.
        ("sub/deep\n!sub", "sub/deep/a", True),
        # Nor does the engine look into a folder for what only this would bring back.
        ("*\n!a/*/**", "a/b/c", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("a?c", "aéc", True),
        ("[a-c].txt", "b.txt", True),
        ("[^a-c].txt", "b.txt", False),
        ("[^a-c].txt", "d.txt", True),
        ("[[]x]", "[x]", True),
        ("# a comment", "# a comment", False),
        (" # none", "# none", True),
        ("\\#name", "#name", True),
        ("\\!name", "!name", True),
        ("a\\*", "a*", True),
        ("a\\*", "ab", False),
        ("a b", "a b", True),
        ("  a.o\t\r\n\n", "a.o", True),
        ("\ufeffa.o", "a.o", True),
        ("a+(b){1}|$", "a+(b){1}|$", True),
        ("a.c*", "abc", False),
        ("a^b", "a^b", True),
        # The engine's expression takes it for the beginning of the name.
        ("a^b*", "a^b", False),
        # So does Windows' separator become something else.
        ("obj\\debug", "obj/debug", False),
    ],
)
def test_a_name_under_rules(rules: str, name: str, left_out: bool) -> None:
    assert IgnoreRules(rules)(name) is left_out


@pytest.mark.parametrize(
    ("rules", "folder", "pruned"),
    [
        ("", "sub", False),
        ("sub", "sub", True),
        ("sub", "sub/deep", True),
        ("sub/*", "sub", False),
        ("*\n!other/file", "sub", True),
        ("*\n!sub/deep/file", "sub", False),
        ("*\n!sub/deep/file", "sub/deep", False),
        ("*\n!sub/deep/file", "sub/other", True),
        ("*\n!sub/**", "sub", False),
        ("*\n!sub/**", "other", True),
        ("*\n!sub", "sub", False),
        ("*\n!*.md", "sub", False),
    ],
)
def test_a_folder_is_pruned_where_nothing_comes_back(
    rules: str, folder: str, pruned: bool
) -> None:
    assert IgnoreRules(rules).prunes(folder) is pruned


@pytest.mark.parametrize(
    ("rules", "expected"), [("", False), ("# a comment\n\n", False), ("a", True)]
)
def test_rules_know_whether_there_are_any(rules: str, expected: bool) -> None:
    assert bool(IgnoreRules(rules)) is expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, set()),
        ({".dockerignore": "x"}, {"x"}),
        ({".dockerignore": "x", "Dockerfile.dockerignore": "y"}, {"y"}),
        ({".dockerignore": "x", "Dockerfile.dockerignore": ""}, set()),
    ],
)
def test_the_dockerfiles_own_rules_come_first(
    tmp_path: Path, files: dict[str, str], expected: set[str]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    rules = IgnoreRules.read(tmp_path)

    assert {name for name in ("x", "y") if rules(name)} == expected


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("!", "'!' brings back nothing"),
        ("!/", "'!/' brings back nothing"),
        ("[", "'[' has a [ without its ]"),
        ("[]a]", "'[]a]' has a [ without its ]"),
        ("a\\", "has a [ without its ] or ends in a backslash"),
        ("[z-a]", "cannot be matched"),
        ("sub\\private", "has \\p, which the engine refuses"),
    ],
)
def test_a_rule_that_the_engine_refuses_is_refused(
    tmp_path: Path, rule: str, message: str
) -> None:
    path = tmp_path / ".dockerignore"
    path.write_text(f"# first\n{rule}\n")

    with pytest.raises(UsageError) as error:
        # Some are refused when a name comes to them: so does the engine.
        IgnoreRules.read(tmp_path)("name")

    assert error.value.message.startswith(f"{path}: line 2: ")
    assert message in error.value.message


def test_a_folder_holds_no_rules(tmp_path: Path) -> None:
    """So it is to the engine."""
    (tmp_path / "Dockerfile.dockerignore").mkdir()
    (tmp_path / ".dockerignore").write_text("a")

    assert IgnoreRules.read(tmp_path)("a")


def test_rules_that_cannot_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    (tmp_path / ".dockerignore").touch()
    monkeypatch.setattr(Path, "read_text", denied)  # root may read all

    with pytest.raises(UsageError, match="cannot be read"):
        IgnoreRules.read(tmp_path)


PARTS = st.sampled_from(
    ["a", "b", "sub", "*", "**", "?", "[a-b]", "a*", "\\a", "[", ".", "..", ""]
)
RULES = st.lists(
    st.tuples(st.sampled_from(["", "!", "/"]), st.lists(PARTS, min_size=1, max_size=3)), max_size=5
)
NAMES = st.lists(st.sampled_from(["a", "b", "ab", "sub"]), min_size=2, max_size=4)


@given(RULES, NAMES)
def test_nothing_comes_back_below_a_pruned_folder(
    rules: list[tuple[str, list[str]]], name: list[str]
) -> None:
    try:
        ignored = IgnoreRules("\n".join(sign + "/".join(parts) for sign, parts in rules))
    except UsageError:
        return
    pruned = any(ignored.prunes("/".join(name[:depth])) for depth in range(1, len(name)))

    assert ignored("/".join(name)) or not pruned


@given(st.text())
def test_any_text_is_rules_or_refused(text: str) -> None:
    try:
        IgnoreRules(text)("a/b")
    except UsageError as error:
        assert error.message.startswith(".dockerignore: line ")  # noqa: PT017
