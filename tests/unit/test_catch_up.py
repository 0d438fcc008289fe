"""What a node fetches from the controller when it boots; how it gets there is a test of nodes."""

from __future__ import annotations

import grp
import json
import os
import pwd
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sifline.nodeside import catch_up, registry

ONE, TWO = (sha256(word).hexdigest() for word in (b"one", b"two"))
EARLY, LATE = "2026-01-31T12:00:00+00:00", "2026-01-31T12:00:01+00:00"


@pytest.mark.parametrize(
    ("theirs", "ours", "fetched"),
    [
        ((ONE, EARLY), None, True),
        ((ONE, LATE), (TWO, EARLY), True),
        ((ONE, EARLY), (TWO, LATE), False),
        ((ONE, LATE), (ONE, EARLY), False),
        ((ONE, EARLY), (TWO, EARLY), False),
    ],
)
def test_the_later_deployment_counts(
    theirs: tuple[str, str], ours: tuple[str, str] | None, *, fetched: bool
) -> None:
    def entry(of: tuple[str, str]) -> dict[str, str]:
        return {"sha256": of[0], "when": of[1]}

    assert catch_up.newer(entry(theirs), entry(ours) if ours else None) is fetched


class Controller(catch_up.Source):
    """A controller whose registry is a folder of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[str]()

    def fetch(self, path: str, to: Path) -> bool:
        self.asked.append(path)
        if not (self.folder / path).exists():
            return False
        to.write_bytes((self.folder / path).read_bytes())
        return True


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Controller]:
    root = tmp_path / "node"
    for name in registry.FOLDERS:
        (root / name).mkdir(parents=True)
    there = Controller(tmp_path / "controller")
    monkeypatch.setattr(catch_up, "Source", lambda *_: there)
    return root, there


def offer(there: Controller, content: bytes, *, key: str = "", **changes: Any) -> None:
    """Have the controller hold an image; ``changes`` are of its entry in the catalog."""
    entry = {
        "category": "custom-images",
        "name": "hello",
        "sha256": sha256(content).hexdigest(),
        "when": EARLY,
        "who": "ada",
        **changes,
    }
    file = there.folder / f"versions/custom-images/hello/{sha256(content).hexdigest()}.sif"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    catalog = {"images": {key or f"{entry['category']}/{entry['name']}": entry}}
    (there.folder / "catalog.json").write_text(json.dumps(catalog))


def settings(root: Path) -> dict[str, Any]:
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    return {"root": str(root), "owner": owner, "group": group}


def test_an_image_that_was_missed_is_verified_and_put_in_place(
    node: tuple[Path, Controller], capsys: pytest.CaptureFixture[str]
) -> None:
    root, there = node
    offer(there, b"one")

    assert catch_up.catch_up(root, settings(root)) == []

    assert (root / "custom-images/hello.sif").read_bytes() == b"one"
    entry = registry.read_catalog(root)["images"]["custom-images/hello"]
    assert (entry["who"], entry["when"]) == ("ada", EARLY)
    assert f"custom-images/hello: {ONE[:12]}" in capsys.readouterr().out
    there.asked.clear()
    assert catch_up.catch_up(root, settings(root)) == []
    assert there.asked == ["catalog.json"]


def test_nothing_is_fetched_where_nothing_was_deployed(node: tuple[Path, Controller]) -> None:
    root, there = node
    there.folder.mkdir()

    assert catch_up.catch_up(root, settings(root)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": TWO}, "the controller has no versions/custom-images/hello/"),
        ({"sha256": "../x"}, "no SHA-256"),
        ({"category": "../etc"}, "is not one of"),
        ({"name": "../../x"}, "may hold letters"),
        ({"key": "custom-images/other"}, "has 'hello' there"),
        ({"when": 9}, "has no category, name, sha256, when of it"),
        ({"size": 1 << 60}, "bytes too few; make room there"),
    ],
)
def test_an_entry_that_cannot_be_had_changes_nothing(
    node: tuple[Path, Controller], changes: dict[str, Any], said: str
) -> None:
    root, there = node
    offer(there, b"one", **changes)

    (error,) = catch_up.catch_up(root, settings(root))

    assert said in error
    assert registry.read_catalog(root)["images"] == {}


def test_a_damaged_file_of_the_controller_is_not_taken(node: tuple[Path, Controller]) -> None:
    root, there = node
    offer(there, b"one")
    (there.folder / f"versions/custom-images/hello/{ONE}.sif").write_bytes(b"0ne")

    (error,) = catch_up.catch_up(root, settings(root))

    assert "has the SHA-256" in error
    assert not (root / "custom-images/hello.sif").exists()


@pytest.mark.parametrize(
    ("catalog", "said"),
    [
        ("", ""),
        ('{"images": {"a": "x"}}', ""),
        ("[", "error: the controller's catalog cannot be read"),
    ],
)
def test_a_try_reads_the_catalog_and_changes_nothing(
    node: tuple[Path, Controller], capsys: pytest.CaptureFixture[str], catalog: str, said: str
) -> None:
    root, there = node
    offer(there, b"one")
    if catalog:
        (there.folder / "catalog.json").write_text(catalog)
    (root.parent / "catch-up.json").write_text(json.dumps(settings(root)))

    assert catch_up.main(["--try", str(root.parent)]) == int(bool(said))

    assert there.asked == ["catalog.json"]
    assert registry.read_catalog(root)["images"] == {}
    assert capsys.readouterr().err.startswith(said)


def test_a_broken_entry_spoils_only_itself(node: tuple[Path, Controller]) -> None:
    root, there = node
    offer(there, b"one")
    catalog = json.loads((there.folder / "catalog.json").read_text())
    catalog["images"] |= {"a": "x", "b": None, "c": {}}
    (there.folder / "catalog.json").write_text(json.dumps(catalog))

    assert len(catch_up.catch_up(root, settings(root))) == 3

    assert (root / "custom-images/hello.sif").read_bytes() == b"one"


def test_what_was_deployed_while_an_image_was_fetched_stays(
    node: tuple[Path, Controller], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, there = node
    offer(there, b"one")
    known = {"when": LATE, "sha256": TWO}

    def meanwhile(self: Controller, path: str, to: Path) -> bool:
        if path != "catalog.json":
            catalog = {"version": 1, "images": {"custom-images/hello": known}}
            (root / ".registry/catalog.json").write_text(json.dumps(catalog))
        return fetch(self, path, to)

    fetch = Controller.fetch
    monkeypatch.setattr(Controller, "fetch", meanwhile)

    assert catch_up.catch_up(root, settings(root)) == []
    assert not (root / "custom-images/hello.sif").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"images": [1]}', '{"images": {}, "version": 2}'])
def test_a_catalog_that_cannot_be_read_is_an_error_of_one_line(
    node: tuple[Path, Controller], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    root, there = node
    there.folder.mkdir()
    (there.folder / "catalog.json").write_text(text)
    folder = root.parent / "settings"
    folder.mkdir()
    (folder / "catch-up.json").write_text(json.dumps(settings(root)))

    assert catch_up.main([str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the controller's catalog ")


def test_what_rsync_says_is_the_error(tmp_path: Path) -> None:
    wanted = {"user": "x", "host": "::1", "port": 1}
    source = catch_up.Source(tmp_path, wanted)

    with pytest.raises(catch_up.CatchUpError, match=r"rsync of catalog\.json ended with \d+: "):
        source.fetch("catalog.json", tmp_path / "catalog.json")
