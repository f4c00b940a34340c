"""Many genotypes of a supernet on the same images: whatever two of them compute alike is computed once.

Every tensor of every genotype's network (stem, calibrated input, edge, node, cell) is a term, named by its operation
and the terms it reads; equal names are one term. In a pool of random cells the genotypes share the stem, its
projections, and the first cells' edges on them; in a pool that a search has narrowed down whole cells and stages.
A term's tensor is kept until the last term that reads it is computed, and the last reader writes into it where it can.

That is of supernets that say what they compute (`supernet.Composed`), a user's own too. Networks of ENAS's macro space
are computed one by one: from the first layer in which two of them differ, all else does.

Legend: `G` genotypes, `B` batch, `K` classes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray.networks.cells import Join
from nao_ray.networks.eager import Masks
from nao_ray.networks.ops import Identity, Operation
from nao_ray.networks.stacks import channels_last
from nao_ray.networks.supernet import Composed, Statistics, batch_statistics
from nao_ray.spaces.base import ArchGraph

KEEP_BYTES = 2**30


def pool_logits(
    net: nn.Module,
    images: Tensor,
    graphs: Sequence[ArchGraph],
    *,
    statistics: Statistics = batch_statistics,
    keep_bytes: int = KEEP_BYTES,
) -> Tensor:
    """Logits ``[G, B, K]``, each genotype's as if it were alone.

    Dropout and drop path are off, weights and running statistics stay as they are.

    Args:
        net: the shared weights, called with images and a graph.
        images: ``[B, in_channels, H, W]``.
        graphs: genotypes of the supernet's space.
        statistics: what batch norm goes by.
        keep_bytes: largest size of the tensors that wait for a later genotype; beyond, those with the fewest readers
            left are given up, and computed again when needed.
    """
    with torch.inference_mode(), statistics(net):
        if not isinstance(net, Composed):
            return torch.stack([net(images, graph) for graph in graphs])
        pool = _Pool(net, channels_last(images))
        roots = [pool.network(graph) for graph in graphs]
        logits: list[Tensor | None] = [None] * len(graphs)
        for index in sorted(range(len(graphs)), key=lambda index: str(graphs[index].cells)):  # alike after alike
            logits[index] = pool.result(roots[index])
            pool.keep(keep_bytes)
    return torch.stack([part for part in logits if part is not None])


Function = Callable[[list[Tensor], list[bool]], Tensor]
"""Tensors of the terms it reads, and which of them it may write to -> tensor."""


class _Term:
    """A tensor that is computed when first asked for."""

    __slots__ = ("done", "function", "inputs", "readers", "value")

    def __init__(self, function: Function, inputs: tuple[_Term, ...]) -> None:
        self.function, self.inputs = function, inputs
        self.readers = 0  # terms yet to be computed that read this one
        self.done = False  # computed, and those that it read know
        self.value: Tensor | None = None


class _Pool:
    """The terms of a pool."""

    def __init__(self, net: Composed, images: Tensor) -> None:
        self._net = net
        self._terms: dict[Hashable, _Term] = {}
        self._held: set[_Term] = set()
        first = net.first(images)
        given = {id(value): self._given(f"input {id(value)}", value) for value in first}
        self._first = [given[id(value)] for value in first]

    def _given(self, name: str, value: Tensor) -> _Term:
        term = self._term(name, lambda _values, _free: value)
        term.readers = 1  # never written to
        return term

    def _term(self, name: Hashable, function: Function, *inputs: _Term) -> _Term:
        key = (name, *map(id, inputs))
        if key not in self._terms:
            self._terms[key] = _Term(function, inputs)
            for term in inputs:
                term.readers += 1
        return self._terms[key]

    def network(self, graph: ArchGraph) -> list[_Term]:
        """What a genotype's network computes one after the other, up to its logits."""
        outputs: list[_Term] = self._net.values(self, self._first, graph)
        outputs[-1].readers += 1  # the caller
        return outputs

    # -- a cell as terms (`cells.Computation`) ----------------------------------------------------------------------

    def apply(self, op: Operation, state: _Term, *, repeated: bool = False) -> _Term:
        del repeated  # equal names are one term
        if isinstance(op, Identity):
            return state
        if op.rectified_input:
            state = self._term("relu", _rectify, state)
        return self._term(op.signature or op, lambda values, _free: op(values[0]), state)

    def add(self, terms: Sequence[tuple[_Term, Tensor | None]], *, rectified: bool) -> _Term:
        del rectified  # the last reader writes into a tensor, whoever it is
        return terms[0][0] if len(terms) == 1 else self._term("sum", _add, *(term for term, _ in terms))

    def join(self, function: Join, loose: list[_Term], which: tuple[int, ...]) -> _Term:
        return self._term((function, which), lambda values, _free: function(values, which), *loose)

    def masks(self, ops: Sequence[Sequence[Operation]], like: _Term) -> Masks:
        del like
        return [[None] * len(node) for node in ops]

    # -- tensors --------------------------------------------------------------------------------------------------

    def result(self, network: list[_Term]) -> Tensor:
        """The last tensor of a genotype's terms; those before it are computed one by one, so that stacks stay low."""
        for term in network:
            if not term.done:
                self._value(term)
        value = self._value(network[-1])
        self._read(network[-1])
        return value

    def _value(self, term: _Term) -> Tensor:
        if term.value is not None:
            return term.value
        values = [self._value(each) for each in term.inputs]
        value = term.function(values, [each.readers == 1 for each in term.inputs])
        term.done = True
        for each in term.inputs:
            self._read(each)
        if term.readers:
            term.value = value
            self._held.add(term)
        return value

    def _read(self, term: _Term) -> None:
        term.readers -= 1
        if not term.readers:
            term.value = None
            self._held.discard(term)

    def _undo(self, term: _Term) -> None:
        """As if it had never been computed: what it reads has one more reader again, and must be there for it."""
        term.value, term.done = None, False
        self._held.discard(term)
        for each in term.inputs:
            each.readers += 1
            if each.done and each.value is None:
                self._undo(each)

    def keep(self, size: int) -> None:
        """Give up tensors until `size` bytes remain."""
        total = sum(map(_bytes, self._held))
        if total <= size:
            return
        for term in sorted((term for term in self._held if term.inputs), key=lambda term: term.readers):
            if total <= size:
                return
            total -= _bytes(term)
            self._undo(term)


def _rectify(values: list[Tensor], free: list[bool]) -> Tensor:
    return F.relu(values[0], inplace=free[0])


def _add(values: list[Tensor], free: list[bool]) -> Tensor:
    order = sorted(range(len(values)), key=lambda index: not free[index])
    total = values[order[0]]
    fresh = free[order[0]]
    for index in order[1:]:
        total = total.add_(values[index]) if fresh else total + values[index]
        fresh = True
    return total


def _bytes(term: _Term) -> int:
    return 0 if term.value is None else term.value.numel() * term.value.element_size()
