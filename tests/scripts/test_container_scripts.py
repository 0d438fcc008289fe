"""What as-user and the entrypoints of a node and of the development container refuse; what they do
is tested in containers, by tests/images/test_container_scripts.py and tests/devcontainer.

They change the machine they run on, so here they run as a user who may not.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.calls import as_nobody, copy, program, refusal, run

AS_USER = "images/toolbox/as-user"
NODE = "images/slurm-node/entrypoint"
DEVELOPMENT = ".devcontainer/entrypoint"
USAGE, MISSING = 2, 3


def call(
    folder: Path, name: str, *words: str, env: dict[str, str] | None = None
) -> tuple[int, str]:
    argv = [*as_nobody(), program("bash"), str(copy(name, folder)), *words]
    path = {"PATH": f"{Path(program('setpriv')).parent}:/usr/sbin:/usr/bin:/sbin:/bin"}
    return refusal(run(argv, env={**path, **(env or {})}))


@pytest.mark.parametrize(
    "word", ["1000", "1000:", ":1000", "root:root", "1:2:3", "1.0:1", " 1:1", "1:1 ", "", "1:1\n"]
)
def test_as_user_names_what_is_no_pair_of_numbers(public: Path, word: str) -> None:
    argv = [*as_nobody(), program("bash"), str(copy(AS_USER, public)), word, "true"]

    done = run(argv)

    assert (done.returncode, done.stdout) == (USAGE, "")
    assert done.stderr.startswith(f"as-user: '{word}' is not UID:GID")


@pytest.mark.parametrize("words", [("1:1", "true"), ("1:1", "--", "true"), ("1:1", "a b", "")])
def test_as_user_is_for_root(public: Path, words: tuple[str, ...]) -> None:
    status, said = call(public, AS_USER, *words)

    assert status == MISSING
    assert "root" in said


@pytest.mark.parametrize("word", ["up", "", "2"])
def test_a_node_takes_no_argument_and_names_what_it_was_given(public: Path, word: str) -> None:
    status, said = call(public, NODE, word)

    assert status == USAGE
    assert f"argument '{word}';" in said


@pytest.mark.parametrize("count", ["two", "-1", "1.5", "1 2", "0x2"])
def test_a_node_names_a_count_that_is_none(public: Path, count: str) -> None:
    status, said = call(public, NODE, env={"NODE_GPUS": count})

    assert status == USAGE
    assert f"NODE_GPUS='{count}'" in said


@pytest.mark.parametrize("count", [None, "", "0", "08"])
def test_a_node_is_the_first_process_or_nothing(public: Path, count: str | None) -> None:
    status, said = call(public, NODE, env={} if count is None else {"NODE_GPUS": count})

    # The tools come first, and not every machine has them all.
    if status == MISSING:
        pytest.skip(said)
    assert status == USAGE
    assert "first process" in said


@pytest.mark.parametrize("words", [("true",), ("--", "true"), ("a b", "")])
def test_the_development_container_starts_as_root(public: Path, words: tuple[str, ...]) -> None:
    status, said = call(public, DEVELOPMENT, *words)

    assert status == MISSING
    assert "root" in said
