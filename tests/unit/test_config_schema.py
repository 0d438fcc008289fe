"""Schemas and reference are those of the keys, and say of every file what the reader says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tomli
import yaml

from sifline.config.clusters import dump_cluster, load_cluster, load_virtual
from sifline.config.images import load_image_settings
from sifline.config.schema import FILES, PAGES, page, schema, schema_text, write
from sifline.config.sites import load_site
from sifline.errors import UsageError
from sifline.fields.keys import Keys, Named, Rows
from sifline.fields.kinds import Kind
from sifline.fields.table import Table
from sifline.model import Workspace

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
AGAIN = "python -m sifline.config.schema docs/reference"
# Seconds of loading, that one process is enough for: see also test_sbom.py.
pytestmark = pytest.mark.xdist_group("jsonschema")

# Values of every shape, good somewhere and bad elsewhere.
ODD: tuple[Any, ...] = (
    *("", "x", "X", "a b", "a\nb", "-x", "/x", "~/x", "x/", "docker.io/", "docker.io/x/", "x_y"),
    *("ubuntu:22.04", "localhost:5000/x", "http://p:1", "http://p/x", "ftp://p", "h,.example.org"),
    *("5GB", "5 GB", "5gb", "8g", "8G", "0g", "8", "all", "2", "0", "/a:/b", "/a:/b:ro", "a:/b"),
    *("zstd", "gzip", "xz", "ml-frameworks", "trixie", "12", f"x@sha256:{'a' * 64}", "x@sha256:a"),
    *(0, 1, 9, 10, 22, 23, 1024, 1025, -1, 3.5, True, False),
    *([], [""], ["x"], ["a b"], ["/a:/b"], ["a,b"], [1], [[]], [["x"]], [["x", ""]], [["x"], "y"]),
    *({}, {"A": "x"}, {"A": ""}, {"A": 1}, {"a-b": "x"}, {"a.b": "x"}, {"": "x"}, {"0": "x"}),
    *({"http_proxy": "x"}, {"HTTP_PROXY": "x"}, {"HTTP_PROXY_": "x"}, {"sifline.x": "x"}),
    *({"siflinex": "x"}, {"docker.io/": "x/"}, {"docker.io/": "x"}, {"ubuntu": "x/"}),
    *({"ubuntu": "m:5/x@y"}, {"ubuntu": "m:5/x"}, {"x": {}}, {"x": {"build-args": {"A": "1"}}}),
    *({"X": {}}, {"x": {"build-args": {"A": 1}}}, {"x": {"y": 1}}),
    *({"test_x": "why"}, {"test_x": " "}, {"skip": {"test_x": "why"}}, {"skip": {"test_x": ""}}),
    *({"t": {"env": "T"}}, {"t": {"env": "1T"}}, {"t": {"file": "f"}}, {"t": {}}, {"t": "x"}),
    *({"t": {"env": "T", "file": "f"}}, {"a,b": {"env": "T"}}),
    *({"suite": "x"}, {"packages": ["x"]}, {"suite": "x", "packages": ["y"]}, {"gpus": "all"}),
    *({"compression": "gzip"}, {"level": 3}, {"compression": "gzip", "level": 9}),
    *({"compression": "gzip", "level": 10}, {"compression": "zstd", "level": 10}),
    *({"compression": "xz", "level": 3}, {"mpi": "4"}, {"http": "http://p:1"}, {"no": "a b"}),
    *(
        "compute",
        "head",
        "::1",
        "fe80::1%eth0",
        "a.example.org",
        "a..b",
        "x" * 64,
        "a." * 127 + "a",
    ),
    *(
        "/srv/x",
        "/srv/../x",
        "/srv/..x",
        "/",
        "root",
        "24:00:00",
        "1-12",
        "INFINITE",
        65534,
        2**40,
    ),
    *([{"name": "x"}], [{"name": "x", "role": "compute"}], [{"name": "a b", "role": "compute"}]),
    *([{"name": "x", "role": "head"}], [{"name": "x", "default": "yes"}], {"image": "x"}),
    *({"image": "X"}, {"user": "x", "port": 22}, {"user": "X"}, {"port": 0}),
)


@pytest.fixture(scope="module")
def draft() -> Any:
    """The judge of schemas and values, that is loaded for the tests which need it."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator


# A name of a table; of a list of tables the keys without which none is taken.
Step = str | dict[str, Any]


def needed(kind: Kind) -> dict[str, Any]:
    return {key.name: key.example for key in getattr(kind, "keys", ()) if key.required}


