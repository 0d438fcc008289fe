"""The drawn graph: read back from each format, it is the graph that was given."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from sifline.engines import graphviz
from sifline.errors import MissingError, StepFailed
from sifline.machine.process import CommandFailed, ProcessRunner
from sifline.model import GraphNode
from sifline.report import graphs
from sifline.report.graphs import FORMATS, render
from tests.support.recording import RecordingRunner, answer

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


def written_in(text: str) -> str:
    """Put back the characters that names in DOT have written out."""
    return re.sub(r"\(U\+([0-9A-F]+)\)", lambda found: chr(int(found[1], 16)), text)


def parse_dot(drawn: str) -> Parsed:
    quoted = r'"((?:[^"\\]|\\.)*)"'

    def plain(text: str) -> str:
        return written_in(re.sub(r"\\(.)", r"\1", text))

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


PARSERS = {"text": parse_text, "dot": parse_dot, "mermaid": parse_mermaid}


@pytest.mark.parametrize("format", FORMATS)
@any_graph
def test_every_image_and_every_edge_is_drawn_once(format: str, nodes: list[GraphNode]) -> None:
    assert PARSERS[format](render(nodes, format)) == given_graph(nodes)


@pytest.mark.parametrize("format", FORMATS)
@any_graph
def test_the_order_of_images_makes_no_difference(format: str, nodes: list[GraphNode]) -> None:
    by_name = sorted(nodes, key=lambda item: item.name)

    assert render(nodes, format) == render(by_name, format)


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


def test_a_tree_fits_the_terminal_and_its_lines_go_on() -> None:
    nodes = [
        node("base"),
        node("mpi", "base", reason="main.c, which is a file of it, changed"),
        node("solver", "mpi"),
        node("tools", "base", reason="its Dockerfile or context changed"),
    ]

    assert render(nodes, "text", columns=32).splitlines() == [
        "base",
        "├── mpi  build: main.c, which is",
        "│   │   a file of it, changed",
        "│   └── solver",
        "└── tools  build: its Dockerfile",
        "        or context changed",
    ]


@pytest.mark.parametrize(
    ("format", "line"),
    [
        ("text", "└── mpi  FROM ghcr.io/acme/base, base"),
        ("dot", '  "base" -> "mpi" [label="FROM ghcr.io/acme/base, base"];'),
        ("mermaid", '  n1 -->|"FROM ghcr.io/acme/base, base"| n2'),
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


# What Graphviz makes of it


@pytest.fixture(scope="module")
def runner() -> ProcessRunner:
    if shutil.which("dot") is None:
        pytest.skip("Graphviz (dot) is not installed")
    return ProcessRunner()


def svg(nodes: list[GraphNode], runner: ProcessRunner) -> ElementTree.Element:
    return xml(graphviz.svg(render(nodes, "dot"), runner))


def groups(tree: ElementTree.Element, kind: str) -> dict[str, ElementTree.Element]:
    """Nodes or edges of a picture by the name that Graphviz gives each in its title."""
    found = [item for item in tree.iter(f"{SVG}g") if item.get("class") == kind]
    by_name = {item.findtext(f"{SVG}title", ""): item for item in found}
    assert len(by_name) == len(found)
    return by_name


def texts(tree: ElementTree.Element) -> list[str]:
    # Older releases write a space as one that does not break.
    return ["".join(item.itertext()).replace("\xa0", " ") for item in tree.iter(f"{SVG}text")]


def parse_svg(tree: ElementTree.Element) -> tuple[set[str], set[str]]:
    names, edges = groups(tree, "node"), groups(tree, "edge")
    return {written_in(name) for name in names}, {written_in(edge) for edge in edges}


# Each try starts a process, and smaller examples may take minutes to find.
@settings(max_examples=20, deadline=None, phases=[Phase.reuse, Phase.generate])
@given(nodes=GRAPHS)
def test_the_picture_shows_every_image_and_every_edge(
    runner: ProcessRunner, nodes: list[GraphNode]
) -> None:
    vertices, edges = given_graph(nodes)
    expected = {f"{source}->{target}" for source, target in edges}

    assert parse_svg(svg(nodes, runner)) == (set(vertices), expected)


@pytest.mark.parametrize(
    "name",
    [
        'a"b',
        "a\\",
        "<b>",
        "&",
        "&;",
        "%",
        "%1",
        "&lt;",
        "]]>",
        "-->",
        "{a|b}",
        "\\N",
        "é",
        "漢字",
        "a b",
        "a;b",
        "//",
    ],
)
def test_no_name_breaks_the_picture(runner: ProcessRunner, name: str) -> None:
    tree = svg([node(name), node("z", name, bases=(name,))], runner)

    assert len(groups(tree, "node")) == 3
    assert len(groups(tree, "edge")) == 2
    assert texts(tree).count(name) == 2


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x00b", "a\u2028b", "a\udcffb"])
def test_what_cannot_be_printed_is_a_question_mark(runner: ProcessRunner, name: str) -> None:
    tree = svg([node(name, reason=name), node("z", name)], runner)

    assert len(groups(tree, "node")) == 2
    assert len(groups(tree, "edge")) == 1
    assert [text for text in texts(tree) if text[:1] == "a"] == ["a?b"]
    assert "build: a?b" in texts(tree)


def test_graphviz_reads_the_names_as_they_are(runner: ProcessRunner) -> None:
    nodes = [node('a"b'), node("c\\", 'a"b'), node("d&lt;.-", "c\\", bases=("r/x:1@y", "d\\N"))]

    done = runner.run(["dot", "-Tdot_json"], input=render(nodes, "dot"))

    assert done.stderr == ""
    read = json.loads(done.stdout)
    names = [written_in(item["name"]) for item in read["objects"]]
    edges = [(names[item["tail"]], names[item["head"]]) for item in read["edges"]]
    assert Parsed(Counter(names), Counter(edges)) == given_graph(nodes)


def test_a_label_of_graphviz_shows_what_was_written(runner: ProcessRunner) -> None:
    nodes = [node("a", reason='C:\\new "x" &amp; <y>')]

    assert 'build: C:\\new "x" &amp; <y>' in texts(svg(nodes, runner))


def test_an_edge_of_the_picture_shows_what_the_dockerfile_calls_the_image(
    runner: ProcessRunner,
) -> None:
    nodes = [node("a"), GraphNode(name="b", parents=("a",), words=(("a", 'r/"<&é'),))]

    (edge,) = groups(svg(nodes, runner), "edge").values()
    assert texts(edge) == ['FROM r/"<&é']


def test_what_is_built_of_an_image_stands_right_of_it(runner: ProcessRunner) -> None:
    nodes = [node("a"), node("b", "a"), node("c", "b", "a", bases=("late",)), node("d", "c")]
    drawn = groups(svg(nodes, runner), "node")
    place = {
        name: float(next(item.iter(f"{SVG}text")).get("x", "")) for name, item in drawn.items()
    }

    assert [place[name] for name in "abcd"] == sorted({place[name] for name in "abcd"})
    assert place["FROM late"] < place["c"]


def test_a_chain_longer_than_the_stack_becomes_a_picture(runner: ProcessRunner) -> None:
    chain = [node("0"), *(node(str(number), str(number - 1)) for number in range(1, 1200))]

    assert len(groups(svg(chain, runner), "edge")) == 1199


def test_the_legend_counts_each_state_there_is(runner: ProcessRunner) -> None:
    nodes = [node("a", bases=("x",)), node("b", "a", reason="why"), node("c", "a")]

    shown = [text for text in texts(svg(nodes, runner)) if re.match(r"\d", text)]
    assert shown == ["1 foreign", "2 up to date", "1 build"]


def test_the_picture_says_what_it_shows_to_those_who_do_not_see_it(runner: ProcessRunner) -> None:
    (picture,) = groups(svg([node("a")], runner), "graph")

    assert picture == "Images and what they are built on"


def test_a_picture_of_nothing_is_one(runner: ProcessRunner) -> None:
    assert parse_svg(svg([], runner)) == (set(), set())


def test_a_long_reference_keeps_both_ends_and_is_whole_in_its_tooltip(
    runner: ProcessRunner,
) -> None:
    base = f"registry.example.org/team/python:3.11@sha256:{64 * 'a'}"
    tree = svg([node("a", bases=(base,))], runner)

    assert "registry.example.org/…aaaaaaaaaaaaaaaaaaaaaa" in texts(tree)
    tooltips = [item.get("{http://www.w3.org/1999/xlink}title") for item in tree.iter(f"{SVG}a")]
    assert f"{base}: foreign" in tooltips


def test_the_same_graph_is_the_same_picture(runner: ProcessRunner) -> None:
    graph = render([node("a"), node("b", "a", bases=("x",))], "dot")

    assert graphviz.svg(graph, runner) == graphviz.svg(graph, runner)


def test_graphviz_gets_the_graph_as_its_input() -> None:
    recording = RecordingRunner({("dot",): answer("<svg/>")})

    assert graphviz.svg("digraph {}", recording) == "<svg/>"
    assert [(call.argv, call.input) for call in recording.calls] == [
        (("dot", "-Tsvg"), "digraph {}")
    ]


def test_without_graphviz_no_svg_is_drawn_and_the_ways_out_are_named() -> None:
    with pytest.raises(MissingError) as caught:
        graphviz.svg("digraph {}", RecordingRunner(tools=set()))

    assert caught.value.exit_code == 3
    assert "scripts/bootstrap, or draw without it: invoke graph --format m" in str(caught.value)


def test_a_graph_that_graphviz_cannot_draw_is_a_failed_step() -> None:
    failing = RecordingRunner({("dot",): answer(stderr="Error: no room\n", returncode=1)})

    with pytest.raises(StepFailed, match=r"cannot draw the graph: dot .* status 1; ") as caught:
        graphviz.svg("digraph {}", failing)
    assert not isinstance(caught.value, CommandFailed)
    assert caught.value.details == "Error: no room"


# Colours


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
