from __future__ import annotations

import gzip
import io
import json
import tarfile
from base64 import b64encode
from pathlib import Path

import pytest

from sifline.formats import layers
from sifline.formats.layers import Declared, Tree, Unreadable
from tests.support.archives import Item, folder, hard, item, layer, soft

OPAQUE = ".wh..wh..opq"
LOWER = (
    folder("d", mode=0o700, owner=(5, 6)),
    item("d/x"),
    item("d/y"),
    folder("d/sub"),
    item("d/sub/z"),
    soft("s", "d"),
    item("top"),
)
ALL = {"d", "d/x", "d/y", "d/sub", "d/sub/z", "s", "top"}


def kept(path: Path, archive: bytes) -> Path:
    """Write what Docker keeps of a layer's archive, see tar-split."""
    lines, at = list[dict[str, object]](), 0
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for info in tar:
            size = info.size if info.isreg() else 0
            payload = b64encode(archive[at : info.offset_data]).decode()
            name = info.name.encode("utf-8", "surrogateescape")
            try:
                named = {"name": name.decode()}
            except UnicodeDecodeError:
                named = {"name_raw": b64encode(name).decode()}
            lines.append({"type": 2, "payload": payload, "position": len(lines)})
            lines.append({"type": 1, **named, **({"size": size} if size else {}), "payload": None})
            at = info.offset_data + size
    lines.append({"type": 2, "payload": b64encode(archive[at:]).decode()})
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    return path


def declared(folder_: Path, *items: tuple[Item, ...]) -> Tree:
    """Return what layers say, the first one first."""
    paths = [kept(folder_ / str(number), layer(one)) for number, one in enumerate(items)]
    return layers.declared(paths)


def names(tree: Tree) -> set[str]:
    return {name.decode("utf-8", "surrogateescape") for name in tree}


def test_entries_are_read_with_all_that_extends_their_headers(tmp_path: Path) -> None:
    first = item("a/" + "n" * 200, mode=0o4751, owner=(3_000_000, 7), content=b"x" * 700)
    tree = declared(
        tmp_path,
        (
            folder("./", mode=0o750, owner=(1, 2), xattrs={"user.top": b"t"}),
            first,
            hard("/b/" + "l" * 150, first),
            item(b"odd \xff\n", xattrs={"user.a": b"\x00\xff\n", "trusted.t": b"1"}),
            item("null", tarfile.CHRTYPE, device=(1, 3)),
            item("fifo", tarfile.FIFOTYPE),
        ),
    )
    assert tree == {
        b"": Declared(kind="d", mode=0o750, uid=1, gid=2, xattrs={b"user.top": b"t"}),
        b"a/" + b"n" * 200: Declared(kind="f", mode=0o4751, uid=3_000_000, gid=7),
        b"b/" + b"l" * 150: Declared(
            kind="h", mode=0o4751, uid=3_000_000, gid=7, target=b"a/" + b"n" * 200
        ),
        b"odd \xff\n": Declared(
            kind="f",
            mode=0o644,
            uid=0,
            gid=0,
            xattrs={b"user.a": b"\x00\xff\n", b"trusted.t": b"1"},
        ),
        b"null": Declared(kind="c", mode=0o644, uid=0, gid=0),
        b"fifo": Declared(kind="p", mode=0o644, uid=0, gid=0),
    }


def test_a_link_has_the_attributes_of_its_file(tmp_path: Path) -> None:
    first = item("a", xattrs={"user.a": b"1"})
    link = hard("b", first)
    link.info.pax_headers = {}
    assert declared(tmp_path, (first, link))[b"b"].xattrs == {b"user.a": b"1"}


@pytest.mark.parametrize(
    "upper",
    [
        (item("d/.wh.a"),),
        (item(".wh.d"),),
        (folder("d"), item(f"d/{OPAQUE}")),
        (item("d"),),
        (item("d/a"),),
    ],
    ids=["hidden", "below a hidden one", "opaque", "below a file", "another"],
)
def test_a_link_has_the_attributes_of_a_file_that_a_layer_above_removes(
    tmp_path: Path, upper: tuple[Item, ...]
) -> None:
    first = item("d/a", xattrs={"user.a": b"1"})
    links = [hard("b", first), hard("c", hard("b", first))]
    for link in links:
        link.info.pax_headers = {}
    tree = declared(tmp_path, (folder("d"), first, *links), upper)
    assert [tree[name].xattrs for name in (b"b", b"c")] == [{b"user.a": b"1"}] * 2