def places(kind: Kind, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Yield where a value can be put: each key, also of tables within tables."""
    if isinstance(kind, Keys):
        for key in kind.keys:
            yield (*path, key.name)
            yield from places(key.kind, (*path, key.name))
        yield (*path, "unknown")
    elif isinstance(kind, Rows):
        yield from places(kind.item, (*path, needed(kind.item)))
    elif isinstance(kind, Named):
        for name in ("x", "docker.io/", "A"):
            for _, value in kind.entries:
                yield from places(value, (*path, name))


def put(value: Any, place: tuple[Step, ...]) -> dict[str, Any]:
    for key in reversed(place):
        value = {key: deepcopy(value)} if isinstance(key, str) else [{**key, **value}]
    return dict(value)


def taken(file: str, values: dict[str, Any]) -> bool:
    given = {"source": Path("file")} if file == "cluster" else {}
    try:
        FILES[file][1].value(Table(Path("file"), values), **given)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("file", FILES)
def test_the_schema_is_one(file: str, draft: Any) -> None:
    draft.check_schema(schema(file))


@pytest.mark.parametrize("file", FILES)
def test_reader_and_schema_agree_on_every_value_of_every_key(file: str, draft: Any) -> None:
    validator = draft(schema(file))
    files = [put(value, place) for place in places(FILES[file][1]) for value in ODD]

    verdicts = {json.dumps(item): (taken(file, item), validator.is_valid(item)) for item in files}

    assert {item: both for item, both in verdicts.items() if both[0] != both[1]} == {}
    good = sum(reader for reader, _ in verdicts.values())
    assert good > 100
    assert len(verdicts) - good > 1000


@pytest.mark.parametrize("file", FILES)
def test_every_key_is_described_and_its_example_is_good(file: str) -> None:
    def check(kind: Kind, path: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
        if isinstance(kind, Named):
            kind, path = kind.entries[0][1], (*path, "x")
        if isinstance(kind, Rows):
            path = (*path, needed(kind.item))
            kind = kind.item
        for key in kind.keys if isinstance(kind, Keys) else ():
            assert re.fullmatch(r"[A-Z].*\.", key.help), key.name
            if key.example is not None:
                yield (*path, key.name)
                example = put(key.example, (*path, key.name))
                if key.name == "level":
                    example = put({"compression": "zstd", "level": key.example}, path)
                if key.name == "packages":
                    example = put({"suite": "trixie", "packages": key.example}, path)
                assert taken(file, example), key.name
            else:
                assert isinstance(key.kind, Keys | Named | Rows), key.name
            yield from check(key.kind, (*path, key.name))

    assert len(list(check(FILES[file][1], ()))) > 10


@pytest.mark.parametrize("file", FILES)
def test_the_committed_schema_is_that_of_the_keys(file: str) -> None:
    committed = (REFERENCE / f"{file}.schema.json").read_text(encoding="utf-8")

    assert committed == schema_text(file), f"make it anew: {AGAIN}"


@pytest.mark.parametrize("file", FILES)
def test_the_reference_has_the_table_of_the_keys(file: str) -> None:
    text = (REFERENCE / PAGES[file]).read_text(encoding="utf-8")

    assert text.count("<!-- keys -->") == 1
    assert f"| `{FILES[file][1].keys[0].name}` |" in page(text, file)
    assert text == page(text, file), f"make it anew: {AGAIN}"


def test_schemas_are_written_where_there_are_no_pages(tmp_path: Path) -> None:
    write(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cluster.schema.json",
        "image.schema.json",
        "site.schema.json",
    ]


def blocks(page: str, language: str = "toml") -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize(
    ("page", "file"),
    [
        ("reference/image-toml.md", "image"),
        ("reference/site-profile.md", "site"),
        ("how-to/offline-site.md", "site"),
    ],
)
def test_examples_of_the_documentation_are_good(
    page: str, file: str, tmp_path: Path, draft: Any
) -> None:
    found = blocks(page)
    (tmp_path / "sites").mkdir()
    for text in found:
        assert draft(schema(file)).is_valid(tomli.loads(text))
        if file == "image":
            (tmp_path / "image.toml").write_text(text)
            load_image_settings(tmp_path / "image.toml")
        else:
            (tmp_path / "sites" / "x.toml").write_text(text)
            load_site(Workspace(root=tmp_path), "x")
    assert found


def test_examples_of_cluster_files_are_good(tmp_path: Path, draft: Any) -> None:
    found = blocks("reference/cluster-file.md", "yaml")
    for text in found:
        (tmp_path / "x.yaml").write_text(text)
        load_cluster(tmp_path / "x.yaml")
    virtual = (ROOT / "clusters" / "virtual.yaml").read_text(encoding="utf-8")
    for text in (*found, virtual):
        assert draft(schema("cluster")).is_valid(yaml.safe_load(text))
    assert found


def test_what_a_virtual_cluster_writes_is_good(tmp_path: Path, draft: Any) -> None:
    cluster, _ = load_virtual(ROOT / "clusters" / "virtual.yaml")

    written = yaml.safe_load(dump_cluster(cluster, tmp_path))

    assert draft(schema("cluster")).is_valid(written)


def test_no_start_pays_for_the_keys_of_values_that_travel() -> None:
    look = "import sys, sifline.model, sifline.tasks; sys.exit('sifline.fields' in sys.modules)"
    subprocess.run([sys.executable, "-c", look], check=True)


def test_the_example_profile_has_every_key(draft: Any) -> None:
    example = tomli.loads((ROOT / "sites" / "example.toml").read_text(encoding="utf-8"))
    keys = FILES["site"][1]

    assert draft(schema("site")).is_valid(example)
    assert set(example) == {key.name for key in keys.keys}
    for key in keys.keys:
        if isinstance(key.kind, Keys):
            assert set(example[key.name]) == {inner.name for inner in key.kind.keys}
