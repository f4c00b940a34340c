"""The training of a relaxed supernet: at each step the alphas on a batch of theirs, then the weights on one of theirs.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, algorithm 1. Second order
looks ahead by the very step that the weights then take: its batch, augmented alike, the epoch's learning rate, momentum
and weight decay. Batch norm's statistics are those of the weights' steps alone, and the alphas are no part of weight
decay, momentum or clipping of the weights.

On CUDA a whole step, alphas and weights, is one graph (`capture.py`): what it draws from is seeded anew for each, one
generator for each pass over a batch, so that all passes see it augmented alike.

Differs from the published code: the alphas' batches are those of whole passes over their half, drawn anew for each,
instead of the first of a new order at every step; passes beyond the weights' step leave batch norm's statistics alone;
the alphas are part of the state.

Legend: `E` edges of a cell, `O` operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nao_ray import optimisers
from nao_ray.errors import DataError
from nao_ray.training import bilevel
from nao_ray.training.alphas import AlphaOptimiser
from nao_ray.training.checkpoint import check_shapes, part
from nao_ray.training.objective import Batch, Objective, Scores
from nao_ray.training.streams import ByStep
from nao_ray.training.trainer import Trainer

Order = Literal["first", "second", "exact"]
"""Of the alphas' gradient: at the weights as they are; one step ahead by a finite difference; the same, exactly."""
_PASSES: dict[Order, int] = {"first": 1, "second": 4, "exact": 3}
"""Over a step's batch of the weights: their step, the gradient that is looked ahead by, both sides or the product."""


