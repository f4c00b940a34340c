"""A recurrent cell over a segment, as `recurrent.segment`: the same results and gradients in less time.

One function of autograd for the whole segment, whose backward pass is written by hand. The product of the inputs is
made for all steps at once, before them; nodes of one source are one unit, with one product on a GPU and one pass of
each elementwise operation. The loop backward finds gradients of activations alone; those of the weights are a product
over several steps, where plain autograd makes one each step and adds it to the others. What is elementwise and does not
wait for a gradient is made for several steps too. Kept for the backward pass are gates, candidates and states; the
memory is the next segment's, as asking the system for it took a tenth of the time.

Legend: `B` columns of text, `T` tokens of a segment, `H` hidden units, `k` nodes of a unit, `P` states of a step.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from nao_ray.networks import fast, recurrent
from nao_ray.networks.recurrent_plan import Plan, Unit, plan
from nao_ray.spaces.base import Cell

CHUNK = 8
"""Steps whose elementwise factors and gradients of weights are made at once: they stay in the cache."""
_IN_PLACE = {"tanh": torch.tanh_, "relu": torch.relu_, "sigmoid": torch.sigmoid_}


def segment(
    cell: Cell, w0: Tensor, nodes: Sequence[Tensor], inputs: Tensor, state: Tensor, hidden_mask: Tensor | None
) -> Tensor:
    """The cell's outputs ``[T, B, H]``; arguments as those of `recurrent.segment`, which it gives way to where it must.

    That is on shapes alone, under functorch's transforms, and where there is to be a second derivative: said before
    (`fast.differentiable_twice`), or found out in the backward pass, which then makes the plain segment again. Under
    autocast it computes in the weights' type. Nodes that no output is made of are not computed and get no gradient.
    """
    if inputs.is_meta or fast.is_twice() or torch._C._are_functorch_transforms_active():
        return recurrent.segment(cell, w0, nodes, inputs, state, hidden_mask)
    inputs, state = inputs.to(w0.dtype).contiguous(), state.to(w0.dtype).contiguous()
    mask = None if hidden_mask is None else hidden_mask.to(w0.dtype)
    with torch.autocast(inputs.device.type, enabled=False):
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in (inputs, state, w0, *nodes))):
            return _forward(plan(cell), _Kept(plan(cell), inputs, 1), inputs, state, mask, (w0, *nodes))
        out: Tensor = _Segment.apply(cell, inputs, state, mask, w0, *nodes)
        return out


# -- memory -----------------------------------------------------------------------------------------------------

_idle: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
"""Blocks of ended segments, smallest first; two are kept: a segment's, and its backward pass's."""
_KEPT_BLOCKS = 2


class _Block:
    """Memory to cut tensors from, which goes to a later block at its end; on a GPU torch's own does that."""

    def __init__(self, numbers: int, like: Tensor) -> None:
        key, self._used = (like.device, like.dtype), 0
        idle = _idle.pop(key, [])  # ours alone: a collection of garbage, or a thread, may give some back meanwhile
        fitting = [index for index, block in enumerate(idle) if block.numel() >= numbers]
        if not fitting and len(idle) == _KEPT_BLOCKS:
            idle.pop()  # that of shorter segments
        self._memory = idle.pop(fitting[0]) if fitting else self._new(numbers, like)
        _give_back(key, *idle)
        if like.device.type == "cpu":
            weakref.finalize(self, _give_back, key, self._memory).atexit = False

    @staticmethod
    def _new(numbers: int, like: Tensor) -> Tensor:
        with torch.inference_mode(False):  # what is made within may not be written outside
            return torch.empty(numbers, dtype=like.dtype, device=like.device)

    def cut(self, *shape: int) -> Tensor:
        """The next part of it."""
        start, self._used = self._used, self._used + torch.Size(shape).numel()
        return self._memory[start : self._used].view(shape)


def _give_back(key: tuple[torch.device, torch.dtype], *memory: Tensor) -> None:
    _idle[key] = sorted([*_idle.pop(key, []), *memory], key=Tensor.numel)[-_KEPT_BLOCKS:]


