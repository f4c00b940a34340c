"""Where the states and the labels of a cell's picture go: a layered drawing, left to right.

Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures", IEEE Trans. SMC 1981:
layers by longest path, waypoints where a line passes a layer, order within the layers by barycentre and neighbour
exchange (few enough crossings at these sizes), then heights pulled towards the neighbours' mean. An edge's label is an
item of the layer before its node, so that no two labels can meet and edges between the same two states are apart.

Legend: a *state* is a cell input, a computed node, or the output (the last index). All lengths in pixels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, permutations

from nao_ray.spaces.base import Cell

NODE = 30.0
"""Width and height of a node."""
END_HEIGHT = 34.0
"""Of an input, and the least of the output."""
LABEL_HEIGHT = 22.0
WAYPOINT_HEIGHT = 6.0
STATE_GAP, LABEL_GAP = 22.0, 9.0
"""Between two states, and between anything else, of a layer."""
SWEEPS = 6
RELAXATIONS = 80
MOST_ORDERS = 3
"""Inputs of which every order is tried."""


@dataclass(slots=True, eq=False)
class Item:
    """The box of a state, the label of an edge, or a waypoint of the lines that leave one state."""

    layer: int
    height: float
    state: int | None = None
    """The state whose box it is."""
    edge: tuple[int, int] | None = None
    """Of a label: the node's state, and which of its edges."""
    y: float = 0.0
    """Of its middle."""
    inputs: list[Item] = field(default_factory=list)
    outputs: list[Item] = field(default_factory=list)

    @property
    def top(self) -> float:
        return self.y - self.height / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height / 2

    def port(self, source: Item) -> float:
        """Height at which the line from a neighbour arrives: from top to bottom as the neighbours stand."""
        if len(self.inputs) < 2:
            return self.y
        rank = sorted(self.inputs, key=lambda item: item.y).index(source)
        step = min(7.0, (self.height - 12) / (len(self.inputs) - 1))
        return self.y + (rank - (len(self.inputs) - 1) / 2) * step


