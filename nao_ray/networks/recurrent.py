"""A recurrent cell over a segment of text, written as the papers have it: step by step, node by node.

Cells of NAO, ENAS and DARTS (Luo et al., NeurIPS 2018, arXiv 1808.07233; Pham et al., ICML 2018, arXiv 1802.03268; Liu
et al., ICLR 2019, arXiv 1806.09055) are one: a graph of highway units. With ``[c, h] = [x, h' m] W0``, state 0 is
``h' + sigmoid(c) (tanh(h) - h')``; with ``[c, h] = (s m) W_i`` node i of source s and activation f is
``s + sigmoid(c) (f(h) - s)``. The mean of the cell's output states is its output, and the ``h'`` of the next step.
There are no biases.

Legend: `B` columns of text, `T` tokens of a segment, `H` hidden units; `m` the mask of dropped hidden units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from nao_ray.spaces.base import Cell

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
"""What a node applies, by the name that an edge has for it."""


def segment(
    cell: Cell, w0: Tensor, nodes: Sequence[Tensor], inputs: Tensor, state: Tensor, hidden_mask: Tensor | None
) -> Tensor:
    """The cell's outputs ``[T, B, H]``, the last of which is the next segment's `state`.

    Args:
        cell: one input, state 0; each node has one edge, whose operation is an activation.
        w0: ``[2H, 2H]``: rows of the input, then of the hidden state; columns of the gate c, then of h.
        nodes: ``[H, 2H]`` each, in the order of the cell's nodes.
        inputs: ``[T, B, H]``, the dropped ones already 0.
        state: ``[B, H]``.
        hidden_mask: ``[B, H]``, 1/keep where a hidden unit is kept and 0 elsewhere, the same for every node and step;
            None: all are kept.
    """
    outputs = []
    for x in inputs:
        masked = state if hidden_mask is None else state * hidden_mask
        states = [highway(torch.cat((x, masked), dim=1) @ w0, state, torch.tanh)]
        for (edge,), weight in zip(cell.nodes, nodes, strict=True):
            source = states[edge.source]
            masked = source if hidden_mask is None else source * hidden_mask
            states.append(highway(masked @ weight, source, ACTIVATIONS[edge.op]))
        state = torch.stack([states[number] for number in cell.output]).mean(dim=0)
        outputs.append(state)
    return torch.stack(outputs)


def highway(product: Tensor, source: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """``[B, 2H]`` of gate and candidate, over the state ``[B, H]`` that they were made of."""
    gate, candidate = product.chunk(2, dim=1)
    return source + torch.sigmoid(gate) * (activation(candidate) - source)
