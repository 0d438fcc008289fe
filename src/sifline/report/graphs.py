"""The graph of images and their parents, as text, for Graphviz (DOT) and for Mermaid."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from sifline.model import GraphNode
from sifline.report import screen

UP_TO_DATE = "up to date"
FOREIGN = "foreign"
HEADING = "Images and what they are built on"

# Fill and border colours of a state; dark text on each fill has a contrast above 10 : 1.
Colours = tuple[str, str]
COLOURS: dict[str, Colours] = {
    FOREIGN: ("#eef1f4", "#57606a"),
    UP_TO_DATE: ("#dafbe1", "#1a7f37"),
    "build": ("#fff1c2", "#9a6700"),
    "failed": ("#ffebe9", "#cf222e"),
    "broken": ("#ffebe9", "#cf222e"),
}
OTHER_COLOURS: tuple[Colours, ...] = (
    ("#ddf4ff", "#0969da"),
    ("#fbefff", "#8250df"),
    ("#ffe9d6", "#bc4c00"),
)
INK, PAPER, LINE = "#1f2328", "#ffffff", "#6e7781"
FONT = f'fontname=monospace, fontcolor="{INK}"'

# How much further right the rest of a folded line is.
GAP = 4
# Longest texts in a box, in letters: of a name, and of the note below it.
LONGEST_NAME, LONGEST_NOTE = 44, 52


@dataclass(frozen=True, kw_only=True)
class Vertex:
    """A box of the graph. ``key`` is unique even if a base is named like an image."""

    key: str
    label: str
    state: str
    reason: str = ""

    @property
    def note(self) -> str:
        """Return what to print beside the name; "" if the image is up to date."""
        if self.state in {UP_TO_DATE, FOREIGN, ""}:
            return ""
        return f"{self.state}: {self.reason}" if self.reason else self.state


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Vertices by key, and edges from parents to children.

    ``words`` is the reference in the Dockerfile for an edge between two images of ours.
    """

    vertices: dict[str, Vertex]
    edges: tuple[tuple[str, str], ...]
    words: dict[tuple[str, str], str]

    def colours(self) -> dict[str, Colours]:
        """Return the colours of the states in the graph, in the order of the legend."""
        present = {vertex.state for vertex in self.vertices.values()}
        others = sorted(present - COLOURS.keys())
        more = {
            state: OTHER_COLOURS[place % len(OTHER_COLOURS)] for place, state in enumerate(others)
        }
        return {state: both for state, both in (COLOURS | more).items() if state in present}


def render(nodes: Sequence[GraphNode], format: str, *, columns: int = 0) -> str:
    """Return the graph of ``nodes``, which includes their parents, in one of ``FORMATS``.

    The order of ``nodes`` makes no difference.

    :param columns: how wide a text may be; 0 for any width.
    """
    graph = _graph(nodes)
    return _text(graph, columns) if format == "text" else FORMATS[format](graph)


def _graph(nodes: Sequence[GraphNode]) -> Graph:
    """Return the vertices and edges; foreign bases become vertices of their own."""
    nodes = sorted(nodes, key=lambda node: node.name)
    vertices, edges, words = [], [], dict[tuple[str, str], str]()
    for base in sorted({base for node in nodes for base in node.bases}):
        vertices.append(Vertex(key=_foreign(base), label=_printable(base), state=FOREIGN))
    for node in nodes:
        label, reason = _printable(node.name), _printable(node.reason)
        vertices.append(Vertex(key=node.name, label=label, state=node.state, reason=reason))
        sources = dict.fromkeys([*map(_foreign, node.bases), *node.parents])
        edges += [(source, node.name) for source in sources]
        for source, written in node.words:
            before = words.get((source, node.name), "FROM")
            comma = "," if before != "FROM" else ""
            words[source, node.name] = f"{before}{comma} {_printable(written)}"
    return Graph(
        vertices={vertex.key: vertex for vertex in vertices},
        edges=tuple(sorted(edges)),
        words=words,
    )


def _foreign(base: str) -> str:
    # The names of our images contain no spaces, so this key is unique.
    return f"FROM {base}"


