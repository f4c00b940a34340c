"""The one training loop, step by step: of a network on its own, of shared weights, of a full training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nao_ray import optimisers
from nao_ray.errors import DataError
from nao_ray.networks import whole_batch
from nao_ray.spaces.base import ArchGraph
from nao_ray.training.averaging import WeightAverage
from nao_ray.training.capture import LENGTHS, Capture, Execution
from nao_ray.training.checkpoint import check_shapes, part
from nao_ray.training.objective import Batch, Carry, Objective, Scores
from nao_ray.training.schedule import Averaging, learning_rate, period
from nao_ray.training.streams import Streams

Parameters = dict[str, nn.Parameter]
CHECK_EVERY = 50
"""Steps after which a device other than the CPU, and a group, is asked whether the loss is still finite."""


class Averager(Protocol):
    """What puts a group of workers together; called by all of them, step by step."""

    def __call__(self, used: Parameters) -> Parameters:
        """Given the parameters with a gradient here: those that have one anywhere, each with the group's gradient."""
        ...

    def mean(self, value: Tensor) -> Tensor:
        """The mean of the workers' values."""
        ...

    def sum(self, value: Tensor) -> Tensor:
        """The sum of the workers' values."""
        ...


class Trainer:
    """SGD on a network, in place, on the objective's device, under the objective's recipe.

    A step moves the parameters that have a gradient: of shared weights those that the choice uses, the others are
    moved by neither momentum nor weight decay. Where the recipe has `averaging`, what is evaluated is the mean of the
    weights, once it has begun. Restored from what `state` gave, at any step, a training on a CPU ends
    to the bit as the unbroken one.

    On CUDA the step of a network on its own, or of alphas and weights, is one graph, and so is the evaluation of one on
    its own (`Capture`); `close` ends them.

    Args:
        network: called with a batch's inputs, what is carried where there is some, and the choice where there is one.
            Its `set_step(step, total, per_epoch)`, where it has one, is told every step, for drop path; where steps are
            a graph, its `capturable()` before, which puts what changes from step to step in a tensor.
        objective: what is learnt.
        epochs: trained in all, which cosine and drop path end with; None: not known, they begin anew with each period
            of the recipe's cosine (`cosine_epochs`, `restart_factor`).
        streams: where it draws.
        choose: gives the choice of a step, an architecture under shared weights; None: the network takes none.
        averager: puts the workers of a group together; None: there is one.
        execution: whether steps are a graph; `auto` where they can be: not where each has a new path.

    Raises:
        RuntimeError: `execution` is `graph`, and they cannot be.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        *,
        epochs: int | None,
        streams: Streams,
        choose: Callable[[int], Any] | None = None,
        averager: Averager | None = None,
        execution: Execution = "auto",
    ) -> None:
        self.network, self.objective, self.recipe = objective.place(network), objective, objective.recipe
        self.steps_done = 0
        self._epochs, self._streams, self._choose, self._averager = epochs, streams, choose, averager
        self._named = dict(network.named_parameters())
        device = objective.device
        generators = self._recorded_generators()
        if execution == "graph" and generators is None:
            raise RuntimeError("execution is graph, and steps of shared weights or of a group are launched one by one")
        self._capture = Capture(device, generators or (), execution="eager" if generators is None else execution)
        self._captured: dict[int, Callable[..., tuple[Tensor, ...]]] = {}  # by the number of tensors
        self._forward = self._evaluated()
        capturable: Callable[[], None] | None = getattr(self.network, "capturable", None)
        if self._capture.is_on and capturable is not None:
            capturable()
        # fused it takes all moments to begin in one step, and those of paths begin one by one
        self.optimiser = self._made_optimiser(fused=choose is None or self._capture.is_on)
        self._average = self._averaged()
        self._used: dict[ArchGraph, tuple[str, ...]] = {}
        self._batches: Iterator[Batch] = iter(())
        self._carry: Carry = None
        self._weight = 1.0  # of this worker's part of the batch
        self._total = torch.zeros((), device=objective.device)

    def _made_optimiser(self, *, fused: bool) -> torch.optim.SGD:
        recipe = self.recipe
        settings: dict[str, Any] = {
            "lr": torch.tensor(recipe.lr, device=self.objective.device) if self._capture.is_on else recipe.lr,
            "momentum": recipe.momentum,
            "nesterov": recipe.nesterov and recipe.momentum > 0,
            "weight_decay": recipe.weight_decay,
            "fused": fused,
            "foreach": not fused,
        }
        if recipe.orthogonal:
            return optimisers.Muon(self._named.values(), share=recipe.orthogonal, **settings)
        return optimisers.SGD(self._named.values(), **settings)

    def _averaged(self) -> WeightAverage | None:
        recipe = self.recipe
        if not isinstance(recipe, Averaging) or recipe.averaging == "none":
            return None
        statistics = {name: buffer for name, buffer in self.network.named_buffers() if buffer.is_floating_point()}
        weights = {**self._named, **statistics}
        if recipe.averaging == "nonmonotone":
            return WeightAverage(weights, recipe.averaging_patience)
        last = (self._epochs or 0) * self.objective.steps
        return WeightAverage(weights, begin=last - math.ceil(recipe.averaging_share * last))

    # -- steps ----------------------------------------------------------------------------------------------------

    @property
    def epochs_done(self) -> int:
        """Whole epochs trained, those before a `restore` too."""
        return self.steps_done // self.objective.steps

    def epoch(self) -> float:
        """Train to the end of the epoch: the mean loss of its steps, NaN as soon as it is known not to be finite.

        On a CPU that is known after each step. Asking any other device makes it wait, and the workers of a group have
        to agree: there it is asked every `CHECK_EVERY` steps, and at the end.
        """
        steps, often = self.objective.steps, self.objective.device.type == "cpu" and self._averager is None
        while True:
            self.step()
            ended = self.steps_done % steps == 0
            if ended or often or self.steps_done % CHECK_EVERY == 0:
                total = self._total if self._averager is None else self._averager.mean(self._total)
                mean = total.item() / steps
                if ended or not math.isfinite(mean):
                    return mean if math.isfinite(mean) else math.nan

    def step(self) -> Tensor:
        """Train on the epoch's next batch; its loss, still on the device."""
        step = self.steps_done
        epoch, skip = divmod(step, self.objective.steps)
        batch = next(self._batches, None)
        if batch is None:
            self._batches = self.objective.batches(self._streams.order(epoch), skip)
            batch = next(self._batches)
        if not self.network.training:
            self.network.train()
        if not skip:
            self._carry, self._total = None, torch.zeros_like(self._total)
        self._set(step, self.objective.rate_scale(batch))
        self._weight = self.objective.weight(skip) if self._averager is not None else 1.0
        choice = None if self._choose is None else self._choose(step)
        part = None if self._averager is None else self.objective.part(skip, self._averager.sum)
        with self._streams.dropout(step), whole_batch.part(part):
            loss = self.compute(batch, choice, self._streams.augmentation(step))
        if self._average is not None:
            self._average.update(step)
        self._total += loss * self._weight
        self.steps_done += 1
        return loss

    @property
    def execution(self) -> str:
        """How steps were run: `graph`, `eager`, or `eager: ` and why."""
        return self._capture.execution

    def evaluate(self) -> Scores:
        """Of the network now, on the validation split."""
        with nullcontext() if self._average is None else self._average.applied():
            return self.objective.evaluate(self.network, self._forward)

    def tell(self, loss: float) -> None:
        """The validation loss of the epoch that has ended, by which averaging begins; once an epoch."""
        if self._average is not None:
            self._average.tell(loss)

    def settle(self) -> None:
        """The training has ended: the network is what `evaluate` has scored, with the mean of its weights if any."""
        if self._average is not None:
            self._average.settle()

    def close(self) -> None:
        """Free the graphs; the last call."""
        self._capture.close()
        self._captured.clear()  # they know this trainer, which would wait for a garbage collection

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _evaluated(self) -> Callable[..., Any]:
        """The network as `evaluate` calls it; of a text what follows the first window is what a graph is for."""
        if not self.objective.carries:
            return self._capture.of(self.network.__call__, is_step=False)
        launched = partial(_flat, self.network)
        captured = self._capture.of(launched, is_step=False)
        return lambda tokens, *carry: (captured if carry else launched)(tokens, *carry)

    def _set(self, step: int, scale: float) -> None:
        """What changes from step to step: the learning rate, and how many paths are dropped."""
        steps, epochs = self.objective.steps, self._epochs
        start, length = 0, epochs or 0
        if epochs is None:
            now = period(step // steps, self.recipe.cosine_epochs or 1, self.recipe.restart_factor or 1)
            start, length = now.start, now.length
        tell: Callable[[int, int, int], None] | None = getattr(self.network, "set_step", None)
        if tell is not None:
            tell(step - start * steps, length * steps, steps)
        progress = step // steps if self.recipe.rate_schedule == "epoch" else (step + 0.5) / steps
        self.set_rate(scale * learning_rate(self.recipe, progress, length))

    def set_rate(self, rate: float) -> None:
        """The learning rate from now on; where the optimiser holds it as a tensor, in place."""
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _recorded_generators(self) -> Sequence[torch.Generator] | None:
        """What a step draws from, the same ones through all steps; None: a step cannot be a graph."""
        return self._streams.lasting if self._choose is None and self._averager is None else None

    def compute(self, batch: Batch, choice: Any, augmentation: torch.Generator) -> Tensor:  # noqa: ANN401
        """All that the device does in a step: forward, loss, backward, and `update`; the loss.

        It depends on the tensors of `batch` and of the training alone, not on the number of the step.
        """
        size = len(batch)

        def work(*tensors: Tensor) -> tuple[Tensor, ...]:
            return self._learn(tensors[:size], tensors[size:] or None, choice, augmentation)

        loss, *carry = self._run(work, (*batch, *(self._carry or ())))
        self._carry = tuple(carry) or None
        return loss

    def _run(self, work: Callable[..., tuple[Tensor, ...]], tensors: Batch) -> tuple[Tensor, ...]:
        """A step's work, in a graph where steps are; the first one's is what is recorded.

        An epoch's first step, to which nothing is carried, is one of many and has none.
        """
        carries = self.objective.carries
        if self._capture.is_on and not (carries and self.steps_done % self.objective.steps == 0):
            captured = self._capture.of(work, LENGTHS if carries else 1)
            work = self._captured.setdefault(len(tensors), captured)
        return work(*tensors)

    def _learn(
        self,
        batch: Batch,
        carry: Carry,
        choice: Any,  # noqa: ANN401
        augmentation: torch.Generator,
    ) -> tuple[Tensor, ...]:
        """Of the weights; the loss, and what is carried."""
        network = self.network if choice is None else lambda *inputs: self.network(*inputs, choice)
        try:
            loss, carry = self.objective.loss(network, batch, carry, augmentation)
            (loss * self._weight if self._weight != 1 else loss).backward()  # type: ignore[no-untyped-call]
            self.update(choice)
        except RuntimeError:  # of a recording: the step is made again, and must not add to what this one left
            self.network.zero_grad()
            raise
        return loss.detach(), *(carry or ())

    def update(self, choice: Any = None) -> None:  # noqa: ANN401
        """Put the workers' gradients together, clip and move the parameters that have one, then forget them."""
        moved = self._with_gradient(choice)
        if self._averager is not None:
            moved = self._averager(moved)
        parameters = list(moved.values())
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm, foreach=True)
        self.optimiser.param_groups[0]["params"] = parameters  # it looks at no others
        self.optimiser.step()
        for parameter in parameters:
            parameter.grad = None

    def _with_gradient(self, choice: Any) -> Parameters:  # noqa: ANN401
        """By name; those of a genotype are always the same, and looking at all of a supernet's takes its time."""
        if not isinstance(choice, ArchGraph):
            return {name: parameter for name, parameter in self._named.items() if parameter.grad is not None}
        if choice not in self._used:
            self._used[choice] = tuple(self._with_gradient(None))
        return {name: self._named[name] for name in self._used[choice]}

    # -- state ----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on; to be copied before it.

        The number of the ``step``, and tensors named ``network.``, ``momentum.``, ``generator.``; within an epoch also
        ``carry.`` and the sum of its ``loss``; of weights that are to be averaged ``average.``.
        """
        within = self.steps_done % self.objective.steps != 0
        moments = {
            name: self.optimiser.state[parameter]["momentum_buffer"]
            for name, parameter in self._named.items()
            if self.optimiser.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        parts = {
            "network": self.network.state_dict(),
            "momentum": moments,
            "generator": self._streams.state(within_epoch=within),
            "average": {} if self._average is None else self._average.state(),
            "carry": {str(index): value for index, value in enumerate(self._carry or ())} if within else {},
        }
        state = {f"{prefix}.{name}": value for prefix, tensors in parts.items() for name, value in tensors.items()}
        state["step"] = torch.tensor(self.steps_done)
        return state | ({"loss": self._total} if within else {})

    def restore(self, state: Mapping[str, Tensor], *, draws: bool = True) -> None:
        """Go on where `state` was called.

        Args:
            state: what it gave.
            draws: with the random numbers that followed; false: with others, those that follow now.

        Raises:
            DataError: it is of another network, of other streams, or of another kind of device.
        """
        if "step" not in state:
            raise DataError("weights: no step among them; they are not the state of a training")
        weights, moments = part(state, "network"), part(state, "momentum")
        check_shapes(weights, self.network.state_dict())
        check_shapes(moments, {name: self._named[name] for name in moments if name in self._named})
        if draws:
            self._streams.restore(part(state, "generator"))
        else:
            self._streams.renew()
        if self._average is not None:
            self._average.restore(part(state, "average"))
        self.network.load_state_dict(weights)
        self.optimiser.state.clear()
        self._capture.forget()  # the graphs write to the moments of before: the step is recorded anew
        self._captured.clear()
        self._forward = self._evaluated()
        for name, moment in moments.items():
            parameter = self._named[name]
            self.optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter).copy_(moment)
        self.steps_done = int(state["step"])
        self._batches = iter(())
        carried = part(state, "carry")
        self._carry = tuple(carried[str(index)].to(self.objective.device) for index in range(len(carried))) or None
        if "loss" in state:
            self._total = state["loss"].to(self.objective.device, copy=True)


def _flat(network: nn.Module, inputs: Tensor, *carry: Tensor) -> tuple[Tensor, ...]:
    """What a network makes of a batch and what is carried to it, side by side with what it carries on."""
    out, carried = network(inputs, carry or None)
    return out, *(carried or ())
