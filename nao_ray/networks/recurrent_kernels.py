"""The elementwise work of a recurrent cell's nodes on CUDA, as Triton kernels: one forward and one backward a unit.

Torch takes three or more forward (gates, a kernel per activation, what is between source and candidate) and two or more
backward, in every step of a segment. What is computed is in float32; weights may be bfloat16. Activations are told by
numbers that no code is compiled anew for: a new genotype waits for no compiler.

Legend: `B` columns of text, `H` hidden units, `k` nodes of a unit, `n` numbers, of which a program computes `BLOCK`.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256
_COUNTS = ["n", "nodes", "codes", "source_stride", "state_stride"]
"""Numbers that no code is compiled anew for."""
_SMALL = tl.constexpr(0.25)
"""Below, tanh is its series: the quotient of exponentials loses digits there."""


@triton.jit
def _activated(x, code):  # type: ignore[no-untyped-def]
    """By the place in `recurrent_plan.CODES`."""
    e = tl.exp(-tl.abs(x))
    sigmoid = tl.where(x < 0, e, 1.0) / (1.0 + e)
    square = x * x
    series = 62.0 / 2835.0 * square - 17.0 / 315.0
    series = x * (((series * square + 2.0 / 15.0) * square - 1.0 / 3.0) * square + 1.0)
    quotient = (1.0 - e * e) / (1.0 + e * e)
    tanh = tl.where(tl.abs(x) < _SMALL, series, tl.where(x < 0, -quotient, quotient))
    rectified = tl.where(x < 0, 0.0, x)  # NaN stays
    return tl.where(code == 0, tanh, tl.where(code == 1, rectified, tl.where(code == 2, sigmoid, x)))


@triton.jit(do_not_specialize=_COUNTS)  # type: ignore[untyped-decorator]
def _nodes(  # type: ignore[no-untyped-def]
    product, source, states, n, hidden, nodes, codes, source_stride, state_stride, BLOCK: tl.constexpr
):  # fmt: skip
    """Gates and candidates, in the place of the product, and states."""
    number = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = number < n
    unit, row = number % hidden, number // hidden
    node, column = row % nodes, row // nodes
    place = row * (2 * hidden) + unit
    gate = _activated(tl.load(product + place, mask=known, other=0.0).to(tl.float32), 2)
    candidate = tl.load(product + place + hidden, mask=known, other=0.0).to(tl.float32)
    candidate = _activated(candidate, (codes >> (2 * node)) & 3)
    before = tl.load(source + column * source_stride + unit, mask=known, other=0.0).to(tl.float32)
    kind = product.dtype.element_ty
    tl.store(product + place, gate.to(kind), mask=known)
    tl.store(product + place + hidden, candidate.to(kind), mask=known)
    state = before + gate * (candidate - before)
    tl.store(states + column * state_stride + node * hidden + unit, state.to(kind), mask=known)


@triton.jit(do_not_specialize=_COUNTS)  # type: ignore[untyped-decorator]
def _gradients(  # type: ignore[no-untyped-def]
    factors, opened, of_own, of_source, n, hidden, nodes, state_stride, source_stride,
    ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Factors times the gradient of their state, and the sum of what the source has of each, ADDed to what is there."""
    number = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    known = number < n
    unit, column = number % hidden, number // hidden
    place = of_source + column * source_stride + unit
    total = tl.zeros([BLOCK], tl.float32)
    if ADD:
        total += tl.load(place, mask=known, other=0.0).to(tl.float32)
    for node in range(nodes):
        own = tl.load(of_own + column * state_stride + node * hidden + unit, mask=known, other=0.0).to(tl.float32)
        row = column * nodes + node
        total += own * tl.load(opened + row * hidden + unit, mask=known, other=0.0).to(tl.float32)
        for half in tl.static_range(2):
            factor = factors + (2 * row + half) * hidden + unit
            value = tl.load(factor, mask=known, other=0.0).to(tl.float32) * own
            tl.store(factor, value.to(factors.dtype.element_ty), mask=known)
    tl.store(place, total.to(of_source.dtype.element_ty), mask=known)


def nodes(product: Tensor, source: Tensor, states: Tensor, codes: int) -> None:
    """Gates and candidates ``[B, k, 2, H]``, in the place of the product, and states ``[B, k, H]`` between.

    Args:
        product: contiguous.
        source: ``[B, H]``, its columns contiguous.
        states: written; each column's contiguous.
        codes: `recurrent_plan.Unit.codes`.
    """
    batch, count, _, hidden = product.shape
    n = batch * count * hidden
    strides = source.stride(0), states.stride(0)
    _nodes[(triton.cdiv(n, BLOCK),)](product, source, states, n, hidden, count, codes, *strides, BLOCK=BLOCK)


def gradients(factors: Tensor, opened: Tensor, of_own: Tensor, of_source: Tensor, *, add: bool) -> None:
    """The products' gradients, in the place of their factors, and the part of the source's that is not by products.

    Args:
        factors: ``[B, k, 2, H]``, contiguous.
        opened: ``[B, k, H]``, contiguous: one minus the gates.
        of_own: ``[B, k, H]``, gradients of the states; each column's contiguous.
        of_source: ``[B, H]``, its columns contiguous; written.
        add: to what is there.
    """
    batch, count, _, hidden = factors.shape
    n, strides = batch * hidden, (of_own.stride(0), of_source.stride(0))
    grid = (triton.cdiv(n, BLOCK),)
    _gradients[grid](factors, opened, of_own, of_source, n, hidden, count, *strides, ADD=add, BLOCK=BLOCK)
