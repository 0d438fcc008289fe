"""What a node's registry remembers of an image, and how a version is read before a rollback."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from sifline.nodeside import registry, removal
from tests.unit.test_registry_nodeside import CATEGORY, arguments, deploy, of, run, sha

KEY = f"{CATEGORY}/hello"
SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "catalog.schema.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in registry.FOLDERS:
        (tmp_path / name).mkdir()
    return tmp_path


def meta(when: str, **more: str) -> str:
    return "--meta=" + json.dumps({"when": when, "who": "ada@here", **more})


def events(root: Path) -> list[tuple[str, str]]:
    found = run(root, "list")["history"][KEY]
    return [(item["event"], item["sha256"]) for item in found]


def test_the_history_has_each_version_also_when_its_file_is_gone(root: Path) -> None:
    for number, content in enumerate((b"one", b"two", b"three")):
        deploy(root, content, "--keep=1", meta(f"2026-01-0{number + 1}T00:00:00+00:00"))

    (root / f".registry/versions/{KEY}/{sha(b'one')}.sif").unlink()

    assert events(root) == [("deployed", sha(content)) for content in (b"one", b"two", b"three")]


def test_a_version_put_in_place_again_is_an_event_with_its_name(root: Path) -> None:
    for content in (b"one", b"two"):
        deploy(root, content)
    run(root, "install", *of(b"one"), meta("2026-01-03T00:00:00+00:00", event="rolled back"))

    assert events(root)[-1] == ("rolled back", sha(b"one"))


def test_a_catalog_of_an_earlier_release_begins_the_history(root: Path) -> None:
    for content in (b"one", b"two"):
        deploy(root, content)
    path = root / ".registry" / "catalog.json"
    old = json.loads(path.read_text())
    del old["history"]
    path.write_text(json.dumps(old))
    assert run(root, "list")["history"] == {}

    deploy(root, b"three")

    assert [digest for _, digest in events(root)] == [sha(b"one"), sha(b"two"), sha(b"three")]


def test_the_history_is_bounded(root: Path) -> None:
    for number in range(registry.EVENTS + 3):
        deploy(root, str(number).encode(), "--keep=0")

    assert len(events(root)) == registry.EVENTS
    assert events(root)[-1] == ("deployed", sha(str(registry.EVENTS + 2).encode()))


@pytest.mark.parametrize("wrong", [[], {KEY: "x"}])
def test_a_history_that_makes_no_sense_begins_anew(root: Path, wrong: object) -> None:
    deploy(root, b"one")
    path = root / ".registry" / "catalog.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "history": wrong}))

    run(root, "install", *of(b"one"))

    assert [digest for _, digest in events(root)] == [sha(b"one"), sha(b"one")]


def test_verify_reads_a_version_whatever_its_times_say(root: Path) -> None:
    for content in (b"one", b"two"):
        deploy(root, content)
    path = root / f".registry/versions/{KEY}/{sha(b'one')}.sif"
    before = run(root, "verify", *of(b"one"))
    path.chmod(0o644)
    path.write_bytes(b"eno")
    after = run(root, "verify", *of(b"one"))
    gone = run(root, "verify", *of(b"four"))

    assert [(item["there"], item["held"]) for item in (before, after, gone)] == [
        (True, True),
        (True, False),
        (False, False),
    ]


def test_a_link_to_a_version_that_is_gone_is_never_made(root: Path) -> None:
    for content in (b"one", b"two"):
        deploy(root, content)
    entry = registry.Entry(root, CATEGORY, "hello")

    with pytest.raises(registry.RegistryError, match="removed meanwhile"):
        registry.point(entry, entry.version(sha(b"four")))

    assert entry.visible.read_bytes() == b"two"


def test_the_catalog_has_the_schema_that_is_documented(root: Path) -> None:
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    path = root / ".registry" / "catalog.json"
    whole = {name: name for name in registry.KNOWN if name not in ("signed", "event")}
    for content in (b"one", b"two"):
        deploy(root, content, "--meta=" + json.dumps({**whole, "signed": "yes"}))
    run(root, "install", *of(b"two"), meta("2026-01-02T00:00:00+00:00", tests="passed"))
    run(root, "install", *of(b"one"), meta("2026-01-03T00:00:00+00:00", event="rolled back"))
    full = json.loads(path.read_text())
    removal.main(arguments(root, "undeploy", f"--category={CATEGORY}", "--name=hello"))
    empty = json.loads(path.read_text())

    for catalog in (full, empty, {"version": 1, "images": {}}):
        assert [error.message for error in schema.iter_errors(catalog)] == []
    assert len(full["history"][KEY]) < len(empty["history"][KEY])
    for wrong in ({**full, "images": []}, {**full, "version": 2}, {**full, "more": 1}):
        assert [*schema.iter_errors(wrong)] != []
