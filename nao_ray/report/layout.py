"""Where the boxes and lines of a cell's picture go: a layered drawing, left to right.

Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures", IEEE Trans. SMC 1981:
layers by longest path, waypoints where a line passes a layer, order within the layers by barycentre and neighbour
exchange (few enough crossings at these sizes), then heights pulled towards the neighbours' mean.

Legend: a *state* is a cell input, a computed node, or the output (the last index). All lengths in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise, permutations, product

from nao_ray.spaces.base import Cell

ROW_HEIGHT = 26.0
"""One operation of a node's box."""
BOX_PADDING = 8.0
INPUT_HEIGHT = 34.0
WAYPOINT_HEIGHT = 12.0
GAP = 20.0
"""Between two boxes of a layer."""
SWEEPS = 4
RELAXATIONS = 60


@dataclass(slots=True)
class Item:
    """A box, or a waypoint of the lines that leave one state."""

    state: int
    """The state it shows; for a waypoint the state its lines come from."""
    layer: int
    waypoint: bool
    height: float
    y: float = 0.0
    """Of its middle."""
    inputs: list[Item] = field(default_factory=list)
    """Where its lines come from."""
    rows: list[int] = field(default_factory=list)
    """Indices of `inputs` from top to bottom: edges of a node commute, so each takes the row its line comes to."""
    outputs: list[Item] = field(default_factory=list)

    def port(self, row: int) -> float:
        """Height at which the line to a row arrives."""
        if self.waypoint or len(self.inputs) < 2:
            return self.y
        top = self.y - self.height / 2
        step = ROW_HEIGHT if self.height >= len(self.inputs) * ROW_HEIGHT else self.height / (len(self.inputs) + 1)
        first = BOX_PADDING + step / 2 if step == ROW_HEIGHT else step
        return top + first + row * step


@dataclass(slots=True)
class Layout:
    """The items by layer, top to bottom; `y` of every item is in [0, height]."""

    layers: list[list[Item]]
    height: float

    def box(self, state: int) -> Item:
        """The box of a state."""
        return next(item for layer in self.layers for item in layer if item.state == state and not item.waypoint)


def lay_out(cell: Cell) -> Layout:
    """The layered drawing of a cell; the output is the state after the last node."""
    layers = _layers(cell)
    order = _best_order(layers)
    _place(order)
    for item in (item for layer in order for item in layer):
        heights = [source.y for source in item.inputs]
        item.rows = sorted(range(len(heights)), key=heights.__getitem__)
    top = min(item.y - item.height / 2 for layer in order for item in layer)
    bottom = max(item.y + item.height / 2 for layer in order for item in layer)
    for layer in order:
        for item in layer:
            item.y -= top
    return Layout(order, bottom - top)


def sources(cell: Cell, state: int) -> tuple[int, ...]:
    """The states that `state` reads, one per row of its box."""
    if state == cell.inputs + len(cell.nodes):
        return cell.output
    return tuple(edge.source for edge in cell.nodes[state - cell.inputs]) if state >= cell.inputs else ()


def _layers(cell: Cell) -> list[list[Item]]:
    """Boxes at the layer of their longest path, and waypoints shared by the lines of one state."""
    output = cell.inputs + len(cell.nodes)
    depth = dict.fromkeys(range(cell.inputs), 0)
    for state in range(cell.inputs, output):
        depth[state] = 1 + max(depth[source] for source in sources(cell, state))
    depth[output] = 1 + max(depth.values())
    layers: list[list[Item]] = [[] for _ in range(depth[output] + 1)]
    last: dict[tuple[int, int], Item] = {}  # (state, layer) -> its box or waypoint there
    for state, layer in depth.items():
        item = Item(state, layer, waypoint=False, height=_box_height(cell, state))
        layers[layer].append(item)
        last[state, layer] = item
    for state in range(cell.inputs, output + 1):
        for source in sources(cell, state):
            item = last[source, depth[source]]
            for layer in range(depth[source] + 1, depth[state]):
                item = _waypoint(item, layer, layers, last)
            last[state, depth[state]].inputs.append(item)
            item.outputs.append(last[state, depth[state]])
    return layers


