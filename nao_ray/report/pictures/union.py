"""Many cells in one drawing: every edge that any of them has is there once, and each of them is some of these edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from nao_ray.errors import ConfigError
from nao_ray.report.labels import is_chain
from nao_ray.spaces.base import ArchGraph, Cell, Edge

Slot = tuple[int, int]
"""Source of an edge, and how many edges of its node came from there before it."""


def union(graphs: Sequence[ArchGraph]) -> ArchGraph:
    """A graph with the edges of all; of the operations it has any.

    Raises:
        ConfigError: their cells have different inputs.
    """
    roles = dict.fromkeys(role for graph in graphs for role, _ in graph.cells)
    cells = {role: [dict(graph.cells)[role] for graph in graphs if role in dict(graph.cells)] for role in roles}
    return ArchGraph(graphs[0].skeleton, tuple((role, _union(found)) for role, found in cells.items()))


def edges(graph: ArchGraph) -> list[str]:
    """The names of a drawing's edges and lines to the output, in order."""
    found = []
    for role, cell in graph.cells:
        found += [f"{role}:{s}:{k}" for s, node in enumerate(cell.nodes, cell.inputs) for k in range(len(node))]
        found += [f"{role}:out:{state}" for state in cell.output]
    return found


def placed(graph: ArchGraph, whole: ArchGraph) -> dict[str, str]:
    """The edges that a graph has of the union `whole`, by name, and their operations; of a line to the output none."""
    found: dict[str, str] = {}
    cells: Mapping[str, Cell] = dict(whole.cells)
    for role, cell in graph.cells:
        for state, (node, every) in enumerate(zip(cell.nodes, cells[role].nodes, strict=False), cell.inputs):
            places = {slot: index for index, (slot, _) in enumerate(_slots(every))}
            found |= {f"{role}:{state}:{places[slot]}": edge.op for slot, edge in _slots(node)}
        found |= {f"{role}:out:{state}": "" for state in cell.output}
    return found


def _slots(node: Sequence[Edge]) -> Iterator[tuple[Slot, Edge]]:
    seen: Counter[int] = Counter()
    for edge in node:
        yield (edge.source, seen[edge.source]), edge
        seen[edge.source] += 1


def _union(cells: Sequence[Cell]) -> Cell:
    inputs = cells[0].inputs
    if any(cell.inputs != inputs for cell in cells):
        raise ConfigError(f"cells of {inputs} inputs and of others cannot be shown in one picture")
    is_column = all(map(is_chain, cells))  # its first edge is what it computes
    nodes = []
    for number in range(max(len(cell.nodes) for cell in cells)):
        every = {
            slot: edge
            for cell in cells
            for slot, edge in _slots(cell.nodes[number] if number < len(cell.nodes) else ())
        }
        first = (number + inputs - 1, 0) if is_column else None
        nodes.append(tuple(every[slot] for slot in sorted(every, key=lambda slot: (slot != first, slot))))
    return Cell(inputs, tuple(nodes), tuple(sorted({state for cell in cells for state in cell.output})))
