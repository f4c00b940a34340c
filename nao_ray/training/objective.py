"""What a network learns: a task on a device, under a recipe. A file per family of tasks implements it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from nao_ray.errors import DataError
from nao_ray.metric import Metric
from nao_ray.networks.whole_batch import Part
from nao_ray.training.recipe import Recipe

Batch = tuple[Tensor, ...]
Carry = tuple[Tensor, ...] | None
"""What a network carries from one batch to the next, the hidden state of a recurrent one; None: nothing."""
Network = Callable[..., Any]
"""A network, or one with its choice made."""


@dataclass(frozen=True)
class Scores:
    """Of one pass over a split."""

    value: float
    """In the unit of the task's metric."""
    loss: float
    """Mean, in nats."""
    top5: float | None = None
    """Of classes, the share of examples whose own is among the five likeliest; None: nobody asked."""


@dataclass(frozen=True)
class Shard:
    """Which part of every batch is this worker's."""

    rank: int = 0
    count: int = 1

    def weight(self, total: int) -> float:
        """Of this part of `total` examples in the mean over the workers' parts; 1 where all have as many."""
        return len(range(self.rank, total, self.count)) * self.count / total


WHOLE = Shard()


@dataclass(frozen=True)
class NormStatistics:
    """What batch norm goes by in a score with shared weights."""

    of: Literal["batch", "path", "running"] = "batch"
    """`batch`: each scored batch's own; `path`: of training examples, of each path anew; `running`: the averages that
    were kept while all paths were trained."""
    examples: int = 256
    """Training examples of `path`."""


BATCH_STATISTICS = NormStatistics()


class Objective(ABC):
    """A task on a device, under a recipe."""

    recipe: Recipe
    metric: Metric
    shard: Shard
    carries: ClassVar[bool] = False
    """Networks carry a state from batch to batch, and draw what they drop from torch's global generator."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the data are."""

    @abstractmethod
    def under(self, recipe: Recipe, *, share: float = 1.0, shard: Shard = WHOLE) -> Self:
        """The same data, which are not moved again, under another recipe.

        Args:
            recipe: its batch, regularisation, augmentation and precision count here.
            share: of the training split, in (0, 1].
            shard: part of every batch.

        Raises:
            DataError: that is too little for one step.
        """

    def cut(self, order: torch.Generator, share: float = 0.5) -> tuple[Self, Self]:
        """The training split cut in two.

        Args:
            order: names the cut, where examples can be told apart; on the CPU.
            share: of the second part, at least, in (0, 1); of a text it is the end.

        Raises:
            DataError: that leaves too little for a step, or the task's examples are not cut.
        """
        raise DataError(f"the training examples of a {type(self).__name__} are not cut in two")

    def on_validation(self) -> Self:
        """What trains on the validation split.

        Raises:
            DataError: that is too little for a step, or the task's does not train.
        """
        raise DataError(f"the validation examples of a {type(self).__name__} do not train")

    @property
    @abstractmethod
    def steps(self) -> int:
        """Batches of an epoch, at least 1."""

    @abstractmethod
    def batches(self, order: torch.Generator, skip: int = 0) -> Iterator[Batch]:
        """Those of one epoch but the first `skip`: tensors on the device already, all but the last of one shape.

        Args:
            order: on the CPU; drawn from before the first batch is given.
            skip: batches that are not wanted.
        """

    @abstractmethod
    def loss(self, network: Network, batch: Batch, carry: Carry, generator: torch.Generator) -> tuple[Tensor, Carry]:
        """What a step brings down, a scalar, and what the next batch of the epoch is given, detached.

        Args:
            network: in training mode.
            batch: of `batches`.
            carry: what the batch before gave; None for an epoch's first.
            generator: of the augmentation, on the device.
        """

    def rate_scale(self, batch: Batch) -> float:
        """What the learning rate of a batch's step is multiplied by."""
        return 1.0

    def weight(self, index: int) -> float:
        """Of this worker's part of an epoch's batch of this number, in the mean over the group; see `Shard.weight`."""
        return 1.0

    @property
    def as_one(self) -> bool:
        """Whether workers that train one network draw and normalise as one of them would, given the whole batch."""
        return False

    def part(self, index: int, add: Callable[[Tensor], Tensor]) -> Part | None:
        """Which part of an epoch's batch of this number is this worker's; None where they do not compute `as_one`.

        Args:
            index: of the batch.
            add: gives the sum of the workers' values.
        """
        return None

    @property
    @abstractmethod
    def num_valid(self) -> int:
        """Examples of the validation split; 0 where all of them train."""

    @property
    def examples_per_row(self) -> int:
        """That a row of a batch has; of a text the tokens of a window."""
        return 1

    @abstractmethod
    def evaluate(self, network: nn.Module, forward: Network | None = None) -> Scores:
        """On the validation split, in evaluation mode; one transfer from the device.

        Args:
            network: what is evaluated.
            forward: gives what it makes of tensors in less time, what is carried behind the inputs, and what is carried
                on behind the output; None: it does itself.
        """

    def evaluate_training(self, network: Network, generator: torch.Generator) -> Scores:
        """On the examples that train, augmented as for training; one transfer from the device.

        Args:
            network: in evaluation mode.
            generator: of the augmentation, on the device.

        Raises:
            DataError: the task's are not scored.
        """
        raise DataError(f"the training examples of a {type(self).__name__} are not scored")

    @abstractmethod
    def compare(
        self,
        network: nn.Module,
        choices: Sequence[Any],
        order: torch.Generator,
        *,
        batch: int,
        count: int,
        statistics: NormStatistics = BATCH_STATISTICS,
    ) -> list[Scores]:
        """Of each choice under shared weights, on the same validation examples.

        Args:
            network: called with a choice; its weights and statistics stay as they are.
            choices: what it can be called with.
            order: names the examples.
            batch: rows at once, at most.
            count: how many, in 1..num_valid.
            statistics: what batch norm goes by, in networks that have any.
        """

    def constants(self) -> dict[str, Tensor]:
        """What a network trained here has to be given with its inputs ever after; kept with its weights."""
        return {}

    def place(self, network: nn.Module) -> nn.Module:
        """The network, moved to the device in the layout that is fastest there."""
        return network.to(self.device)
