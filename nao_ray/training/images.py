"""Images in classes: both splits on a device, as bytes, so that a batch is a gather; or streamed (`image_splits.py`).

Legend: `n` images, `B` images of a batch, `C` channels, `H` `W` pixels, `K` classes, `G` genotypes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nao_ray import rng
from nao_ray.errors import DataError
from nao_ray.metric import ACCURACY, Metric
from nao_ray.networks.one_shot import pool_logits
from nao_ray.networks.supernet import batch_statistics, running_statistics, statistics_of_first
from nao_ray.networks.whole_batch import Part
from nao_ray.tasks.images import splits
from nao_ray.tasks.images.base import Split
from nao_ray.training.augment import Normaliser, augment
from nao_ray.training.augmentation import Augmentation
from nao_ray.training.checkpoint import check_shapes, part
from nao_ray.training.devices import autocast, move
from nao_ray.training.image_splits import EVALUATION_BATCH, DeviceSplit
from nao_ray.training.objective import (
    BATCH_STATISTICS,
    WHOLE,
    Batch,
    Carry,
    Network,
    NormStatistics,
    Objective,
    Scores,
    Shard,
)
from nao_ray.training.recipe import ImageRecipe, ImageRegularisation, Optimiser, Recipe, expect

_SHARE_SEED = 0  # which rows a share of the training split keeps: the same for every trial of every search
_TOP = 5


@dataclass(frozen=True)
class ImageObjective(Objective):
    """Cross-entropy, also of an auxiliary head's logits at its weight; measured by accuracy.

    Raises:
        DataError: there are no two images to train on.
    """

    train: DeviceSplit
    valid: DeviceSplit
    """Without images where all of them train."""
    normaliser: Normaliser
    """Of the training images that count."""
    recipe: ImageRecipe
    rows: Tensor | None = None
    """``[n]``, the training images that count, where their labels are; None: all."""
    share: float = 1.0
    """Of the training split, that they are."""
    shard: Shard = WHOLE
    metric: Metric = ACCURACY
    top5: bool = False
    """Scores tell the share of images whose class is among the five likeliest, too."""

    def __post_init__(self) -> None:
        if not self.steps:
            few = self.num_train
            if self.shard.count > 1:
                raise DataError(f"{few} training images make no step of {self.shard.count} workers; give two for each")
            raise DataError(f"{few} training image makes no step; give at least 2 (task.limit, data_share)")

    @classmethod
    def of(
        cls, train: Split, valid: Split, device: torch.device, recipe: ImageRecipe, *, top5: bool = False
    ) -> ImageObjective:
        """Move both splits, once, unless they are streamed."""
        moved = DeviceSplit.of(train, device)
        scale = moved.normaliser(None, by_image=recipe.standardise == "image")
        return cls(moved, DeviceSplit.of(valid, device), scale, recipe, top5=top5)

    def under(self, recipe: Recipe, *, share: float = 1.0, shard: Shard = WHOLE) -> Self:
        told = expect(ImageRecipe, recipe, "a task of images")
        rows, normaliser = self.rows, replace(self.normaliser, by_image=told.standardise == "image")
        if share != self.share:
            kept = splits.share(self.train.labels.numpy(force=True), share, _SHARE_SEED)
            rows = None if kept is None else move(kept, self.train.labels.device)
            normaliser = self.train.normaliser(rows, by_image=normaliser.by_image)
        return replace(self, recipe=told, rows=rows, share=share, normaliser=normaliser, shard=shard)

    def cut(self, order: torch.Generator, share: float = 0.5) -> tuple[Self, Self]:
        rows = self._shuffled(order)
        middle = int(len(rows) * (1 - share))
        return replace(self, rows=rows[:middle]), replace(self, rows=rows[middle:])

    def on_validation(self) -> Self:
        return replace(self, train=self.valid, rows=None, share=1.0)

    @property
    def device(self) -> torch.device:
        return self.train.device

    @property
    def num_train(self) -> int:
        """Training images that count."""
        return len(self.train if self.rows is None else self.rows)

    @property
    def num_valid(self) -> int:
        return len(self.valid)

    @property
    def steps(self) -> int:
        # An image alone in its batch has no batch statistics on a 1x1 map: a last batch that leaves one is left out.
        whole, rest = divmod(self.num_train, self.recipe.batch)
        if self.as_one:
            return whole + (rest >= max(2, self.shard.count))
        return whole + (rest // self.shard.count > 1)

    def batches(self, order: torch.Generator, skip: int = 0) -> Iterator[Batch]:
        batches = torch.split(self._shuffled(order), self.recipe.batch)[skip : self.steps]
        crops = self.train.crops(order, self.recipe)
        return self.train.batches((batch[self.shard.rank :: self.shard.count] for batch in batches), crops)

    def _shuffled(self, order: torch.Generator) -> Tensor:
        rows = torch.randperm(self.num_train, generator=order).to(self.train.labels.device)
        return rows if self.rows is None else self.rows[rows]

    def weight(self, index: int) -> float:
        return self.shard.weight(self._size(index))

    @property
    def as_one(self) -> bool:
        return self.recipe.sync_batch_norm

    def part(self, index: int, add: Callable[[Tensor], Tensor]) -> Part | None:
        return Part(self.shard.rank, self.shard.count, self._size(index), add) if self.as_one else None

    def _size(self, index: int) -> int:
        """Images of an epoch's batch of this number, all workers' together."""
        return min(self.recipe.batch, self.num_train - index * self.recipe.batch)

    def loss(self, network: Network, batch: Batch, carry: Carry, generator: torch.Generator) -> tuple[Tensor, Carry]:
        """`batch`: uint8 ``[B, C, H, W]`` and labels ``[B]``."""
        images, labels = batch
        inputs = self._augmented(images, generator)
        with autocast(self.recipe, self.device):
            return training_loss(network(inputs), labels, self.recipe), carry

    def evaluate(self, network: nn.Module, forward: Network | None = None) -> Scores:
        return _scores(network, self.valid, self.normaliser, self.recipe, forward, top5=self.top5)

    def evaluate_training(self, network: Network, generator: torch.Generator) -> Scores:
        where = self.train.labels.device
        rows = torch.arange(self.num_train, device=where) if self.rows is None else self.rows
        batches = self.train.batches(torch.split(rows, EVALUATION_BATCH), self.train.crops(generator, self.recipe))
        return _summed(network, batches, lambda images: self._augmented(images, generator), self.recipe, self.device)

    @cached_property
    def _left(self) -> Augmentation:
        return self.train.left(self.recipe)

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return augment(images, generator, self.normaliser, self._left)

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
        wanted = torch.randperm(len(self.valid), generator=order)[:count].to(self.valid.labels.device)
        chosen = [rows for rows in torch.split(wanted, batch) if len(rows) > 1 or len(wanted) == 1]
        correct = torch.zeros(len(choices), dtype=torch.int64, device=self.device)
        loss = torch.zeros(len(choices), device=self.device)
        judged = self._judge(statistics)
        with autocast(self.recipe, self.device):
            for images, labels in self.valid.batches(chosen):
                logits = judged(network, self.normaliser(images), choices).float()  # [G, B, K]
                correct += (logits.argmax(2) == labels).sum(1)
                expected = labels.expand(len(choices), -1)
                loss += F.cross_entropy(logits.transpose(1, 2), expected, reduction="none").sum(1)
        scored = sum(map(len, chosen))
        return [Scores(c / scored, total / scored) for c, total in zip(correct.tolist(), loss.tolist(), strict=True)]

    def _judge(self, statistics: NormStatistics) -> Callable[..., Tensor]:
        """Logits ``[G, B, K]`` of a network, images ``[B, C, H, W]`` and choices."""
        if statistics.of != "path":
            how = batch_statistics if statistics.of == "batch" else running_statistics
            return partial(pool_logits, statistics=how)
        rows = self._shuffled(rng.torch_generator(0, "statistics of a path"))[: statistics.examples]
        ((trained, _),) = self.train.batches([rows])  # always the same ones
        first = self.normaliser(trained)
        of_first = partial(statistics_of_first, rows=len(first))

        def judged(network: nn.Module, images: Tensor, choices: Sequence[Any]) -> Tensor:
            return pool_logits(network, torch.cat([first, images]), choices, statistics=of_first)[:, len(first) :]

        return judged

    def constants(self) -> dict[str, Tensor]:
        return {"normaliser.mean": self.normaliser.mean, "normaliser.std": self.normaliser.std}

    def place(self, network: nn.Module) -> nn.Module:
        return _placed(network, self.device)


def training_loss(outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor, recipe: ImageRegularisation) -> Tensor:
    """Cross-entropy of the logits ``[B, K]``, and of the auxiliary head's at its weight."""
    smoothing = recipe.label_smoothing
    if isinstance(outputs, Tensor):
        return F.cross_entropy(outputs, labels, label_smoothing=smoothing)
    main, auxiliary = (F.cross_entropy(logits, labels, label_smoothing=smoothing) for logits in outputs)
    return main + recipe.auxiliary_weight * auxiliary


