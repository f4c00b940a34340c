"""From alphas to edges: what the relaxed cell of DARTS comes to.

Liu, Simonyan, Yang, ICLR 2019, arXiv 1806.09055, section 2.4: a node keeps its two strongest edges, each with its
strongest operation. Strength is the softmax over all operations: ``none`` takes its share of it, and is never chosen.

Legend: `E` edges, `O` operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NONE, SKIP = "none", "skip_connect"
KEPT = 2
"""Edges of a node of a convolutional cell; of a recurrent one it is one."""


def softmax(alphas: Any) -> Array:  # noqa: ANN401
    """``[..., O]`` -> the same, of sum 1."""
    values = np.asarray(alphas, dtype=np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def strongest(
    alphas: Any,  # noqa: ANN401
    ops: Sequence[str],
    *,
    inputs: int = 2,
    kept: int = KEPT,
) -> list[list[tuple[str, int]]]:
    """Of each node its edges ``(op, source)``, the strongest first; of equal ones the first.

    Args:
        alphas: ``[E, O]``, before the softmax; edges by node, then by source. ``[E, O + 1]``: the softmax of the last
            column over a node's edges counts as much as an operation's (PC-DARTS, arXiv 1907.05737).
        ops: names of the columns, `NONE` among them or not.
        inputs: states before the first node.
        kept: edges of a node.
    """
    values = np.asarray(alphas, dtype=np.float64)
    shares = softmax(values[:, : len(ops)])
    if NONE in ops:
        shares[:, list(ops).index(NONE)] = -1
    nodes: list[list[tuple[str, int]]] = []
    start = 0
    while start < len(shares):
        stop = start + inputs + len(nodes)
        rows = shares[start:stop] * (softmax(values[start:stop, -1:].T).T if values.shape[1] > len(ops) else 1)
        order = np.argsort(-rows.max(axis=1), kind="stable")[:kept]
        nodes.append([(ops[int(rows[source].argmax())], int(source)) for source in order])
        start += len(rows)
    return nodes
