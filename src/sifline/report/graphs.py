"""The graph of images and what they are built on, for people, Graphviz, Mermaid and browsers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from sifline.errors import UsageError, did_you_mean
from sifline.model import GraphNode
from sifline.report.layered import Drawing, Point, draw

UP_TO_DATE = "up to date"
FOREIGN = "foreign"
HEADING = "Images and what they are built on"

# Fill and border of a state; the dark text on each fill keeps a contrast above 10 : 1.
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

# Widths are reckoned, not measured: a monospaced letter is 0.6 of its size wide.
LETTER = 0.62
NAME_SIZE, NOTE_SIZE = 13, 11
PADDING, MARGIN, SWATCH = 10, 20, 14
ONE_LINE, TWO_LINES = 28, 44
# What fits a box, in letters of a name and of a note below it.
LONGEST_NAME, LONGEST_NOTE = 44, 52


@dataclass(frozen=True, kw_only=True)
class Vertex:
    """What is drawn as one thing. ``key`` is unique even where a base is named like an image."""

    key: str
    label: str
    state: str
    reason: str = ""

    @property
    def note(self) -> str:
        """What a reader has to know beside the name; "" where there is nothing to do."""
        if self.state in {UP_TO_DATE, FOREIGN, ""}:
            return ""
        return f"{self.state}: {self.reason}" if self.reason else self.state


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Vertices by key, and edges from what is built on to what is built of it.

    ``words`` is what the Dockerfile has for an edge between two images of ours.
    """

    vertices: dict[str, Vertex]
    edges: tuple[tuple[str, str], ...]
    words: dict[tuple[str, str], str]

    def colours(self) -> dict[str, Colours]:
        """The colours of each state there is, in the order of a legend."""
        present = {vertex.state for vertex in self.vertices.values()}
        others = sorted(present - COLOURS.keys())
        more = {
            state: OTHER_COLOURS[place % len(OTHER_COLOURS)] for place, state in enumerate(others)
        }
        return {state: both for state, both in (COLOURS | more).items() if state in present}


def render(nodes: Sequence[GraphNode], format: str) -> str:
    """Return the graph of ``nodes``, whose parents are among them, in one of ``FORMATS``.

    The order of ``nodes`` makes no difference.

    :raises UsageError: for another format.
    """
    if format not in FORMATS:
        raise UsageError(
            f"--format {format!r}: takes {' or '.join(FORMATS)}.{did_you_mean(format, FORMATS)}"
        )
    return FORMATS[format](_graph(nodes))


def _graph(nodes: Sequence[GraphNode]) -> Graph:
    """Sort what is there; foreign bases become vertices of their own."""
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
    # No image of ours has a space in its name.
    return f"FROM {base}"


def _printable(text: str) -> str:
    """Keep to what is one line in every format: file names in reasons may hold anything."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _text(graph: Graph) -> str:
    """A tree per root; what stands on several is drawn out where it is met first."""
    children: dict[str, list[str]] = {key: [] for key in graph.vertices}
    for source, target in graph.edges:
        children[source].append(target)
    built = {target for _, target in graph.edges}
    left = [(key, "", "", "") for key in reversed(graph.vertices) if key not in built]
    lines, shown = [], set()
    while left:
        key, start, indent, words = left.pop()
        if key in shown:
            lines.append(f"{start}{graph.vertices[key].label} (see above)  {words}".rstrip())
            continue
        shown.add(key)
        lines.append(f"{start}{_line(graph.vertices[key])}  {words}".rstrip())
        last = True
        for child in reversed(children[key]):
            own, under = ("└── ", "    ") if last else ("├── ", "│   ")
            words = graph.words.get((key, child), "")
            left.append((child, indent + own, indent + under, words))
            last = False
    return "\n".join(lines)


def _line(vertex: Vertex) -> str:
    note = "(foreign)" if vertex.state == FOREIGN else vertex.note
    return f"{vertex.label}  {note}".rstrip()


def _dot(graph: Graph) -> str:
    """A graph for Graphviz: ``dot -Tsvg``."""
    colours = graph.colours()
    lines = [
        "digraph images {",
        f"  graph [label={_quoted(HEADING)}, rankdir=LR];",
        '  node [shape=box, style="filled,rounded", fontname=monospace];',
    ]
    for vertex in graph.vertices.values():
        fill, border = colours[vertex.state]
        label = r"\n".join(map(_dot_escaped, filter(None, (vertex.label, vertex.note))))
        lines.append(
            f'  {_quoted(vertex.key)} [label="{label}", fillcolor="{fill}", color="{border}"];'
        )
    for source, target in graph.edges:
        words = graph.words.get((source, target), "")
        label = f' [label="{_dot_escaped(words)}"]' if words else ""
        lines.append(f"  {_quoted(source)} -> {_quoted(target)}{label};")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _dot_escaped(text: str) -> str:
    """A label's text: Graphviz also reads HTML's entities there."""
    return _quoted(text.replace("&", "&amp;"))[1:-1]


def _mermaid(graph: Graph) -> str:
    """A flowchart, as Markdown readers of code hosts draw it."""
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
    """Mermaid's own entities for all that might mean something to it, or to HTML."""
    return re.sub(r"[^\w .,:/@+-]", lambda found: f"#{ord(found[0])};", text)


