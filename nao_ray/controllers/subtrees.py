"""Subtrees of the arch graph, counted: what the Weisfeiler-Lehman graph kernel compares two graphs by.

Shervashidze, Schweitzer, van Leeuwen, Mehlhorn, Borgwardt, "Weisfeiler-Lehman Graph Kernels", JMLR 2011; with a process
over architectures: Ru, Wan, Dong, Osborne, "Interpretable Neural Architecture Search via Bayesian Optimisation with
Weisfeiler-Lehman Kernels", ICLR 2021, arXiv 2006.07556.

The nodes are the live edges of a cell, labelled by their operations, its inputs and its output; each is fed by what
ends in the state that it reads. A round of relabelling gives each node its operation and the labels of all that feed
it, sorted: the subtree of one more level below it. Which node of a cell is which does not count, so cells that differ
in the order of their nodes alone have equal counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from nao_ray.controllers.descriptors import live_edges
from nao_ray.spaces.base import ArchGraph, Cell

Subtree = tuple[str, int, str]
"""Role of the cell, levels below the root, the subtree as text: ``conv_3x3(identity(input 0) input 1)``."""
_Node = tuple[str, int]
"""What it is, and its number."""


def subtrees(graph: ArchGraph, levels: int) -> Counter[Subtree]:
    """How often each subtree of at most so many levels below its root occurs."""
    counts: Counter[Subtree] = Counter()
    for role, cell in graph.cells:
        roots, fed_by = _line_graph(cell)
        labels = roots
        for level in range(levels + 1):
            counts.update((role, level, label) for label in labels.values())
            labels = {node: _grown(root, [labels[other] for other in fed_by[node]]) for node, root in roots.items()}
    return counts


def _grown(root: str, below: Sequence[str]) -> str:
    return f"{root}({' '.join(sorted(below))})" if below else root


def _line_graph(cell: Cell) -> tuple[Mapping[_Node, str], Mapping[_Node, Sequence[_Node]]]:
    """Labels of the nodes, and which ones feed each."""
    live = live_edges(cell)
    ends: dict[int, list[_Node]] = {state: [("input", state)] for state in range(cell.inputs)}
    labels: dict[_Node, str] = {("input", state): f"input {state}" for state in range(cell.inputs)}
    for number, (state, edge) in enumerate(live):
        ends.setdefault(state, []).append(("edge", number))
        labels["edge", number] = edge.op
    fed_by: dict[_Node, Sequence[_Node]] = dict.fromkeys(labels, ())
    fed_by |= {("edge", number): ends.get(edge.source, ()) for number, (_, edge) in enumerate(live)}
    labels["output", 0] = "output"
    fed_by["output", 0] = [node for state in cell.output for node in ends.get(state, ())]
    return labels, fed_by
