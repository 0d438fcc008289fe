from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from sifline.errors import MissingError, UsageError
from sifline.machine.passphrase import passphrase_of


@pytest.mark.parametrize("content", [b"two words", b"two words\n", b"two words\r\n"])
def test_file_holds_it_with_or_without_the_end_of_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    found = passphrase_of(file=tmp_path / "file")
    assert found is not None
    assert found() == "two words"


def test_variable_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGN_PASS", "ä b")
    found = passphrase_of(variable="SIGN_PASS", ask=lambda: "asked")
    assert found is not None
    assert found() == "ä b"


def test_missing_file_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"the file .*/nothing is not there"):
        passphrase_of(file=tmp_path / "nothing")


def test_missing_variable_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGN_PASS", raising=False)
    with pytest.raises(MissingError, match="the variable SIGN_PASS is not there"):
        passphrase_of(variable="SIGN_PASS")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"hidden1\nhidden2\n", b"hidden\xff"], ids=["0", "1", "2", "binary"]
)
def test_what_is_no_line_of_text_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UsageError, match="has to hold the passphrase as one line") as caught:
        passphrase_of(file=tmp_path / "file")
    shown = "".join(traceback.format_exception(caught.value))
    assert "hidden" not in shown


def test_question_is_asked_once_and_only_if_need_be() -> None:
    asked = list[int]()

    def ask() -> str:
        asked.append(1)
        return "said"

    found = passphrase_of(ask=ask)
    assert found is not None
    assert asked == []
    assert [found(), found()] == ["said", "said"]
    assert asked == [1]


def test_nobody_to_ask_is_no_passphrase() -> None:
    assert passphrase_of() is None
