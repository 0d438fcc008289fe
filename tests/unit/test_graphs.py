"""The drawn graph: read back from each format, it is the graph that was given."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sifline.errors import UsageError
from sifline.model import GraphNode
from sifline.report import graphs
from sifline.report.graphs import FORMATS, render
from sifline.report.layered import Drawing, Point, draw

SVG = "{http://www.w3.org/2000/svg}"
STATES = ("up to date", "build", "failed", "waits for its parent", "unknown")


def xml(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314 - written here, or by Graphviz


class Parsed(NamedTuple):
    """What a reader of a format sees: how often each vertex and each edge is drawn."""

    vertices: Counter[str]
    edges: Counter[tuple[str, str]]


def node(name: str, *parents: str, bases: tuple[str, ...] = (), reason: str = "") -> GraphNode:
    state = "build" if reason else "up to date"
    return GraphNode(name=name, parents=parents, bases=bases, state=state, reason=reason)


# No spaces and nothing that is not printed: these are image names and references.
NAMES = st.text("ab1.-_/:@\"\\<>&#;|{}[]()é'`%", min_size=1, max_size=8)


# What each image of a graph is drawn with: parents and the base called like an image of ours
# as numbers, which a graph of any size makes names of, and where it stands in the list.
DRAWN = st.tuples(
    NAMES,
    st.lists(st.integers(0, 11), max_size=4),
    st.lists(NAMES | st.integers(0, 11), max_size=2),
    st.sampled_from(STATES),
    st.text(max_size=60),
    st.integers(0, 99),
)


def acyclic(drawn: list[tuple[str, list[int], list[str | int], str, str, int]]) -> list[GraphNode]:
    """Return images of which each is built on some of those drawn before it, in any order.

    The strategy is one for all graphs: to make others inside of it takes longer than to draw.
    """
    names = [name for name, *_ in drawn]
    nodes = [
        GraphNode(
            name=name,
            parents=tuple(names[parent % place] for parent in parents if place),
            bases=tuple(
                base if isinstance(base, str) else names[base % len(names)] for base in bases
            ),
            state=state,
            reason=reason,
        )
        for place, (name, parents, bases, state, reason, _) in enumerate(drawn)
    ]
    order = sorted(range(len(drawn)), key=lambda place: drawn[place][-1])
    return [nodes[place] for place in order]


GRAPHS = st.lists(DRAWN, unique_by=lambda drawn: drawn[0], max_size=12).map(acyclic)


def any_graph(test: Callable[..., None]) -> Callable[..., None]:
    """Call a test with ``nodes`` of many graphs; a busy machine is no fault of theirs."""
    return given(nodes=GRAPHS)(test)


def given_graph(nodes: list[GraphNode]) -> Parsed:
    edges = {
        (source, item.name)
        for item in nodes
        for source in (*item.parents, *(f"FROM {base}" for base in item.bases))
    }
    bases = {f"FROM {base}" for item in nodes for base in item.bases}
    return Parsed(Counter([*(item.name for item in nodes), *bases]), Counter(edges))


def parse_text(drawn: str) -> Parsed:
    vertices, edges, above = Counter[str](), Counter[tuple[str, str]](), list[str]()
    for line in drawn.splitlines():
        label = line.lstrip(" │├└─")
        depth = (len(line) - len(label)) // 4
        name, _, note = label.partition(" ")
        key = f"FROM {name}" if note == " (foreign)" else name
        if note != "(see above)":
            vertices[key] += 1
        above[depth:] = [key]
        if depth:
            edges[above[depth - 1], key] += 1
    return Parsed(vertices, edges)


def parse_dot(drawn: str) -> Parsed:
    quoted = r'"((?:[^"\\]|\\.)*)"'

    def plain(text: str) -> str:
        return re.sub(r"\\(.)", r"\1", text)

    edges = re.findall(rf"^  {quoted} -> {quoted};$", drawn, re.MULTILINE)
    vertices = re.findall(rf"^  {quoted} \[label={quoted}, ", drawn, re.MULTILINE)
    return Parsed(
        Counter(plain(key) for key, _ in vertices),
        Counter((plain(source), plain(target)) for source, target in edges),
    )


def parse_mermaid(drawn: str) -> Parsed:
    """Foreign bases are told by their class: ids are numbers."""
    labels = dict(re.findall(r'^  (n\d+)\["(.*)"\]$', drawn, re.MULTILINE))
    foreign = re.search(rf"fill:{graphs.COLOURS['foreign'][0]}.*\n  class (\S+)", drawn)
    bases = foreign[1].split(",") if foreign else []
    keys = {}
    for number, label in labels.items():
        assert not re.search(r'["<>&#;]', re.sub(r"#\d+;", "", label.replace("<br/>", "")))
        text = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label.partition("<br/>")[0])
        keys[number] = f"FROM {text}" if number in bases else text
    edges = re.findall(r"^  (n\d+) --> (n\d+)$", drawn, re.MULTILINE)
    return Parsed(Counter(keys.values()), Counter((keys[a], keys[b]) for a, b in edges))


def parse_svg(drawn: str) -> Parsed:
    tree = xml(drawn)
    return Parsed(
        Counter(
            item.get("data-name", "") for item in tree.iter(f"{SVG}g") if item.get("data-name")
        ),
        Counter(
            (item.get("data-from", ""), item.get("data-to", ""))
            for item in tree.iter(f"{SVG}path")
            if item.get("data-from")
        ),
    )


PARSERS = {"text": parse_text, "dot": parse_dot, "mermaid": parse_mermaid, "svg": parse_svg}


@pytest.mark.parametrize("format", FORMATS)
@any_graph
def test_every_image_and_every_edge_is_drawn_once(format: str, nodes: list[GraphNode]) -> None:
    assert PARSERS[format](render(nodes, format)) == given_graph(nodes)


@pytest.mark.parametrize("format", FORMATS)
@any_graph
def test_the_order_of_images_makes_no_difference(format: str, nodes: list[GraphNode]) -> None:
    by_name = sorted(nodes, key=lambda item: item.name)

    assert render(nodes, format) == render(by_name, format)


def test_another_format_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"takes text or dot or mermaid or svg\. Did .* mermaid"):
        render([], "mermade")


def test_the_text_is_a_tree_that_says_what_is_to_do() -> None:
    nodes = [
        node("base", bases=("debian:12",)),
        node("mpi", "base"),
        node("solver", "base", "mpi", reason="main.c changed"),
        node("alone"),
    ]

    assert render(nodes, "text").splitlines() == [
        "debian:12  (foreign)",
        "└── base",
        "    ├── mpi",
        "    │   └── solver  build: main.c changed",
        "    └── solver (see above)",
        "alone",
    ]


@pytest.mark.parametrize(
    ("format", "line"),
    [
        ("text", "└── mpi  FROM ghcr.io/acme/base, base"),
        ("dot", '  "base" -> "mpi" [label="FROM ghcr.io/acme/base, base"];'),
        ("mermaid", '  n1 -->|"FROM ghcr.io/acme/base, base"| n2'),
        ("svg", "<title>FROM ghcr.io/acme/base, base</title></path>"),
    ],
)
def test_an_edge_shows_what_the_dockerfile_calls_the_image(format: str, line: str) -> None:
    words = (("base", "ghcr.io/acme/base"), ("base", "base"))
    nodes = [node("base"), GraphNode(name="mpi", parents=("base",), words=words)]

    drawn = render(nodes, format).splitlines()

    assert any(item.endswith(line) for item in drawn), drawn


def test_a_chain_longer_than_the_stack_is_drawn() -> None:
    chain = [node("0"), *(node(str(number), str(number - 1)) for number in range(1, 1200))]

    drawn = {kind: PARSERS[kind](render(chain, kind)) for kind in FORMATS}
    assert {kind: len(item.edges) for kind, item in drawn.items()} == dict.fromkeys(FORMATS, 1199)


def test_graphviz_reads_the_names_as_they_are() -> None:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz (dot) is not installed")
    nodes = [node('a"b'), node("c\\", 'a"b'), node("d&lt;.-", "c\\", bases=("r/x:1@y", "d\\N"))]

    done = subprocess.run(
        ["dot", "-Tdot_json"],
        input=render(nodes, "dot"),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    read = json.loads(done.stdout)
    # Graphviz leaves a doubled backslash in a name, everywhere alike.
    names = [item["name"].replace("\\\\", "\\") for item in read["objects"]]
    edges = [(names[item["tail"]], names[item["head"]]) for item in read["edges"]]
    assert Parsed(Counter(names), Counter(edges)) == given_graph(nodes)


def test_a_label_of_graphviz_shows_what_was_written() -> None:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz (dot) is not installed")
    nodes = [node("a", reason='C:\\new "x" &amp; <y>')]

    done = subprocess.run(
        ["dot", "-Tsvg"], input=render(nodes, "dot"), capture_output=True, text=True, check=True
    )

    texts = [item.text for item in xml(done.stdout).iter(f"{SVG}text")]
    assert 'build: C:\\new "x" &amp; <y>' in texts


class Rectangle(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float


def rectangles(tree: ElementTree.Element) -> dict[str, Rectangle]:
    found = {}
    for group in tree.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect")
        if (name := group.get("data-name")) and box is not None:
            x, y, width, height = (
                float(box.get(key, "")) for key in ("x", "y", "width", "height")
            )
            found[name] = Rectangle(x, y, x + width, y + height)
    return found


def overlapping(boxes: dict[str, Rectangle]) -> list[tuple[str, str]]:
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes.items(), 2)
        if a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom
    ]


@any_graph
def test_no_box_covers_another_and_all_lie_in_the_picture(nodes: list[GraphNode]) -> None:
    tree = xml(render(nodes, "svg"))
    boxes = rectangles(tree)
    width, height = (float(tree.get(key, "")) for key in ("width", "height"))

    assert overlapping(boxes) == []
    assert [
        name
        for name, box in boxes.items()
        if box.left < 0 or box.top < 0 or box.right > width or box.bottom > height
    ] == []


@any_graph
def test_edges_lead_from_one_box_to_the_other(nodes: list[GraphNode]) -> None:
    tree = xml(render(nodes, "svg"))
    boxes = rectangles(tree)
    for path in tree.iter(f"{SVG}path"):
        if (source := path.get("data-from")) is None:
            continue
        numbers = [float(word) for word in re.findall(r"[\d.]+", path.get("d", ""))]
        start, end = boxes[source], boxes[path.get("data-to", "")]
        assert numbers[:2] == pytest.approx([start.right, (start.top + start.bottom) / 2], abs=0.2)
        assert numbers[-2:] == pytest.approx([end.left, (end.top + end.bottom) / 2], abs=0.2)


def drawing(nodes: list[GraphNode]) -> Drawing:
    vertices, edges = given_graph(nodes)
    return draw(dict.fromkeys(sorted(vertices), (80.0, 28.0)), sorted(edges))


@any_graph
def test_no_edge_runs_through_a_box(nodes: list[GraphNode]) -> None:
    drawn = drawing(nodes)
    for route in drawn.routes.values():
        for left, right in zip(route[::2], route[1::2], strict=True):
            # A curve leads over a gap, where no box is at any height.
            assert boxes_between(drawn, left, right) == []
        for left, right in zip(route[1:-1:2], route[2:-1:2], strict=True):
            assert left[1] == right[1]
            assert boxes_between(drawn, left, right, y=left[1]) == []


def boxes_between(
    drawn: Drawing, left: Point, right: Point, *, y: float | None = None
) -> list[str]:
    """The boxes in the columns from ``left`` to ``right``, at any height or at ``y``."""
    return [
        name
        for name, box in drawn.boxes.items()
        if box.x < right[0] and left[0] < box.x + box.width
        if y is None or box.y < y < box.y + box.height
    ]


def test_an_edge_over_a_column_goes_around_its_boxes() -> None:
    nodes = [node("a"), node("b", "a"), node("c", "a", "b")]
    path = next(
        item.get("d")
        for item in xml(render(nodes, "svg")).iter(f"{SVG}path")
        if (item.get("data-from"), item.get("data-to")) == ("a", "c")
    )

    assert path == (
        "M48.1 49.0 C92.1 49.0 92.1 64.0 136.1 64.0 H164.1 C208.1 64.0 208.1 49.0 252.1 49.0"
    )


def test_what_is_built_of_an_image_stands_right_of_it() -> None:
    nodes = [node("a"), node("b", "a"), node("c", "b", "a", bases=("late",)), node("d", "c")]
    boxes = drawing(nodes).boxes

    assert sorted(boxes, key=lambda name: (boxes[name].x, name)) == [
        "a",
        "FROM late",
        "b",
        "c",
        "d",
    ]


def test_columns_are_ordered_so_that_edges_need_not_cross() -> None:
    parents = {"a1": "z", "b1": "y", "c1": "x"}
    nodes = [*(node(name) for name in "xyz"), *(node(*pair) for pair in parents.items())]
    boxes = drawing(nodes).boxes

    assert [boxes[name].y for name in parents] == [boxes[name].y for name in parents.values()]


def test_the_legend_names_each_state_there_is() -> None:
    nodes = [node("a", bases=("x",)), node("b", "a", reason="why")]
    tree = xml(render(nodes, "svg"))
    legend = next(item for item in tree.iter(f"{SVG}g") if item.get("class") == "legend")

    assert [item.text for item in legend.iter(f"{SVG}text")] == ["foreign", "up to date", "build"]


def test_the_picture_says_what_it_shows_to_those_who_do_not_see_it() -> None:
    nodes = [node("a", bases=("x",)), node("b", "a", reason="why"), node("c", "a")]
    tree = xml(render(nodes, "svg"))

    assert [tree.findtext(f"{SVG}{tag}") for tag in ("title", "desc")] == [
        "Images and what they are built on",
        "1 foreign, 2 up to date, 1 build",
    ]


def test_a_long_reference_keeps_both_ends_and_is_whole_in_its_title() -> None:
    base = f"registry.example.org/team/python:3.11@sha256:{64 * 'a'}"
    drawn = render([node("a", bases=(base,))], "svg")

    assert ">registry.example.org/…aaaaaaaaaaaaaaaaaaaaaa<" in drawn
    assert f"<title>{base}: foreign</title>" in drawn


def luminance(colour: str) -> float:
    """The relative luminance of a colour, as WCAG 2 defines it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("both", [*graphs.COLOURS.values(), *graphs.OTHER_COLOURS])
def test_text_and_borders_stand_out_as_wcag_asks(both: graphs.Colours) -> None:
    fill, border = both

    assert contrast(graphs.INK, fill) >= 10
    assert contrast(border, graphs.PAPER) >= 3
    assert contrast(graphs.LINE, graphs.PAPER) >= 3
