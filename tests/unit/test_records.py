"""Records: whole or not there at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from sifline import records


def test_a_record_is_read_back(tmp_path: Path) -> None:
    records.write(tmp_path / "new" / "a.json", {"key": [1, "two"]})

    assert records.read(tmp_path / "new" / "a.json") == {"version": 1, "key": [1, "two"]}


def test_nothing_else_is_left_beside_it(tmp_path: Path) -> None:
    records.write(tmp_path / "a.json", {})

    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_keeps_the_old_record(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    records.write(path, {"key": 1})

    with pytest.raises(TypeError):
        records.write(path, {"key": object()})

    assert records.read(path) == {"version": 1, "key": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_half_a_record_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"version": 1, "key"')

    assert records.read(tmp_path / "a.json") is None


def test_a_foreign_version_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"version": 99}')

    assert records.read(tmp_path / "a.json") is None
