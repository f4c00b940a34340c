"""A cell computed at once, into as few new tensors as can be: what is rectified or added up is written over.

Legend: `B` batch, `C` channels of a cell, `H` `W` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from nao_ray.networks import whole_batch
from nao_ray.networks.ops import Identity, Operation

Masks = list[list[Tensor | None]]
"""Per node and edge, None or ``[B, 1, 1, 1]``: 1/keep for the samples that keep the edge, 0 for others."""


class State:
    """A tensor that several operations read, some of them rectified: rectified once, when first asked for."""

    __slots__ = ("_overwrite", "_rectified", "_value", "fresh")

    def __init__(self, value: Tensor, *, overwrite: bool = False, fresh: bool = False) -> None:
        """`overwrite`: nobody will read `value` itself, so it is rectified in place; `fresh`: nobody else has it."""
        self._value = value
        self._overwrite = overwrite
        self._rectified: Tensor | None = None
        self.fresh = fresh

    @property
    def value(self) -> Tensor:
        """The tensor itself."""
        assert not (self._overwrite and self._rectified is not None), "a state was read after it was rectified in place"
        return self._value

    @property
    def rectified(self) -> Tensor:
        """relu(value)."""
        if self._rectified is None:
            self._rectified = F.relu(self._value, inplace=self._overwrite)
        return self._rectified

    def draw(self, count: int, keep: float | Tensor) -> tuple[Tensor, ...]:
        """`count` masks ``[B, 1, 1, 1]``, 1/keep with probability `keep` or 0, on the tensor's device, in its dtype."""
        new = self._value.new_empty

        def draw(examples: int) -> Tensor:
            return new(count, examples, 1, 1, 1).bernoulli_(keep).div_(keep).transpose(0, 1)

        return whole_batch.drawn(draw, self._value.shape[0]).unbind(1)

    def read(self, op: Operation) -> Tensor:
        """What `op` makes of this state."""
        out: Tensor = op(self.rectified if op.rectified_input else self.value)
        return out


def dropping(keep: float | Tensor) -> bool:
    """Whether edges are dropped at all; a tensor is not looked at, which would make the device wait."""
    return isinstance(keep, Tensor) or keep < 1.0


class Eager:
    """The `cells.Computation` of one cell's states.

    Args:
        keep: probability of keeping an edge, in (0, 1]; as a 0-dim tensor it is never looked at from the host.
        drop_identity: identity edges may be dropped too.
    """

    def __init__(self, keep: float | Tensor = 1.0, *, drop_identity: bool = False) -> None:
        self.keep, self.drop_identity = keep, drop_identity
        self._results: dict[tuple[State, str | None], State] = {}

    def apply(self, op: Operation, state: State, *, repeated: bool = False) -> State:
        if isinstance(op, Identity):
            return state
        if not repeated:  # no operation keeps its own output for the backward pass: who has it alone may write to it
            return State(state.read(op), fresh=True)
        key = (state, op.signature)
        if key not in self._results:
            self._results[key] = State(state.read(op))
        return self._results[key]

    def add(self, terms: Sequence[tuple[State, Tensor | None]], *, rectified: bool) -> State:
        (first, mask), *rest = sorted(terms, key=lambda term: not term[0].fresh)
        total, fresh = first.value, first.fresh
        if mask is not None:
            total, fresh = total * mask, True
        for state, mask in rest:
            out = state.value
            if mask is None:
                total = total.add_(out) if fresh else total + out
            else:
                total = total.addcmul_(out, mask) if fresh else total.addcmul(out, mask)
            fresh = True
        return State(total, overwrite=fresh and rectified)

    def join(
        self, function: Callable[[list[Tensor], tuple[int, ...]], Tensor], loose: list[State], which: tuple[int, ...]
    ) -> State:
        return State(function([state.value for state in loose], which))

    def masks(self, ops: Sequence[Sequence[Operation]], like: State) -> Masks:
        if not dropping(self.keep):
            return [[None] * len(node) for node in ops]
        masks = iter(like.draw(sum(map(len, ops)), self.keep))
        drawn = [[(op, next(masks)) for op in node] for node in ops]
        return [[mask if self.drops(op) else None for op, mask in node] for node in drawn]

    def drops(self, op: Operation) -> bool:
        """Whether edges of an operation may be dropped."""
        return self.drop_identity or not op.passes
