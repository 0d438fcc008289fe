from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.contents import environment

ODD = "a\\ \"b\" 'c' `d` ${e} $(f) {g}\n\r\n\r#h!\t"
MARK = "APPTAINER_CONTAINER=x.sif"


def test_plain_values_are_written_as_apptainer_writes_them() -> None:
    assert environment.script(["PATH=/usr/bin:/bin", "A=two words", "EMPTY="]) == (
        b'#!/bin/sh\nexport PATH="/usr/bin:/bin"\nexport A="${A:-"two words"}"\n'
        b'export EMPTY="${EMPTY:-""}"\n'
    )


def test_an_image_without_env_has_a_script_as_well() -> None:
    assert environment.script([]) == b"#!/bin/sh\n"


def test_the_last_of_a_name_counts_and_none_is_made_of_a_bare_one() -> None:
    assert environment.variables(["A=1", "B=x=y", "A=2", "C", "=d"]) == {"A": "2", "B": "x=y"}


def test_names_that_no_shell_takes_are_left_out_and_told() -> None:
    env = ["with-dash=1", "1st=2", "\u00e4=3", "fine_1=4"]
    assert environment.script(env) == b'#!/bin/sh\nexport fine_1="${fine_1:-"4"}"\n'
    assert environment.impossible(env) == ("with-dash", "1st", "\u00e4")


def test_what_the_shell_says_itself_is_not_set_against_it() -> None:
    (line, _) = environment.script(["UID=5"]).decode().splitlines()[1:]
    assert line == "test -n \"${UID:-}\" || UID='5'"


def run(env: list[str], name: str, **others: str) -> str:
    """Return what an ordinary shell makes of the script."""
    text = environment.script(env).decode() + f'printf "%s" "${name}"'
    words = ["sh", "-c", text]
    return subprocess.run(words, env=others, capture_output=True, check=True).stdout.decode()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_an_ordinary_shell_reads_every_value_as_well(value: str) -> None:
    assert run([f"A={value}"], "A") == value


@pytest.mark.parametrize("value", ["plain", ODD])
def test_what_the_caller_set_before_stays(value: str) -> None:
    assert run([f"A={value}"], "A", A="theirs") == "theirs"


def printed(*variables: str) -> str:
    return "\0".join([*variables, MARK, ""])


def test_what_arrived_is_told_from_what_did_not() -> None:
    env = ["A=1", f"ODD={ODD}", "GONE=x", "EMPTY=", "with-dash=1", "HOME=/x", "UID=5"]
    found = environment.printed(printed("A=2", f"ODD={ODD}", "HOME=/home/me", "UID=0"))
    assert found is not None
    assert environment.differing(env, found) == ("A", "GONE")


@pytest.mark.parametrize(
    ("found", "wrong"),
    [("/opt:/usr/bin", ()), ("/opt", ()), ("/usr/bin", ("PATH",)), ("", ("PATH",))],
)
def test_apptainer_may_add_to_a_path(found: str, wrong: tuple[str, ...]) -> None:
    assert environment.differing(["PATH=/opt"], {"PATH": found}) == wrong


def test_another_program_named_env_proves_nothing() -> None:
    assert environment.printed("usage: env\n") is None
    assert environment.printed("A=1\0") is None
