"""Which nodes of a recurrent cell are computed together: those of one source are one unit."""

from __future__ import annotations

from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from nao_ray.spaces.base import Cell

CODES = ("tanh", "relu", "sigmoid", "identity")
"""Activations as kernels know them: by their place here."""


class Unit(NamedTuple):
    """Nodes of one source, those of one activation side by side."""

    source: int
    """Place of their source among a step's states; that of h', which comes from the step before, is -1."""
    first: int
    """Place of their own states, which are side by side."""
    nodes: tuple[int, ...]
    """Numbers of their matrices: 0 is W0, i that of node i."""
    runs: tuple[tuple[str, int, int], ...]
    """Activation, and the part of the nodes that have it."""

    @property
    def states(self) -> slice:
        """Their places."""
        return slice(self.first, self.first + len(self.nodes))

    @property
    def codes(self) -> int:
        """Of each node's activation two bits, the first node's lowest: its place in `CODES`."""
        return sum(CODES.index(name) << (2 * node) for name, start, end in self.runs for node in range(start, end))


class Plan(NamedTuple):
    """A cell as units, each after that of its source."""

    units: tuple[Unit, ...]
    places: int
    """States of a step."""
    outputs: tuple[int, ...]
    """Places of those whose mean is the output."""


@lru_cache(maxsize=1024)
def plan(cell: Cell) -> Plan:
    """How a cell is computed."""
    names = {0: "tanh"} | {number: edge.op for number, (edge,) in enumerate(cell.nodes, 1)}
    sources = {0: -1} | {number: edge.source for number, (edge,) in enumerate(cell.nodes, 1)}
    used = set(cell.output)
    for number in sorted(names, reverse=True):
        if number in used:
            used.add(sources[number])
    members: dict[int, list[int]] = {}
    for number in sorted(used - {-1}):
        members.setdefault(sources[number], []).append(number)
    place, units = {-1: -1}, []
    for source in sorted(members):
        nodes = sorted(members[source], key=names.__getitem__)
        first = len(place) - 1
        place |= {number: first + index for index, number in enumerate(nodes)}
        runs, start = [], 0
        for name, same in groupby(nodes, key=names.__getitem__):
            end = start + len(list(same))
            runs.append((name, start, end))
            start = end
        units.append(Unit(place[source], first, tuple(nodes), tuple(runs)))
    return Plan(tuple(units), len(place) - 1, tuple(place[number] for number in cell.output))
