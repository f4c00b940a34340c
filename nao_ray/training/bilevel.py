"""Gradients of a bilevel problem: alphas under a validation loss, weights under a training loss.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, sections 2.2 and 2.3.
With rate xi, momentum mu, its buffers m and decay lambda, the weights after one step of SGD are

    w' = w - xi (mu m + dL_train(w, alpha)/dw + lambda w)

and the gradient of L_val(w', alpha) is ``g - xi H v``: g and v its derivatives by alpha and by w', H the mixed second
derivative of L_train at w. First order is xi = 0. Losses are functions of weights and alphas that are given to them, so
nothing is moved and put back: weights stay as they are to the bit.

Where the step is clipped, as in the paper's code for texts, dL_train/dw and v are cut down to the same norm, and the
share k that is left of the former is a number: ``w' = w - xi (k dL_train(w, alpha)/dw + ...)``, ``g - xi k H v``.

Differs from the code: k is at most 1, where it grows beyond that for gradients below the norm.

Legend: `W` tensors of weights, `A` tensors of alphas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nao_ray.networks.fast import differentiable_twice

Tensors = Sequence[Tensor]
Loss = Callable[[Tensors, Tensors], Tensor]
"""Weights ``[W]`` and alphas ``[A]`` -> a scalar."""
Product = Callable[[Loss, Tensors, Tensors, Tensors], list[Tensor]]
"""Training loss, weights, alphas and a direction v ``[W]`` -> H v ``[A]``."""


@dataclass(frozen=True)
class Unrolled:
    """The step of SGD that second order looks ahead by."""

    rate: float | Tensor
    """xi."""
    momentum: float = 0.0
    weight_decay: float = 0.0
    buffers: Sequence[Tensor | None] | None = None
    """m ``[W]``; None: no step was made yet."""
    nesterov: bool = False
    """Momentum is Nesterov's, of which torch takes g + mu (mu m + g), g being the gradient with decay."""
    clip_norm: float | None = None
    """Largest global norm of gradients by the weights; None: any."""

    @property
    def reach(self) -> float | Tensor:
        """How far a weight moves by the gradient of now: the size of dw'/dg."""
        return self.rate * (1 + self.momentum) if self.nesterov else self.rate

    def clipped(self, gradients: Tensors) -> tuple[Tensors, Tensor | float]:
        """Those of a norm that is allowed, and which share of the given ones they are, as torch's clipping has it."""
        if self.clip_norm is None:
            return gradients, 1.0
        share = (self.clip_norm / (_norm(gradients) + 1e-6)).clamp(max=1)
        return [share * gradient for gradient in gradients], share

    def step(self, weights: Tensors, gradients: Tensors) -> list[Tensor]:
        """The weights w' after it; `gradients` are clipped."""
        ahead = []
        for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
            decayed = gradient + self.weight_decay * weight
            buffer = None if self.buffers is None else self.buffers[index]
            direction = decayed if buffer is None else decayed + self.momentum * buffer
            if self.nesterov:
                direction = decayed + self.momentum * direction
            ahead.append(weight - self.rate * direction)
        return ahead


def first_order(valid: Loss, weights: Tensors, alphas: Tensors) -> list[Tensor]:
    """``[A]``, dL_val(w, alpha)/dalpha."""
    alphas = _leaves(alphas)
    return _gradient(valid(_constants(weights), alphas), alphas)


def second_order(
    train: Loss, valid: Loss, weights: Tensors, alphas: Tensors, unrolled: Unrolled, product: Product
) -> list[Tensor]:
    """``[A]``, the gradient of L_val(w', alpha); `product` says how the second derivative is taken."""
    now = _leaves(weights)
    with torch.no_grad():
        gradients, share = unrolled.clipped(_gradient_of(train, now, _constants(alphas), now))
        ahead = unrolled.step(_constants(weights), gradients)
    ahead, alphas = _leaves(ahead), _leaves(alphas)
    both = _gradient(valid(ahead, alphas), [*ahead, *alphas])
    direct, (direction, _) = both[len(ahead) :], unrolled.clipped(both[: len(ahead)])
    mixed = product(train, weights, alphas, direction)
    reach = unrolled.reach * share
    return [g - reach * hv for g, hv in zip(direct, mixed, strict=True)]