class _Kept:
    """What a segment computes on the way, for `steps` steps; for one where no backward pass will ask for more."""

    def __init__(self, plan: Plan, inputs: Tensor, steps: int) -> None:
        length, batch, hidden = inputs.shape
        per_step = batch * hidden * plan.places
        self.block = _Block((3 * steps * per_step) + (length - steps) * batch * 2 * hidden, inputs)
        self.states = self.block.cut(steps, batch, plan.places, hidden)
        self.products = [
            self.block.cut(steps if index else length, batch, len(unit.nodes), 2, hidden)
            for index, unit in enumerate(plan.units)
        ]
        """By unit ``[T, B, k, 2, H]``: gates, then what the activations made."""


# -- forward ----------------------------------------------------------------------------------------------------


def _pieces(plan: Plan, w0: Tensor, weights: Sequence[Tensor]) -> list[list[Tensor]]:
    """By unit, matrices ``[H, 2H]`` to multiply one after the other; on a GPU one, wider, for fewer launches."""
    hidden = w0.shape[1] // 2
    each = [[w0[hidden:]]] + [[weights[number - 1] for number in unit.nodes] for unit in plan.units[1:]]
    return [[torch.cat(unit, dim=1)] if len(unit) > 1 and w0.is_cuda else unit for unit in each]


def _forward(
    plan: Plan, kept: _Kept, inputs: Tensor, state: Tensor, mask: Tensor | None, weights: tuple[Tensor, ...]
) -> Tensor:
    """``[T, B, H]``; what `kept` has room for is there afterwards."""
    length, batch, hidden = inputs.shape
    w0, *rest = weights
    pieces = _pieces(plan, w0, rest)
    torch.mm(inputs.view(length * batch, hidden), w0[:hidden], out=kept.products[0].view(length * batch, 2 * hidden))
    out, masked = inputs.new_empty(inputs.shape), inputs.new_empty(batch, hidden)
    steps, kernels = len(kept.states), fast.kernels_for(inputs, "recurrent")
    share = 1 / len(plan.outputs)
    before = state
    for t in range(length):
        states = kept.states[t % steps]
        for index, unit in enumerate(plan.units):
            source = before if unit.source < 0 else states[:, unit.source]
            product = kept.products[index][t if unit.source < 0 else t % steps]
            _multiply(source if mask is None else torch.mul(source, mask, out=masked), pieces[index], product, unit)
            if kernels is None:
                _open(product, source, unit, states[:, unit.states])
            else:
                kernels.recurrent_nodes(product, source, states[:, unit.states], unit.codes)
        before = _mean(states, plan.outputs, share, out[t])
    return out


def _open(product: Tensor, source: Tensor, unit: Unit, out: Tensor) -> None:
    """Gates and candidates of a product ``[B, k, 2, H]``, in its place, and the states ``[B, k, H]`` between."""
    gates, candidates = product[:, :, 0].sigmoid_(), product[:, :, 1]
    for name, start, end in unit.runs:
        if name != "identity":
            _IN_PLACE[name](candidates[:, start:end])
    torch.lerp(source.unsqueeze(1), candidates, gates, out=out)


def _multiply(source: Tensor, pieces: list[Tensor], product: Tensor, unit: Unit) -> None:
    """Into `product` ``[B, k, 2, H]``; that of h' is added to that of the input."""
    flat, start = product.view(len(product), -1), 0
    if unit.source < 0:
        flat.addmm_(source, pieces[0])
        return
    for weight in pieces:
        end = start + weight.shape[1]
        torch.mm(source, weight, out=flat[:, start:end])
        start = end


def _mean(states: Tensor, places: tuple[int, ...], share: float, out: Tensor) -> Tensor:
    """Of states ``[B, P, H]`` at some places."""
    if sorted(places) == list(range(1, states.shape[1])):
        torch.sum(states[:, 1:], dim=1, out=out)
        return out.mul_(share)
    torch.mul(states[:, places[0]], share, out=out)
    for place in places[1:]:
        out.add_(states[:, place], alpha=share)
    return out


# -- backward ---------------------------------------------------------------------------------------------------


class _Segment(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        cell: Cell,
        inputs: Tensor,
        state: Tensor,
        mask: Tensor | None,
        *weights: Tensor,
    ) -> Tensor:
        ctx.cell, ctx.plan = cell, plan(cell)
        ctx.kept = _Kept(ctx.plan, inputs, len(inputs))
        out = _forward(ctx.plan, ctx.kept, inputs, state, mask, weights)
        ctx.save_for_backward(inputs, state, mask, out, *weights)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        if torch.is_grad_enabled():  # the gradient is to be differentiated
            return _plainly(ctx, gradient)
        of_inputs, of_state, of_weights = _Backward(ctx).run(gradient)
        return None, of_inputs, of_state, None, *of_weights


