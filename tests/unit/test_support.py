"""What people read: no control characters of others, and what an interruption left."""

from __future__ import annotations

import pytest

from sifline.errors import StepFailed
from sifline.tasks import support


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\tü\n", "plain\tü\n"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("over\rwritten", "over\\rwritten"),
        ("bell\x07", "bell\\x07"),
        ("one character \x9b31m", "one character \\x9b31m"),
        ("evil\u202etxt.exe", "evil\\u202etxt.exe"),
        ("a\\b", "a\\b"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert support.visible(text) == shown


def test_errors_are_shown_so_as_well() -> None:
    error = StepFailed("no \x1b[31mred", details="said \x1b[0m\nmore")
    assert support.complain(error) == "  | said \\x1b[0m\n  | more\nerror: no \\x1b[31mred"


def interrupted(*, again: bool) -> str:
    """What is said of an interruption, and of another one while it is handled."""
    try:
        try:
            raise KeyboardInterrupt
        finally:
            if again:
                raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        said, status = support._told(error)
    assert status == support.INTERRUPTED
    return said


def test_an_interruption_says_that_nothing_is_left_only_where_all_was_cleaned_up() -> None:
    assert "nothing half-made is left" in interrupted(again=False)
    assert "before everything was cleaned up" in interrupted(again=True)