def by_difference(radius: float) -> Product:
    """H v by a central difference of gradients, weights moved by `radius` in all: ``eps = 0.01 / ||v||`` (eq. 8)."""

    def product(train: Loss, weights: Tensors, alphas: Tensors, direction: Tensors) -> list[Tensor]:
        eps = radius / _norm(direction)
        sides = []
        for sign in (1, -1):
            moved = [w + sign * eps * v for w, v in zip(_constants(weights), direction, strict=True)]
            leaves = _leaves(alphas)
            sides.append(_gradient_of(train, moved, leaves, leaves))
        return [(plus - minus) / (2 * eps) for plus, minus in zip(*sides, strict=True)]

    return product


def exact(train: Loss, weights: Tensors, alphas: Tensors, direction: Tensors) -> list[Tensor]:
    """H v by differentiating twice."""
    weights, alphas = _leaves(weights), _leaves(alphas)
    with torch.enable_grad(), differentiable_twice():
        gradient = torch.autograd.grad(
            train(weights, alphas), weights, create_graph=True, allow_unused=True, materialize_grads=True
        )
        along = torch.stack([(g * v).sum() for g, v in zip(gradient, direction, strict=True)]).sum()
        return _gradient(along, alphas)


def curvature(valid: Loss, weights: Tensors, alphas: Tensors) -> Callable[[Tensors], list[Tensor]]:
    """What multiplies directions ``[A]`` by the Hessian of L_val in alpha; exact."""
    alphas, weights = _leaves(alphas), _constants(weights)
    with torch.enable_grad(), differentiable_twice():
        gradient = torch.autograd.grad(
            valid(weights, alphas), alphas, create_graph=True, allow_unused=True, materialize_grads=True
        )

    def product(direction: Tensors) -> list[Tensor]:
        with torch.enable_grad():
            along = torch.stack([(g * v).sum() for g, v in zip(gradient, direction, strict=True)]).sum()
            return _gradient(along, alphas, keep=True)

    return product


def largest_eigenvalue(product: Callable[[Tensor], Tensor], start: Tensor, steps: int = 20) -> float:
    """The largest eigenvalue of a symmetric operator on vectors ``[n]``, by Lanczos from `start`; signed.

    Vectors are made orthogonal to all before them, so that no eigenvalue is found twice. It ends before `steps` where
    the operator has shown all that `start` has a part in. NaN: the operator gives what is no finite number.
    """
    basis = [start.double() / start.double().norm()]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(min(steps, start.numel())):
        applied = product(basis[-1].to(start.dtype)).double()
        diagonal.append(applied @ basis[-1])
        for _again in range(2):  # once leaves what rounding has added
            for vector in basis:
                applied = applied - (applied @ vector) * vector
        length = applied.norm()
        if length <= 1e-10 * torch.stack(diagonal).abs().max():
            break
        beside.append(length)
        basis.append(applied / length)
    size = len(diagonal)
    matrix = torch.diag(torch.stack(diagonal))
    if size > 1:
        off = torch.stack(beside[: size - 1])
        matrix = matrix + torch.diag(off, 1) + torch.diag(off, -1)
    if not torch.isfinite(matrix).all():  # of which LAPACK makes an error
        return math.nan
    return float(torch.linalg.eigvalsh(matrix.cpu()).max())


def _norm(tensors: Tensors) -> Tensor:
    """The global one."""
    return torch.stack([part.square().sum() for part in tensors]).sum().sqrt()


def _constants(tensors: Tensors) -> list[Tensor]:
    return [tensor.detach() for tensor in tensors]


def _leaves(tensors: Tensors) -> list[Tensor]:
    return [tensor.detach().requires_grad_() for tensor in tensors]


def _gradient_of(loss: Loss, weights: Tensors, alphas: Tensors, by: Tensors) -> list[Tensor]:
    with torch.enable_grad():
        return _gradient(loss(weights, alphas), by)


def _gradient(value: Tensor, by: Tensors, *, keep: bool = False) -> list[Tensor]:
    """Zeros for what the value does not depend on; `keep`: it will be asked for again."""
    return list(torch.autograd.grad(value, by, retain_graph=keep, allow_unused=True, materialize_grads=True))
