"""What takes the space, told of layers and files that are only described; see tests/images."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sifline.contents import excerpt, sizes
from sifline.contents.sizes import Copies, Entry, File, Folder, Hidden, Kind, Layer, Report, Tree
from sifline.engines.docker.images import Docker
from sifline.errors import MissingError, StepFailed
from sifline.model import BuiltImage, Image, SifOptions
from sifline.report import screen, tables
from sifline.report import sizes as shown
from sifline.stages import sizes as stage
from tests.support.contexts import context_of
from tests.support.recording import RecordingRunner, answer
from tests.support.sif_files import SQUASHFS, write

# Of a layer: bytes of a file, None for a whiteout; folders follow from the names.
Content = Mapping[str, int | None]
NAMES = ("docker", "image", "inspect"), ("docker", "image", "history")
LINE = "{} 0/0 {:>23} 2025-01-01 00:00 squashfs-root{}"


def tree(*layers: Content, opaque: Sequence[str] = (), linked: str = "") -> Tree:
    """Merge layers, the lowest first; files whose names end in ``linked`` are one, in a layer."""
    upwards = list(reversed(layers))

    def listing(layer: int, folder: str) -> Iterable[Entry]:
        content, seen = upwards[layer], set[str]()
        for path, size in content.items():
            if folder and not path.startswith(f"{folder}/"):
                continue
            rest = path.removeprefix(f"{folder}/") if folder else path
            name, below, _ = rest.partition("/")
            if name in seen:
                continue
            seen.add(name)
            if below:
                full = f"{folder}/{name}" if folder else name
                yield Entry(name=name, kind=Kind.FOLDER, opaque=full in opaque)
            elif size is None:
                yield Entry(name=name, kind=Kind.NOTHING)
            else:
                inode = (layer, linked if linked and path.endswith(linked) else path)
                yield Entry(name=name, kind=Kind.FILE, size=size, inode=inode)

    return sizes.merge(len(layers), listing)


def visible(found: Tree) -> dict[str, int]:
    return {file.path: file.size for file in found.files}


def hidden(found: Tree) -> list[tuple[str, int, bool]]:
    return [(item.path, item.size, item.replaced) for item in found.hidden or ()]


# Layers above each other


def test_layers_that_share_a_folder_are_merged() -> None:
    found = tree({"a/b": 1, "c": 2}, {"a/d": 3}, {})
    assert visible(found) == {"a/b": 1, "c": 2, "a/d": 3}
    assert hidden(found) == []


def test_a_deleted_file_is_hidden_by_its_path() -> None:
    found = tree({"a/b": 5, "a/c": 1}, {"a/b": None})
    assert visible(found) == {"a/c": 1}
    assert hidden(found) == [("a/b", 5, False)]


def test_a_deleted_folder_is_one_line_with_all_below() -> None:
    found = tree({"a/b/c": 5, "a/b/d": 7, "a/e": 1}, {"a/b/f": 2}, {"a/b": None})
    assert visible(found) == {"a/e": 1}
    assert hidden(found) == [("a/b", 14, False)]


def test_every_version_of_a_replaced_file_but_the_last_is_hidden() -> None:
    found = tree({"a": 5}, {"a": 7}, {"a": 9})
    assert visible(found) == {"a": 9}
    assert hidden(found) == [("a", 12, True)]


def test_an_opaque_folder_hides_what_is_below_it() -> None:
    found = tree({"a/b": 5, "a/c": 7}, {"a/d": 1}, opaque=["a"])
    assert visible(found) == {"a/d": 1}
    assert hidden(found) == [("a", 12, True)]


def test_a_lowest_layer_may_be_opaque() -> None:
    assert visible(tree({"a/b": 5}, {"c": 1}, opaque=["a"])) == {"a/b": 5, "c": 1}


def test_what_came_back_after_it_was_deleted_does_not_bring_the_old_back() -> None:
    found = tree({"a/b": 5}, {"a": None}, {"a/c": 1})
    assert visible(found) == {"a/c": 1}
    assert hidden(found) == [("a", 5, True)]


@pytest.mark.parametrize(
    ("lower", "upper", "lost"),
    [({"a/b": 5}, {"a": 1}, 5), ({"a": 5}, {"a/b": 1}, 5)],
    ids=["file over folder", "folder over file"],
)
def test_a_file_and_a_folder_replace_each_other(lower: Content, upper: Content, lost: int) -> None:
    found = tree(lower, upper)
    assert visible(found) == dict(upper)
    assert hidden(found) == [("a", lost, True)]


def test_a_deleted_name_of_a_file_that_has_another_hides_nothing() -> None:
    found = tree({"a/x": 5, "b/x": 5}, {"a/x": None}, linked="x")
    assert visible(found) == {"b/x": 5}
    assert hidden(found) == []


def test_a_file_whose_names_are_all_deleted_is_hidden_once() -> None:
    found = tree({"a/x": 5, "b/x": 5}, {"a/x": None, "b": None}, linked="x")
    assert hidden(found) == [("a/x", 5, False)]


def test_what_deletes_nothing_hides_nothing() -> None:
    assert hidden(tree({"a": 1}, {"b": None})) == []


def test_the_largest_hidden_path_comes_first() -> None:
    found = tree({"a": 1, "b": 9, "c": 1}, {"a": None, "b": None, "c": None})
    assert [path for path, *_ in hidden(found)] == ["b", "a", "c"]


# Folders


def files(**content: int) -> list[File]:
    """Files by path, with two underscores for a slash."""
    paths = {name.replace("__", "/"): size for name, size in content.items()}
    return [File(path=path, size=size, inode=path) for path, size in paths.items()]


def folders(found: Iterable[File]) -> dict[str, int]:
    return {item.path: item.size for item in sizes.largest(found)}


def test_a_folder_counts_with_all_below_it() -> None:
    found = files(a__b__c=80, a__d=40, e__f=50)
    assert folders(found) == {"a": 120, "a/b": 80, "e": 50}
    assert list(folders(found)) == ["a", "a/b", "e"]


@pytest.mark.parametrize(
    ("below", "beside", "expected"),
    [(90, 10, {"a/b": 90}), (89, 11, {"a": 100, "a/b": 89})],
    ids=["nearly all", "less"],
)
def test_a_folder_that_is_nearly_all_one_sub_folder_gives_way_to_it(
    below: int, beside: int, expected: dict[str, int]
) -> None:
    assert folders(files(a__b__x=below, a__y=beside)) == expected


def test_a_chain_of_folders_is_its_last() -> None:
    assert folders(files(a__b__c__d__x=5)) == {"a/b/c/d": 5}


def test_ten_folders_are_told() -> None:
    found = [File(path=f"{number}/x", size=number, inode=number) for number in range(1, 15)]
    assert list(folders(found)) == [str(number) for number in range(14, 4, -1)]


def test_folders_without_bytes_are_not_told() -> None:
    assert folders(files(a__b=0)) == {}


def test_a_file_of_several_names_counts_once_at_the_first() -> None:
    found = [File(path=path, size=7, inode=1) for path in ("b/x", "a/y", "c/z")]
    assert folders(found) == {"a": 7}
    assert sizes.report("x", Tree(files=tuple(found))) == Report(
        name="x", total=7, files=1, folders=(Folder(path="a", size=7),)
    )


# Copies

BIG = sizes.LEAST


def test_files_of_equal_size_are_compared_where_they_are_large() -> None:
    found = files(a=BIG, b=BIG, c=BIG + 1, d=BIG - 1, e=BIG - 1)
    assert [file.path for file in sizes.alike(found)] == ["b", "a"]


def test_names_of_one_file_are_no_copies() -> None:
    found = [File(path=path, size=BIG, inode=1) for path in "ab"]
    assert sizes.alike(found) == ()


def test_copies_are_those_of_one_content_and_the_most_wasteful_come_first() -> None:
    found = files(a=BIG, b=BIG, c=BIG, d=BIG, e=2 * BIG, f=2 * BIG, g=5 * BIG, h=5 * BIG)
    digests: dict[Hashable, str] = dict(zip("abcdefgh", "12111112", strict=True))
    copies = sizes.copies(found, digests)
    assert [(item.paths, item.waste) for item in copies] == [
        (("a", "c", "d"), 2 * BIG),
        (("e", "f"), 2 * BIG),
    ]


# Instructions


@pytest.mark.parametrize(
    ("engine", "dockerfile"),
    [
        ("COPY /a /b # buildkit", "COPY /a /b"),
        ("RUN /bin/sh -c apt-get  update \t&& true # buildkit", "RUN apt-get update && true"),
        ("RUN /bin/bash -o errexit -o pipefail -c a -c b # buildkit", "RUN a -c b"),
        ("RUN |2 A=1 B=two words /bin/sh -c make # buildkit", "RUN make"),
        ("/bin/sh -c apt-get update", "RUN apt-get update"),
        ('/bin/sh -c #(nop)  CMD ["bash"]', 'CMD ["bash"]'),
        ("/bin/sh -c #(nop) ADD file:1 in / ", "ADD file:1 in /"),
        ("RUN /opt/install.sh -c x # buildkit", "RUN /opt/install.sh -c x"),
        ("", ""),
    ],
)
def test_an_instruction_reads_as_in_the_dockerfile(engine: str, dockerfile: str) -> None:
    assert sizes.instruction(engine) == dockerfile


def test_layers_are_what_adds_files_or_may_delete_some() -> None:
    history = [("ADD x / # buildkit", 5), ("ENV A=b", 0), ("RUN rm x", 0), ("WORKDIR /new", 3)]
    assert sizes.layers(history) == (
        Layer(instruction="ADD x /", size=5),
        Layer(instruction="RUN rm x", size=0),
        Layer(instruction="WORKDIR /new", size=3),
    )


def test_history_is_told_from_its_beginning() -> None:
    lines = [
        json.dumps({"CreatedBy": text, "Size": size}) for text, size in (("b", "2"), ("a", "0"))
    ]
    runner = RecordingRunner({NAMES[1]: answer("\n".join(lines))})
    assert Docker(runner).history("sha256:1") == (("a", 0), ("b", 2))
    assert "--human=false" in runner.argvs[0]


# A SIF's listing


def test_plain_files_of_a_listing_have_their_size() -> None:
    lines = [
        LINE.format("drwxr-xr-x", 3, "/a"),
        LINE.format("-rw-r--r--", 12, "/a/b c"),
        LINE.format("lrwxrwxrwx", 3, "/a/l -> b c"),
        "crw-r--r-- 0/0                   1,  3 2025-01-01 00:00 squashfs-root/a/dev",
        LINE.format("-rwsr-xr-x", 0, "/d"),
    ]
    assert list(excerpt.sizes("\n".join(lines).encode())) == [("a/b c", 12), ("d", 0)]


# What goes wrong

BUILT = BuiltImage(
    image=Image(name="x", folder=Path("x"), tag="sifline/x", sif=SifOptions(budget=500)),
    image_id="sha256:1",
    fingerprint="f",
    size=1000,
    reused=True,
)


def test_an_image_that_went_away_is_named(tmp_path: Path) -> None:
    gone = answer(stderr="No such image", returncode=1)
    runner = RecordingRunner(dict.fromkeys(NAMES, gone), tools={"docker"})
    with pytest.raises(MissingError, match=r"no longer has x.*run invoke build\.x"):
        stage.of_image(BUILT, context_of(tmp_path, runner))


def test_an_engine_on_another_machine_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    runner = RecordingRunner(
        {NAMES[0]: answer('{"Config": {}}'), NAMES[1]: answer(), ("docker",): answer("c0ffee")},
        tools={"docker"},
    )
    with pytest.raises(MissingError, match="on another machine; run this there"):
        stage.of_image(BUILT, context_of(tmp_path, runner))
    assert list((tmp_path / "build" / "tmp").iterdir()) == []


def test_a_damaged_sif_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.sif", [SQUASHFS])
    runner = RecordingRunner(
        {("docker",): answer(stderr="FATAL ERROR: corrupt", returncode=1)}, tools={"docker"}
    )
    with pytest.raises(StepFailed, match=r"x\.sif: its file system cannot be read") as caught:
        stage.of_sif(path, context_of(tmp_path, runner))
    assert "corrupt" in caught.value.details
    assert list((tmp_path / "build" / "tmp").iterdir()) == []


# What people are shown

REPORT = Report(
    name="x",
    image=200_000_000,
    sif=50_000_000,
    budget=100_000_000,
    layers=(Layer(instruction="RUN " + 200 * "x", size=1_500_000),),
    total=3_000_000,
    files=3,
    folders=(Folder(path="opt/a", size=12_000_000), Folder(path="b", size=2_000_000)),
    copies=(Copies(size=2_000_000, paths=("a", "b", "c")),),
    hidden=(
        Hidden(path="y", size=3_000_000, replaced=False),
        Hidden(path="z", size=1_000_000, replaced=True),
    ),
)


def lines(report: Report) -> list[str]:
    return shown.sizes([report]).splitlines()


@pytest.mark.parametrize(
    ("report", "head"),
    [
        (
            REPORT,
            "x: Docker image 200.0 MB; SIF 50.0 MB, 25 % of the image,"
            " 50 % of its budget of 100.0 MB",
        ),
        (
            replace(REPORT, budget=None),
            "x: Docker image 200.0 MB; SIF 50.0 MB, 25 % of the image, no budget",
        ),
        (replace(REPORT, sif=None), "x: Docker image 200.0 MB; no SIF yet"),
        (replace(REPORT, image=None, budget=None), "x: SIF 50.0 MB"),
        (replace(REPORT, image=0), "x: Docker image 0.0 MB; SIF 50.0 MB, 50 % of its budget of"),
    ],
    ids=["all", "no budget", "no SIF", "a file", "an empty image"],
)
def test_the_first_line_measures_the_sif(report: Report, head: str) -> None:
    assert lines(report)[0].startswith(head)


def test_the_first_line_fits_the_terminal() -> None:
    screen.use(screen.Screen(columns=80))
    try:
        found = lines(REPORT)
    finally:
        screen.use(screen.PLAIN)

    assert found[1] == "  100.0 MB"


def test_sizes_stand_below_each_other() -> None:
    found = lines(REPORT)
    assert "12.0 MB  /opt/a" in found
    assert " 2.0 MB  /b" in found


def test_long_instructions_are_cut() -> None:
    (line,) = (line for line in lines(REPORT) if "RUN" in line)
    assert line == f"1.5 MB  RUN {(shown.WIDTH - 4) * 'x'}…"


def test_copies_and_what_is_hidden_have_their_sum() -> None:
    found = lines(REPORT)
    assert "duplicate files, which waste 4.0 MB:" in found
    assert "4.0 MB  /a, /b and 1 more" in found
    assert "hidden by later layers, which delete or replace 4.0 MB:" in found
    assert found[-2:] == ["3.0 MB  /y deleted", "1.0 MB  /z replaced"]


def test_what_is_not_known_is_told_with_the_reason() -> None:
    report = replace(
        REPORT, copies=None, hidden=None, unknown={"copies": "no time", "hidden": "no right"}
    )
    assert "duplicate files: unknown: no time" in lines(report)
    assert "hidden by later layers: unknown: no right" in lines(report)


def test_nothing_wasted_and_nothing_hidden_is_said() -> None:
    report = replace(REPORT, copies=(), hidden=())
    assert "duplicate files: none of 1 MB or more" in lines(report)
    assert "hidden by later layers: nothing" in lines(report)


def test_what_does_not_fit_is_counted() -> None:
    copies = tuple(Copies(size=BIG, paths=(f"{n}", f"{n}x")) for n in range(13))
    buried = tuple(Hidden(path=f"{n}", size=1, replaced=False) for n in range(7))
    report = replace(REPORT, copies=copies, hidden=buried)
    assert "and 3 more groups" in lines(report)
    assert lines(report)[-1] == "and 2 more paths"


def test_names_that_are_no_text_do_not_reach_the_terminal() -> None:
    odd = replace(REPORT, folders=(Folder(path="a\n\x1b[31m", size=BIG),))
    assert "1.0 MB  /a??[31m" in lines(odd)


def test_reports_for_scripts_are_json_in_bytes() -> None:
    (found,) = json.loads(tables.dump(images=shown.values([REPORT])))["images"]
    assert found["folders"][0] == {"path": "/opt/a", "size": 12_000_000}
    assert found["copies"] == [
        {"size": 2_000_000, "waste": 4_000_000, "paths": ["/a", "/b", "/c"]}
    ]
    assert found["hidden"][1] == {"path": "/z", "size": 1_000_000, "replaced": True}
    assert (found["wasted"], found["buried"]) == (4_000_000, 4_000_000)
    (unknown,) = shown.values([replace(REPORT, copies=None, hidden=None)])
    assert (unknown["copies"], unknown["hidden"]) == (None, None)