@dataclass(frozen=True, slots=True)
class Route:
    """What a line passes, from the box it leaves to the box it enters."""

    source: int
    target: int
    index: int | None
    """Which edge of the node `target`; None: a line to the output."""
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The items by layer, top to bottom, `y` of every item in [0, height]; and the lines."""

    layers: list[list[Item]]
    routes: list[Route]
    height: float


@lru_cache(maxsize=256)
def lay_out(cell: Cell) -> Layout:
    """The layered drawing of a cell; the output is the state after the last node.

    Not to be changed: the same cell, which many of the best have and the next report shows again, is laid out once.
    """
    layers, routes = _layers(cell)
    order = _best_order(layers)
    _place(order)
    items = [item for layer in order for item in layer]
    top, bottom = min(item.top for item in items), max(item.bottom for item in items)
    for item in items:
        item.y -= top
    return Layout(order, routes, bottom - top)


# -- layers -------------------------------------------------------------------------------------------------


def _layers(cell: Cell) -> tuple[list[list[Item]], list[Route]]:
    """States on even layers by their longest path, labels on the odd ones between, and the output behind the last."""
    output = cell.inputs + len(cell.nodes)
    depth = dict.fromkeys(range(cell.inputs), 0)
    for state, node in enumerate(cell.nodes, cell.inputs):
        depth[state] = 2 + max((depth[edge.source] for edge in node), default=0)
    depth[output] = 1 + max(depth.values())
    layers: list[list[Item]] = [[] for _ in range(depth[output] + 1)]
    boxes = {}
    for state, layer in depth.items():
        boxes[state] = Item(layer, _box_height(cell, state), state=state)
        layers[layer].append(boxes[state])
    waypoints: dict[tuple[int, int], Item] = {}
    routes = []
    for state, node in enumerate(cell.nodes, cell.inputs):
        for index, edge in enumerate(node):
            label = Item(depth[state] - 1, LABEL_HEIGHT, edge=(state, index))
            layers[label.layer].append(label)
            passed = _waypoints(edge.source, boxes[edge.source].layer, label.layer, layers, waypoints)
            routes.append(Route(edge.source, state, index, (boxes[edge.source], *passed, label, boxes[state])))
    for state in dict.fromkeys(cell.output):
        passed = _waypoints(state, boxes[state].layer, depth[output], layers, waypoints)
        routes.append(Route(state, output, None, (boxes[state], *passed, boxes[output])))
    for route in routes:
        for before, after in pairwise(route.items):
            if before not in after.inputs:
                after.inputs.append(before)
                before.outputs.append(after)
    return layers, routes


def _waypoints(
    state: int, after: int, before: int, layers: list[list[Item]], found: dict[tuple[int, int], Item]
) -> list[Item]:
    """The waypoints between two layers, shared by the lines that leave a state."""
    passed = []
    for layer in range(after + 1, before):
        if (state, layer) not in found:
            found[state, layer] = Item(layer, WAYPOINT_HEIGHT)
            layers[layer].append(found[state, layer])
        passed.append(found[state, layer])
    return passed


def _box_height(cell: Cell, state: int) -> float:
    if state < cell.inputs:
        return END_HEIGHT
    if state == cell.inputs + len(cell.nodes):
        return max(END_HEIGHT, 9.0 * (len(cell.output) + 1))
    return max(NODE, 6.0 * len(cell.nodes[state - cell.inputs]))


# -- order within the layers --------------------------------------------------------------------------------


def _best_order(layers: list[list[Item]]) -> list[list[Item]]:
    """The order with the fewest crossings that a few sweeps find, from each order of the first layer."""
    best, fewest = layers, -1
    starts = permutations(layers[0]) if len(layers[0]) <= MOST_ORDERS else [tuple(layers[0])]
    for first in starts:
        order = [list(first), *(list(layer) for layer in layers[1:])]
        for sweep in range(SWEEPS):
            forward = sweep % 2 == 0
            for index in range(1, len(order)) if forward else range(len(order) - 2, 0, -1):
                beside = order[index - 1 if forward else index + 1]
                order[index] = _by_barycentre(order[index], _ranks(beside), forward)
            _exchange(order)
            crossings = sum(_crossings(left, right) for left, right in pairwise(order))
            if fewest < 0 or crossings < fewest:
                best, fewest = [list(layer) for layer in order], crossings
        if fewest == 0:
            break
    return best


def _ranks(layer: list[Item]) -> dict[Item, int]:
    return {item: position for position, item in enumerate(layer)}


def _by_barycentre(layer: list[Item], rank: dict[Item, int], forward: bool) -> list[Item]:
    def barycentre(item: Item) -> float:
        beside = item.inputs if forward else item.outputs
        return sum(rank[other] for other in beside) / len(beside) if beside else len(rank) / 2

    return sorted(layer, key=barycentre)


def _exchange(order: list[list[Item]]) -> None:
    """Swap neighbours of a layer as long as that removes crossings."""
    for index, layer in enumerate(order):
        before = _ranks(order[index - 1]) if index else {}
        after = _ranks(order[index + 1]) if index + 1 < len(order) else {}
        improved = True
        while improved:
            improved = False
            for position, (upper, lower) in enumerate(pairwise(list(layer))):
                if layer[position] is not upper:  # it was swapped just now
                    continue
                now = _cut(upper.inputs, lower.inputs, before) + _cut(upper.outputs, lower.outputs, after)
                swapped = _cut(lower.inputs, upper.inputs, before) + _cut(lower.outputs, upper.outputs, after)
                if swapped < now:
                    layer[position], layer[position + 1] = lower, upper
                    improved = True


def _cut(upper: list[Item], lower: list[Item], rank: dict[Item, int]) -> int:
    """How often the lines of an item cross those of the one below it."""
    return sum(rank[a] > rank[b] for a in upper for b in lower)


def _crossings(left: list[Item], right: list[Item]) -> int:
    rank = _ranks(left)
    ends = [[rank[source] for source in item.inputs] for item in right]
    below: Counter[int] = Counter()
    crossings = 0
    for group in reversed(ends):
        crossings += sum(count for end in group for other, count in below.items() if other < end)
        below.update(group)
    return crossings


# -- heights ------------------------------------------------------------------------------------------------


def _gap(above: Item, below: Item) -> float:
    return STATE_GAP if above.state is not None and below.state is not None else LABEL_GAP


def _place(order: list[list[Item]]) -> None:
    """Pull every item towards its neighbours' mean height without changing an order or closing a gap."""
    layers = [(layer, _offsets(layer), [_pulls(item) for item in layer]) for layer in order]
    for layer, offsets, _ in layers:
        _separate(layer, offsets, [0.0] * len(layer))
    for step in range(RELAXATIONS):
        for layer, offsets, pulls in layers if step % 2 == 0 else reversed(layers):
            wanted = [
                sum(other.y * weight for other, weight in pull) / total if pull else item.y
                for item, (pull, total) in zip(layer, pulls, strict=True)
            ]
            _separate(layer, offsets, wanted)


def _pulls(item: Item) -> tuple[list[tuple[Item, float]], float]:
    """Neighbours with their weights, and the sum of those.

    A line that passes counts more where it came from: straight lines are followed more easily.
    """
    pull = [(other, 3.0 if other.state is None else 1.0) for other in (*item.inputs, *item.outputs)]
    return pull, sum(weight for _, weight in pull)


def _offsets(layer: list[Item]) -> list[float]:
    """Of every item of a layer, how far it is at least below the first."""
    offsets = [0.0]
    for above, below in pairwise(layer):
        offsets.append(offsets[-1] + above.height / 2 + _gap(above, below) + below.height / 2)
    return offsets


def _separate(layer: list[Item], offsets: list[float], wanted: list[float]) -> None:
    """Give the nearest heights (least squares) that keep the order and the gaps: pool adjacent violators."""
    blocks: list[list[float]] = []
    means: list[float] = []
    for want, offset in zip(wanted, offsets, strict=False):
        blocks.append([want - offset])
        means.append(want - offset)
        while len(blocks) > 1 and means[-2] > means[-1]:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
            means[-2:] = [sum(blocks[-1]) / len(blocks[-1])]
    flat = (mean for block, mean in zip(blocks, means, strict=True) for _ in block)
    for item, value, offset in zip(layer, flat, offsets, strict=False):
        item.y = value + offset
