"""The training of a relaxed supernet: at each step the alphas on a batch of theirs, then the weights on one of theirs.

Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv 1806.09055, algorithm 1. Second order
looks ahead by the very step that the weights then take: its batch, augmented alike, with the same units dropped, the
step's learning rate, momentum and weight decay; clipped where the optimiser of the alphas says so. Batch norm's
statistics are those of the weights' steps alone, and the alphas are no part of weight decay, momentum or clipping of
the weights.

Of a text both read segments of their own, one after the other, and carry a hidden state each: the weights' is that
after their step, the alphas' that of the pass by which their gradient is taken.

On CUDA a whole step, alphas and weights, is one graph (`capture.py`): what it draws from is seeded anew for each, one
generator for each pass over a batch, so that all passes see it augmented alike. Of a text steps are launched one by
one: what is dropped is drawn from torch's own generator, seeded anew for each pass, which no graph can hold.

Differs from the published code: the alphas' batches are those of whole passes over their examples, drawn anew for each,
instead of the first of a new order at every step; of a text, each pass begins at its beginning and without a state,
instead of going on where the weights' epoch begins; passes beyond the weights' step leave batch norm's statistics
alone; what is dropped is the same in all passes over one batch, where each draws anew there; the loss that is looked
ahead by has the penalties that the weights' step has; the alphas are part of the state.

Legend: `E` edges of a cell, `O` operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from nao_ray import optimisers
from nao_ray.errors import DataError
from nao_ray.training import bilevel
from nao_ray.training.alphas import AlphaOptimiser
from nao_ray.training.checkpoint import check_shapes, part
from nao_ray.training.objective import Batch, Carry, Objective, Scores
from nao_ray.training.streams import ByStep, Streams
from nao_ray.training.trainer import Trainer

Order = Literal["none", "first", "second", "exact"]
"""Of the alphas' gradient: they stay; at the weights as they are; one step ahead by a finite difference; the same,
exactly."""
_PASSES: dict[Order, int] = {"none": 1, "first": 1, "second": 4, "exact": 3}
"""Over a step's batch of the weights: their step, the gradient that is looked ahead by, both sides or the product."""


@dataclass
class _Pass:
    """The loss of a batch, as a function of weights and alphas that are given to it."""

    network: nn.Module
    names: Sequence[str]
    """Of the weights."""
    objective: Objective
    batch: Batch
    carry: Carry
    drawings: Iterator[torch.Generator]
    """One of its own for each call, all in the same state."""
    dropout: Callable[[], AbstractContextManager[None]]
    """Within it torch's global generators are in the state of the batch."""
    carried: Carry = None
    """What the last call has given for the next batch."""

    def __call__(self, weights: Sequence[Tensor], alphas: Sequence[Tensor]) -> Tensor:
        named = dict(zip(self.names, weights, strict=True))

        def network(*inputs: Any) -> Any:  # noqa: ANN401
            return functional_call(self.network, named, (*inputs, alphas))

        with self.dropout():
            loss, self.carried = self.objective.loss(network, self.batch, self.carry, next(self.drawings))
        return loss