def _svg(graph: Graph) -> str:
    """A picture with a background of its own: it looks the same on light and dark pages."""
    sizes = {key: _size(vertex) for key, vertex in graph.vertices.items()}
    drawing = draw(sizes, graph.edges)
    legend, legend_width = _legend(graph, drawing.height + 2 * MARGIN)
    width = max(drawing.width, legend_width) + 2 * MARGIN
    height = drawing.height + 3 * MARGIN + SWATCH
    about = _about(graph)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
            f' viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-labelledby="title about"'
            f" font-family=\"ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace\">",
            f'<title id="title">{HEADING}</title>',
            f'<desc id="about">{escape(about)}</desc>',
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8"'
            ' markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
            f'<path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/></marker></defs>',
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
            f'<g class="edges" fill="none" stroke="{LINE}" stroke-width="1.2">',
            *_edges(graph, drawing),
            "</g>",
            *_boxes(graph, drawing),
            *legend,
            "</svg>",
        ]
    )


def _about(graph: Graph) -> str:
    """How many there are of each state, for those who do not see the picture."""
    states = [vertex.state for vertex in graph.vertices.values()]
    return ", ".join(f"{states.count(state)} {state}" for state in graph.colours())


def _edges(graph: Graph, drawing: Drawing) -> list[str]:
    return [
        f'<path data-from="{escape(_printable(source))}" data-to="{escape(_printable(target))}"'
        f' d="{_path(drawing.routes[source, target])}" marker-end="url(#arrow)">'
        f"<title>{escape(graph.words.get((source, target), ''))}</title></path>"
        for source, target in graph.edges
    ]


def _path(points: Sequence[Point]) -> str:
    """Curves over the gaps between columns, straight lines along them."""
    moved = [(x + MARGIN, y + MARGIN) for x, y in points]
    (left, y), *rest = moved
    words = [f"M{left:.1f} {y:.1f}"]
    for number, (x, below) in enumerate(rest):
        if number % 2:
            words.append(f"H{x:.1f}")
        else:
            half = (left + x) / 2
            words.append(f"C{half:.1f} {y:.1f} {half:.1f} {below:.1f} {x:.1f} {below:.1f}")
        left, y = x, below
    return " ".join(words)


def _boxes(graph: Graph, drawing: Drawing) -> list[str]:
    colours, drawn = graph.colours(), []
    for key, vertex in graph.vertices.items():
        box, (fill, border) = drawing.boxes[key], colours[vertex.state]
        x, y = box.x + MARGIN, box.y + MARGIN
        dashes = ' stroke-dasharray="4 3"' if vertex.state == FOREIGN else ""
        said = f"{vertex.label}: {vertex.note or vertex.state}"
        drawn += [
            f'<g class="node" data-name="{escape(_printable(key))}"><title>{escape(said)}</title>',
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" height="{box.height}"'
            f' rx="5" fill="{fill}" stroke="{border}"{dashes}/>',
            _written(vertex.label, x + PADDING, y + 19, NAME_SIZE),
        ]
        if vertex.note:
            drawn.append(_written(vertex.note, x + PADDING, y + 35, NOTE_SIZE))
        drawn.append("</g>")
    return drawn


def _legend(graph: Graph, y: float) -> tuple[list[str], float]:
    """The states and their colours in one line, and its width."""
    drawn, x = ['<g class="legend">'], float(MARGIN)
    for state, (fill, border) in graph.colours().items():
        drawn.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{SWATCH}" height="{SWATCH}" rx="3"'
            f' fill="{fill}" stroke="{border}"/>'
        )
        drawn.append(_written(state, x + SWATCH + 6, y + SWATCH - 3, NOTE_SIZE))
        x += SWATCH + 6 + _width(state, NOTE_SIZE) + MARGIN
    return [*drawn, "</g>"], x - 2 * MARGIN


def _written(text: str, x: float, y: float, size: int) -> str:
    shown = escape(_shortened(text, size))
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{INK}">{shown}</text>'


def _size(vertex: Vertex) -> tuple[float, float]:
    name = _width(vertex.label, NAME_SIZE)
    note = _width(vertex.note, NOTE_SIZE)
    return max(name, note) + 2 * PADDING, TWO_LINES if vertex.note else ONE_LINE


def _width(text: str, size: int) -> float:
    """How wide ``text`` becomes where it is written; letters of East Asian scripts count twice."""
    wide = (unicodedata.east_asian_width(char) in "WF" for char in _shortened(text, size))
    return LETTER * size * sum(1 + double for double in wide)


def _shortened(text: str, size: int) -> str:
    """``text`` without its middle where it is long: both ends of a reference tell most."""
    longest = LONGEST_NAME if size == NAME_SIZE else LONGEST_NOTE
    half = longest // 2
    return text if len(text) <= longest else f"{text[: half - 1]}…{text[-half:]}"


FORMATS: dict[str, Callable[[Graph], str]] = {
    "text": _text,
    "dot": _dot,
    "mermaid": _mermaid,
    "svg": _svg,
}