class Alternating(Trainer):
    """Trains weights, as its base class, and alphas, both in place.

    Args:
        network: called with inputs and the alphas, which are not among its parameters.
        objective: of the weights, on their half of the examples.
        alpha_objective: of the alphas, on theirs, as it is to be augmented for them.
        alphas: ``[E, O]`` each; moved to the device.
        order: of their gradient.
        optimiser: theirs.
        streams: where the weights' steps draw.
        alpha_streams: where the alphas' steps draw.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        alpha_objective: Objective,
        alphas: Sequence[Tensor],
        *,
        order: Order,
        optimiser: AlphaOptimiser,
        streams: ByStep,
        alpha_streams: ByStep,
    ) -> None:
        device = objective.device
        self._drawings = [streams.augmentation(0) for _ in range(_PASSES[order])]
        self._alpha_drawing = alpha_streams.augmentation(0)
        super().__init__(network, objective, epochs=None, streams=streams, choose=lambda _step: self.alphas)
        self.alphas = [alpha.detach().to(device, copy=True) for alpha in alphas]
        self._alpha_objective, self._alpha_streams = alpha_objective, alpha_streams
        self._alpha_batches: Iterator[Batch] = iter(())
        self._order, self._product = order, bilevel.by_difference(optimiser.radius)
        if order == "exact":
            self._product = bilevel.exact
        recorded = self._capture.is_on
        self._alpha_optimiser = optimisers.Adam(
            self.alphas,
            lr=optimiser.lr,
            betas=optimiser.betas,
            weight_decay=optimiser.weight_decay,
            fused=recorded,
            capturable=recorded,  # its count of steps is on the device
        )
        self._norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]

    def _recorded_generators(self) -> Sequence[torch.Generator]:
        return [*self._drawings, self._alpha_drawing]

    def compute(self, batch: Batch, choice: Any, augmentation: torch.Generator) -> Tensor:  # noqa: ANN401
        """A step of the alphas, then one of the weights; the weights' loss."""
        size = len(batch)
        for drawing in self._drawings:
            drawing.manual_seed(augmentation.initial_seed())
        self._alpha_drawing.manual_seed(self._alpha_streams.augmentation(self.steps_done).initial_seed())

        def work(*tensors: Tensor) -> tuple[Tensor, ...]:
            self._move_alphas(tensors[:size], tensors[size:])
            return self._learn(tensors[:size], None, choice, self._drawings[0])

        return self._run(work, (*batch, *self._alpha_batch()))[0]

    def _move_alphas(self, batch: Batch, alpha_batch: Batch) -> None:
        valid = partial(self._loss, self._alpha_objective, alpha_batch, iter([self._alpha_drawing]))
        weights = list(self._named.values())
        with self._statistics_left_alone():
            if self._order == "first":
                gradients = bilevel.first_order(valid, weights, self.alphas)
            else:
                train = partial(self._loss, self.objective, batch, iter(self._drawings[1:]))
                gradients = bilevel.second_order(
                    train, valid, weights, self.alphas, self._unrolled(weights), self._product
                )
        for alpha, gradient in zip(self.alphas, gradients, strict=True):
            alpha.grad = gradient
        self._alpha_optimiser.step()
        for alpha in self.alphas:
            alpha.grad = None

    def _unrolled(self, weights: Sequence[Tensor]) -> bilevel.Unrolled:
        """The step that the weights are about to take, but for its clipping."""
        group = self.optimiser.param_groups[0]
        buffers = [self.optimiser.state.get(weight, {}).get("momentum_buffer") for weight in weights]
        return bilevel.Unrolled(group["lr"], group["momentum"], group["weight_decay"], buffers, group["nesterov"])

    def _loss(
        self,
        objective: Objective,
        batch: Batch,
        drawings: Iterator[torch.Generator],
        weights: Sequence[Tensor],
        alphas: Sequence[Tensor],
    ) -> Tensor:
        """Of given weights and alphas; every call draws from a generator of its own."""
        named = dict(zip(self._named, weights, strict=True))

        def network(*inputs: Tensor) -> Any:  # noqa: ANN401
            return functional_call(self.network, named, (*inputs, alphas))

        return objective.loss(network, batch, None, next(drawings))[0]

    @contextmanager
    def _statistics_left_alone(self) -> Iterator[None]:
        """Batch norm by the batch's statistics; the running ones are not written."""
        for norm in self._norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in self._norms:
                norm.track_running_stats = True

    # -- batches of the alphas ------------------------------------------------------------------------------------

    def _alpha_batch(self) -> Batch:
        """The next one of passes over the alphas' half that follow on each other."""
        batch = next(self._alpha_batches, None)
        if batch is None:
            objective = self._alpha_objective
            number, skip = divmod(self.steps_done, objective.steps)
            self._alpha_batches = objective.batches(self._alpha_streams.order(number), skip)
            batch = next(self._alpha_batches)
        return batch

    # -- how they stand -------------------------------------------------------------------------------------------

    def score(self, drawing: torch.Generator) -> Scores:
        """On the alphas' half, as it is augmented for them, with the running statistics; as in the authors' code.

        Args:
            drawing: of the augmentation.
        """
        self.network.eval()
        return self._alpha_objective.evaluate_training(lambda inputs: self.network(inputs, self.alphas), drawing)

    def largest_eigenvalue(self, order: torch.Generator, drawing: torch.Generator) -> float:
        """Of the Hessian of the validation loss in all alphas, on a batch of theirs: the most positive.

        It is not below 0: alphas of an edge that all grow alike change nothing.

        Zela, Elsken, Saikia, Marrakchi, Brox, Hutter, "Understanding and Robustifying Differentiable Architecture
        Search", ICLR 2020, arXiv 1909.09656, section 4.

        Args:
            order: names the batch.
            drawing: of its augmentation, and of where Lanczos begins.
        """
        batch = next(self._alpha_objective.batches(order))
        sizes = [alpha.numel() for alpha in self.alphas]
        self.network.train()
        with self._statistics_left_alone():
            valid = partial(self._loss, self._alpha_objective, batch, iter([drawing.clone_state()]))
            multiply = bilevel.curvature(valid, list(self._named.values()), self.alphas)

            def product(vector: Tensor) -> Tensor:
                parts = zip(torch.split(vector, sizes), self.alphas, strict=True)
                return torch.cat([row.reshape(-1) for row in multiply([p.view_as(a) for p, a in parts])])

            device = self.objective.device
            start = torch.randn(sum(sizes), generator=drawing, device=device, dtype=self.alphas[0].dtype)
            return bilevel.largest_eigenvalue(product, start)

    # -- state ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """As the base class, and tensors named ``alphas.`` and ``adam.``."""
        state = super().state()
        for index, alpha in enumerate(self.alphas):
            state[f"alphas.{index}"] = alpha
            adam = self._alpha_optimiser.state.get(alpha, {})
            state |= {f"adam.{index}.{name}": value for name, value in adam.items()}
        return state

    def restore(self, state: Mapping[str, Tensor], *, draws: bool = True) -> None:
        alphas = part(state, "alphas")
        check_shapes(alphas, {str(index): alpha for index, alpha in enumerate(self.alphas)})
        moments = part(state, "adam")
        if moments and len(moments) != 3 * len(self.alphas):
            raise DataError("weights: the alphas' Adam is not whole")
        super().restore(state, draws=draws)
        self._alpha_batches = iter(())
        self._alpha_optimiser.state.clear()
        for index, alpha in enumerate(self.alphas):
            alpha.copy_(alphas[str(index)])
            found = part(moments, str(index))
            if found:
                kept = {name: found[name].to(alpha.device, copy=True) for name in ("exp_avg", "exp_avg_sq")}
                step = found["step"].to(alpha.device if self._capture.is_on else "cpu", copy=True)
                self._alpha_optimiser.state[alpha] = {"step": step, **kept}
