"""A layered drawing of an acyclic graph: a place for each node, a way for each edge.

Nodes stand in columns, each one right of all it comes from. An edge over several columns has a
place of its own in each (all such edges of one node share it), so that none runs through a node.
The order within a column and the heights come from the neighbours' (Sugiyama's method).
All lengths are in pixels, from the upper left corner.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise

COLUMN_GAP = 88.0
ROW_GAP = 14.0
# The height of an edge's place in a column.
LANE = 4.0
ORDER_SWEEPS = 8
PLACE_SWEEPS = 8

Edge = tuple[str, str]
Point = tuple[float, float]
# A node's name and a column: the node itself there, or its edges on their way through.
Spot = tuple[str, int]
Rows = list[list[Spot]]
Neighbours = Callable[[Spot], Sequence[Spot]]


@dataclass(frozen=True, kw_only=True)
class Box:
    """Where a node is drawn: its upper left corner and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A box for each node; for each edge its points, in turn over a gap and along a column."""

    boxes: Mapping[str, Box]
    routes: Mapping[Edge, tuple[Point, ...]]
    width: float
    height: float


def draw(sizes: Mapping[str, tuple[float, float]], edges: Iterable[Edge]) -> Drawing:
    """Return a drawing of nodes of these sizes (width, height).

    All nodes of a column become as wide as its widest.

    :raises graphlib.CycleError: where the edges form a circle.
    """
    edges = tuple(edges)
    columns = _columns(sizes, edges)
    ways = {edge: _way(edge, columns) for edge in edges}
    spots = dict.fromkeys([*columns.items(), *(spot for way in ways.values() for spot in way)])
    before: dict[Spot, dict[Spot, None]] = {spot: {} for spot in spots}
    after: dict[Spot, dict[Spot, None]] = {spot: {} for spot in spots}
    for way in ways.values():
        for left, right in pairwise(way):
            before[right][left] = after[left][right] = None
    rows: Rows = [[] for _ in range(max(columns.values(), default=-1) + 1)]
    for spot in spots:
        rows[spot[1]].append(spot)
    earlier, later = (lambda spot: [*before[spot]]), (lambda spot: [*after[spot]])
    rows = _ordered(rows, earlier, later)
    heights = {spot: sizes[spot[0]][1] if columns[spot[0]] == spot[1] else LANE for spot in spots}
    middles = _middles(rows, heights, earlier, later)
    return _drawing(sizes, columns, ways, middles)


def _columns(names: Iterable[str], edges: Sequence[Edge]) -> dict[str, int]:
    """Number each node's column: right of all its sources; what has none, just before its use."""
    sources: dict[str, list[str]] = {name: [] for name in names}
    targets: dict[str, list[str]] = {name: [] for name in sources}
    for source, target in edges:
        sources[target].append(source)
        targets[source].append(target)
    column: dict[str, int] = {}
    for name in TopologicalSorter(sources).static_order():
        column[name] = max((column[source] + 1 for source in sources[name]), default=0)
    for name, uses in targets.items():
        if uses and not sources[name]:
            column[name] = min(column[target] for target in uses) - 1
    return {name: column[name] for name in sources}


def _way(edge: Edge, columns: Mapping[str, int]) -> list[Spot]:
    source, target = edge
    between = range(columns[source], columns[target])
    return [*((source, column) for column in between), (target, columns[target])]


def _ordered(rows: Rows, earlier: Neighbours, later: Neighbours) -> Rows:
    """Order each column by its neighbours' mean positions, to and fro; keep the best seen."""
    best, fewest = rows, _crossings(rows, later)
    for _ in range(ORDER_SWEEPS):
        if not fewest:
            break
        rows = _swept(_swept(rows, earlier), later, backwards=True)
        crossings = _crossings(rows, later)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _swept(rows: Rows, neighbours: Neighbours, *, backwards: bool = False) -> Rows:
    position = {spot: float(place) for row in rows for place, spot in enumerate(row)}
    swept = [list(row) for row in rows]
    for row in reversed(swept) if backwards else swept:
        wish = {spot: _mean(spot, neighbours(spot), position) for spot in row}
        row.sort(key=wish.__getitem__)
        position.update((spot, float(place)) for place, spot in enumerate(row))
    return swept