def _plainly(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
    """What `_Segment.backward` returns, with a graph behind it."""
    inputs, state, mask, _, w0, *nodes = ctx.saved_tensors
    out = recurrent.segment(ctx.cell, w0, nodes, inputs, state, mask)
    given = [None, inputs, state, None, w0, *nodes]
    needed = [place for place, needs in enumerate(ctx.needs_input_grad) if needs]
    found = torch.autograd.grad(out, [given[n] for n in needed], gradient, create_graph=True, allow_unused=True)
    by_place = dict(zip(needed, found, strict=True))
    return tuple(by_place.get(place) for place in range(len(given)))


class _Backward:
    """One backward pass: chunks of steps from the last to the first, each in three turns."""

    def __init__(self, ctx: Any) -> None:  # noqa: ANN401
        self._plan, self._kept = ctx.plan, ctx.kept
        self._inputs, self._first, self._mask, self._out, *weights = ctx.saved_tensors
        self._w0, *rest = weights
        self._pieces = _pieces(self._plan, self._w0, rest)
        self._count, self._kernels = len(weights), fast.kernels_for(self._inputs, "recurrent")
        _, self._needs_inputs, _, _, *self._needs = ctx.needs_input_grad
        length, batch, hidden = self._inputs.shape
        self._hidden, places, steps = hidden, self._plan.places, min(CHUNK, length)
        block = _Block(batch * hidden * (steps * (3 * places + 1) + places + 1), self._inputs)
        self._block = block
        self._factors = [block.cut(steps, batch, len(unit.nodes), 2, hidden) for unit in self._plan.units]
        """By unit: what a state's gradient is multiplied by to be the product's; then the product's gradient."""
        self._open = [block.cut(steps, batch, len(unit.nodes), hidden) for unit in self._plan.units]
        """By unit: 1 - gate, the share of its source that a state is."""
        self._sources = block.cut(steps * batch, hidden)
        self._of_states, self._of_source = block.cut(batch, places, hidden), block.cut(batch, hidden)

    def run(self, gradient: Tensor) -> tuple[Tensor | None, Tensor, list[Tensor | None]]:
        """Gradients of the inputs, the first state and the weights."""
        length, batch, _ = self._inputs.shape
        of_state = gradient.new_zeros(batch, self._hidden)
        of_inputs = gradient.new_empty(self._inputs.shape) if self._needs_inputs else None
        of_pieces = [[torch.zeros_like(piece) for piece in unit] for unit in self._pieces]
        of_w0 = torch.zeros_like(self._w0)
        of_pieces[0] = [of_w0[self._hidden :]]
        shares = gradient.new_zeros(self._plan.places)
        for place in self._plan.outputs:
            shares[place] += 1 / len(self._plan.outputs)
        for end in range(length, 0, -CHUNK):
            steps = range(max(0, end - CHUNK), end)
            before = self._before(steps)
            self._find_factors(steps, before)
            for t in reversed(steps):
                of_state += gradient[t]
                torch.mul(of_state.unsqueeze(1), shares.view(1, -1, 1), out=self._of_states)
                self._step(t - steps.start, of_state)
            self._add_weights(steps, before, of_pieces)
            of_product = self._factors[0][: len(steps)].view(len(steps) * batch, 2 * self._hidden)
            inputs = self._inputs[steps.start : end].view(len(steps) * batch, self._hidden)
            of_w0[: self._hidden].addmm_(inputs.t(), of_product)
            if of_inputs is not None:
                flat = of_inputs[steps.start : end].view(inputs.shape)
                torch.mm(of_product, self._w0[: self._hidden].t(), out=flat)
        return of_inputs, of_state, self._split(of_w0, of_pieces)

    def _before(self, steps: range) -> Tensor:
        """``[t, B, H]``, the h' of some steps."""
        out: Tensor = self._out
        if steps.start:
            return out[steps.start - 1 : steps.stop - 1]
        return torch.cat((self._first.unsqueeze(0), out[: steps.stop - 1]))

    def _find_factors(self, steps: range, before: Tensor) -> None:
        """First turn, of all steps at once: with s = s_p + c (a - s_p), ds/dc and ds/dh of the product, and 1 - c."""
        aten, count, one = torch.ops.aten, len(steps), before.new_ones(())
        within = slice(steps.start, steps.stop)
        for unit, products, every, rest in zip(
            self._plan.units, self._kept.products, self._factors, self._open, strict=True
        ):
            gates, candidates = products[within, :, :, 0], products[within, :, :, 1]
            factors, opened = every[:count], rest[:count]
            source = before if unit.source < 0 else self._kept.states[within, :, unit.source]
            torch.sub(candidates, source.unsqueeze(2), out=opened)
            aten.sigmoid_backward.grad_input(opened, gates, grad_input=factors[:, :, :, 0])
            for name, start, end in unit.runs:
                gate, candidate = gates[:, :, start:end], candidates[:, :, start:end]
                _derivative(name, gate, candidate, factors[:, :, start:end, 1])
            torch.sub(one, gates, out=opened)

    def _step(self, step: int, of_state: Tensor) -> None:
        """Second turn, step by step: gradients of products and of h', which `of_state` is afterwards."""
        of_source = self._of_source
        for unit, pieces, factors, opened in zip(
            reversed(self._plan.units),
            reversed(self._pieces),
            reversed(self._factors),
            reversed(self._open),
            strict=True,
        ):
            of_own = self._of_states[:, unit.states]
            before = of_state if unit.source < 0 else self._of_states[:, unit.source]
            if self._kernels is None:
                _close(factors[step], opened[step], of_own, before, add=unit.source >= 0)
            else:
                self._kernels.recurrent_gradients(factors[step], opened[step], of_own, before, add=unit.source >= 0)
            flat, start = factors[step].view(len(of_own), -1), 0
            for weight in pieces:
                end = start + weight.shape[1]
                of_source.addmm_(flat[:, start:end], weight.t(), beta=1 if start else 0)
                start = end
            if self._mask is None:
                before.add_(of_source)
            else:
                before.addcmul_(of_source, self._mask)

    def _add_weights(self, steps: range, before: Tensor, of_pieces: list[list[Tensor]]) -> None:
        """Third turn, of all steps at once: gradients of the weights."""
        batch, hidden = before.shape[1:]
        rows, places = len(steps) * batch, self._plan.places
        states = self._kept.states[steps.start : steps.stop].view(rows, places, hidden)
        for unit, factors, gradients in zip(self._plan.units, self._factors, of_pieces, strict=True):
            if not any(self._needs[number] for number in unit.nodes):
                continue
            source = before.reshape(rows, hidden) if unit.source < 0 else states[:, unit.source]
            if self._mask is not None:
                masked = self._sources[:rows].view(len(steps), batch, hidden)
                source = torch.mul(source.unflatten(0, (-1, batch)), self._mask, out=masked).view(rows, hidden)
            flat, start = factors[: len(steps)].view(rows, -1), 0
            for gradient in gradients:
                end = start + gradient.shape[1]
                gradient.addmm_(source.t(), flat[:, start:end])
                start = end

    def _split(self, of_w0: Tensor, of_pieces: list[list[Tensor]]) -> list[Tensor | None]:
        """By matrix."""
        found: list[Tensor | None] = [None] * self._count
        for unit, gradients in zip(self._plan.units[1:], of_pieces[1:], strict=True):
            parts = [part for gradient in gradients for part in torch.split(gradient, 2 * self._hidden, dim=1)]
            for number, part in zip(unit.nodes, parts, strict=True):
                found[number] = part
        return [of_w0, *found[1:]]


def _close(factors: Tensor, opened: Tensor, of_own: Tensor, before: Tensor, *, add: bool) -> None:
    """Of the nodes' gradients ``[B, k, H]``: those of the products, in `factors`, and what the source has of each."""
    factors.mul_(of_own.unsqueeze(2))
    if not add:
        torch.mul(of_own[:, 0], opened[:, 0], out=before)
        return
    for index in range(of_own.shape[1]):
        before.addcmul_(of_own[:, index], opened[:, index])


def _derivative(name: str, gradient: Tensor, result: Tensor, out: Tensor) -> None:
    """Of an activation by its result, times `gradient`."""
    aten = torch.ops.aten
    match name:
        case "tanh":
            aten.tanh_backward.grad_input(gradient, result, grad_input=out)
        case "sigmoid":
            aten.sigmoid_backward.grad_input(gradient, result, grad_input=out)
        case "relu":
            aten.threshold_backward.grad_input(gradient, result, 0, grad_input=out)
        case _:
            out.copy_(gradient)