def _printable(text: str) -> str:
    """Return one printable line: file names in reasons may contain anything."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _text(graph: Graph, columns: int = 0) -> str:
    """Return a tree per root; an image with several parents is expanded only at the first."""
    children: dict[str, list[str]] = {key: [] for key in graph.vertices}
    for source, target in graph.edges:
        children[source].append(target)
    built = {target for _, target in graph.edges}
    left = [(key, "", "", "") for key in reversed(graph.vertices) if key not in built]
    lines, shown = [], set()
    while left:
        key, start, indent, words = left.pop()
        if key in shown:
            line = f"{start}{graph.vertices[key].label} (see above)  {words}".rstrip()
            lines.append(_folded(line, columns, indent))
            continue
        shown.add(key)
        below = f"{indent}│" if children[key] else indent
        line = f"{start}{_line(graph.vertices[key])}  {words}".rstrip()
        lines.append(_folded(line, columns, below))
        last = True
        for child in reversed(children[key]):
            own, under = ("└── ", "    ") if last else ("├── ", "│   ")
            words = graph.words.get((key, child), "")
            left.append((child, indent + own, indent + under, words))
            last = False
    return "\n".join(lines)


def _folded(line: str, columns: int, below: str) -> str:
    """Return a line of the tree as lines that fit; the lines of the tree go on ``below``."""
    start = line[: len(line) - len(line.lstrip("│├└─ "))]
    # Its own spaces are no places to fold it at.
    mark = "\u2060" * len(start)
    text = screen.folded_to(mark + line[len(start) :], columns, below.ljust(len(start) + GAP))
    return text.replace(mark, start, 1)


def _line(vertex: Vertex) -> str:
    note = "(foreign)" if vertex.state == FOREIGN else vertex.note
    return f"{vertex.label}  {note}".rstrip()


def _dot(graph: Graph) -> str:
    """Return a graph for Graphviz; with its own background it looks the same on any page."""
    colours = graph.colours()
    lines = [
        f"digraph {_id(HEADING)} {{",
        f'  graph [label={_legend(graph)}, rankdir=LR, bgcolor="{PAPER}", {FONT}, fontsize=11];',
        f"  node [shape=box, {FONT}, fontsize=13];",
        f'  edge [color="{LINE}", {FONT}, fontsize=11];',
        *(_dot_node(vertex, *colours[vertex.state]) for vertex in graph.vertices.values()),
    ]
    for source, target in graph.edges:
        words = graph.words.get((source, target), "")
        label = f" [label={_label(words)}]" if words else ""
        lines.append(f"  {_id(source)} -> {_id(target)}{label};")
    return "\n".join([*lines, "}"])


def _dot_node(vertex: Vertex, fill: str, border: str) -> str:
    """Return a box; its tooltip has the full texts of shortened ones."""
    style = "filled,rounded,dashed" if vertex.state == FOREIGN else "filled,rounded"
    label = _label(_shortened(vertex.label, LONGEST_NAME), _shortened(vertex.note, LONGEST_NOTE))
    tooltip = _label(f"{vertex.label}: {vertex.note or vertex.state}")
    return (
        f"  {_id(vertex.key)} [label={label}, tooltip={tooltip},"
        f' style="{style}", fillcolor="{fill}", color="{border}"];'
    )


def _legend(graph: Graph) -> str:
    """Return the colours of each state, and the number of images in it."""
    states = [vertex.state for vertex in graph.vertices.values()]
    cells = "".join(
        f'<td bgcolor="{fill}" color="{border}">{states.count(state)} {escape(state)}</td>'
        for state, (fill, border) in graph.colours().items()
    )
    table = f'<table border="0" cellborder="1" cellspacing="8"><tr>{cells}</tr></table>'
    return f"<{table}>" if cells else '""'


def _id(text: str) -> str:
    """Return a name for DOT; characters of which Graphviz makes broken SVGs are escaped."""
    safe = (
        char if char.isprintable() and char not in "&%\\" else f"(U+{ord(char):04X})"
        for char in text
    )
    return '"' + "".join(safe).replace('"', r"\"") + '"'


def _label(*lines: str) -> str:
    """Return lines as a DOT label: Graphviz also interprets HTML entities there."""
    marks = str.maketrans({"&": "&amp;", "\\": r"\\", '"': r"\""})
    return '"' + r"\n".join(line.translate(marks) for line in lines if line) + '"'


def _shortened(text: str, longest: int) -> str:
    """Return ``text`` without its middle if it is long: both ends of a reference matter most."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[: half - 1]}…{text[-half:]}"


def _mermaid(graph: Graph) -> str:
    """Return a Mermaid flowchart, which code hosts render in Markdown."""
    ids = {key: f"n{number}" for number, key in enumerate(graph.vertices, start=1)}
    lines = ["flowchart LR"]
    for key, vertex in graph.vertices.items():
        label = "<br/>".join(map(_entities, filter(None, (vertex.label, vertex.note))))
        lines.append(f'  {ids[key]}["{label}"]')
    for source, target in graph.edges:
        words = graph.words.get((source, target), "")
        label = f'|"{_entities(words)}"|' if words else ""
        lines.append(f"  {ids[source]} -->{label} {ids[target]}")
    for number, (state, (fill, border)) in enumerate(graph.colours().items(), start=1):
        members = ",".join(ids[key] for key, item in graph.vertices.items() if item.state == state)
        lines.append(f"  classDef s{number} fill:{fill},stroke:{border},color:{INK}")
        lines.append(f"  class {members} s{number}")
    return "\n".join(lines)


def _entities(text: str) -> str:
    """Return ``text`` with Mermaid's entities for characters special to Mermaid or HTML."""
    return re.sub(r"[^\w .,:/@+-]", lambda found: f"#{ord(found[0])};", text)


FORMATS: dict[str, Callable[[Graph], str]] = {"text": _text, "dot": _dot, "mermaid": _mermaid}


def values(nodes: Sequence[GraphNode]) -> list[dict[str, Any]]:
    """Return the nodes for JSON."""
    return [
        {
            **asdict(node),
            "words": [{"image": image, "written": written} for image, written in node.words],
        }
        for node in nodes
    ]