def _mean(spot: Spot, neighbours: Sequence[Spot], position: Mapping[Spot, float]) -> float:
    if not neighbours:
        return position[spot]
    return sum(position[other] for other in neighbours) / len(neighbours)


def _crossings(rows: Rows, later: Neighbours) -> int:
    """Count the pairs of edges that cross between columns."""
    position = {spot: place for row in rows for place, spot in enumerate(row)}
    crossings = 0
    for row in rows:
        seen: list[int] = []
        for spot in row:
            ends = sorted(position[other] for other in later(spot))
            crossings += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return crossings


def _middles(
    rows: Rows, heights: Mapping[Spot, float], earlier: Neighbours, later: Neighbours
) -> dict[Spot, float]:
    """Give each spot a height near its neighbours', in order and without overlap."""
    apart: dict[Spot, float] = {}
    for row in rows:
        for upper, spot in zip([None, *row], row, strict=False):
            apart[spot] = ROW_GAP + (heights[upper] + heights[spot]) / 2 if upper else 0.0
    middle = {spot: 0.0 for row in rows for spot in row}
    for row in rows:
        middle.update(_placed(row, apart, middle))
    for _ in range(PLACE_SWEEPS):
        for neighbours, turn in ((earlier, rows), (later, [*reversed(rows)])):
            for row in turn:
                wish = {spot: _mean(spot, neighbours(spot), middle) for spot in row}
                middle.update(_placed(row, apart, wish))
    top = min((middle[spot] - heights[spot] / 2 for spot in middle), default=0.0)
    return {spot: value - top for spot, value in middle.items()}


def _placed(
    row: Sequence[Spot], apart: Mapping[Spot, float], wish: Mapping[Spot, float]
) -> dict[Spot, float]:
    """Place a column as near as can be to its wishes: regression with minimum distances.

    Pool adjacent violators: neighbours that would come too close move as one block.
    """
    offset, offsets = 0.0, []
    blocks: list[tuple[float, int]] = []
    for spot in row:
        offset += apart[spot]
        offsets.append(offset)
        total, count = wish[spot] - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            more, others = blocks.pop()
            total, count = total + more, count + others
        blocks.append((total, count))
    bases = [total / count for total, count in blocks for _ in range(count)]
    return {spot: base + off for spot, base, off in zip(row, bases, offsets, strict=True)}


def _drawing(
    sizes: Mapping[str, tuple[float, float]],
    columns: Mapping[str, int],
    ways: Mapping[Edge, Sequence[Spot]],
    middles: Mapping[Spot, float],
) -> Drawing:
    widths = [0.0] * (max(columns.values(), default=-1) + 1)
    for name, column in columns.items():
        widths[column] = max(widths[column], sizes[name][0])
    lefts = [sum(widths[:column]) + column * COLUMN_GAP for column in range(len(widths))]
    boxes = {
        name: Box(
            x=lefts[column],
            y=middles[name, column] - sizes[name][1] / 2,
            width=widths[column],
            height=sizes[name][1],
        )
        for name, column in columns.items()
    }
    routes: dict[Edge, tuple[Point, ...]] = {}
    for edge, way in ways.items():
        points = [
            (x, middles[spot])
            for spot in way
            for x in (lefts[spot[1]], lefts[spot[1]] + widths[spot[1]])
        ]
        routes[edge] = tuple(points[1:-1])
    return Drawing(
        boxes=boxes,
        routes=routes,
        width=max((box.x + box.width for box in boxes.values()), default=0.0),
        height=max((box.y + box.height for box in boxes.values()), default=0.0),
    )