class Alternating(Trainer):
    """Trains weights, as its base class, and alphas, both in place.

    Args:
        network: called with inputs and the alphas, which are not among its parameters.
        objective: of the weights, on their part of the examples.
        alpha_objective: of the alphas, on theirs, as they are to be augmented for them.
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
        self._carries = objective.carries
        super().__init__(network, objective, epochs=None, streams=streams, choose=lambda _step: self.alphas)
        self.alphas = [alpha.detach().to(device, copy=True) for alpha in alphas]
        self._alpha_objective, self._alpha_streams = alpha_objective, alpha_streams
        self._alpha_batches: Iterator[Batch] = iter(())
        self._alpha_carry: Carry = None
        self._clips = optimiser.clips
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
        self._norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]

    def _recorded_generators(self) -> Sequence[torch.Generator] | None:
        return None if self._carries else [*self._drawings, self._alpha_drawing]

    def compute(self, batch: Batch, choice: Any, augmentation: torch.Generator) -> Tensor:  # noqa: ANN401
        """A step of the alphas, then one of the weights; the weights' loss."""
        for drawing in self._drawings:
            drawing.manual_seed(augmentation.initial_seed())
        if self._order == "none":
            return super().compute(batch, choice, self._drawings[0])
        self._alpha_drawing.manual_seed(self._alpha_streams.augmentation(self.steps_done).initial_seed())
        given = (batch, self._alpha_batch(), self._carry or (), self._alpha_carry or ())

        def work(*tensors: Tensor) -> tuple[Tensor, ...]:
            left = iter(tensors)
            mine, theirs, carry, alpha_carry = (tuple(next(left) for _ in part) for part in given)
            carried = self._move_alphas((mine, carry or None), (theirs, alpha_carry or None))
            return (*self._learn(mine, carry or None, choice, self._drawings[0]), *(carried or ()))

        loss, *carries = self._run(work, tuple(chain(*given)))
        each = len(carries) // 2  # of one network
        self._carry, self._alpha_carry = tuple(carries[:each]) or None, tuple(carries[each:]) or None
        return loss

    def _move_alphas(self, of_weights: tuple[Batch, Carry], of_alphas: tuple[Batch, Carry]) -> Carry:
        """Of a batch of each, and what was carried to it; what the alphas' carries on."""
        valid = self._pass(self._alpha_objective, *of_alphas, [self._alpha_drawing], self._alpha_streams)
        weights = list(self._named.values())
        with self._statistics_left_alone():
            if self._order == "first":
                gradients = bilevel.first_order(valid, weights, self.alphas)
            else:
                train = self._pass(self.objective, *of_weights, self._drawings[1:], self._streams)
                gradients = bilevel.second_order(
                    train, valid, weights, self.alphas, self._unrolled(weights), self._product
                )
        for alpha, gradient in zip(self.alphas, gradients, strict=True):
            alpha.grad = gradient
        self._alpha_optimiser.step()
        for alpha in self.alphas:
            alpha.grad = None
        return valid.carried

    def _pass(
        self,
        objective: Objective,
        batch: Batch,
        carry: Carry,
        drawings: Sequence[torch.Generator],
        streams: Streams,
    ) -> _Pass:
        step = self.steps_done

        def dropout() -> AbstractContextManager[None]:
            return streams.dropout(step) if self._carries else nullcontext()

        return _Pass(self.network, list(self._named), objective, batch, carry, iter(drawings), dropout)

    def _unrolled(self, weights: Sequence[Tensor]) -> bilevel.Unrolled:
        """The step that the weights are about to take; see `AlphaOptimiser.clips`."""
        group = self.optimiser.param_groups[0]
        buffers = [self.optimiser.state.get(weight, {}).get("momentum_buffer") for weight in weights]
        clip = self.recipe.clip_norm if self._clips else None
        return bilevel.Unrolled(group["lr"], group["momentum"], group["weight_decay"], buffers, group["nesterov"], clip)

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
        """The next one of passes over the alphas' examples that follow on each other."""
        objective = self._alpha_objective
        number, skip = divmod(self.steps_done, objective.steps)
        if not skip:
            self._alpha_carry = None
        batch = next(self._alpha_batches, None)
        if batch is None:
            self._alpha_batches = objective.batches(self._alpha_streams.order(number), skip)
            batch = next(self._alpha_batches)
        return batch

    # -- how they stand -------------------------------------------------------------------------------------------

    def score(self, drawing: torch.Generator) -> Scores:
        """On the alphas' examples, augmented as for them, with the running statistics; as in the authors' code.

        Args:
            drawing: of the augmentation.
        """
        self.network.eval()
        return self._alpha_objective.evaluate_training(lambda *inputs: self.network(*inputs, self.alphas), drawing)

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
            valid = self._pass(self._alpha_objective, batch, None, [drawing.clone_state()], self._alpha_streams)
            multiply = bilevel.curvature(valid, list(self._named.values()), self.alphas)

            def product(vector: Tensor) -> Tensor:
                parts = zip(torch.split(vector, sizes), self.alphas, strict=True)
                return torch.cat([row.reshape(-1) for row in multiply([p.view_as(a) for p, a in parts])])

            device = self.objective.device
            start = torch.randn(sum(sizes), generator=drawing, device=device, dtype=self.alphas[0].dtype)
            return bilevel.largest_eigenvalue(product, start)

    # -- state ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """As the base class, and tensors named ``alphas.`` and ``adam.``; within a pass of theirs ``alpha_carry.``."""
        state = super().state()
        for index, alpha in enumerate(self.alphas):
            state[f"alphas.{index}"] = alpha
            adam = self._alpha_optimiser.state.get(alpha, {})
            state |= {f"adam.{index}.{name}": value for name, value in adam.items()}
        within = self.steps_done % self._alpha_objective.steps != 0
        return state | {f"alpha_carry.{index}": value for index, value in enumerate(self._alpha_carry or ()) if within}

    def restore(self, state: Mapping[str, Tensor], *, draws: bool = True) -> None:
        alphas = part(state, "alphas")
        check_shapes(alphas, {str(index): alpha for index, alpha in enumerate(self.alphas)})
        moments = part(state, "adam")
        if moments and len(moments) != 3 * len(self.alphas):
            raise DataError("weights: the alphas' Adam is not whole")
        super().restore(state, draws=draws)
        self._alpha_batches = iter(())
        carried = part(state, "alpha_carry")
        self._alpha_carry = (
            tuple(carried[str(index)].to(self.objective.device) for index in range(len(carried))) or None
        )
        self._alpha_optimiser.state.clear()
        for index, alpha in enumerate(self.alphas):
            alpha.copy_(alphas[str(index)])
            found = part(moments, str(index))
            if found:
                kept = {name: found[name].to(alpha.device, copy=True) for name in ("exp_avg", "exp_avg_sq")}
                step = found["step"].to(alpha.device if self._capture.is_on else "cpu", copy=True)
                self._alpha_optimiser.state[alpha] = {"step": step, **kept}