def _waypoint(item: Item, layer: int, layers: list[list[Item]], last: dict[tuple[int, int], Item]) -> Item:
    found = last.get((item.state, layer))
    if found is None:
        found = last[item.state, layer] = Item(item.state, layer, waypoint=True, height=WAYPOINT_HEIGHT)
        found.inputs.append(item)
        item.outputs.append(found)
        layers[layer].append(found)
    return found


def _box_height(cell: Cell, state: int) -> float:
    rows = len(sources(cell, state))
    if state < cell.inputs:
        return INPUT_HEIGHT
    if state == cell.inputs + len(cell.nodes):
        return max(INPUT_HEIGHT, 16.0 * (rows + 1))
    return rows * ROW_HEIGHT + 2 * BOX_PADDING


# -- order within the layers --------------------------------------------------------------------------------


def _best_order(layers: list[list[Item]]) -> list[list[Item]]:
    """The order with the fewest crossings that a few sweeps find, from each order of the first layer."""
    best, fewest = layers, -1
    for first in permutations(layers[0]):
        order = [list(first), *(list(layer) for layer in layers[1:])]
        for sweep in range(SWEEPS):
            forward = sweep % 2 == 0
            for index in range(1, len(order)) if forward else range(len(order) - 2, 0, -1):
                beside = order[index - 1 if forward else index + 1]
                rank = {id(item): position for position, item in enumerate(beside)}
                order[index] = _by_barycentre(order[index], rank, forward)
            _exchange(order)
            crossings = _all_crossings(order)
            if fewest < 0 or crossings < fewest:
                best, fewest = [list(layer) for layer in order], crossings
        if fewest == 0:
            break
    return best


def _by_barycentre(layer: list[Item], rank: dict[int, int], forward: bool) -> list[Item]:
    def barycentre(item: Item) -> float:
        beside = item.inputs if forward else item.outputs
        return sum(rank[id(other)] for other in beside) / len(beside) if beside else len(rank) / 2

    return sorted(layer, key=barycentre)


def _exchange(order: list[list[Item]]) -> None:
    """Swap neighbours of a layer as long as that removes crossings."""
    for index in range(len(order)):
        improved = True
        while improved:
            improved = False
            for position in range(len(order[index]) - 1):
                before = _all_crossings(order[max(0, index - 1) : index + 2])
                layer = order[index]
                layer[position], layer[position + 1] = layer[position + 1], layer[position]
                if _all_crossings(order[max(0, index - 1) : index + 2]) < before:
                    improved = True
                else:
                    layer[position], layer[position + 1] = layer[position + 1], layer[position]


def _all_crossings(order: list[list[Item]]) -> int:
    return sum(_crossings(left, right) for left, right in pairwise(order))


def _crossings(left: list[Item], right: list[Item]) -> int:
    rank = {id(item): position for position, item in enumerate(left)}
    lines = [
        (rank[id(source)], position)
        for position, item in enumerate(right)
        for source in item.inputs
        if id(source) in rank
    ]
    return sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in product(lines, lines)) // 2


# -- heights ------------------------------------------------------------------------------------------------


def _place(order: list[list[Item]]) -> None:
    """Pull every item towards its neighbours' mean height without changing an order or closing a gap."""
    for layer in order:
        y = 0.0
        for item in layer:
            y += item.height / 2
            item.y = y
            y += item.height / 2 + GAP
        middle = (y - GAP) / 2
        for item in layer:
            item.y -= middle
    for step in range(RELAXATIONS):
        for layer in order if step % 2 == 0 else reversed(order):
            wanted = [_mean_height(item) for item in layer]
            for item, y in zip(layer, _separated(layer, wanted), strict=True):
                item.y = y


def _mean_height(item: Item) -> float:
    heights = [other.y for other in (*item.inputs, *item.outputs)]
    return sum(heights) / len(heights) if heights else item.y


def _separated(layer: list[Item], wanted: list[float]) -> list[float]:
    """The nearest heights (least squares) that keep the order and the gaps: pool adjacent violators."""
    offsets = [0.0]
    for above, below in pairwise(layer):
        offsets.append(offsets[-1] + above.height / 2 + GAP + below.height / 2)
    blocks: list[list[float]] = []
    for goal in (want - offset for want, offset in zip(wanted, offsets, strict=True)):
        blocks.append([goal])
        while len(blocks) > 1 and _mean(blocks[-2]) > _mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    flat = [_mean(block) for block in blocks for _ in block]
    return [value + offset for value, offset in zip(flat, offsets, strict=True)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
