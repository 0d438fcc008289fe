"""YAML files of people: lines are known; what cannot be meant or fills the memory is refused."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sifline.errors import UsageError
from sifline.fields.marked import MarkedTable, plain
from sifline.fields.table import Table
from sifline.fields.yaml_file import MOST_BYTES, MOST_DEPTH, read_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 10)}]\n" for number in range(1, 9)
)
# Merged tables become one: PyYAML's own way makes lists of 10^8 pairs of it.
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{number}: &a{number} {{<<: [{', '.join([f'*a{number - 1}'] * 10)}]}}\n"
    for number in range(1, 9)
)


def read(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key a is there already, in line 1"),
        ("a:\n  - {b: 1,\n     b: 2}\n", 3, "the key b is there already, in line 2"),
        ("1: a\n0x1: b\n", 2, "the key 1 is there already, in line 1"),
        ("a: &x [1, *x]\n", 1, "an anchor contains itself"),
        ("a: &x {b: *x}\n", 1, "an anchor contains itself"),
        (BOMB, 7, "its anchors stand for more than 32 MiB"),
        (MERGES, 8, "its anchors stand for more than 32 MiB"),
        ("a: 1\nb: 2026-13-45\n", 2, "month must be in 1..12"),
        ("a: 1\nb: !!int x\n", 2, "fix it, or put it in quotes"),
        ("a: 1\nb: !!bool x\n", 2, "fix it, or put it in quotes"),
        ("a: 1\nb: !!timestamp x\n", 2, "fix it, or put it in quotes"),
        ("a: !!python/name:os.system x\n", 1, "could not determine a constructor"),
        ("a: !!set {x, y}\n", 1, "the tag !!set is not known"),
        ("a: !!binary aGk=\n", 1, "the tag !!binary is not known"),
        ("? [a]\n: b\n", 1, "a table or a list cannot be a key"),
        ("a: 1\n<<: 2\n", 2, "<< takes tables alone"),
        ("a: {" * 30 + "}" * 30 + "\nb: " + "[" * 70 + "]" * 70, 2, f"more than {MOST_DEPTH}"),
        ("a: " + "[" * 100_000, 1, ""),
        ("- " * 100_000, 1, ""),
        ("a: 1\n---\nb: 1\n", 2, "but found another document"),
        ("a: 1\nb: [\n\n\n", 2, "while parsing a flow node that begins in line"),
        ("a: 'x\nb: 1\n", 2, "while scanning a quoted scalar that begins in line 1"),
        ("a: 1\nb: *nothing\n", 2, "undefined alias"),
        ("ä: 1\nb: \x07\n", 2, "control characters are not allowed"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, why: str
) -> None:
    started = time.monotonic()
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path / 'x.yaml'}:{line}: ")
    assert why in caught.value.message
    assert "\n" not in caught.value.message
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key a is there already, in line 1"),
        (BOMB, 7, "its anchors stand for more than 32 MiB"),
        ("a: 1\nb: [\n\n\n", 2, "while parsing a flow"),
        ("ä: 1\nb: \x07\n", 2, "special characters are not allowed"),
        ("a: &x [1, *x]\n", 1, ""),
    ],
)
def test_pyyaml_without_libyaml_refuses_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int, why: str
) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader")
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    assert caught.value.message.startswith(f"{tmp_path / 'x.yaml'}:{line}: ")
    assert why in caught.value.message


def test_pyyaml_without_libyaml_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(yaml, "CSafeLoader")
    found = read(tmp_path, "a: &x {b: 1}\nc:\n  - {<<: *x, d: 2.5}\n")
    assert found == {"a": {"b": 1}, "c": [{"b": 1, "d": 2.5}]}
    assert found["c"].lines == (3,)
    with pytest.raises(UsageError, match="nested too deep"):
        read(tmp_path, "[" * 5000)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    started = time.monotonic()
    with pytest.raises(UsageError, match="is larger than 4 MiB"):
        read_yaml(path)
    assert time.monotonic() - started < 1


def test_a_file_of_the_size_that_is_allowed_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, f"a: 1\n#{'x' * (MOST_BYTES - 10)}\n") == {"a": 1}


def test_bytes_that_are_no_text_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(UsageError, match=r"x\.yaml:2: cannot be read: no text in UTF-8"):
        read_yaml(path)


def test_an_anchor_that_is_used_twice_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, "a: &x {b: 1, c: 2}\nd: *x\ne: {<<: *x, c: 3}\n")
    assert found == {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 2}, "e": {"b": 1, "c": 3}}


def test_errors_of_a_table_have_the_line_of_the_key(tmp_path: Path) -> None:
    table = Table(Path("x.yaml"), read(tmp_path, "a: 1\nb:\n  - c: 2\n  - c: 3\n    d: 4\n"))
    rows = table.subs("b")
    assert [table.at("a"), table.at("b"), table.at("c")] == ["x.yaml:1", "x.yaml:2", "x.yaml"]
    assert [row.at("c") for row in rows] == ["x.yaml:3", "x.yaml:4"]
    assert [row.where("d") for row in rows] == ["x.yaml:3: b[0].d", "x.yaml:5: b[1].d"]
    assert rows[1].wrong("d", "a word", 4).message == ("x.yaml:5: b[1].d must be a word, found 4")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_pyyaml_writes_is_read_as_pyyaml_reads_it(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True)
    with tempfile.TemporaryDirectory() as folder:
        found = read(Path(folder), text)
    assert found == yaml.safe_load(text)
    json.dumps(plain(found))
    assert isinstance(found, MarkedTable) is isinstance(value, dict)


@given(st.text(max_size=60))
def test_no_text_ends_in_another_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder, suppress(UsageError):
        read(Path(folder), text)
