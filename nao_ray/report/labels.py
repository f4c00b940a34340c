"""What cells, states and operations are called for people, and a cell as text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nao_ray.spaces.base import ArchGraph, Cell
from nao_ray.spaces.parts.recurrent_cell import ACTIVATIONS

Names = Mapping[str, str]
"""What a space's texts call an operation, where otherwise than its arch graphs do: `SearchSpace.op_names`."""


def op_label(op: str) -> str:
    """An operation's name for people: `max_pool_3x3` -> `max pool 3 x 3` with a true multiplication sign.

    Of one of the user's own it is that of its class.
    """
    words = op.rpartition(":")[2].removesuffix("_padded").split("_")
    sizes = [word.replace("x", "\N{MULTIPLICATION SIGN}") for word in words if re.fullmatch(r"\d+x\d+", word)]
    names = [word for word in words if not re.fullmatch(r"\d+x\d+", word)]
    return " ".join([*names, *(["+".join(sizes)] if sizes else [])])


def is_chain(cell: Cell) -> bool:
    """Whether it is a whole network: layers, each an operation on the one before it, and skips from earlier ones."""
    return (
        not is_recurrent(cell)
        and cell.inputs == 1
        and all(
            node and node[0].source == index and all(edge.op == "identity" for edge in node[1:])
            for index, node in enumerate(cell.nodes)
        )
    )


def is_recurrent(cell: Cell) -> bool:
    """Whether its edges are activations: state 0 is made of a word and of the hidden state before it."""
    ops = {edge.op for node in cell.nodes for edge in node}
    if cell.inputs != 1 or not ops or not ops <= set(ACTIVATIONS):
        return False
    return ops != {"identity"} or all(len(node) == 1 for node in cell.nodes)


def state_label(cell: Cell, state: int) -> str:
    """A state's name for people: the inputs `c_{k-2}` and `c_{k-1}`, then the nodes' numbers."""
    if state >= cell.inputs or is_recurrent(cell):
        return str(state)
    return "input" if is_chain(cell) else f"c_{{k-{cell.inputs - state}}}"


def loose_ends(graph: ArchGraph) -> dict[str, list[int]]:
    """Per role the states that are concatenated to the cell's output."""
    return {role: list(cell.output) for role, cell in graph.cells}


def role_label(role: str) -> str:
    """A cell's name for people; some spaces have one cell that is the whole network."""
    return role if role in ("cell", "network") else f"{role} cell"


def cell_text(cell: Cell, names: Names | None = None) -> str:
    """A cell in a few lines of text, one per edge and one for the output."""
    labels = [[op_label((names or {}).get(edge.op, edge.op)) for edge in node] for node in cell.nodes]
    width = max((len(label) for node in labels for label in node), default=0)
    lines = [f"{0:>3} = {'tanh':<{width}} of x_t, h_{{t-1}}"] if is_recurrent(cell) else []
    for index, (node, found) in enumerate(zip(cell.nodes, labels, strict=True)):
        for row, (edge, name) in enumerate(zip(node, found, strict=True)):
            head = f"{cell.inputs + index:>3} =" if row == 0 else "    +"
            lines.append(f"{head} {name:<{width}} of {state_label(cell, edge.source)}")
    output = ", ".join(state_label(cell, state) for state in cell.output)
    return "\n".join([*lines, f"h_t = mean of {output}" if is_recurrent(cell) else f"out = {output}"])