@pytest.mark.parametrize(
    ("upper", "expected"),
    [
        ((), ALL),
        ((item("top", mode=0o600),), ALL),
        ((item(".wh.top"),), ALL - {"top"}),
        ((item(".wh.d"),), {"s", "top"}),
        ((item("/d/.wh.x"),), ALL - {"d/x"}),
        ((item("d/.wh.none"), item("none/.wh.x")), ALL),
        ((item(".wh.d"), folder("d"), item("d/new")), {"d", "d/new", "s", "top"}),
        ((folder("d"), item("d/new"), item(".wh.d")), {"d", "d/new", "s", "top"}),
        (
            (folder("d"), item("d/.wh.x"), item(f"d/{OPAQUE}"), item("d/n")),
            {"d", "d/n", "s", "top"},
        ),
        ((item(f"d/{OPAQUE}"), item("d/.wh.x")), {"d", "s", "top"}),
        ((item(OPAQUE), item("new")), {"new"}),
        ((item("d"),), {"d", "s", "top"}),
        ((folder("top"), item("top/x")), ALL | {"top/x"}),
        ((item("s/.wh.x"),), ALL),
        ((item(".wh..wh.plnk"), item(".wh..wh.plnk/1.2")), ALL),
    ],
)
def test_layers_make_together_what_the_specification_says(
    tmp_path: Path, upper: tuple[Item, ...], expected: set[str]
) -> None:
    assert names(declared(tmp_path, LOWER, upper)) == expected


def test_a_layer_hides_from_all_below_it_and_from_none_above(tmp_path: Path) -> None:
    tree = declared(tmp_path, LOWER, (item(".wh.d"),), (item("d/again"),), ())
    assert names(tree) == {"d/again", "s", "top"}


def test_the_last_layer_that_names_a_folder_says_what_it_is(tmp_path: Path) -> None:
    tree = declared(tmp_path, LOWER, (folder("d", mode=0o711),), (item("d/n"),))
    assert (tree[b"d"].mode, tree[b"d"].uid) == (0o711, 0)


@pytest.mark.parametrize("damage", ["cut off", "no gzip", "{}\n", "["])
def test_damaged_headers_cannot_be_read(tmp_path: Path, damage: str) -> None:
    path = kept(tmp_path / "0", layer(LOWER))
    whole = path.read_bytes()
    others = {"cut off": whole[:-20], "no gzip": b"no gzip"}
    path.write_bytes(others.get(damage) or gzip.compress(damage.encode()))
    with pytest.raises(Unreadable):
        layers.declared([path])


def test_missing_headers_and_names_that_lead_out_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(Unreadable):
        layers.declared([tmp_path / "none"])
    with pytest.raises(Unreadable, match="leads out"):
        declared(tmp_path, (item("a/../../b"),))


def test_folders_too_deep_below_each_other_cannot_be_read(tmp_path: Path) -> None:
    deep = item("/".join(["d"] * 1500), content=b"x")
    with pytest.raises(Unreadable):
        declared(tmp_path, (deep,))


def listing(*lines: str) -> bytes:
    return "".join(f"{line}\0" for line in lines).encode("utf-8", "surrogateescape")


SHOWN = (
    *("d 755 0 0 ", "d 700 5 6 d", "f 644 0 0 d/x", "f 644 0 0 d/y", "d 755 0 0 d/sub"),
    *("f 644 0 0 d/sub/z", "l 777 0 0 s", "f 644 0 0 top"),
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"d 755 0 0 ": "d 700 9 9 "}, ""),  # the top folder, which engines forget
        ({"f 644 0 0 top": "f 644 0 0 top\0s 755 0 0 socket"}, ""),
        ({"f 644 0 0 top": ""}, "/top"),
        ({"f 644 0 0 top": "f 644 0 0 top\0f 644 0 0 more"}, "/more"),
        ({"f 644 0 0 top": "f 644 0 0 top\0d 755 0 0 more"}, "/more"),
        ({"d 700 5 6 d": "d 755 0 0 d"}, "/d"),
        ({"f 644 0 0 d/x": "f 600 0 0 d/x"}, "/d/x"),
        ({"f 644 0 0 d/x": "f 644 1 0 d/x"}, "/d/x"),
        ({"l 777 0 0 s": "l 755 0 0 s"}, ""),
        ({"l 777 0 0 s": "d 755 0 0 s"}, "/s"),
    ],
)
def test_what_an_engine_shows_otherwise_is_told(
    tmp_path: Path, changes: dict[str, str], expected: str
) -> None:
    shown = [changes.get(line, line) for line in SHOWN]
    tree = declared(tmp_path, LOWER)
    assert layers.difference(tree, listing(*filter(None, shown))) == expected


def test_folders_that_no_layer_names_are_the_engine_s(tmp_path: Path) -> None:
    tree = declared(tmp_path, (item("a/b/c"),))
    shown = ("d 755 0 0 ", "d 755 0 0 a", "d 755 0 0 a/b", "f 644 0 0 a/b/c")
    assert layers.difference(tree, listing(*shown)) == ""


def test_layers_are_kept_under_the_digests_of_all_below_them() -> None:
    one, two = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
    assert layers.chain([]) == ()
    assert layers.chain([one, two]) == (
        "1" * 64,
        "9932074217c35353d2e03a3f5a86549f7c67bfeb0ba53e23d69f4d4c8f7958f5",
    )
