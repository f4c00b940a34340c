"""torch's optimisers without its compiler, which each of them loads to be told that it is not compiled.

That takes 1.2 CPU seconds and 160 MB of every process that trains anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from inspect import unwrap
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

O = TypeVar("O", bound=Optimizer)  # noqa: E741


def _plain(kind: type[O]) -> type[O]:
    """The same steps, by the functions that torch wraps for the compiler."""
    step = torch.no_grad()(unwrap(kind.step))
    own = {"step": step, **{name: unwrap(getattr(kind, name)) for name in ("add_param_group", "zero_grad")}}
    return type(kind.__name__, (kind,), own)


SGD = _plain(torch.optim.SGD)
Adam = _plain(torch.optim.Adam)


class Muon(SGD):  # type: ignore[valid-type,misc]  # made by a function
    """SGD whose steps of convolutions over several channels are made orthogonal; all else it moves as SGD does.

    Jordan and others, 2024, kellerjordan.github.io/posts/muon. `torch.optim.Muon` does the same to matrices, one
    by one, and by a rate that has to be a number, so that its steps are no part of a graph. Here those of one shape are
    one product, and a kernel ``[C, c, k, k]`` is a matrix ``[C, c k k]``.

    Args:
        params: of a network.
        share: of the learning rate, that those steps have.
        settings: of SGD; weight decay takes off as much as its momentum makes of it.
    """

    def __init__(self, params: Iterable[nn.Parameter], *, share: float, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(params, **settings)
        self._share = share

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        group = self.param_groups[0]
        given = group["params"]
        matrices = [p for p in given if p.dim() == 4 and p.shape[1] > 1 and p.grad is not None]
        apart = {id(p) for p in matrices}
        group["params"] = [p for p in given if id(p) not in apart]
        super().step(closure)
        group["params"] = given
        if matrices:
            self._move(matrices, **{name: group[name] for name in ("lr", "momentum", "nesterov", "weight_decay")})

    def _move(
        self, matrices: list[nn.Parameter], lr: float | Tensor, momentum: float, nesterov: bool, weight_decay: float
    ) -> None:
        by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for p in matrices:
            assert p.grad is not None
            if self.state[p].get("momentum_buffer") is None:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            buffer = self.state[p]["momentum_buffer"].mul_(momentum).add_(p.grad)
            step = p.grad.add(buffer, alpha=momentum) if nesterov else buffer
            by_shape[len(p), p[0].numel()].append((p, step.reshape(len(p), -1)))
        kept = 1 - lr * (weight_decay / (1 - momentum))
        for (rows, columns), pairs in by_shape.items():
            rate = lr * (self._share * max(1.0, rows / columns) ** 0.5)
            for (p, _), move in zip(pairs, orthogonal(torch.stack([step for _, step in pairs])), strict=True):
                p.mul_(kept).sub_(move.reshape(p.shape) * rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """``[n, R, C]``, each with its singular values brought near 1 by five steps of Newton and Schulz."""
    dtype = matrices.dtype
    x = matrices.to(torch.bfloat16 if matrices.is_cuda and dtype == torch.float32 else dtype)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    found: Tensor = x.mT if tall else x
    return found.to(dtype)