def test_scores(
    network: nn.Module,
    split: Split,
    constants: Mapping[str, Tensor],
    device: torch.device,
    recipe: ImageRecipe,
    *,
    top5: bool,
) -> Scores:
    """Of a trained network on a test split.

    Args:
        network: as it was trained.
        split: the test split.
        constants: of the objective it was trained on, perhaps among other tensors.
        device: where to.
        recipe: its precision and its `standardise` count.
        top5: the scores tell it.

    Raises:
        DataError: the constants are not of such images, or one cannot be read.
    """
    moved = DeviceSplit.of(split, device)
    normaliser = part(constants, "normaliser")
    channels = torch.empty(moved.channels)
    check_shapes(normaliser, {"mean": channels, "std": channels})
    by_image = recipe.standardise == "image"
    scale = Normaliser(normaliser["mean"].to(device), normaliser["std"].to(device), by_image)
    return _scores(_placed(network, device), moved, scale, recipe, top5=top5)


def _scores(
    network: nn.Module,
    split: DeviceSplit,
    normaliser: Normaliser,
    recipe: Optimiser,
    forward: Network | None = None,
    *,
    top5: bool,
) -> Scores:
    """Of every image, without augmentation."""
    network.eval()
    return _summed(forward or network, split.whole(), normaliser, recipe, split.device, top5=top5)


def _summed(
    forward: Network,
    batches: Iterable[tuple[Tensor, Tensor]],
    prepare: Callable[[Tensor], Tensor],
    recipe: Optimiser,
    device: torch.device,
    *,
    top5: bool = False,
) -> Scores:
    """Of all images and labels, prepared batch by batch; one transfer at the end."""
    correct, near = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))
    loss = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    with torch.inference_mode(), autocast(recipe, device):
        for images, labels in batches:
            logits = forward(prepare(images)).float()
            correct += (logits.argmax(1) == labels).sum()
            if top5:
                near += (logits.topk(_TOP).indices == labels[:, None]).sum()
            loss += F.cross_entropy(logits, labels, reduction="sum")
            count += len(labels)
    return Scores(correct.item() / count, loss.item() / count, near.item() / count if top5 else None)


def _placed(network: nn.Module, device: torch.device) -> nn.Module:
    return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
