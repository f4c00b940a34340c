"""The mean of the weights after each step, which is evaluated instead of the last ones.

Polyak, Juditsky, 1992; begun by the non-monotone rule of Merity, Keskar, Socher, ICLR 2018, arXiv 1708.02182, algorithm
1, or at a step (Izmailov et al., UAI 2018, arXiv 1803.05407). The learning rate stays what the recipe says: this is
torch's ASGD with t0 = 0 and lambd = 0. Statistics of batch norms are averaged as weights are.

Differs from that: the mean is of all steps since the switch, where ASGD's leaves out the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from nao_ray.training.checkpoint import check_shapes, part


class WeightAverage:
    """Of a network's weights, which go on by themselves.

    Args:
        weights: by name.
        patience: epochs that may pass without a lower loss; there have to be more. None: they do not begin it.
        begin: the step from which on they are averaged; None: no step begins it.
    """

    def __init__(self, weights: Mapping[str, Tensor], patience: int | None = None, *, begin: int | None = None) -> None:
        self._weights, self._patience, self._begin = weights, patience, begin
        self._losses: list[float] = []
        self._mean: dict[str, Tensor] = {}
        self._count = 0

    @property
    def has_begun(self) -> bool:
        """Whether weights are averaged."""
        return bool(self._mean)

    def tell(self, loss: float) -> None:
        """An epoch's validation loss: averaging begins where it is above the least of all but the last epochs."""
        if self._patience is None:
            return
        earlier = self._losses[: -self._patience]
        if not self.has_begun and earlier and loss > min(earlier):
            self._start()
        self._losses.append(loss)

    def _start(self) -> None:
        self._mean = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After each step, which has this number."""
        if self._begin is not None and step >= self._begin and not self.has_begun:
            self._start()
        self._count += self.has_begun
        if self._mean:
            weights = [self._weights[name].detach() for name in self._mean]
            torch._foreach_lerp_(list(self._mean.values()), weights, 1 / self._count)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the weights' tensors, which graphs know, hold the mean, where there is one."""
        with torch.no_grad():
            kept = {name: self._weights[name].detach().clone() for name in self._mean}
            self._put(self._mean)
        try:
            yield
        finally:
            self._put(kept)

    def settle(self) -> None:
        """The training has ended: the weights' tensors hold the mean from now on, where there is one."""
        self._put(self._mean)

    @torch.no_grad()
    def _put(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._weights[name].copy_(value)

    # -- state ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """The ``losses`` told, and once it has begun the ``count`` of steps and tensors named ``mean.``."""
        state = {f"mean.{name}": mean for name, mean in self._mean.items()}
        state["losses"] = torch.tensor(self._losses, dtype=torch.float64)
        return state | {"count": torch.tensor(self._count)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was called; without any, begin.

        Raises:
            DataError: it is of another network.
        """
        mean = part(state, "mean")
        if mean:
            check_shapes(mean, dict(self._weights))
        self._mean = {name: torch.empty_like(self._weights[name]).copy_(value) for name, value in mean.items()}
        self._mean = {name: value.detach() for name, value in self._mean.items()}
        self._losses = state["losses"].tolist() if "losses" in state else []
        self._count = int(state["count"]) if "count" in state else 0


def settled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A training's state with the mean, where there is one, in the place of the weights; without what made it."""
    mean = {f"network.{name}": value for name, value in part(state, "average.mean").items()}
    return {name: value for name, value in state.items() if not name.startswith("average.")} | mean
