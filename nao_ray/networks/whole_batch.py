"""A batch of which this process computes a part, as it is seen from within a network.

Batch norm and what is dropped are the two things in a network that depend on the batch as a whole. Within `part` they
do as one process would with all of it: statistics are those of the whole batch, and numbers are drawn for all of its
examples, of which each process takes its own. What is left between one process and several is the order of sums.

Legend: `B` examples here, `T` of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

Draw = Callable[[int], Tensor]
"""Numbers for so many examples, along the first axis."""


@dataclass(frozen=True, slots=True)
class Part:
    """Examples ``rank, rank + count, ...`` of `total`."""

    rank: int
    count: int
    total: int
    """T; each process has one example at least."""
    add: Callable[[Tensor], Tensor]
    """The sum over all processes, who call it in one order with tensors of one shape."""


_part: Part | None = None


@contextmanager
def part(given: Part | None) -> Iterator[None]:
    """What is computed in here is a part of a batch; None: all of it."""
    global _part
    before, _part = _part, given
    try:
        yield
    finally:
        _part = before


def current() -> Part | None:
    """Which part is computed now; None: the whole batch, or one that stands for itself."""
    return _part


def drawn(draw: Draw, examples: int) -> Tensor:
    """What `draw` gives for the whole batch, of which this process has so many examples: their rows."""
    if _part is None:
        return draw(examples)
    return draw(_part.total)[_part.rank :: _part.count]


def dropout(x: Tensor, share: float, *, training: bool) -> Tensor:
    """``F.dropout`` of ``[B, C]``."""
    if _part is None or not training or not share:
        return F.dropout(x, share, training)
    return x * drawn(lambda total: F.dropout(x.new_ones(total, *x.shape[1:]), share), len(x))
